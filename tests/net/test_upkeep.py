"""net/upkeep.py: what a worker does to a listening socket that all share, and what the master makes of it."""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preforksmtp.net.lanes import is_listening
from preforksmtp.net.listener import accepts_as_prepared, prepare_socket
from preforksmtp.net.upkeep import EVERY, Upkeep, _options

LOG = logging.getLogger("preforksmtp")


@pytest.fixture
def upkeep(monkeypatch: pytest.MonkeyPatch) -> Upkeep:
    now = iter(range(0, 10**6, int(10 * EVERY)))
    monkeypatch.setattr("preforksmtp.net.upkeep.time.monotonic", lambda: float(next(now)))
    return Upkeep(lambda: 5, LOG)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        prepare_socket(sock)
        yield sock


def shut(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RDWR)


SPOIL: dict[str, Callable[[socket.socket], object]] = {
    "shutdown": shut,
    "nonblocking": lambda sock: os.set_blocking(sock.fileno(), False),
    "endless": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0)),
    "mute": lambda sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30),
    "deaf": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 20),
    "near": lambda sock: sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1),
    "slow": lambda sock: sock.setsockopt(socket.SOL_SOCKET, 47, 1),
    "abrupt": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    "hasty": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 1)),
    "short": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1)),
}


@pytest.mark.parametrize("how", SPOIL)
def test_it_is_as_before(
    upkeep: Upkeep, listener: socket.socket, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    address, options = listener.getsockname(), _options(listener)
    upkeep.look([listener])
    assert caplog.records == []
    with socket.socket(fileno=os.dup(listener.fileno())) as workers:
        SPOIL[how](workers)
    upkeep.look([listener])
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(address) in record.getMessage()
    assert is_listening(listener)
    assert os.get_blocking(listener.fileno())
    assert accepts_as_prepared(listener)
    assert _options(listener) == options
    assert listener.getsockname() == address
    with socket.create_connection(address), listener.accept()[0]:
        pass
    upkeep.look([listener])
    assert len(caplog.records) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="SO_ATTACH_FILTER")
def test_nobody_has_the_kernel_drop_what_comes(listener: socket.socket) -> None:
    """Of a listener a filter would outlive the worker, and could be locked."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # return 0
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    with socket.socket(fileno=os.dup(listener.fileno())) as workers, pytest.raises(PermissionError):
        workers.setsockopt(socket.SOL_SOCKET, 26, program)
    with socket.create_connection(listener.getsockname(), 5), listener.accept()[0]:
        pass


def test_a_worker_that_goes_on_and_on_is_a_line_a_minute(
    upkeep: Upkeep, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(12):  # two minutes
        os.set_blocking(listener.fileno(), False)
        upkeep.look([listener])
    assert 1 <= len(caplog.records) <= 3


def test_who_never_listened_is_left_alone(upkeep: Upkeep) -> None:
    with socket.socket() as lane:
        lane.bind(("127.0.0.1", 0))
        prepare_socket(lane)
        upkeep.look([lane])
        assert not is_listening(lane)
        lane.close()
        upkeep.look([lane])


def test_a_unix_socket_cannot_be_helped(upkeep: Upkeep, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.listen(5)
        prepare_socket(sock)
        upkeep.look([sock])
        shut(sock)
        upkeep.look([sock])
        (record,) = caplog.records
        assert "restart the server" in record.getMessage()


def test_the_queue_is_as_long_as_before(upkeep: Upkeep, listener: socket.socket) -> None:
    upkeep.look([listener])
    with socket.socket(fileno=os.dup(listener.fileno())) as workers:
        workers.listen(0)
    upkeep.look([listener])
    clients = [socket.create_connection(listener.getsockname(), 5) for _ in range(4)]
    for client in clients:
        client.close()
