"""observe/snapshot.py, history.py: what the scoreboard says, as values."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from preforksmtp.observe.history import History
from preforksmtp.observe.snapshot import Facts, as_json, quantile, take
from preforksmtp.prefork.reasons import AGE
from preforksmtp.prefork.scoreboard import BOUNDS, BUCKETS, DRAINING, MESSAGES, READY, SESSIONS, SINCE, Scoreboard, Slot

FACTS = Facts("1.0", "mail", 4711, time.time() - 100, ["smtp://127.0.0.1:25"])


def claim(board: Scoreboard, state: int, limit: int = 2, active: int = 0) -> Slot:
    slot = board.claim(1)
    assert slot is not None
    slot.state, slot.limit, slot.pid = state, limit, 100 + slot.index
    for row in slot.rows[:active]:
        row[SINCE] = time.monotonic_ns() - 5_000_000_000
        row[SESSIONS] += 1
    return slot


@pytest.mark.parametrize(
    ("states", "stopping", "wanted", "condition", "unready"),
    [
        ([], False, 2, "starting", "no worker is ready"),
        ([], False, 0, "dismissed", "no worker is ready"),
        ([(DRAINING, 0)], False, 2, "starting", "no worker is ready"),
        ([(READY, 0)], False, 2, "ready", ""),
        ([(READY, 1)], False, 2, "ready", ""),
        ([(READY, 2)], False, 2, "busy", ""),
        ([(READY, 2), (READY, 1)], False, 2, "ready", ""),
        ([(READY, 2), (DRAINING, 0)], False, 2, "busy", ""),
        ([(READY, 0)], True, 2, "stopping", "stopping"),
    ],
)
def test_condition(
    states: list[tuple[int, int]], stopping: bool, wanted: int, condition: str, unready: str
) -> None:
    board = Scoreboard(slots=4, rows=2)
    board.wanted = wanted
    for state, active in states:
        claim(board, state, active=active)
    if stopping:
        board.stop()
    snapshot = take(board, FACTS)
    assert (snapshot.condition, snapshot.unready) == (condition, unready)


def test_the_master_is_alive_for_five_seconds_after_its_last_round() -> None:
    board = Scoreboard(slots=1, rows=1)
    board.beat = time.monotonic_ns() - 4_000_000_000
    assert take(board, FACTS).alive
    board.beat = time.monotonic_ns() - 6_000_000_000
    assert not take(board, FACTS).alive


def test_a_worker() -> None:
    board = Scoreboard(slots=2, rows=4)
    slot = claim(board, READY, limit=4, active=2)
    slot.rows[3][MESSAGES] = 7
    slot.rss, slot.cpu, slot.threads, slot.retire = 1 << 20, 2_500_000_000, 3, AGE
    slot.longest = time.monotonic_ns() - 1_000_000_000
    (worker,) = take(board, FACTS).workers
    assert (worker.pid, worker.state, worker.active, worker.limit, worker.threads) == (100, "ready", 2, 4, 3)
    assert (worker.sessions, worker.messages, worker.memory, worker.cpu) == (2, 7, 1 << 20, 2.5)
    assert worker.retiring == "max_worker_age"
    assert 5 <= worker.oldest < 6
    assert 1 <= worker.longest < 2


def test_workers_of_an_older_board_are_seen_from_the_newer_one_only() -> None:
    small = Scoreboard(1, 1)
    old = claim(small, DRAINING)
    big = Scoreboard(2, 2, previous=small)
    claim(big, READY)
    assert sorted(worker.state for worker in take(big, FACTS).workers) == ["draining", "ready"]
    small.watched = True  # by a status process that knows of it alone
    small.release(old)
    big.absorb()
    assert big.previous is small
    small.watched = False
    big.absorb()
    assert big.previous is None


@pytest.mark.parametrize(
    ("buckets", "share", "seconds"),
    [
        ([0] * 16, 0.5, None),
        ([10] + [0] * 15, 0.5, 0.0005),  # half of the way to 1 ms
        ([10] + [0] * 15, 1.0, 0.001),
        ([0, 4, *[0] * 14], 0.5, 0.00175),
        ([1] * 2 + [0] * 14, 0.95, 0.001 + 0.0015 * 0.9),
        ([0] * 15 + [3], 0.5, 60.0),  # longer than the last bound
    ],
)
def test_quantile(buckets: list[int], share: float, seconds: float | None) -> None:
    found = quantile(buckets, share)
    assert found is None if seconds is None else found == pytest.approx(seconds)


def test_json_has_everything() -> None:
    board = Scoreboard(slots=2, rows=1)
    slot = claim(board, READY, limit=1)
    slot.rows[0][BUCKETS + 1] = 3
    shown = as_json(take(board, FACTS), FACTS)
    assert shown["state"] == "ready"
    assert shown["master"] == 4711
    assert shown["uptime_seconds"] >= 100
    assert shown["totals"]["messages"] == shown["totals"]["reloads"] == 0
    assert shown["handler_seconds"]["count"] == 3
    assert shown["handler_seconds"]["buckets"][1] == {"le": BOUNDS[1], "count": 3}
    assert shown["handler_seconds"]["buckets"][-1] == {"le": None, "count": 0}
    assert [worker["pid"] for worker in shown["workers"]] == [100]


def test_the_history_keeps_the_last_samples() -> None:
    board, history = Scoreboard(slots=2, rows=2), History(seconds=3)
    assert history.samples() == []
    slot = claim(board, READY, limit=2, active=1)
    for number in range(5):
        slot.rows[1][MESSAGES] += 1
        slot.rows[1][BUCKETS + 2] += 2
        board.queued = number
        history.add(replace(take(board, FACTS), time=1000.5 + number))
    assert history.written == 5
    samples = history.samples()
    assert [sample.time for sample in samples] == [1002.5, 1003.5, 1004.5]
    assert [sample.totals["messages"] for sample in samples] == [3, 4, 5]
    assert [sample.buckets[2] for sample in samples] == [6, 8, 10]
    assert [sample.queued for sample in samples] == [2, 3, 4]
    assert {(sample.active, sample.limit, sample.ready) for sample in samples} == {(1, 2, 1)}
