"""Affinity: while all processors are busy, the session threads of a worker stay on one of them.

Threads of one worker cannot run Python at the same time. On several processors they try to: whoever sends or receives
lets go of the interpreter's lock, another one takes it elsewhere, and the first one has to sleep before it goes on. On
one processor each goes on until it waits for its client. Where a processor is idle that would cost capacity, so it
holds only as long as none is: /proc/stat tells, and only a worker that is interrupted often (getrusage(2)) looks there.
Threads and processes that a handler starts inherit it, and are let go at the next look.

Runs in the worker's main thread; where others stay is read from the scoreboard. Linux only. Nothing here fails: what
the kernel does not allow is not done.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterable, Sequence

from preforksmtp.prefork.scoreboard import FREE, Slot
from preforksmtp.prefork.worker.seat import Seat

BUSY, IDLE = 0.05, 0.10  # share of the processors' time that nobody wants: below the one stay, above the other roam
INTERRUPTED = 50.0  # times a second that somebody else wanted our processor, from which on it matters
CALM, CONTENDED, STAYING = 0.25, 0.1, 0.5  # seconds until the next look: nothing to do, about to decide, decided
TRIAL = 1.0  # seconds over which processors were idle before we roam again
HOLD, LONGEST_HOLD = 4.0, 64.0  # seconds without another attempt after one that left processors idle
PROVEN = 10.0  # seconds after which an attempt was a good one

Times = tuple[int, int]  # idle, all, in ticks


class Affinity:
    """One worker's. `slots`: all of them, for who is where."""

    def __init__(self, slot: Slot, slots: Sequence[Slot], *, wanted: bool = True) -> None:
        self._slot = slot
        self._slots = slots
        self._allowed = _allowed() if wanted else []
        self._place = -1  # the processor where our session threads stay; -1: all that are allowed
        self._applied: dict[int, int] = {}  # thread or process, as the kernel numbers it -> the place it was given
        self._since = 0.0
        self._hold, self._hold_until = HOLD, 0.0
        self._looked_at = time.monotonic()
        self._interruptions = _interruptions()
        self._times: Times = (0, 0)  # at the beginning of the time that is judged; (0, 0): it has not begun
        self._times_at = 0.0

    @property
    def possible(self) -> bool:
        return len(self._allowed) > 1

    def look(self, seats: Sequence[Seat], now: float) -> float:
        """Each beat: stay or roam. Returns seconds until the next look."""
        before, self._interruptions = self._interruptions, _interruptions()
        contended = self._interruptions - before > INTERRUPTED * (now - self._looked_at)
        self._looked_at = now
        if self._place >= 0:
            if now - self._times_at >= TRIAL:
                self._reconsider(now)
        elif contended:
            idle = self._idle(now)
            if idle is not None and idle < BUSY and now >= self._hold_until:
                self._since = now
                self._stay(self._free_place())
        else:
            self._times = (0, 0)
        if self._place >= 0 or self._applied:
            self._apply(seats)
        return STAYING if self._place >= 0 else CONTENDED if contended else CALM

    def _reconsider(self, now: float) -> None:
        idle = self._idle(now)
        if idle is None or idle > IDLE:
            self._hold = HOLD if now - self._since >= PROVEN else min(2 * self._hold, LONGEST_HOLD)
            self._hold_until = now + self._hold
            self._stay(-1)
        else:
            self._stay(self._fair_place())

    def _stay(self, place: int) -> None:
        self._place = place
        self._slot.place = place + 1

    # -- which processor

    def _counts(self) -> dict[int, int]:
        """How many other workers stay on each processor."""
        counts = dict.fromkeys(self._allowed, 0)
        for slot in self._slots:
            if slot.state != FREE and slot is not self._slot and slot.place - 1 in counts:
                counts[slot.place - 1] += 1
        return counts

    def _free_place(self) -> int:
        """Where the fewest are. Those that look at the same moment begin to search at different ones."""
        counts, first = self._counts(), self._slot.index % len(self._allowed)
        return min(self._allowed[first:] + self._allowed[:first], key=counts.__getitem__)

    def _fair_place(self) -> int:
        """Ours, unless it has two more than another one and we are the first of those there."""
        counts = self._counts()
        best = min(self._allowed, key=counts.__getitem__)
        there = [slot.index for slot in self._slots if slot.state != FREE and slot.place - 1 == self._place]
        if counts[self._place] > counts[best] and self._slot.index == min(there, default=-1):
            return best
        return self._place

    # -- the kernel

    def _apply(self, seats: Sequence[Seat]) -> None:
        """To all that is there, and inherits from whoever started it: session threads stay, everybody else roams."""
        ours = {seat.native for seat in seats}
        wanted = dict.fromkeys(_threads() + _children(ours), -1) | dict.fromkeys(ours - {0}, self._place)
        for number, place in wanted.items():
            if self._applied.get(number, -1) != place or number not in self._applied:
                with contextlib.suppress(OSError):  # it has just ended, or the processor was taken away
                    os.sched_setaffinity(number, self._allowed if place < 0 else {place})
        self._applied = wanted if self._place >= 0 else {}

    def _idle(self, now: float) -> float | None:
        """Share of the allowed processors' time since the last call that nobody wanted. None: not known."""
        before, self._times = self._times, _processor_times(self._allowed)
        self._times_at = now
        passed = self._times[1] - before[1]
        return (self._times[0] - before[0]) / passed if before[1] and passed > 0 else None


def _allowed() -> list[int]:
    """Processors that this process may use."""
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux, or forbidden
        return []


def _interruptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _threads() -> list[int]:
    """All of this process."""
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []


def _children(threads: Iterable[int]) -> list[int]:
    """The processes that these threads started, where the kernel tells."""
    found: list[int] = []
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def _processor_times(processors: Iterable[int]) -> Times:
    """Of these together, since the start of the machine; (0, 0): not known."""
    try:
        with open("/proc/stat", "rb") as file:
            lines = {words[0]: words[1:] for line in file if line.startswith(b"cpu") for words in [line.split()]}
        rows = [[int(word) for word in lines[b"cpu%d" % number]] for number in processors]
    except (OSError, ValueError, KeyError):
        return 0, 0
    # user nice system idle iowait irq softirq steal; guest times are within user's (proc(5))
    return sum(row[3] + row[4] for row in rows), sum(sum(row[:8]) for row in rows)
