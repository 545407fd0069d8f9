"""The history: a sample of the totals each second, for as long as the plots of the status page reach back.

A ring in shared memory, made by the master before its first fork and written by the status process, of which there is
one at a time and which alone can; so it outlives a status process that is replaced. Nothing here fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from preforksmtp.observe.snapshot import Snapshot
from preforksmtp.prefork.memory import Memory
from preforksmtp.prefork.scoreboard import BOUNDS, COUNTERS

SECONDS = 900  # it reaches back
_GAUGES = 5  # words of a sample in front of the counters: time in ms, active, limit, ready, queued
_BUCKETS = len(BOUNDS) + 1
_WIDTH = _GAUGES + len(COUNTERS) + _BUCKETS


@dataclass(frozen=True)
class Sample:
    """Totals and gauges at one moment, seconds since the epoch."""

    time: float
    active: int
    limit: int
    ready: int
    queued: int
    totals: dict[str, int]
    buckets: list[int]


class History:
    """`add` in the status process, about once a second; `samples` there too."""

    def __init__(self, seconds: int = SECONDS) -> None:
        self.memory = Memory(0, 1, 1 + seconds * _WIDTH)
        (self._words,) = self.memory.sections
        self._size = seconds

    @property
    def written(self) -> int:
        """Samples that were ever added."""
        return self._words[0]

    def add(self, snapshot: Snapshot) -> None:
        place = 1 + self._words[0] % self._size * _WIDTH
        ready, readings = snapshot.count("ready"), snapshot.readings
        gauges = (int(snapshot.time * 1000), snapshot.active, snapshot.limit, ready, snapshot.queued)
        for offset, value in enumerate((*gauges, *readings.sessions.values(), *readings.handler_buckets)):
            self._words[place + offset] = value
        self._words[0] += 1

    def samples(self) -> list[Sample]:
        """The oldest first."""
        last = self._words[0]
        return [self._sample(number) for number in range(max(0, last - self._size), last)]

    def _sample(self, number: int) -> Sample:
        start = 1 + number % self._size * _WIDTH
        words = self._words[start : start + _WIDTH].tolist()
        time, active, limit, ready, queued = words[:_GAUGES]
        totals = dict(zip(COUNTERS, words[_GAUGES:], strict=False))
        return Sample(time / 1000, active, limit, ready, queued, totals, words[_GAUGES + len(COUNTERS) :])
