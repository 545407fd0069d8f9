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
import time
from collections.abc import Callable, Sequence

from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.questions import KINDS, Line

PATIENCE = 1.0  # seconds
_NUMBERS = (
    "seconds", "hook_seconds", "idle_seconds", "recipients", "messages", "received", "sent", "left_out",
)  # all else in a line is text, or null
_TEXT, _STACK = 1000, 100_000  # most characters of one, and of a stack


class Inquiry:
    """Master: one question to some workers. Call `over` each round until it is true, then look at `answers`."""

    _number = 0

    def __init__(
        self, kind: int, workers: Sequence[Child], condemn: Callable[[Child, str], object], argument: int = 0
    ) -> None:
        """`condemn`: what to do about a worker whose answer is none, and what is wrong with it."""
        self._condemn = condemn
        Inquiry._number += 1
        self._question = Inquiry._number * KINDS + kind
        self.answers: dict[int, list[Line] | None] = {}  # by process id; None: no answer
        self.deadline = time.monotonic() + PATIENCE
        self._waiting = list(workers)
        for worker in workers:
            worker.slot.argument = argument
            worker.slot.question = self._question  # last: it is what a worker looks at
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
