"""What the master sleeps on: one selector over its signals, the bell that workers ring, and what it watches besides;
and the lifeline, by whose end workers notice that it is gone.

The master opens it; each child closes what is the master's (`close_in_child`). Whoever rings, sends signals or opens
connections without end has the master look BURST times, and then RATE times a second.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time

from preforksmtp.prefork.signals import HANDLED, SignalQueue, blocked

BURST, RATE = 20.0, 50.0  # rounds at once, and a second: each costs the master about a third of a millisecond
ASLEEP = 2.0  # a wake-up this late: we were stopped or suspended, and so were the workers

_PIPE = 65536  # bytes that a pipe holds


class Wakeup:
    """`lifeline`: read end, its EOF is the master's death. `bell`: write end, a byte makes the master look round."""

    def __init__(self, but: int) -> None:
        self.signals = SignalQueue()
        self.signals.install(HANDLED - {but})
        self.lifeline, self._life = os.pipe()
        self._bell, self.bell = os.pipe()
        for end in (self._bell, self.bell):
            os.set_blocking(end, False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.signals, selectors.EVENT_READ)
        self.selector.register(self._bell, selectors.EVENT_READ)
        self._woke = time.monotonic()
        self._rounds = BURST  # that may follow at once
        self._counted_at = self._woke

    def close(self) -> None:
        self.selector.close()
        self.signals.close()
        for end in (self.lifeline, self._life, self._bell, self.bell):
            os.close(end)

    def close_in_child(self) -> None:
        """First step after a fork, signals still blocked."""
        self.signals.abandon()
        os.close(self._life)  # or no sibling would ever see its EOF
        os.close(self._bell)
        self.selector.close()

    def part(self) -> None:
        """Worker, before it drops its privileges: bell and lifeline with flags of its own. One that has been taken over
        could make the others, and the master, wait at those that it shares with them."""
        self.lifeline = _opened_again(self.lifeline, os.O_RDONLY)
        self.bell = _opened_again(self.bell, os.O_WRONLY)

    def wait(self, seconds: float) -> float:
        """Until a signal, the bell, or so many seconds. Returns for how long the whole process was stopped, or 0.0."""
        self._pace()
        for key, _ in self.selector.select(seconds):
            if key.fd == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, _PIPE)  # once: a worker could write more all the while
        now = time.monotonic()
        # Since the last wake-up, not since the call: it may have been stopped in between.
        passed, self._woke = now - self._woke, now
        return passed if passed > seconds + ASLEEP else 0.0

    def _pace(self) -> None:
        """Sleep, if there were too many rounds lately."""
        now = time.monotonic()
        self._rounds = min(BURST, self._rounds + (now - self._counted_at) * RATE) - 1
        self._counted_at = now
        if self._rounds < 0:
            with blocked():  # or each of them would wake us
                time.sleep(1 / RATE)


def _opened_again(pipe: int, way: int) -> int:
    try:
        opened = os.open(f"/proc/self/fd/{pipe}", way | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc
        return pipe
    os.close(pipe)
    return opened
