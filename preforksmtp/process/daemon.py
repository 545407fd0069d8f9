"""Becoming a daemon: out of the terminal's session, while the process that the user started waits for the outcome.

`daemonize` returns in the daemon only, with the Report by which it says how the start ended; the first process prints
what it is told and exits with the code it is told, 0 once all workers serve. Called before there are threads, workers,
open logs and listeners. Fails with OSError from fork.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

FAILED = 1


class Report:
    """Daemon: the way back to who waits for us. Said once."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def ready(self) -> None:
        self._say(0, ())

    def failed(self, code: int, lines: Sequence[str]) -> None:
        self._say(code, lines)

    def close_in_child(self) -> None:
        """Any child: or nobody would notice that the daemon died."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _say(self, code: int, lines: Sequence[str]) -> None:
        if self._pipe < 0:
            return
        try:
            os.write(self._pipe, json.dumps([code, list(lines)]).encode())
        except OSError:
            pass  # whoever waited has gone away
        self.close_in_child()


def daemonize(explain: Callable[[], Sequence[str]]) -> Report:
    """`explain`: run by the first process when the daemon failed, more lines for the user (the end of a log)."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        os.waitpid(pid, 0)
        _wait(read, explain)
    os.close(read)
    os.setsid()
    if os.fork():  # the second time: the daemon leads no session, so that no terminal can become its own
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
    return Report(write)


def _wait(pipe: int, explain: Callable[[], Sequence[str]]) -> NoReturn:
    """The first process."""
    text = b""
    while block := os.read(pipe, 65536):
        text += block
    code, lines = json.loads(text) if text else (FAILED, ["the daemon died while starting"])
    if code:
        for line in (*lines, *explain()):
            print(line, file=sys.stderr)
        sys.stderr.flush()
    os._exit(code)
