"""net/wire.py on real sockets. Most pairs are SOCK_SEQPACKET, where each send() is one recv(): what arrives when is
exact, and no test waits. Deadlines run on a clock that the test moves.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from preforksmtp.net import closing
from preforksmtp.net import wire as wire_module
from preforksmtp.net.wire import TLS, Wire
from preforksmtp.prefork.worker.seat import Drain
from preforksmtp.smtp.pace import Pace
from tests.certificates import Certificate, make_certificate
from tests.net.pacing import within
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import need

LONG = 60.0  # what no test waits for
SESSION = b"EHLO x\r\nNOOP\r\n\r\nDATA\n"


class Pair:
    """A Wire, and the client's socket."""

    def __init__(self, kind: int = socket.SOCK_SEQPACKET, **options: Any) -> None:
        if kind == socket.AF_INET:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.client: socket.socket = socket.create_connection(listener.getsockname())
                server = listener.accept()[0]
        else:
            self.client, server = socket.socketpair(socket.AF_UNIX, kind)
        self.client.settimeout(PATIENCE)
        self.server = server
        self.drain = Drain()
        self.wire = Wire(server, self.drain, within(options.pop("timeout", LONG)), **options)
        self._threads = ThreadPoolExecutor(1)

    def send(self, *chunks: bytes) -> Pair:
        for chunk in chunks:
            self.client.send(chunk)
        return self

    def line(self, limit: int = 100, idle: bool = False) -> bytes | None:
        return self.wire.read_line(limit, idle)

    def lines(self, limit: int = 100) -> list[bytes | None]:
        """All until the client's end."""
        self.client.shutdown(socket.SHUT_WR)
        found = []
        with contextlib.suppress(EOFError):
            while True:
                found.append(self.line(limit))
        return found

    def beside(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run it in another thread."""
        return self._threads.submit(function, *arguments)

    def close(self) -> None:
        self.client.close()
        self._threads.shutdown()
        self.wire.close(False)
        self.server.close()
        self.drain.close()


Make = Callable[..., Pair]


@pytest.fixture
def make() -> Iterator[Make]:
    pairs: list[Pair] = []

    def make(*arguments: Any, **options: Any) -> Pair:
        pairs.append(Pair(*arguments, **options))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()


@pytest.fixture
def pair(make: Make) -> Pair:
    return make()


class Clock:
    """Stands still; each recv() takes `step` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pair: Pair, step: float) -> None:
        self.now = 1000.0
        self.reads = 0
        receive = pair.wire._recv

        def slow(size: int) -> bytes:
            self.now += step
            self.reads += 1
            return receive(size)

        pair.wire._recv = slow  # type: ignore[assignment]
        monkeypatch.setattr(wire_module, "monotonic", lambda: self.now)


# --- lines


def test_lines_cut_anywhere(make: Make) -> None:
    wanted = SESSION.splitlines(keepends=True)
    for place in range(1, len(SESSION)):
        assert make().send(SESSION[:place], SESSION[place:]).lines() == wanted
    assert make().send(SESSION).lines() == wanted
    assert make().send(*[SESSION[i : i + 1] for i in range(len(SESSION))]).lines() == wanted


def test_an_unfinished_line_is_no_line(pair: Pair) -> None:
    pair.send(b"NOOP\r\n", b"QUI")
    assert pair.lines() == [b"NOOP\r\n"]


@pytest.mark.parametrize("cuts", [[], [5], [9], [10], [11], [3, 6, 9], list(range(1, 16))])
@pytest.mark.parametrize(
    ("line", "fits"), [(b"12345678\r\n", True), (b"123456789\r\n", False), (b"1234567890123\r\n", False)]
)
def test_a_line_longer_than_the_limit_is_none_and_read_to_its_end(
    make: Make, cuts: list[int], line: bytes, fits: bool
) -> None:
    sent = line + b"NOOP\r\n"
    places = [0, *[cut for cut in cuts if cut < len(sent)], len(sent)]
    chunks = [sent[start:end] for start, end in itertools.pairwise(places)]
    assert make().send(*chunks).lines(10) == [line if fits else None, b"NOOP\r\n"]


def test_an_endless_line_takes_no_memory(make: Make) -> None:
    pair = make(socket.SOCK_STREAM)
    feeding = pair.beside(pair.client.sendall, b"x" * 8_000_000 + b"\r\nNOOP\r\n")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert pair.line(2048) is None
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert pair.line(2048) == b"NOOP\r\n"
    assert peak < 100_000
    feeding.result()


