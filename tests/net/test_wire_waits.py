"""Wire.wait and Wire.pause: what ends them, on a plain socket and through TLS."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from preforksmtp.net.listener import prepare_socket
from preforksmtp.net.wire import Wire
from preforksmtp.prefork.worker.seat import Drain
from tests.certificates import Certificate, make_certificate
from tests.net.pacing import within
from tests.processes import PATIENCE
from tests.program.conftest import need

SHORT = 0.05
LONG = 60.0  # what no test waits for


class Pair:
    """A Wire and the client's end of its connection."""

    def __init__(self, end: float = 0.0, context: ssl.SSLContext | None = None) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.client: socket.socket = socket.create_connection(listener.getsockname(), PATIENCE)
        self.drain = Drain()
        self.wire = Wire(listener.accept()[0], self.drain, within(30.0), context, end)
        listener.close()

    def close(self) -> None:
        self.client.close()
        self.wire.close(False)
        self.drain.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_wait_ends_with_time_or_input(pair: Pair) -> None:
    pair.wire.write(b"220 hello\r\n")
    assert pair.wire.wait(SHORT) is False
    assert pair.client.recv(100) == b"220 hello\r\n", "what was written is sent first"
    pair.client.sendall(b"a\r\nb\r\n")
    assert pair.wire.wait(LONG) is True
    assert pair.wire.read_line(100) == b"a\r\n"
    assert pair.wire.wait(LONG) is True, "the rest is in the buffer"
    assert pair.wire.read_line(100) == b"b\r\n"
    assert pair.wire.wait(0.0) is False
    pair.client.close()
    assert pair.wire.wait(LONG) is True, "the end is something to read"


def paused(pair: Pair, idle: bool = False) -> float:
    """How long a short pause lasts."""
    started = time.monotonic()
    pair.wire.pause(SHORT, idle=idle)
    return time.monotonic() - started


@pytest.mark.parametrize("idle", [False, True])
def test_pause_is_ended_by_nothing_that_a_client_does(pair: Pair, idle: bool) -> None:
    """Half a connection that is closed once ended it: four thousand guesses a second."""
    pair.wire.write(b"250 hello\r\n")
    assert paused(pair, idle) >= SHORT
    assert pair.client.recv(100) == b"250 hello\r\n", "what was written is sent first"
    pair.client.sendall(b"NOOP\r\n")
    assert paused(pair, idle) >= SHORT
    pair.client.shutdown(socket.SHUT_WR)
    assert paused(pair, idle) >= SHORT
    assert pair.wire.read_line(100) == b"NOOP\r\n", "nothing is lost"
    with pytest.raises(EOFError):
        pair.wire.read_line(100)
    pair.client.shutdown(socket.SHUT_RDWR)
    assert paused(pair, idle) >= SHORT


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is served to its end")
def test_pause_ends_without_a_reply_where_the_client_resets(pair: Pair) -> None:
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    timer = threading.Timer(SHORT, pair.client.close)
    timer.start()
    with pytest.raises(ConnectionResetError):
        pair.wire.pause(LONG)
    timer.join()


def test_a_drain_ends_wait(pair: Pair) -> None:
    started = time.monotonic()
    timer = threading.Timer(SHORT, pair.drain.begin, (started + LONG,))
    timer.start()
    pair.wire.wait(LONG)
    pair.wire.wait(LONG)
    assert time.monotonic() - started < LONG / 2


def test_a_drain_is_a_fault_of_a_pause_outside_transactions_only(pair: Pair) -> None:
    timer = threading.Timer(SHORT, pair.drain.begin, (time.monotonic() + LONG,))
    timer.start()
    for _ in range(2):
        with pytest.raises(InterruptedError):
            pair.wire.pause(LONG, idle=True)
    assert paused(pair) >= SHORT


def test_the_deadline_of_the_session_ends_both() -> None:
    pair = Pair(end=time.monotonic() + SHORT)
    assert not pair.wire.expired
    pair.wire.wait(LONG)
    assert pair.wire.expired
    with pytest.raises(TimeoutError):
        pair.wire.pause(LONG)
    pair.close()


def test_wait_sees_what_tls_has_decrypted_and_not_handed_over(tmp_path_factory: pytest.TempPathFactory) -> None:
    need("openssl")
    certificate: Certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate.options[1::2])
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    pair = Pair(context=server)
    wrapped: list[socket.socket] = []
    thread = threading.Thread(target=lambda: wrapped.append(client.wrap_socket(pair.client)))
    thread.start()
    pair.wire.start_tls()
    thread.join()
    pair.client = wrapped[0]
    assert pair.wire.wait(SHORT) is False
    pair.client.sendall(b"x" * 5000 + b"\r\n")
    assert pair.wire.wait(LONG) is True
    assert pair.wire.read_block(4096) == b"x" * 4096
    assert pair.wire.wait(LONG) is True, "in the TLS layer, not in the socket"
    assert pair.wire.read_line(2000) == b"x" * 904 + b"\r\n"
    pair.close()


def test_pause_since_a_time_that_is_over_ends_at_once(pair: Pair) -> None:
    begun = time.monotonic()
    pair.wire.pause(LONG, begun - LONG)
    assert time.monotonic() - begun < LONG / 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a socket has no timeout of its listener")
@pytest.mark.parametrize("method", ["read_line", "read_block"])
def test_the_timeout_that_a_socket_has_of_its_listener_is_not_the_clients(method: str) -> None:
    """The first read that takes longer sets the one that is meant."""
    listener = socket.create_server(("127.0.0.1", 0))
    prepare_socket(listener)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(SHORT))
    with listener, socket.create_connection(listener.getsockname(), PATIENCE) as client:
        drain, sock = Drain(), listener.accept()[0]
        inherited = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)  # in whole ticks of the kernel
        wire = Wire(sock, drain, within(LONG), inherited=SHORT)
        read = getattr(wire, method)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == inherited, "nobody has set it"
        client.sendall(b"one\r\n")
        assert read(100) == b"one\r\n"
        late = threading.Timer(3 * SHORT, client.sendall, (b"two\r\n",))
        late.start()
        assert read(100) == b"two\r\n"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) != inherited
        late.join()
        wire.close(False)
        drain.close()


def timeval(seconds: float) -> bytes:
    return struct.pack("ll", 0, int(seconds * 1e6))
