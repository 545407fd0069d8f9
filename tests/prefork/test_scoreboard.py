"""Rows, slots, and totals that never go back."""

from __future__ import annotations

import json
import os
import random
import threading
import time

import pytest

from preforksmtp.observe.metrics import exposition
from preforksmtp.observe.page import render
from preforksmtp.observe.snapshot import Facts, as_json, take
from preforksmtp.prefork import calls, scoreboard
from preforksmtp.prefork.reasons import REASONS
from preforksmtp.prefork.scoreboard import (
    BOUNDS,
    BUCKETS,
    BYTES,
    CALL,
    COUNTERS,
    ERRORS,
    HANDLER_NS,
    MASTER_COUNTERS,
    MESSAGES,
    SESSIONS,
    SINCE,
    Scoreboard,
    Slot,
)

FACTS = Facts("1.0", "mail", 4711, time.time() - 100, ["smtp://127.0.0.1:25"])


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
    assert board.readings().sessions == dict.fromkeys(COUNTERS, 0) | {"messages": 27}
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
    assert board.readings().sessions["sessions"] == 1000
    assert board.readings().sessions["bytes"] == 1 << 40


def test_totals_never_go_back_while_slots_are_folded() -> None:
    board = Scoreboard(slots=4, rows=2)
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(board.readings().sessions["errors"])

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
    assert board.readings().sessions["errors"] == 2000


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
    assert board.readings().sessions["sessions"] == 5


# --- what stands in a slot is a claim


def ready_slot(board: Scoreboard) -> Slot:
    slot = board.claim(1)
    assert slot is not None
    slot.state, slot.ready, slot.limit = scoreboard.READY, slot.forked, 2
    return slot


def test_reasons_to_retire_are_those_of_recycling() -> None:
    assert Slot.__dict__["retire"].most == len(REASONS) - 1


@pytest.mark.parametrize("name", sorted(gauge.name for gauge in scoreboard._GAUGES))
def test_no_value_of_a_gauge_breaks_who_reads_it(name: str) -> None:
    board = Scoreboard(slots=2, rows=2)
    board.wanted = 1
    for value in (0, 1, 2, 3, 4, 5, 9, 77, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1):
        slot = ready_slot(board)
        assert slot.fault() == "", "what a worker of ours has written"
        slot.gauges[Slot.__dict__[name].word] = value
        shown = exposition(take(board, FACTS), FACTS) + render(take(board, FACTS), FACTS, [])
        assert shown
        json.dumps(as_json(take(board, FACTS), FACTS))
        assert slot.state in range(4)
        assert 0 <= slot.retire < len(REASONS)
        assert slot.threads <= 2 >= slot.limit
        board.release(slot)
        assert not slot.taken
    slot = ready_slot(board)
    slot.gauges[Slot.__dict__[name].word] = 2**64 - 1
    assert slot.fault() == f"{name} {2**64 - 1}"


@pytest.mark.parametrize("counter", [SESSIONS, MESSAGES, BYTES, HANDLER_NS, BUCKETS])
def test_no_value_of_a_counter_makes_a_total_absurd_or_go_back(counter: int) -> None:
    board = Scoreboard(slots=2, rows=2)
    slot = ready_slot(board)
    slot.rows[0][counter] = 1000
    assert board.fault(slot) == ""
    for value in (2**64 - 1, 2**63, 2**58, 999):
        slot.rows[0][counter] = value
        assert slot.count(counter) == 1000, "as it was when the master last looked"
        assert str(value) in board.fault(slot)
    board.release(slot)
    assert board.retired[counter] == 1000
    for _ in range(300):  # lies that could be true, again and again
        slot = ready_slot(board)
        slot.rows[0][counter] = 59 * 10**7
        board.release(slot)
    assert board.retired[counter] < 2**63
    board.readings()


