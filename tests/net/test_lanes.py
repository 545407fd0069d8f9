"""Lanes: which sockets there are, when they listen, and who keeps them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforksmtp.net.bind import Bind, parse_bind
from preforksmtp.net.handover import hand_over, take_over
from preforksmtp.net.lanes import Lanes, is_listening, queues_migrate
from preforksmtp.net.listener import Listener, ListenError, open_listeners
from preforksmtp.net.rebind import revise_listeners


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[list[Listener]]:
    """One of TCP, one of unix."""
    binds = [parse_bind("127.0.0.1:0"), parse_bind(f"unix:{tmp_path}/a.sock")]
    opened = open_listeners(binds, backlog=5, environ={})
    yield opened
    for listener in opened:
        listener.close()


def test_lane_0_is_the_listener_itself(listeners: list[Listener]) -> None:
    lanes = Lanes(listeners)
    assert lanes.lane(0) == [listener.socket for listener in listeners] == lanes.every()


def test_another_lane_has_its_own_socket_of_tcp_and_shares_the_rest(listeners: list[Listener]) -> None:
    lanes = Lanes(listeners)
    tcp, unix = lanes.lane(2)
    assert tcp.getsockname() == listeners[0].name
    assert tcp not in lanes.lane(0) + lanes.lane(1)
    assert unix is listeners[1].socket
    assert lanes.lane(2) == [tcp, unix], "the same again"
    assert len(lanes.every()) == 4
    assert not tcp.get_inheritable()
    timeouts = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert timeouts == unix.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) != bytes(16)


def test_it_gets_connections_only_once_it_listens(listeners: list[Listener]) -> None:
    lanes = Lanes(listeners)
    first, second = lanes.lane(0)[0], lanes.lane(1)[0]
    assert not is_listening(second)
    lanes.listen(1, backlog=100)
    assert is_listening(second)
    first.close()
    with socket.create_connection(listeners[0].name, 5), second.accept()[0]:
        pass


@pytest.mark.parametrize(("text", "migrate"), [("1\n", True), ("0\n", False), (None, False)])
def test_queues_migrate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, migrate: bool) -> None:
    file = tmp_path / "tcp_migrate_req"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr("preforksmtp.net.lanes.MIGRATION", str(file))
    assert queues_migrate() is migrate


def test_cut(listeners: list[Listener]) -> None:
    lanes = Lanes(listeners)
    third, second = lanes.lane(2)[0], lanes.lane(1)[0]
    lanes.cut(2)
    assert (third.fileno(), second.fileno() >= 0) == (-1, True)
    lanes.cut(1)
    assert second.fileno() == -1
    lanes.cut(1)
    assert lanes.every() == lanes.lane(0)


def test_the_port_is_not_for_others(listeners: list[Listener]) -> None:
    Lanes(listeners).lane(1)
    with pytest.raises(ListenError, match="another program uses it"):
        open_listeners([parse_bind(listeners[0].address)], backlog=5, environ={}, tries=1)


def test_a_given_descriptor_stays_one(listeners: list[Listener]) -> None:
    fd = listeners[0].socket.fileno()
    given = Listener(Bind(f"fd://{fd}", fd=fd), listeners[0].socket)
    assert Lanes([given]).lane(3) == [given.socket]


def test_a_revision_keeps_the_lanes_of_what_stays(listeners: list[Listener]) -> None:
    second = Lanes(listeners).lane(1)[0]
    revision = revise_listeners(listeners, [parse_bind("127.0.0.1:0")], backlog=7)
    assert Lanes(revision.listeners).lane(1) == [second]
    revision.commit()
    assert not is_listening(second), "its worker is still to come"


def test_a_revision_closes_the_lanes_of_what_goes(listeners: list[Listener]) -> None:
    second = Lanes(listeners).lane(1)[0]
    revise_listeners(listeners, [parse_bind(listeners[1].bind.text)], backlog=7).commit()
    assert second.fileno() == -1


def test_handed_over_if_they_listen(listeners: list[Listener]) -> None:
    lanes = Lanes(listeners)
    lanes.lane(2)
    lanes.listen(1, backlog=5)
    environ: dict[str, str] = {}
    hand_over(listeners, environ)
    taken = take_over(environ["PREFORKSMTP_FD"])
    try:
        assert [len(listener.lanes) for listener in taken] == [1, 0]
        assert taken[0].lanes[0].fileno() == lanes.lane(1)[0].fileno()
        assert not taken[0].lanes[0].get_inheritable()
    finally:
        for listener in taken:
            for sock in listener.sockets():
                sock.detach()  # the fixture's
