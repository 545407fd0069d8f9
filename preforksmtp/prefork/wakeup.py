"""What the master sleeps on: one selector over its signals, the bell that workers ring, and what it watches besides;
and the lifeline, by whose end workers notice that it is gone.

The master opens it; each child closes what is the master's (`close_in_child`).
"""

from __future__ import annotations

import os
import selectors
import time

from preforksmtp.prefork.signals import HANDLED, SignalQueue

ASLEEP = 2.0  # a wake-up this late: we were stopped or suspended, and so were the workers


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

    def wait(self, seconds: float) -> float:
        """Until a signal, the bell, or so many seconds. Returns for how long the whole process was stopped, or 0.0."""
        for key, _ in self.selector.select(seconds):
            if key.fd == self._bell:
                _drain(key.fd)
        now = time.monotonic()
        # Since the last wake-up, not since the call: it may have been stopped in between.
        passed, self._woke = now - self._woke, now
        return passed if passed > seconds + ASLEEP else 0.0


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
