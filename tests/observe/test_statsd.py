"""observe/statsd.py: what goes out each second, and that nothing waits for a collector."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from preforksmtp.config.destinations import split_address
from preforksmtp.observe.snapshot import Facts, take
from preforksmtp.observe.statsd import DATAGRAM, Address, Statsd, _pack
from preforksmtp.prefork.scoreboard import BUCKETS, MESSAGES, READY, SESSIONS, Scoreboard
from tests.processes import PATIENCE

FACTS = Facts("1.0", "mail", 1, 0.0)
LOG = logging.getLogger("test.statsd")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9125", ("127.0.0.1", 9125)),
        ("statsd.example.com", ("statsd.example.com", 8125)),
        ("[::1]:9125", ("::1", 9125)),
        ("[::1]", ("::1", 8125)),
        ("unix:/run/statsd.sock", "/run/statsd.sock"),
        ("unix:///run/statsd.sock", "/run/statsd.sock"),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize("text", [":8125", "host:0", "host:port", "host:70000", "unix:", "[]:1", "a:1:2"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        split_address(text)


def receive(sock: socket.socket) -> list[str]:
    """The lines of all datagrams that are there."""
    sock.settimeout(PATIENCE)
    lines = sock.recv(65536).decode().split("\n")
    sock.setblocking(False)
    while True:
        try:
            lines += sock.recv(65536).decode().split("\n")
        except BlockingIOError:
            return lines


def test_differences_go_out_as_counters() -> None:
    board = Scoreboard(slots=1, rows=5)
    slot = board.claim(1)
    assert slot is not None
    slot.state, slot.limit = READY, 5
    slot.rows[0][MESSAGES] = 10
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        statsd = Statsd(sock.getsockname(), "mx", "env:test,zone:a", LOG)
        statsd.report(take(board, FACTS))
        first = receive(sock)
        slot.rows[0][MESSAGES] += 3
        slot.rows[0][SESSIONS] += 2
        slot.rows[0][BUCKETS + 1] += 4
        board.count("workers_died")
        statsd.report(take(board, FACTS))
        second = receive(sock)
    assert "mx.workers.ready:1|g|#env:test,zone:a" in first
    assert "mx.sessions.limit:5|g|#env:test,zone:a" in first
    assert not [line for line in first if "|c" in line]  # what was counted before we came is nobody's second
    assert [line for line in second if "|c" in line] == [
        "mx.sessions:2|c|#env:test,zone:a",
        "mx.messages.accepted:3|c|#env:test,zone:a",
        "mx.workers.died:1|c|#env:test,zone:a",
    ]
    assert "mx.handler.p50:1.75|ms|#env:test,zone:a" in second


def test_a_unix_socket_and_no_prefix(tmp_path: Path) -> None:
    path = str(tmp_path / "statsd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        Statsd(path, "", "", LOG).report(take(Scoreboard(1, 1), FACTS))
        assert "workers.ready:0|g" in receive(sock)


def test_nobody_there_is_one_line_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    statsd = Statsd(str(tmp_path / "missing"), "", "", LOG)
    for _ in range(3):
        statsd.report(take(Scoreboard(1, 1), FACTS))
    (record,) = caplog.records
    assert "statsd_host: cannot send to" in record.getMessage()
    refused = Statsd(("127.0.0.1", 1), "", "", LOG)  # UDP: the kernel tells later, if at all
    for _ in range(3):
        refused.report(take(Scoreboard(1, 1), FACTS))
    assert len(caplog.records) == 1


def test_datagrams_are_filled_and_not_too_large() -> None:
    lines = [f"name.{number}:1|c" for number in range(400)]
    datagrams = list(_pack(lines))
    assert "\n".join(datagram.decode() for datagram in datagrams).split("\n") == lines
    assert all(len(datagram) <= DATAGRAM for datagram in datagrams)
    assert all(len(datagram) > DATAGRAM - 40 for datagram in datagrams[:-1])
