"""A wire of a worker that leaves while others serve on: reads are woken, and who says nothing for a while is told."""

from __future__ import annotations

import math
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from preforksmtp.prefork.worker.seat import Drain
from tests.net.test_wire import LONG, Pair
from tests.processes import PATIENCE, wait_until


@pytest.fixture
def signals() -> Iterator[None]:
    """As a worker has them."""
    before = signal.signal(signal.SIGURG, lambda *_: None)
    yield
    signal.signal(signal.SIGURG, before)


class Calm(Drain):
    """Has begun to leave; a session that says nothing is told when `patience` is over."""

    def begin_to_leave(self, patience: float) -> None:
        self.leave(LONG)
        self._earliest, self._patience, self._latest = 0.0, patience, math.inf


@pytest.fixture
def leaver() -> Iterator[Pair]:
    pair = Pair(socket.AF_INET)
    pair.drain.close()
    pair.drain = pair.wire._drain = Calm()
    yield pair
    pair.close()


def leave(pair: Pair, patience: float) -> None:
    assert isinstance(pair.drain, Calm)
    pair.drain.begin_to_leave(patience)


def wake(pair: Pair, thread: int) -> None:
    """What the worker's main thread does."""
    if pair.wire.wake():
        signal.pthread_kill(thread, signal.SIGURG)


@pytest.mark.parametrize("end", [0.0, 1e9])
def test_a_read_that_is_woken_goes_on(leaver: Pair, signals: None, end: float) -> None:
    """And the client notices nothing: not even one that speaks at that moment."""
    leaver.wire._end = end
    thread = leaver.beside(threading.get_ident).result()
    reading = leaver.beside(leaver.line, 100, True)
    wait_until(lambda: leaver.wire._waits, "it waits")
    leave(leaver, LONG)
    wait_until(lambda: wake(leaver, thread) or not leaver.wire._waits, "it has looked round")
    assert not reading.done()
    leaver.client.sendall(b"NOOP\r\n")
    assert reading.result(PATIENCE) == b"NOOP\r\n"
    leaver.client.sendall(b"DATA\r\n")
    assert leaver.line() == b"DATA\r\n"
    reading = leaver.beside(leaver.wire.read_block, 100)
    leaver.client.sendall(b"x")
    assert reading.result(PATIENCE) == b"x"


def test_who_is_silent_is_told_and_who_speaks_is_served(leaver: Pair) -> None:
    leave(leaver, 0.05)
    with pytest.raises(InterruptedError):
        leaver.line(idle=True)
    assert leaver.send(b"NOOP\r\n").line(idle=True) == b"NOOP\r\n", "it was there in time"
    leaver.send(b"NO")
    reading = leaver.beside(leaver.line, 100, True)
    wait_until(lambda: leaver.wire._buffer == b"NO", "half a command")
    time.sleep(0.1)  # longer than its patience, which is for those who have begun nothing
    assert leaver.send(b"OP\r\n") and reading.result(PATIENCE) == b"NOOP\r\n"


def test_the_patience_counts_from_the_beginning_of_the_silence(leaver: Pair, signals: None) -> None:
    thread = leaver.beside(threading.get_ident).result()
    reading = leaver.beside(leaver.line, 100, True)
    wait_until(lambda: leaver.wire._waits, "it waits")
    time.sleep(0.02)
    leave(leaver, 0.01)
    wait_until(lambda: wake(leaver, thread) or reading.done(), "told at once")
    with pytest.raises(InterruptedError):
        reading.result(0)


@pytest.mark.parametrize("read", ["line", "block"])
def test_a_read_that_was_woken_for_nothing_waits_as_long_as_before(leaver: Pair, read: str) -> None:
    """It had left recv() already: the short timeout of the kernel stays behind."""
    function = leaver.line if read == "line" else lambda: leaver.wire.read_block(100)
    leaver.wire._waits = True
    assert leaver.wire.wake()
    leaver.wire._waits = False
    leave(leaver, LONG)
    calls = []
    receive = leaver.wire._recv
    leaver.wire._recv = lambda size: calls.append(size) or receive(size)  # type: ignore[func-returns-value]
    reading = leaver.beside(function)
    time.sleep(0.1)
    leaver.client.sendall(b"DATA\r\n")
    assert reading.result(PATIENCE) == b"DATA\r\n"
    assert len(calls) < 5, "it did not spin"
