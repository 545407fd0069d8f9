"""The alarm: code of the user's that runs in a loop of ours may take long, but neither unnoticed nor for ever.

Main thread only, and SIGALRM is ours while it runs. The handler raises Overdue in the middle of that code: it is not an
Exception, so that `except Exception` there does not swallow it; it is raised again until the code gives up.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

SLOW = 1.0  # seconds after which it is noticed
TICK = 0.25  # seconds between two looks


class Overdue(BaseException):
    """Raised in the code that took too long; str() says why it was interrupted."""


_armed = False


@contextlib.contextmanager
def alarm(limit: float, must_stop: Callable[[], str], on_slow: Callable[[], None]) -> Iterator[None]:
    """Master: call on_slow() after a second; interrupt after `limit` seconds (0: never), or after TICK as soon as
    must_stop() gives a reason. Within another alarm it does nothing: that one is in force."""
    global _armed
    if _armed:
        yield
        return
    began = time.monotonic()
    noticed = False

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal noticed
        if not _armed:
            return
        seconds = time.monotonic() - began
        if not noticed and seconds >= SLOW:
            noticed = True
            on_slow()
        reason = must_stop()
        if not reason and limit and seconds >= limit:
            reason = f"it took more than {limit:.4g} s"
        if reason:
            raise Overdue(reason)

    before = signal.signal(signal.SIGALRM, ring)
    _armed = True
    try:
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        yield
    finally:
        _armed = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)
