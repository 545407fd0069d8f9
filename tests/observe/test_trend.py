"""observe/trend.py: differences of samples, and gaps where they would make no sense."""

from __future__ import annotations

import pytest

from preforksmtp.observe.history import Sample
from preforksmtp.observe.trend import Change, change, joined, points, recent

NOW = 1_700_000_000.0  # a multiple of a step


def sample(moment: float, messages: int = 0, bucket: int = 0, active: int = 0, queued: int = 0) -> Sample:
    """`moment`: seconds after NOW."""
    return Sample(NOW + moment, active, 8, 1, queued, {"messages": messages, "rejected": 0}, [bucket, 0])


def steady(*moments: float) -> list[Sample]:
    """Four messages a second."""
    return [sample(moment, 1000 + int(4 * moment)) for moment in moments]


def rates(samples: list[Sample], now: float) -> list[float | None]:
    return [point and point.change.rate("messages") for point in points(samples, NOW + now)]


@pytest.mark.parametrize(
    ("old", "new", "together"),
    [
        (sample(0, 5, 5), sample(1, 7, 6), True),
        (sample(0, 5, 5), sample(1, 5, 5), True),  # nothing happened
        (sample(0), sample(5), True),
        (sample(0), sample(5.5), False),  # a gap
        (sample(0), sample(0), False),
        (sample(1), sample(0), False),  # the clock was set back
        (sample(0, 5, 5), sample(1, 0, 5), False),  # a new master
        (sample(0, 5, 5), sample(1, 5, 0), False),
    ],
)
def test_what_belongs_together(old: Sample, new: Sample, together: bool) -> None:
    assert joined(old, new) is together


def test_a_difference() -> None:
    found = change(sample(0, 5, 2), sample(4, 15, 5))
    assert found == Change(4.0, {"messages": 10, "rejected": 0}, [3, 0])
    assert found.rate("messages") == found.rate("messages", "rejected") == 2.5
    assert found.rate("rejected") == 0


def test_in_no_time_no_rate_is_known() -> None:
    assert change(sample(0, 5), sample(0, 5)).rate("messages") is None


@pytest.mark.parametrize(
    ("samples", "seconds"),
    [
        (steady(*range(61)), 10),
        (steady(*range(6)), 5),  # no more there are
        (steady(*range(11), *range(20, 24)), 3),  # a gap
        ([*steady(*range(10)), sample(10), sample(11, 4), sample(12, 8)], 2),  # a new master
        (steady(0), 0),
    ],
)
def test_recently_is_as_far_back_as_nothing_is_missing(samples: list[Sample], seconds: float) -> None:
    found = recent(samples, 10)
    assert found.seconds == seconds
    assert found.rate("messages") == (4 if seconds else None)


@pytest.mark.parametrize(
    ("samples", "now", "found"),
    [
        ([], 0, []),
        (steady(0), 10, [None]),  # a point without a rate
        (steady(*range(20)), 20, [4] * 4),
        (steady(*range(20)), 17, [4] * 3),  # the step that has just begun
        (steady(*range(5), *range(10, 15)), 15, [4, None, 4]),  # a gap
        ([*steady(*range(5)), *(sample(5 + second, 4 * second) for second in range(5))], 10, [4, None, 4]),  # a new master
    ],
)
def test_points(samples: list[Sample], now: float, found: list[float | None]) -> None:
    assert rates(samples, now) == found


def test_a_point_has_the_means_of_its_step_and_the_last_limit() -> None:
    (first, second) = points([sample(each, active=each, queued=2 * (each > 4)) for each in range(10)], NOW + 10)
    assert first is not None
    assert second is not None
    # The difference of a step begins at the last sample of the step before, which counts there and not here.
    assert (first.time, first.active, first.queued, first.limit) == (NOW + 2, 2.5, 0, 8)
    assert (second.time, second.active, second.queued, second.change.seconds) == (NOW + 6.5, 7, 2, 5)