def test_totals_end_at_the_largest_number() -> None:
    board = Scoreboard(slots=1, rows=1)
    board.retired[MESSAGES] = 2**63 - 2
    slot = ready_slot(board)
    slot.rows[0][MESSAGES] = 100
    assert board.readings().sessions["messages"] == 2**63 - 1
    board.release(slot)
    assert board.readings().sessions["messages"] == 2**63 - 1


def test_a_tainted_slot_is_the_last_to_be_given_away() -> None:
    board = Scoreboard(slots=3, rows=1)
    first = ready_slot(board)
    first.tainted = True
    board.release(first)
    assert [ready_slot(board).index for _ in range(3)] == [1, 2, 0]


def test_random_words_are_a_fault_or_harmless() -> None:
    rng, faults = random.Random(8), 0
    board = Scoreboard(slots=2, rows=3)
    for _ in range(300):
        slot = ready_slot(board)
        section = board.memory.sections[slot.index]
        for _ in range(rng.randrange(1, 40)):
            section[rng.randrange(len(section))] = rng.choice((rng.getrandbits(64), rng.getrandbits(20), 2**64 - 1))
        for part in (board.clients.memory.sections[slot.index], board.pages.memory.sections[slot.index]):
            part[rng.randrange(64)] = rng.getrandbits(64)
        take(board, FACTS)
        board.clients.total()
        board.clients.load()
        board.clients.rate(board.clients.key(b"x"), 1)
        board.pages.read(slot.index)
        faults += bool(slot.fault() or board.fault(slot))
        assert all(isinstance(str(call), str) for call in slot.calls())
        board.release(slot)
    assert faults > 100
    assert not any(word for slot in board.slots for word in slot.words)


# --- calls of the handler


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (calls.INSIDE % ("message", "192.0.2.1", "a1-1", "me@x.test", ["b@x.test"]),
         "message: client 192.0.2.1, message a1-1 from <me@x.test> to ['b@x.test']"),
        (calls.OUTSIDE % ("connect", "unix", "a1"), "connect: client unix, session a1"),
        ("message\nx\nyy\n" + 600 * "\u20ac", "message: client x, message yy " + 163 * "\u20ac" + "\ufffd"),
        ("nothing that we wrote", "nothing that we wrote: client , session "),
    ],
)  # fmt: skip
def test_a_call_is_read_as_it_was_put(text: str, said: str) -> None:
    board = Scoreboard(slots=1, rows=2)
    slot = ready_slot(board)
    row = slot.rows[1]
    calls.put(row, 8 * (CALL + calls.TEXT), text.encode())
    assert slot.calls() == [], "no session is served there"
    row[SINCE] = 1
    (call,) = slot.calls()
    assert str(call) == said
    assert call.has_message == text.startswith("message")
    row[CALL + calls.TEXT] = 0
    assert slot.calls() == []


def test_a_bigger_scoreboard_counts_the_smaller_ones_workers() -> None:
    small = Scoreboard(1, 1)
    slot = small.claim(1)
    assert slot is not None
    slot.rows[0][MESSAGES] = 5
    small.count("reloads")
    small.count("reloads_failed")
    big = Scoreboard(4, 2, previous=small)
    other = big.claim(2)
    assert other is not None
    other.rows[1][MESSAGES] = 2
    big.count("reloads")
    assert big.readings().sessions["messages"] == 7
    big.absorb()
    assert big.previous is small  # its worker lives
    slot.rows[0][MESSAGES] = 6
    small.release(slot)
    assert big.readings().sessions["messages"] == 8
    big.absorb()
    assert big.previous is None
    assert big.readings().sessions["messages"] == 8
    assert small.readings().sessions["messages"] == 0  # who still looks there counts nothing twice
    master = big.readings().master
    assert (master["reloads"], master["reloads_failed"]) == (2, 1)
    assert small.absorbed
    assert not big.absorbed


def test_stopping_reaches_every_board() -> None:
    small = Scoreboard(1, 1)
    slot = small.claim(1)
    assert slot is not None
    big = Scoreboard(1, 1, previous=small)
    big.stop()
    assert small.stopping
