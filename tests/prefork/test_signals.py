"""The queue: everything arrives, in order, and the loop is woken."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from preforksmtp.prefork import signals
from preforksmtp.prefork.signals import SignalQueue


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    queue = SignalQueue()
    queue.install((signal.SIGUSR1, signal.SIGUSR2))
    yield queue
    queue.close()


def readable(queue: SignalQueue) -> bool:
    return bool(select.select([queue], [], [], 0)[0])


def test_signals_come_out_in_order_and_once(queue: SignalQueue) -> None:
    sent = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1] * 3000  # far more than a pipe's worth of wakeups
    for number in sent:
        signal.raise_signal(number)
    assert readable(queue)
    assert queue.take() == sent
    assert queue.take() == []
    assert not readable(queue)


def test_what_was_remembered_comes_first(queue: SignalQueue) -> None:
    signal.raise_signal(signal.SIGUSR1)
    queue.take()
    signal.raise_signal(signal.SIGUSR2)
    queue.remember([signal.SIGHUP, signal.SIGTTIN])
    assert readable(queue)
    assert queue.take() == [signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR2]
    assert not readable(queue)


def test_wake_without_a_signal(queue: SignalQueue) -> None:
    queue.wake()
    assert readable(queue)
    assert queue.take() == []
    assert not readable(queue)


def test_a_full_pipe_loses_no_signal(queue: SignalQueue) -> None:
    for _ in range(70_000):
        queue.wake()
    signal.raise_signal(signal.SIGUSR2)
    assert queue.take() == [signal.SIGUSR2]
    assert not readable(queue)


def test_blocked_holds_signals_back_and_restores_the_mask(queue: SignalQueue) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with signals.blocked() as mask:
        assert mask == before
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # another thread of the tests may not have it blocked
        assert queue.take() == []
    assert queue.take() == [signal.SIGUSR1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_close_gives_handlers_and_descriptors_back() -> None:
    handler = signal.getsignal(signal.SIGUSR1)
    files = os.listdir("/proc/self/fd")
    queue = SignalQueue()
    queue.install([signal.SIGUSR1])
    assert signal.getsignal(signal.SIGUSR1) != handler
    queue.close()
    assert signal.getsignal(signal.SIGUSR1) == handler
    assert len(os.listdir("/proc/self/fd")) == len(files)


def test_names() -> None:
    assert signals.name(9) == "SIGKILL"
    assert signals.name(signal.SIGRTMIN + 3) == f"signal {signal.SIGRTMIN + 3}"
