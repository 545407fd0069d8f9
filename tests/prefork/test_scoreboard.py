"""Rows, slots, and totals that never go back."""

from __future__ import annotations

import os
import threading

import pytest

from preforksmtp.prefork import scoreboard
from preforksmtp.prefork.scoreboard import (
    BOUNDS,
    BUCKETS,
    BYTES,
    COUNTERS,
    ERRORS,
    HANDLER_NS,
    MASTER_COUNTERS,
    MESSAGES,
    SESSIONS,
    SINCE,
    Scoreboard,
)


def test_counter_constants_are_their_place_in_the_table() -> None:
    for index, name in enumerate(COUNTERS):
        assert getattr(scoreboard, name.upper()) == index
    assert len(COUNTERS) == SINCE


def test_rows_are_whole_lines_and_do_not_overlap() -> None:
    board = Scoreboard(slots=3, rows=4)
    rows = [row for slot in board.slots for row in slot.rows] + [board.retired]
    assert {row.nbytes % 64 for row in rows} == {0}
    assert {slot.gauges.nbytes % 64 for slot in board.slots} == {0}
    for number, row in enumerate(rows, 1):
        row[:] = memoryview(bytes([number]) * row.nbytes).cast("Q")
    for number, row in enumerate(rows, 1):
        assert bytes(row) == bytes([number]) * row.nbytes
    assert [slot.state for slot in board.slots] == [scoreboard.FREE] * 3


def test_claim_takes_each_slot_once() -> None:
    board = Scoreboard(slots=2, rows=1)
    first, second = board.claim(7), board.claim(8)
    assert first is not None
    assert second is not None
    assert (first.index, second.index) == (0, 1)
    assert (first.generation, second.generation) == (7, 8)
    assert first.state == scoreboard.BOOTING
    assert first.heartbeat == first.forked > 0
    assert board.claim(9) is None
    board.release(first)
    assert board.claim(9) is first


def test_release_keeps_the_counters_and_zeroes_the_slot() -> None:
    board = Scoreboard(slots=2, rows=2)
    for messages in (3, 4):
        slot = board.claim(1)
        assert slot is not None
        slot.pid = 99
        slot.rows[0][MESSAGES] += messages
        slot.rows[1][MESSAGES] += 10
        slot.rows[1][SINCE] = 5
        slot.rows[1][BUCKETS] += 2
        slot.rows[0][HANDLER_NS] += 1_500_000_000
        before = board.readings()
        board.release(slot)
        assert board.readings() == before
        assert not any(slot.gauges)
        assert not any(word for row in slot.rows for word in row)
    assert board.totals() == dict.fromkeys(COUNTERS, 0) | {"messages": 27}
    assert board.retired[SINCE] == 0
    readings = board.readings()
    assert readings.handler_seconds == 3.0
    assert readings.handler_buckets == [4] + [0] * len(BOUNDS)


def test_the_master_counts_for_itself() -> None:
    board = Scoreboard(slots=1, rows=1)
    for counter in MASTER_COUNTERS:
        board.count(counter)
    board.count("workers_died")
    assert board.readings().master == dict.fromkeys(MASTER_COUNTERS, 1) | {"workers_died": 2}
    assert (board.wanted, board.beat, board.queued, board.level, board.stopping) == (0, 0, 0, 0, False)


def test_active_and_oldest_are_read_from_the_rows() -> None:
    slot = Scoreboard(slots=1, rows=3).slots[0]
    assert (slot.active(), slot.oldest()) == (0, 0)
    slot.rows[0][SINCE] = 200
    slot.rows[2][SINCE] = 100
    assert (slot.active(), slot.oldest()) == (2, 100)


def test_stop_flag() -> None:
    board = Scoreboard(slots=1, rows=1)
    assert not board.stopping
    board.stop()
    assert board.stopping


def test_what_a_child_writes_the_parent_reads() -> None:
    board = Scoreboard(slots=1, rows=1)
    slot = board.claim(1)
    assert slot is not None
    pid = os.fork()
    if pid == 0:
        for _ in range(1000):
            slot.rows[0][SESSIONS] += 1
        slot.rows[0][BYTES] += 1 << 40
        os._exit(0)
    os.waitpid(pid, 0)
    board.release(slot)
    assert board.totals()["sessions"] == 1000
    assert board.totals()["bytes"] == 1 << 40


def test_totals_never_go_back_while_slots_are_folded() -> None:
    board = Scoreboard(slots=4, rows=2)
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(board.totals()["errors"])

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2000):
        slot = board.claim(1)
        assert slot is not None
        slot.rows[1][ERRORS] += 1
        board.release(slot)
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert board.totals()["errors"] == 2000


def test_totals_answer_even_if_the_master_died_in_mid_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scoreboard(slots=1, rows=1)
    slot = board.claim(1)
    assert slot is not None
    slot.rows[0][SESSIONS] = 5

    class MasterKilled(Exception):
        pass

    def die() -> list[int]:
        raise MasterKilled

    monkeypatch.setattr(slot, "counts", die)
    with pytest.raises(MasterKilled):
        board.release(slot)
    monkeypatch.undo()
    assert board.totals()["sessions"] == 5