def test_a_line_octet_by_octet_takes_no_memory(pair: Pair) -> None:
    def feed() -> None:
        for _ in range(12_000):
            pair.client.send(b"x")
        pair.client.send(b"\r\n")

    feeding = pair.beside(feed)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        line = pair.line(12_288)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    feeding.result()
    assert line == b"x" * 12_000 + b"\r\n"
    assert peak < 60_000


# --- blocks


def test_blocks_come_as_they_arrive(pair: Pair) -> None:
    pair.send(b"DATA\r\nab", b"cd", b"efgh")
    assert pair.line() == b"DATA\r\n"
    assert pair.wire.read_block(100) == b"ab", "what was read with the line"
    assert pair.wire.read_block(100) == b"cd"
    assert pair.wire.read_block(2) == b"ef", "a packet is cut by recv(2)"


def test_no_block_is_longer_than_was_asked_for(pair: Pair) -> None:
    """What follows a chunk is the next command."""
    pair.send(b"BDAT 3\r\nabcdNOOP\r\nBDAT 1\r\n", b"xyz")
    assert pair.line() == b"BDAT 3\r\n"
    assert [pair.wire.read_block(size) for size in (2, 1, 1)] == [b"ab", b"c", b"d"]
    assert [pair.line(), pair.line()] == [b"NOOP\r\n", b"BDAT 1\r\n"]
    assert not pair.wire.ahead
    assert pair.wire.read_block(100) == b"xyz"


def test_what_was_received_and_not_read_is_ahead(pair: Pair) -> None:
    pair.send(b"DATA\r\n", b"DATA\r\nbody\r\n")
    assert not pair.wire.ahead
    assert pair.line() == b"DATA\r\n"
    assert not pair.wire.ahead, "the second packet is for the next read"
    assert pair.line() == b"DATA\r\n"
    assert pair.wire.ahead
    assert pair.wire.read_block(100) == b"body\r\n"
    assert not pair.wire.ahead


def test_push_back_comes_first(pair: Pair) -> None:
    pair.send(b"one\r\ntwo\r\n")
    assert pair.line() == b"one\r\n"
    pair.wire.push_back(b"zero\r\nhal")
    assert [pair.line(), pair.line()] == [b"zero\r\n", b"haltwo\r\n"]
    block = pair.send(b"three\r\n").wire.read_block(100)
    pair.wire.push_back(block[2:])
    assert pair.line() == b"ree\r\n"


def test_discard_input_forgets_what_was_received(pair: Pair) -> None:
    pair.send(b"one\r\ntwo\r\nthr")
    assert pair.line() == b"one\r\n"
    pair.wire.discard_input()
    assert pair.send(b"four\r\n").line() == b"four\r\n"


# --- writing


def test_what_is_written_is_sent_before_a_read_would_wait(pair: Pair) -> None:
    pair.send(b"one\r\ntwo\r\n", b"three\r\n")
    pair.client.setblocking(False)
    pair.line()
    pair.wire.write(b"1\r\n")
    pair.line()
    pair.wire.write(b"2\r\n")
    with pytest.raises(BlockingIOError):
        pair.client.recv(100)
    pair.line()
    assert pair.client.recv(100) == b"1\r\n2\r\n", "in one segment"
    pair.wire.write(b"3\r\n")
    pair.wire.flush()
    pair.wire.flush()
    assert pair.client.recv(100) == b"3\r\n"
    with pytest.raises(BlockingIOError):
        pair.client.recv(100)


def test_a_client_that_does_not_read_is_a_timeout(make: Make) -> None:
    pair = make(socket.SOCK_STREAM, timeout=0.02)
    pair.wire.write(b"x" * 10_000_000)
    with pytest.raises(TimeoutError, match="does not read"):
        pair.wire.flush()
    pair.wire.flush()  # and nothing is left that could be sent twice
    pair.wire.write(b"421 timeout\r\n")
    pair.wire.flush()  # nor is it waited for again
    assert pair.server.send(b"", socket.MSG_DONTWAIT) == 0, "the connection itself stands"


def test_a_client_that_reads_slowly_gets_it_all(make: Make) -> None:
    pair = make(socket.SOCK_STREAM)
    sent = b"".join(b"250 %d\r\n" % number for number in range(200_000))
    pair.wire.write(sent)
    flushing = pair.beside(pair.wire.flush)
    heard = b""
    while len(heard) < len(sent):
        heard += pair.client.recv(30_000)
    assert heard == sent
    flushing.result(PATIENCE)


