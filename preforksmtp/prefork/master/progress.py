"""How long the old master waits for a new one whose loop does not run yet: nothing else would end a program that hangs.

A pipe leads from the new program to the old master. Each line in it is the number of seconds that the next step may
take; 0 means that the loop runs, where deadlines of its own hold. Before the first line it is the old master's
boot_timeout. At the deadline the old master (Patience) sends TERM, at which a new program removes the files it made,
and two seconds later KILL. A new master without an old one that listens (Progress) speaks to nobody. Nothing here
fails or blocks.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import time
from collections.abc import Callable

LEEWAY = 2.0  # seconds after boot_timeout: a new program that gives up by itself says better why
MERCY = 2.0  # seconds between TERM and KILL

_NEWS = 4096  # bytes; far more than ever is in the pipe


class Patience:
    """The old master's end. `begin` after the fork; `why`, once it has run out."""

    def __init__(self, selector: selectors.BaseSelector, seconds: float) -> None:
        """Master. OSError: no descriptors left."""
        self.deadline = float("inf")
        self.why = ""
        self.write = -1  # the new program's end, from here to `begin`
        self._seconds = seconds
        self._selector = selector
        self._pid = 0
        self._pipe, self.write = os.pipe()
        os.set_blocking(self._pipe, False)

    @property
    def over(self) -> bool:
        """The new program's loop runs, or it is dying."""
        return self._pipe < 0

    def begin(self, pid: int) -> None:
        """Master, after the fork."""
        self._pid = pid
        os.close(self.write)
        self.write = -1
        self._selector.register(self._pipe, selectors.EVENT_READ)
        self._allow(self._seconds)

    def advance(self, now: float, complain: Callable[[str], object]) -> None:
        """Master, each round."""
        if self._pipe >= 0:
            self._hear()
        if now < self.deadline:
            return
        number = signal.SIGKILL if self.why else signal.SIGTERM
        self.why = f"not ready to begin after boot_timeout {self._seconds:.4g} s"
        self.deadline = now + MERCY
        complain(f"the new master {self._pid} is {self.why}, sent {number.name}")
        with contextlib.suppress(ProcessLookupError):  # reaped by a hook
            os.kill(self._pid, number)

    def end(self) -> None:
        """Master: the new one is there, or dead, or could not be forked."""
        self.deadline = float("inf")
        self._close()

    def close_in_child(self) -> None:
        """Any child: the pipe is read by the master alone. The selector is its business, and closed already."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _close(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1
        if self._pipe >= 0:
            if self._pid:
                self._selector.unregister(self._pipe)
            self.close_in_child()

    def _hear(self) -> None:
        try:
            text = os.read(self._pipe, _NEWS)
            seconds = float(text.split()[-1]) if text else -1.0
        except (BlockingIOError, IndexError, ValueError):  # no news, or not from us
            return
        if seconds < 0:  # nobody has the other end any more: it is dying, or the deadline holds for it as well
            self._close()
        elif seconds:
            self._allow(seconds)
        else:
            self.end()

    def _allow(self, seconds: float) -> None:
        self._seconds = seconds
        self.why = ""
        self.deadline = time.monotonic() + seconds + LEEWAY


class Progress:
    """The new master's end; -1: nobody waits for us."""

    def __init__(self, pipe: int = -1) -> None:
        self._pipe = -1
        with contextlib.suppress(OSError):  # no such descriptor
            if pipe >= 0 and stat.S_ISFIFO(os.fstat(pipe).st_mode):
                os.set_inheritable(pipe, False)
                self._pipe = pipe

    def expect(self, seconds: float) -> None:
        """The next step may take so long."""
        if self._pipe >= 0:
            with contextlib.suppress(OSError):  # the old master is gone
                os.write(self._pipe, b"%.3f\n" % seconds)

    def done(self) -> None:
        """Our loop runs."""
        self.expect(0.0)
        self.close()

    def close(self) -> None:
        """Any child as well."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)
