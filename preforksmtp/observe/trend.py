"""The trend: from samples, which are totals, to what was counted in some seconds, and to the points of a plot.

Knows samples, and neither the scoreboard nor how anything is worded or drawn. Between two samples that do not belong
together (too far apart, the clock set back, a new master) nothing is known: that is a gap, never a guess. It wants the
oldest sample first and, but for `points`, at least one of them; nothing here fails then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import sub

from preforksmtp.observe.history import Sample

STEP = 5  # seconds averaged into one point
GAP = 5.0  # seconds between two samples above which nothing is known of what lies between


@dataclass(frozen=True)
class Change:
    """What was counted in some seconds; in none, nothing is known."""

    seconds: float
    totals: Mapping[str, int]
    buckets: Sequence[int]

    def rate(self, *counters: str) -> float | None:
        return sum(self.totals[counter] for counter in counters) / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Point:
    """Some seconds of a plot: the means of the gauges."""

    time: float
    change: Change
    active: float
    limit: int
    queued: float


def joined(old: Sample, new: Sample) -> bool:
    """False: too long ago, the clock was set back, or another master counts from 0; no difference makes sense."""
    return (
        0 < new.time - old.time <= GAP
        and min(map(sub, new.totals.values(), old.totals.values())) >= 0
        and min(map(sub, new.buckets, old.buckets)) >= 0
    )


def change(old: Sample, new: Sample) -> Change:
    totals = {counter: total - old.totals[counter] for counter, total in new.totals.items()}
    return Change(new.time - old.time, totals, list(map(sub, new.buckets, old.buckets)))


def recent(samples: Sequence[Sample], seconds: float) -> Change:
    """Up to the last sample, as far back as nothing is missing."""
    last = first = samples[-1]
    for earlier in reversed(samples[:-1]):
        if last.time - earlier.time > seconds + 1e-6 or not joined(earlier, first):
            break
        first = earlier
    return change(first, last)


def points(samples: Sequence[Sample], now: float) -> Iterator[Point | None]:
    """A point for each STEP of the clock, None for a gap. The step that has just begun would be mostly noise."""
    group: list[Sample] = []  # the samples of one step, after the last one of the step before
    for sample in samples:
        if sample.time // STEP >= now // STEP:
            break
        if group and not joined(group[-1], sample):
            yield from (point(group), None)
            group = []
        elif len(group) > 1 and group[-1].time // STEP != sample.time // STEP:
            yield point(group)
            group = group[-1:]
        group.append(sample)
    if group:
        yield point(group)


def point(group: Sequence[Sample]) -> Point:
    counted = group[1:] or group
    active, queued = (sum(getattr(each, gauge) for each in counted) / len(counted) for gauge in ("active", "queued"))
    middle = (group[0].time + group[-1].time) / 2
    return Point(middle, change(group[0], group[-1]), active, group[-1].limit, queued)