def test_a_drain_does_not_wait_for_a_client_that_does_not_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "LINGER", 0.02)
    pair = make(socket.SOCK_STREAM)
    pair.wire.write(b"x" * 10_000_000)
    flushing = pair.beside(pair.wire.flush)
    pair.drain.begin(0.0)
    with pytest.raises(TimeoutError):
        flushing.result(PATIENCE)


def test_replies_do_not_pile_up(make: Make) -> None:
    """A client that pipelines short commands with long replies, and reads."""
    pair = make(socket.SOCK_STREAM)
    pair.client.sendall(b"HELP\r\n" * 600)
    pair.client.setblocking(False)
    most = 0
    for _ in range(600):
        assert pair.line() == b"HELP\r\n"
        pair.wire.write(b"214 " + b"x" * 500 + b"\r\n")
        most = max(most, len(pair.wire._output))
        with contextlib.suppress(BlockingIOError):
            pair.client.recv(100_000)
    assert most < 6000


def test_a_client_that_is_gone(pair: Pair) -> None:
    pair.client.close()
    pair.wire.write(b"220\r\n")
    with pytest.raises(BrokenPipeError):
        pair.line()


# --- deadlines


@pytest.mark.parametrize("idle", [False, True])
def test_silence_is_a_timeout(make: Make, idle: bool) -> None:
    with pytest.raises(TimeoutError):
        make(timeout=0.01).line(idle=idle)
    with pytest.raises(TimeoutError):
        make(timeout=0.01).send(b"NOO").line(idle=idle)
    with pytest.raises(TimeoutError):
        make(timeout=0.01).wire.read_block(100, idle)


def test_another_pace_is_kept_at_once(make: Make) -> None:
    pair = make(timeout=LONG)
    pair.wire.keep_pace(within(0.01))
    with pytest.raises(TimeoutError):
        pair.line()
    pair.wire.keep_pace(within(LONG))
    reading = pair.beside(pair.line)
    wait_until(lambda: pair.wire._kernel > 1.0 or reading.done(), "the kernel's timeout is long again")
    assert pair.send(b"NOOP\r\n") and reading.result(PATIENCE) == b"NOOP\r\n"


