"""What a session thread and its worker's main thread know of each other: Drain (one a worker), Seat (one a
thread).

Both are plain facts: each attribute has one writer, named below. The one lock is a call, see pool.py. Nothing here
fails.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from typing import Any, Protocol

GRACE = 2.0  # seconds of a roll in which nobody notices anything
SILENCE = 4.0  # seconds after which a client between two transactions seems to want nothing for now
FAREWELL = 0.4  # the same in a stop: time for the QUIT after a 250
BEGINNING = 2.0  # seconds of a stop in which a session that has just begun may come to its transaction


class Drain:
    """How a worker leaves, as its sessions see it. Written by its main thread only, read by every session.

    Two facts. `leaving`: no new sessions. Between two transactions a session waits from now on with a limit, `until`,
    and is told 421 there. `requested`: no new transactions either; a MAIL is answered 421. With `leave` the second
    comes much later than the first, and a client notices neither, unless it has nothing to do for a while; with `stop`
    both come at once, and but a session without a transaction so far may begin its first one for a moment; with
    `begin` that moment is none.

    `notice` becomes readable with the first fact, `fd` with the second, and stays so, for nobody reads: poll it beside
    a socket."""

    __slots__ = (
        "_announce", "_earliest", "_latest", "_open_until", "_patience", "_write", "deadline", "fd", "leaving",
        "notice", "requested", "urge_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.leaving = False
        self.requested = False
        self.deadline = math.inf  # time.monotonic() at which the process ends come what may
        self.urge_at = math.inf  # when a roll that takes so long is to be urged
        self._earliest = self._latest = 0.0  # of the times at which an idle session is told
        self._patience = 0.0  # seconds of silence in between
        self._open_until = 0.0  # for first transactions, once requested
        self.notice, self._announce = os.pipe()
        self.fd, self._write = os.pipe()

    # -- main thread

    def leave(self, seconds: float) -> None:
        """The worker goes and others serve on: at most so long, and unnoticed where that is possible."""
        if self.leaving:
            return
        now = time.monotonic()
        self.deadline = now + seconds
        self._earliest = now + min(GRACE, seconds / 2)
        self._patience = min(SILENCE, seconds / 3)
        self._latest = now + seconds * 0.9
        self.urge_at = now + seconds * 2 / 3
        self._tell()

    def urge(self) -> None:
        """It has lasted long enough, or its place is needed: whoever begins another transaction is told instead."""
        self.urge_at = math.inf
        self._request()

    def stop(self, seconds: float) -> None:
        """The whole server goes."""
        now = time.monotonic()
        self.deadline = min(self.deadline, now + seconds)
        seconds = self.deadline - now
        self._earliest, self._patience = 0.0, min(FAREWELL, seconds / 4)
        self._latest = now + seconds * 0.9
        self._open_until = now + min(BEGINNING, seconds / 2)
        self._request()

    def begin(self, deadline: float, patience: float = 0.0) -> None:
        """At once, or after so many seconds of silence."""
        self.deadline = self._latest = min(deadline, self.deadline)
        self._earliest, self._patience, self._open_until = 0.0, patience, 0.0
        self._request()

    def _request(self) -> None:
        self.urge_at = math.inf
        if not self.requested:
            self.requested = True
            os.write(self._write, b"\0")  # EOF would not do: a child that the application has forked holds this end
            os.close(self._write)
        self._tell()

    def _tell(self) -> None:
        if not self.leaving:
            self.leaving = True  # before the octet: who is woken by it finds the reason
            os.write(self._announce, b"\0")
            os.close(self._announce)

    def close(self) -> None:
        """Whoever made it: nobody looks at it any more. A worker's lives as long as the worker."""
        os.close(self.notice)
        os.close(self.fd)
        if not self.leaving:
            os.close(self._announce)
        if not self.requested:
            os.close(self._write)

    # -- any thread

    @property
    def hurried(self) -> bool:
        """Nothing begins any more, not even a first transaction."""
        return self.requested and time.monotonic() >= self._open_until

    def until(self, began: float) -> float:
        """Once it is leaving: when a wait that began then has been long enough; monotonic."""
        return min(max(self._earliest, began + self._patience), self._latest)

    def wait(self, seconds: float) -> None:
        """Sleep, but not past the moment in which the worker begins to leave."""
        if self.leaving:
            time.sleep(min(seconds, 0.1))  # the pipe is readable for ever now; do not spin on it
            return
        poll = select.poll()
        poll.register(self.notice, select.POLLIN)
        poll.poll(seconds * 1000)


class Line(Protocol):
    """A session's connection, as other threads may touch it. Nothing here blocks; an OSError means that the session
    has just ended."""

    def wake(self) -> bool:
        """Let a read between two transactions look round. True: a signal to its thread is needed for that."""

    def interrupt(self) -> None:
        """End such a read, where no signal can."""

    def cut(self) -> None:
        """End whatever the session is doing with its client."""

    def dismiss(self) -> None:
        """The same, but tell the client if it is owed a word."""


class Seat:
    """One session thread's place. `serve` (in that thread) writes all but `row`, `drain`, `called` and `thread`.

    A session sets `line` first and looks at `drain` after, before it blocks: the main thread does the two the other
    way round, so one of them sees the other."""

    __slots__ = ("called", "dialogue", "drain", "hook", "line", "native", "row", "session", "since", "thread")

    def __init__(self, row: memoryview, drain: Drain) -> None:
        self.row = row
        self.drain = drain
        self.called = threading.Lock()  # held, but for the moment in which somebody calls this thread from the bench
        self.called.acquire()
        self.line: Line | None = None
        self.session: Any = None  # root's, with an `id` that names it in logs
        self.dialogue: Any = None  # root's as well
        self.hook = ""
        self.since = 0.0
        self.thread = 0  # threading.get_ident() of the thread that sits here
        self.native = 0  # and its number in the kernel

    @property
    def name(self) -> str:
        """Any thread: of the session that is served here now, as logs have it; "" = none."""
        session = self.session
        return str(session.id) if session is not None else ""
