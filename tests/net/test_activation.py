"""net/activation.py: which bind a socket passed by systemd serves."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforksmtp.net import activation
from preforksmtp.net.activation import InheritError, Passed, assign_sockets, sockets_passed, take_passed_sockets
from preforksmtp.net.bind import parse_bind
from preforksmtp.net.listener import open_listeners


def environment(names: str | None = None, count: int = 1, pid: int | None = None) -> dict[str, str]:
    environ = {"LISTEN_PID": str(os.getpid() if pid is None else pid), "LISTEN_FDS": str(count), "HOME": "/"}
    if names is not None:
        environ["LISTEN_FDNAMES"] = names
    return environ


def test_variables_are_read_and_removed() -> None:
    environ = environment("smtp:smtps", 2)
    assert take_passed_sockets(environ) == [Passed(3, "smtp"), Passed(4, "smtps")]
    assert environ == {"HOME": "/"}


def test_sockets_for_another_process_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    environ = environment(pid=1)
    assert take_passed_sockets(environ) == []
    assert environ == {"HOME": "/"}
    assert "LISTEN_FDS ignored: it is for process 1" in caplog.text


def test_whether_sockets_were_passed() -> None:
    assert sockets_passed(environment())
    assert not sockets_passed(environment(pid=1))
    assert not sockets_passed(environment(count=0))
    assert not sockets_passed({})


def test_without_systemd() -> None:
    assert take_passed_sockets({}) == []


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (environment("a:b", 1), "LISTEN_FDNAMES has 2 names for LISTEN_FDS=1 sockets"),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}, "LISTEN_FDS='x' is not a number"),
    ],
)
def test_broken_variables(environ: dict[str, str], line: str) -> None:
    with pytest.raises(InheritError) as caught:
        take_passed_sockets(environ)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("smtps", "smtps"), ("SMTP", "smtp"), ("lmtp.socket", "lmtp"), ("preforksmtp.socket", None), ("", None)],
)
def test_a_name_gives_the_scheme(name: str, scheme: str | None) -> None:
    assert Passed(3, name).scheme == scheme


@pytest.fixture
def servers() -> Iterator[list[socket.socket]]:
    """Two listening TCP sockets."""
    two = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield two
    for server in two:
        server.close()


def assign(servers: list[socket.socket], names: list[str], *texts: str) -> tuple[list[str], list[str]]:
    """Texts of the binds that the sockets serve, and of the binds left."""
    passed = [Passed(os.dup(server.fileno()), name) for server, name in zip(servers, names, strict=False)]
    pairs, rest = assign_sockets(passed, [parse_bind(text) for text in texts])
    for _, sock in pairs:
        sock.close()
    return [f"{bind.scheme} {bind.text.split('://')[0]}" if bind.fd else bind.text for bind, _ in pairs], [
        bind.text for bind in rest
    ]


def test_no_bind_at_all(servers: list[socket.socket]) -> None:
    assert assign(servers, ["smtps", "mail.socket"]) == (["smtps fd", "smtp fd"], [])


def test_unnamed_socket_replaces_the_default_bind(servers: list[socket.socket]) -> None:
    assert assign(servers[:1], [""], "127.0.0.1:8025") == (["127.0.0.1:8025"], [])


def test_name_selects_the_bind_and_its_options(servers: list[socket.socket]) -> None:
    assert assign(servers, ["smtps", "smtp"], ":25?require_tls", "smtps://:465", "unix:/x") == (
        ["smtps://:465", ":25?require_tls"],
        ["unix:/x"],
    )


def test_sockets_of_one_name_share_the_bind(servers: list[socket.socket]) -> None:
    assert assign(servers, ["smtp", "smtp"], ":25?require_tls") == ([":25?require_tls"] * 2, [])


def test_address_selects_the_bind(servers: list[socket.socket]) -> None:
    port = servers[1].getsockname()[1]
    texts = ":25", f"submission://127.0.0.1:{port}"
    assert assign(servers[1:], [""], *texts) == ([texts[1]], [":25"])
    # a name that contradicts the address's scheme wins
    assert assign(servers[1:], ["smtp"], *texts) == ([":25"], [texts[1]])


def test_number_selects_the_bind(servers: list[socket.socket]) -> None:
    fd = os.dup(servers[0].fileno())
    bind = parse_bind(f"lmtp://fd://{fd}")
    [(served, sock)], rest = assign_sockets([Passed(fd, "smtp")], [parse_bind(":25"), bind])
    with sock:
        assert served is bind and [each.text for each in rest] == [":25"]


def test_unix_path_selects_the_bind(tmp_path: Path) -> None:
    path = f"{tmp_path}/x.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert assign([server], [""], ":25", f"lmtp://unix:{path}") == ([f"lmtp://unix:{path}"], [":25"])


def test_opened_with_the_other_binds(servers: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.dup(servers[0].fileno())
    monkeypatch.setattr(activation, "FIRST_FD", fd)
    environ = environment("smtps")
    passed, own = open_listeners([parse_bind("127.0.0.1:0")], backlog=5, environ=environ)
    try:
        assert environ == {"HOME": "/"}
        assert passed.socket.fileno() == fd and passed.bind.implicit_tls
        assert own.bind.text == "127.0.0.1:0"
    finally:
        passed.close()
        own.close()