def test_a_later_read_has_its_own_time_again(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    Clock(monkeypatch, pair, step=1.0)
    pair.send(b"NO", b"OP\r\n", b"NOOP\r\n")
    assert pair.line() == b"NOOP\r\n"
    assert pair.wire._kernel == LONG - 1, "the rest of a line has less than the whole"
    assert pair.line() == b"NOOP\r\n"
    assert pair.wire._kernel == LONG
    assert pair.wire._ordinary


def test_trickling_does_not_extend_a_command(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    pair = make(timeout=5.0)
    clock = Clock(monkeypatch, pair, step=1.0)
    pair.send(*[b"x"] * 20, b"\r\n")
    with pytest.raises(TimeoutError):
        pair.line()
    assert clock.reads == 5


def test_time_spent_idle_counts_for_the_command(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    pair = make(timeout=8.0)
    clock = Clock(monkeypatch, pair, step=4.0)
    pair.send(b"NO", b"OP", b"\r\n")
    with pytest.raises(TimeoutError):
        pair.line()
    assert clock.reads == 2


def test_trickling_does_not_extend_a_block(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    pair = make(timeout=5.0)
    clock = Clock(monkeypatch, pair, step=1.0)
    pair.send(*[b"x"] * 20)
    with pytest.raises(TimeoutError):
        while True:
            pair.wire.read_block(4096)
    assert clock.reads == 5


def test_a_kibibyte_earns_a_new_allowance(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    pair = make(timeout=5.0)
    clock = Clock(monkeypatch, pair, step=2.0)
    pair.send(*[b"x" * 512] * 20)
    for _ in range(20):
        assert pair.wire.read_block(4096)
    assert clock.now == 1040.0


def test_the_next_body_has_its_own_allowance(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    """A small body leaves its block unfinished; a new one may come hours later."""
    pair = make(timeout=5.0)
    clock = Clock(monkeypatch, pair, step=0.0)
    pair.send(b"small", b"DATA\r\n", b"another")
    pair.wire.read_block(4096)
    pair.line()
    clock.now += 3600
    assert pair.wire.read_block(4096) == b"another"


@pytest.mark.parametrize("read", ["line", "block"])
def test_the_pace_is_asked_again_when_it_said(monkeypatch: pytest.MonkeyPatch, make: Make, read: str) -> None:
    """What makes it shorter may come while we wait: stress, or a minimum rate."""
    asked: list[float] = []

    class Watching:
        seconds = LONG

        def until(self, began: float, now: float) -> float:
            asked.append(now - began)
            if now - began >= 0.03:
                raise TimeoutError("stress")
            return now + 0.01

    pair, pace = make(timeout=LONG), within(LONG)
    pace.command = pace.block = Watching()  # type: ignore[assignment]
    monkeypatch.setattr(Pace, "metered", True)
    pair.wire.keep_pace(pace)
    with pytest.raises(TimeoutError, match="stress"):
        pair.send(b"x").line() if read == "line" else pair.wire.read_block(100)
    assert 3 <= len(asked) <= 6


def test_the_end_of_the_session(make: Make) -> None:
    pair = make(end=time.monotonic() + 0.02)
    with pytest.raises(TimeoutError):
        while True:
            pair.send(b"NOOP\r\n").line()
    assert pair.wire.expired
    with pytest.raises(TimeoutError):
        pair.wire.read_block(100)
    assert not make().wire.expired


# --- draining


def test_a_drain_wakes_an_idle_read(pair: Pair) -> None:
    reading = pair.beside(pair.line, 100, True)
    wait_until(lambda: pair.wire._waits, "it waits")
    pair.drain.begin(0.0)
    pair.wire.interrupt()
    with pytest.raises(InterruptedError):
        reading.result(PATIENCE)
    assert pair.wire.draining
    pair.wire.write(b"421\r\n")
    pair.wire.flush()
    assert pair.client.recv(100) == b"421\r\n", "the reply still gets out"


@pytest.mark.parametrize("part", [b"", b"NO"])
def test_a_drain_before_the_read(pair: Pair, part: bytes) -> None:
    if part:
        pair.send(part)
    pair.drain.begin(0.0)
    with pytest.raises(InterruptedError):
        pair.line(idle=True)


def test_a_drain_in_the_middle_of_an_idle_line(pair: Pair) -> None:
    pair.send(b"NO")
    reading = pair.beside(pair.line, 100, True)
    wait_until(lambda: pair.wire._waits and pair.wire._buffer == b"NO", "it waits for the rest")
    pair.drain.begin(0.0)
    pair.wire.interrupt()
    with pytest.raises(InterruptedError):
        reading.result(PATIENCE)


def test_a_drain_between_two_parts_of_an_idle_line(pair: Pair) -> None:
    pair.send(b"NOOP\r\nNO")
    assert pair.line(idle=True) == b"NOOP\r\n"
    pair.drain.begin(0.0)
    with pytest.raises(InterruptedError):
        pair.line(idle=True)


def test_what_is_pipelined_is_served_while_draining(pair: Pair) -> None:
    pair.send(b"RCPT\r\nDATA\r\n")
    assert pair.line(idle=True) == b"RCPT\r\n"
    pair.drain.begin(0.0)
    assert pair.line(idle=True) == b"DATA\r\n"


@pytest.mark.parametrize("read", ["line", "block"])
def test_a_drain_does_not_touch_a_busy_read(pair: Pair, read: str) -> None:
    function = pair.line if read == "line" else lambda: pair.wire.read_block(100)
    reading = pair.beside(function)
    pair.drain.begin(0.0)
    pair.wire.interrupt()
    pair.send(b"NOOP\r\n")
    assert reading.result(PATIENCE) == b"NOOP\r\n"


def test_interrupt_when_the_client_is_gone_or_nobody_reads(pair: Pair) -> None:
    pair.drain.begin(0.0)
    pair.wire.interrupt()
    assert not pair.wire.wake()
    assert pair.send(b"NOOP\r\n").line() == b"NOOP\r\n"
    pair.client.close()
    pair.wire._waits = True
    pair.wire.interrupt()


def test_what_comes_too_late_is_there_to_be_taken(pair: Pair) -> None:
    pair.drain.begin(0.0)
    for idle in (1, 1, 2):
        with pytest.raises(InterruptedError):
            pair.line(idle=idle)
        assert pair.wire.take_line() == b""
    pair.send(b"QUIT\r\nNOOP\r\n")
    with pytest.raises(InterruptedError):
        pair.line(idle=1)
    assert pair.wire.hurried
    assert pair.wire.take_line() == b"QUIT\r\n"
    assert pair.wire.take_line() == b"NOOP\r\n"
    assert pair.wire.take_line() == b""


def test_an_answer_in_the_middle_of_something_is_not_too_late(pair: Pair) -> None:
    pair.drain.begin(0.0)
    assert pair.send(b"AHVzZXI=\r\n").line(idle=2) == b"AHVzZXI=\r\n"


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    need("openssl")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def contexts(certificate: Certificate) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.certfile, certificate.keyfile)
    return server, ssl.create_default_context(cafile=str(certificate.certfile))


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def tls(make: Make, contexts: Any, request: pytest.FixtureRequest) -> Pair:
    """A pair with TLS done."""
    server, client = contexts
    client.maximum_version = ssl.TLSVersion[request.param]
    pair = make(socket.SOCK_STREAM, context=server)
    handshake = pair.beside(pair.wire.start_tls)
    pair.client = client.wrap_socket(pair.client, server_hostname="localhost")
    assert isinstance(handshake.result(PATIENCE), TLS)
    return pair


@pytest.mark.parametrize(
    "more", [b"", b"RSET\r\n", b"RSET\r\nNOOP\r\nMAIL FROM:<>\r\n", b"RSE", b"x" * 3000, b"\r\n", b"\x16\x03"]
)
def test_what_follows_starttls_is_thrown_away(make: Make, contexts: Any, more: bytes) -> None:
    """CVE-2011-0411: in the same segment, with and without a newline."""
    server, client = contexts
    pair = make(socket.SOCK_STREAM, context=server)
    pair.client.sendall(b"STARTTLS\r\n" + more)
    assert pair.line() == b"STARTTLS\r\n"
    pair.wire.write(b"220 go\r\n")
    handshake = pair.beside(pair.wire.start_tls)
    assert pair.client.recv(100) == b"220 go\r\n"
    pair.client = client.wrap_socket(pair.client, server_hostname="localhost")
    facts = handshake.result(PATIENCE)
    assert facts.version == pair.client.version()  # type: ignore[attr-defined]
    assert facts.sni == "localhost"
    pair.client.sendall(b"EHLO tls\r\n")
    assert pair.line() == b"EHLO tls\r\n"


def test_clear_text_in_place_of_a_handshake(make: Make, contexts: Any) -> None:
    pair = make(socket.SOCK_STREAM, context=contexts[0])
    pair.client.sendall(b"STARTTLS\r\n" + b"x" * 10000)
    assert pair.line() == b"STARTTLS\r\n"
    with pytest.raises(ConnectionError):
        pair.wire.start_tls()


def test_no_handshake_is_not_waited_for(make: Make, contexts: Any) -> None:
    with pytest.raises(ConnectionError):
        make(socket.SOCK_STREAM, context=contexts[0], timeout=0.01).wire.start_tls()
    with pytest.raises(ConnectionError):
        make(socket.SOCK_STREAM, context=contexts[0], end=time.monotonic() + 0.01).wire.start_tls()


def test_lines_and_blocks_through_tls(tls: Pair) -> None:
    tls.client.sendall(b"NOOP\r\nDATA\r\nab")
    assert [tls.line(idle=True), tls.line()] == [b"NOOP\r\n", b"DATA\r\n"]
    tls.wire.write(b"250\r\n")
    assert tls.wire.read_block(100) == b"ab"
    tls.client.sendall(b"x" * 40000)
    tls.wire.flush()
    assert tls.client.recv(100) == b"250\r\n"
    received = b""
    while len(received) < 40000:
        received += tls.wire.read_block(100000)
    assert received == b"x" * 40000


class Watched(Drain):
    """A drain that tells when a read looks at it: from then on it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def __getattribute__(self, name: str) -> Any:
        if name == "leaving":
            self.asked.set()
        return super().__getattribute__(name)


@pytest.mark.parametrize("idle", [1, 2])
def test_a_drain_wakes_an_idle_read_through_tls(tls: Pair, idle: int) -> None:
    tls.drain.close()
    watched = tls.drain = tls.wire._drain = Watched()
    reading = tls.beside(tls.line, 100, idle)
    assert watched.asked.wait(PATIENCE)
    tls.drain.begin(0.0)
    assert not tls.wire.wake()
    tls.wire.interrupt()
    with pytest.raises(InterruptedError):
        reading.result(PATIENCE)
    tls.wire.write(b"421\r\n")
    tls.wire.flush()
    assert tls.client.recv(100) == b"421\r\n", "the reply gets out encrypted"


def test_a_drain_does_not_touch_a_busy_read_through_tls(tls: Pair) -> None:
    reading = tls.beside(tls.line)
    tls.drain.begin(0.0)
    tls.wire.interrupt()
    tls.client.sendall(b"NOOP\r\n")
    assert reading.result(PATIENCE) == b"NOOP\r\n"


@pytest.mark.parametrize("idle", [False, True])
def test_silence_is_a_timeout_through_tls(tls: Pair, idle: bool) -> None:
    tls.wire.keep_pace(within(0.01))
    with pytest.raises(TimeoutError):
        tls.line(idle=idle)
    tls.wire.keep_pace(within(0.05))
    tls.client.sendall(b"NO")
    with pytest.raises(TimeoutError):
        tls.line(idle=idle)


def test_the_client_ends_tls_and_goes_on_in_clear(tls: Pair) -> None:
    """Nothing is read in clear after close_notify (CVE-2026-45185)."""
    raw = tls.client
    assert isinstance(raw, ssl.SSLSocket)
    closing = tls.beside(lambda: tls.line())
    raw.settimeout(0.0)
    with contextlib.suppress(OSError):
        raw.unwrap()
    with contextlib.suppress(OSError):
        socket.socket.send(raw, b"QUIT\r\n")
    with pytest.raises((EOFError, ConnectionError)):
        closing.result(PATIENCE)
    with pytest.raises((EOFError, ConnectionError)):
        tls.line()


def test_the_client_leaves_without_close_notify(tls: Pair) -> None:
    assert isinstance(tls.client, ssl.SSLSocket)
    socket.socket.shutdown(tls.client, socket.SHUT_RDWR)
    with pytest.raises((EOFError, ConnectionError)):
        tls.line()


def test_garbage_inside_tls(tls: Pair) -> None:
    assert isinstance(tls.client, ssl.SSLSocket)
    socket.socket.send(tls.client, b"NOOP in clear\r\n")
    with pytest.raises(ConnectionError, match="TLS"):
        tls.line()


# --- the end


@pytest.mark.parametrize("kind", [socket.AF_INET, socket.SOCK_STREAM])
def test_the_last_reply_is_readable_though_the_client_still_sends(
    make: Make, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without lingering, close() with unread input would reset the connection."""
    monkeypatch.setattr(closing, "LINGER", LONG)
    pair = make(kind)
    pair.client.sendall(b"x" * 100_000)
    pair.wire.write(b"554 go away\r\n")
    pair.wire.flush()
    ending = pair.beside(pair.wire.close, True)
    pair.client.sendall(b"y" * 500_000)
    assert pair.client.recv(100) == b"554 go away\r\n"
    assert pair.client.recv(100) == b"", "the end comes at once, not after the lingering"
    pair.client.close()
    ending.result(PATIENCE)


def test_lingering_has_an_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "LINGER", 0.01)
    make(socket.AF_INET).wire.close(True)  # the client stays, and says nothing
    pair = make(socket.AF_INET)
    monkeypatch.setattr(closing, "LINGER", LONG)
    monkeypatch.setattr(closing, "LINGER_OCTETS", 1000)
    pair.client.sendall(b"x" * 100_000)
    pair.wire.close(True)  # it sends without end


def test_the_last_reply_through_tls_is_followed_by_close_notify(tls: Pair) -> None:
    tls.wire.write(b"221 bye\r\n")
    tls.wire.flush()
    closing = tls.beside(tls.wire.close, True)
    assert isinstance(tls.client, ssl.SSLSocket)
    tls.client.suppress_ragged_eofs = False  # a missing close_notify would be an error
    assert tls.client.recv(100) == b"221 bye\r\n"
    assert tls.client.recv(100) == b""
    tls.client.close()
    closing.result(PATIENCE)


def test_close_takes_any_state(make: Make, contexts: Any) -> None:
    pair = make()
    pair.client.close()
    pair.wire.close(True)
    pair.wire.close(True)
    assert pair.wire.fileno() == -1
    half = make(socket.SOCK_STREAM, context=contexts[0])
    half.client.sendall(b"\x16\x03\x01\x00\x05hello")
    threading.Thread(target=half.client.shutdown, args=(socket.SHUT_WR,)).start()
    with pytest.raises(ConnectionError):
        half.wire.start_tls()
    half.wire.close(True)


def test_addresses(make: Make) -> None:
    assert make().wire.local_address() == ("unix", 0)
    pair = make(socket.AF_INET)
    assert pair.wire.local_address() == pair.client.getpeername()
