"""Inquiries: what the master cannot see for itself, asked of its workers: their sessions, and where their threads are.

The master (Inquiry) writes a question into each worker's slot and sends URG, which a worker that still boots ignores;
the worker's main thread (Respondent) answers in its page and rings. Who is silent for PATIENCE, because C code holds
its interpreter, has no answer. The text of a page is one JSON object a line; what a page cannot hold is counted in the
last one. A page that has anything else was not written by a worker of ours, and is its end (audit.py). One inquiry at a
time; nothing here blocks or fails.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from preforksmtp.prefork.pages import PAGE
from preforksmtp.prefork.scoreboard import SINCE

if TYPE_CHECKING:
    from preforksmtp.prefork.master.child import Child
    from preforksmtp.prefork.pages import Pages
    from preforksmtp.prefork.scoreboard import Slot
    from preforksmtp.prefork.worker.seat import Seat

SESSIONS, STACKS = 1, 2  # the lowest bits of a question; above them its number
PATIENCE = 1.0  # seconds
_KINDS = 4
_NUMBERS = ("seconds", "hook_seconds", "recipients", "left_out")  # all else in a line is text, or null
_TEXT, _STACK = 1000, 100_000  # most characters of one, and of a stack
_LAST_LINE = 64  # bytes kept for the count of what is left out

Describe = Callable[["Seat"], dict[str, Any]]
Line = dict[str, Any]


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
        lines = self._sessions(seats()) if question % _KINDS == SESSIONS else _stacks(seats())
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


class Inquiry:
    """Master: one question to some workers. Call `over` each round until it is true, then look at `answers`."""

    _number = 0

    def __init__(self, kind: int, workers: Sequence[Child], condemn: Callable[[Child, str], object]) -> None:
        """`condemn`: what to do about a worker whose answer is none, and what is wrong with it."""
        self._condemn = condemn
        Inquiry._number += 1
        self._question = Inquiry._number * _KINDS + kind
        self.answers: dict[int, list[Line] | None] = {}  # by process id; None: no answer
        self.deadline = time.monotonic() + PATIENCE
        self._waiting = list(workers)
        for worker in workers:
            worker.slot.question = self._question
            worker.send(signal.SIGURG)

    def over(self) -> bool:
        overdue = time.monotonic() >= self.deadline
        for worker in list(self._waiting):
            if worker.slot.answer == self._question:
                self._end(worker, self._read(worker))
            elif overdue or worker.status is not None or worker.slot.question != self._question:  # gone, reaped
                self._end(worker, None)
        return not self._waiting

    def _read(self, worker: Child) -> list[Line] | None:
        text = worker.generation.board.pages.read(worker.slot.index)
        try:
            return [_checked(json.loads(line)) for line in text.split(b"\n") if line]
        except (ValueError, TypeError, RecursionError) as error:
            self._condemn(worker, f"an answer that is none, {type(error).__name__}")
            return None

    def _end(self, worker: Child, answer: list[Line] | None) -> None:
        self._waiting.remove(worker)
        self.answers[worker.pid] = answer


def _checked(line: object) -> Line:
    """A line as those who show it rely on. TypeError, ValueError."""
    if not isinstance(line, dict):
        raise TypeError
    return {str(key)[:_TEXT]: _number(value) if key in _NUMBERS else _short(key, value) for key, value in line.items()}


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1e15:
        raise ValueError
    return value


def _short(key: str, value: object) -> str | None:
    return None if value is None else str(value)[: _STACK if key == "stack" else _TEXT]
