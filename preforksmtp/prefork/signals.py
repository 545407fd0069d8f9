"""Signals as a queue: handlers only append, one loop takes them out and acts.

A handler may run between any two bytecodes of the main thread, inside a logging call too, so it does nothing
but append to an unbounded deque; set_wakeup_fd makes the loop's selector return. Works in the main thread
only (ValueError elsewhere). Signals are blocked around fork, so that none is lost or runs the parent's
handler in the child; `SignalQueue.abandon` is the child's first step before it installs its own.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

# All that master or worker treat in any way. SIGABRT is among them so that no stack dump is lost in the fork
# window; SIGCHLD so that the master's queue sees each death after the child is in its table.
HANDLED = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCHLD,
        signal.SIGABRT,
    }
)


# A thread's alarm(2) or setitimer(2) comes as one of these, and by default ends the process.
ALARMS = frozenset({signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF})


def name(number: int) -> str:
    """SIGKILL for 9; also for numbers the signal module has no name for."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def blocked() -> Iterator[set[int]]:
    """Hold back every handled signal; yields the mask to return to (the child of a fork needs it itself)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def to_default() -> None:
    """In a child that the application has forked: what has a handler of ours is as Python begins with it."""
    with contextlib.suppress(ValueError):  # forked by another interpreter of the process
        signal.set_wakeup_fd(-1)
        for number in HANDLED | ALARMS | {signal.SIGURG}:
            if getattr(signal.getsignal(number), "__module__", "").startswith("preforksmtp."):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


class SignalQueue:
    """The queue of one process and the pipe that wakes its loop."""

    def __init__(self) -> None:
        self._queue: collections.deque[int] = collections.deque()
        self._before: dict[int, Any] = {}
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def install(self, numbers: Iterable[int]) -> list[str]:
        """Queue these from now on; the names of those that were not left to their default. Not SIG_IGN even for those
        nobody acts on: ignoring outlives exec, and a program started by a handler would be deaf to SIGINT and
        SIGHUP."""
        handled = []
        for number in numbers:
            before = signal.signal(number, self._append)
            self._before.setdefault(number, before)
            if before != signal.SIG_DFL:
                handled.append(name(number))
        return handled

    def _append(self, number: int, frame: FrameType | None) -> None:
        self._queue.append(number)  # and nothing else, ever

    def remember(self, numbers: Iterable[int]) -> None:
        """What came before there was a queue: it is the first that take() gives."""
        self._queue.extendleft(reversed(list(numbers)))
        self.wake()

    def take_back(self) -> list[str]:
        """What the application has set, blocked or redirected since is ours again: the names of those signals."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)
        taken = [number for number in self._before if signal.getsignal(number) != self._append]
        for number in taken:
            signal.signal(number, self._append)
        return [name(number) for number in taken]

    def fileno(self) -> int:
        """Readable when take() may have something."""
        return self._read

    def wake(self) -> None:
        """Any thread: make the loop look round, without a signal."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it is over
            os.write(self._write, b"\0")

    def waiting(self, numbers: Iterable[int]) -> str:
        """The name of the first of these that take() would give; "" if none."""
        return next((name(number) for number in list(self._queue) if number in numbers), "")

    def take(self) -> list[int]:
        """Everything that arrived, in order."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._read, 4096)) == 4096:
                pass
        taken = []
        while self._queue:
            taken.append(self._queue.popleft())
        return taken

    def close(self) -> None:
        """Give the process its former handlers back."""
        self.abandon()
        signal.set_wakeup_fd(self._wakeup_before)
        for number, before in self._before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)

    def abandon(self) -> None:
        """Child, after fork, signals still blocked: drop the parent's pipe; the child installs handlers of
        its own."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)
