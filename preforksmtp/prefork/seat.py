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
from collections.abc import Callable
from typing import Any


class Drain:
    """Whether this worker is leaving. Written by its main thread only, read by every session.

    `fd` becomes readable when draining starts and stays so, for nobody reads: poll it beside a TLS socket."""

    __slots__ = ("_write", "deadline", "fd", "requested")

    def __init__(self) -> None:
        self.requested = False
        self.deadline = math.inf  # time.monotonic() at which the process ends come what may
        self.fd, self._write = os.pipe()

    def begin(self, deadline: float) -> None:
        """Worker, main thread. A second call may only bring the deadline forward."""
        self.deadline = min(deadline, self.deadline)
        if not self.requested:
            self.requested = True  # before the octet: who is woken by it finds the reason
            os.write(self._write, b"\0")  # EOF would not do: a child that the application has forked holds this end
            os.close(self._write)

    def close(self) -> None:
        """Whoever made it: nobody looks at it any more. A worker's lives as long as the worker."""
        os.close(self.fd)
        if not self.requested:
            os.close(self._write)

    def wait(self, seconds: float) -> None:
        """Any thread: sleep, but not past the start of a drain."""
        if self.requested:
            time.sleep(min(seconds, 0.1))  # fd is readable for ever now; do not spin on it
            return
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.poll(seconds * 1000)


class Seat:
    """One session thread's place. `serve` (in that thread) writes all but `row`, `drain`, `called` and `thread`.

    A session sets `interrupt` first and looks at `drain.requested` after, before it blocks: the main thread
    does the two the other way round, so one of them sees the other. `interrupt` is called in the main thread,
    at most once a drain and a session, may race with the session's end and must not block."""

    __slots__ = ("called", "dialogue", "drain", "hook", "interrupt", "native", "row", "session", "since", "thread")

    def __init__(self, row: memoryview, drain: Drain) -> None:
        self.row = row
        self.drain = drain
        self.called = threading.Lock()  # held, but for the moment in which somebody calls this thread from the bench
        self.called.acquire()
        self.interrupt: Callable[[], None] | None = None
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
