"""Stuck handlers: which session threads have been in one hook of the handler for longer than handler_timeout.

Runs in the worker's main thread, on what the session threads write to their seats. Python cannot end a thread, so all
that can be done is to say where it hangs, and to have the worker replaced. Nothing here fails.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from preforksmtp.prefork.worker.seat import Seat


@dataclass(frozen=True)
class Stuck:
    """One such call; `stack` is where its thread is now, as a traceback shows it."""

    session: str
    hook: str
    seconds: float
    stack: str


class StuckHandlers:
    """Finds each call once. `limit` in seconds; 0 = never."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._known: dict[Seat, float] = {}  # seat -> when the call began that was found there

    def look(self, seats: Iterable[Seat], now: float) -> list[Stuck]:
        """Worker, main thread, once a beat."""
        if not self._limit:
            return []
        found = []
        for seat in seats:
            since = seat.since
            if not since or now - since < self._limit or self._known.get(seat) == since:
                continue
            hook, session, frame = seat.hook, seat.name, sys._current_frames().get(seat.thread)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            if seat.since != since:  # it has returned while we looked: what we saw may be of its next call
                continue
            self._known[seat] = since
            found.append(Stuck(session, hook, now - since, stack))
        return found
