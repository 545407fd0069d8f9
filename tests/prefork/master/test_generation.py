"""prefork/master/generation.py: when the next generation moves to a bigger scoreboard, and what it keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.prefork.master.generation import FEW_SLOTS, SPARE_SLOTS, Generation, Plan, new_board

LISTENERS: Any = SimpleNamespace()


def plan(workers: int, threads: int) -> Plan:
    config: Any = SimpleNamespace(workers=workers, threads=threads)
    return Plan(config, LISTENERS, lambda worker: pytest.fail("nothing boots here"))


def first(workers: int, threads: int) -> Generation:
    it = plan(workers, threads)
    return Generation(it, 1, new_board(it.config))


MOST = (2 * 2 + SPARE_SLOTS - FEW_SLOTS) // 2  # workers that the scoreboard of two has room for


@pytest.mark.parametrize(("workers", "threads"), [(2, 4), (1, 1), (MOST, 4)])
def test_a_generation_that_fits_shares_the_scoreboard(workers: int, threads: int) -> None:
    former = first(2, 4)
    following = former.successor(plan(workers, threads))
    assert following.board is former.board
    assert following.number == 2
    assert following.config.workers == workers


@pytest.mark.parametrize(("workers", "threads"), [(MOST + 1, 4), (2, 5)])
def test_one_that_does_not_fit_has_a_bigger_scoreboard_which_keeps_the_totals(workers: int, threads: int) -> None:
    former = first(2, 4)
    slot = former.board.claim(1)
    assert slot is not None
    former.board.count("reloads")
    following = former.successor(plan(workers, threads))
    board = following.board
    assert board.previous is former.board
    assert len(board.slots) == 2 * workers + SPARE_SLOTS
    assert len(board.slots[0].rows) == threads
    assert board.readings().master["reloads"] == 1
