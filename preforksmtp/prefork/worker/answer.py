"""The worker's half of an inquiry: its sessions, and where its threads are, written to its page for the master to read.

The master's half is prefork/master/query.py. Runs in the worker's main thread. The text of a page is one JSON object a
line; what a page cannot hold is counted in the last one. Nothing here blocks or fails.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from preforksmtp.prefork.pages import PAGE, Pages
from preforksmtp.prefork.questions import CLOSE, KINDS, SESSIONS, Line, named
from preforksmtp.prefork.scoreboard import SINCE, Slot
from preforksmtp.prefork.worker.seat import Seat

_TEXT, _STACK = 1000, 100_000  # most characters of one, and of a stack
_LAST_LINE = 64  # bytes kept for the count of what is left out

Describe = Callable[[Seat], dict[str, Any]]


class Respondent:
    """Worker, main thread. `describe` is root's: what there is to say of the session on a seat."""

    def __init__(self, slot: Slot, pages: Pages, describe: Describe) -> None:
        self._slot = slot
        self._pages = pages
        self._describe = describe

    def respond(self, seats: Callable[[], Sequence[Seat]]) -> bool:
        """Answer, if there is a question."""
        question = self._slot.question
        if question == self._slot.answer:
            return False
        kinds = {SESSIONS: self._sessions, CLOSE: self._close}
        lines = kinds.get(question % KINDS, _stacks)(seats())
        try:
            text = _text(lines)
        except Exception as error:  # what a handler made of its session, or of its modules
            text = json.dumps({"fault": _say(error)}).encode()
        self._pages.write(self._slot.index, text)
        self._slot.answer = question  # after the text
        return True

    def _sessions(self, seats: Sequence[Seat]) -> Iterator[Line]:
        now = time.monotonic()
        for seat in seats:
            accepted, hook, since = seat.row[SINCE], seat.hook, seat.since
            if not accepted:
                continue
            line = self._describe(seat)
            if seat.row[SINCE] == accepted:  # else it has ended while we looked
                line["seconds"] = round(now - accepted / 1e9, 3)
                line["hook"], line["hook_seconds"] = hook, round(now - since, 3) if since else 0.0
                yield line


    def _close(self, seats: Sequence[Seat]) -> Iterator[Line]:
        """End one session: it is told if it waits for a command, and cut off otherwise."""
        for seat in seats:
            line, name = seat.line, seat.name
            if line is not None and name and named(name) == self._slot.argument:
                with contextlib.suppress(OSError):  # it has just ended
                    line.dismiss()
                yield {"session": name, "hook": seat.hook}


def _stacks(seats: Sequence[Seat]) -> Iterator[Line]:
    """Where every thread of this process is, those of sessions first."""
    sessions = {seat.thread: seat.name for seat in seats if seat.name}
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] not in sessions)
    for thread, frame in frames:
        stack = "".join(traceback.format_stack(frame))
        yield {"thread": names.get(thread, str(thread)), "session": sessions.get(thread, ""), "stack": stack}


def _text(lines: Iterator[Line]) -> bytes:
    text, left_out = bytearray(), 0
    for line in lines:
        encoded = json.dumps(line, default=str).encode() + b"\n"
        if left_out or len(text) + len(encoded) > PAGE - _LAST_LINE:
            left_out += 1
        else:
            text += encoded
    if left_out:
        text += json.dumps({"left_out": left_out}).encode() + b"\n"
    return bytes(text)


def _say(error: Exception) -> str:
    try:
        return repr(error)[:_TEXT]
    except Exception:  # its repr is the application's as well
        return type(error).__name__
