"""The end of a process in which the application has run: its exit callbacks, then the processes that it has forked.

They are what an interpreter runs at its end, in the same order: executors first (they finish what they have been given,
and end their threads and processes), then atexit callbacks (multiprocessing ends its daemons there, and waits for its
other processes). Threads that are no executor's are not waited for. None of it may hold the process past its time:
then what it has forked is told to end, killed, and the process leaves without the rest.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from preforksmtp.prefork.atfork import Confined, offspring

MERCY = 0.2  # seconds between TERM and KILL for what it has forked
NOTICED = 0.2  # seconds of waiting for them from which on that is said


class Leaving:
    """One process's end; its time begins now. `code` is the exit code where it is up; `who` is for the log."""

    def __init__(self, who: str, log: logging.Logger, seconds: float, code: int = 1) -> None:
        self._who = who
        self._log = log
        self._code = code
        self._end = time.monotonic() + seconds
        threading.Thread(target=self._watch, name="leaving", daemon=True).start()

    def finish(self, callbacks: Iterable[Callable[[], object]]) -> None:
        """Main thread: `callbacks` first, then what is to be done in any process."""
        executors = reversed(getattr(threading, "_threading_atexits", ()))
        for callback in (*callbacks, *executors, atexit._run_exitfuncs):
            self._call(callback)
        if not offspring.await_end(NOTICED):
            self._log.info("%s: waits for processes that the application has forked", self._who)
            offspring.await_end(self._end - time.monotonic())  # if need be they are ended before
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # None, closed, or a broken pipe: nobody is left to tell
                stream.flush()
        self._call(logging.shutdown)

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            with Confined(callback):
                callback()
        except BaseException:
            self._log.exception("%s: %r failed", self._who, callback)

    def _watch(self) -> None:
        """Own thread: the main one may be held anywhere, by an executor as well as by a callback."""
        time.sleep(max(0.0, self._end - 2 * MERCY - time.monotonic()))
        if not offspring.await_end(0.0) or _of_multiprocessing():
            self._log.warning("%s: ends the processes that the application has begun: time is up", self._who)
            offspring.terminate()
            _each_of_multiprocessing("terminate")
            offspring.await_end(MERCY)
            offspring.kill()
            _each_of_multiprocessing("kill")
        time.sleep(max(0.0, self._end - time.monotonic()))
        last = threading.Timer(2 * MERCY, os._exit, (self._code,))  # a stuck thread may hold the log's lock
        last.daemon = True
        last.start()
        self._log.error("%s: an exit callback takes too long; leaving without it", self._who)
        os._exit(self._code)


def _of_multiprocessing() -> list[Any]:
    """Its processes, which the kernel does not end for us if they began as another program (spawn)."""
    module = sys.modules.get("multiprocessing.process")
    with contextlib.suppress(Exception):  # of another thread that joins one of them
        return list(module.active_children()) if module is not None else []
    return []


def _each_of_multiprocessing(method: str) -> None:
    for process in _of_multiprocessing():
        with contextlib.suppress(Exception):  # it has just ended
            getattr(process, method)()
