"""What 64 KiB of the worst input cost, parser by parser (tests/worstcases.py).

Linear, and not much: the bounds are ten times what is meant, which is 5 ms (loadtest/cost.py), for machines are busy;
CPU time of this thread alone, the best of some runs. What is quadratic is beyond them by far.
"""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable

import pytest

from preforksmtp.smtp.reply import Reject
from tests.worstcases import CASES, Case, per_64_kib, seconds

MOST = 0.05
MOST_MEMORY = 1 << 20  # bytes, of one parser at work
NOTHING = 0.0005  # seconds, below which a ratio means nothing


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_64_kib_of_it_cost_little(case: Case) -> None:
    for rounds in (1, 3, 10):
        if per_64_kib(case, rounds) < MOST:
            return
    pytest.fail(f"{per_64_kib(case) * 1e3:.1f} ms")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_four_times_as_much_costs_four_times_as_much(case: Case) -> None:
    """Sixteen times would be quadratic."""
    for rounds in (1, 5, 20):
        whole, quarter = seconds(case, case.most, rounds), seconds(case, case.most // 4, rounds)
        if whole < NOTHING or whole < 10 * quarter:
            return
    pytest.fail(f"{whole * 1e3:.2f} ms, and {quarter * 1e3:.2f} ms for a quarter of it")


def test_what_is_quadratic_is_seen() -> None:
    """The bounds are no idle ones."""

    def loop(size: int) -> Callable[[], object]:
        return lambda: sum(1 for _ in range((size // 32) ** 2))

    case = Case("quadratic", 65536, loop)
    assert per_64_kib(case, 1) > MOST or seconds(case, 65536) > 10 * seconds(case, 16384)


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_takes_little_memory_meanwhile(case: Case) -> None:
    """Of very short lines or attributes there are many, and an object for each is a multiple of what was sent."""
    run = case.make(case.most)
    seconds(case, case.most, 1)  # caches
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with contextlib.suppress(Reject, ConnectionError, ValueError):
            run()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
