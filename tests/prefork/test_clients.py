"""The table of clients: sessions and rates over several tables, full windows, and workers that are killed."""

from __future__ import annotations

import mmap
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from preforksmtp.prefork import clients
from preforksmtp.prefork.clients import (
    ATTEMPTS,
    CONNECTIONS,
    FAILURES,
    MESSAGES,
    RATES,
    RECIPIENTS,
    WINDOW,
    Clients,
    Table,
)
from preforksmtp.prefork.scoreboard import Scoreboard
from tests.processes import wait_until


class Clock:
    """Time as the test has it, in minutes."""

    def __init__(self) -> None:
        self.minutes = 100.0

    def __call__(self) -> float:
        return self.minutes * 60


@pytest.fixture
def clock() -> Clock:
    return Clock()


def crowd(table: Table, start: int, number: int) -> list[int]:
    """Keys that all hash to the same place."""
    return [start + n * (table._mask + 1) for n in range(1, number + 1)]


# --- sessions


def test_sessions_are_summed_over_all_tables() -> None:
    board = Clients(slots=3, threads=4)
    key, other = board.key(b"a"), board.key(b"b")
    assert board.sessions(key) == 0
    places = [(table, table.enter(key)) for table in board.tables[:3] for _ in range(2)]
    board.tables[1].enter(other)
    assert (board.sessions(key), board.sessions(other), board.total()) == (6, 1, 7)
    for table, place in places:
        table.leave(place)
    assert (board.sessions(key), board.sessions(other), board.total()) == (0, 1, 1)


def test_a_key_is_the_same_in_every_process_and_never_zero() -> None:
    board = Clients(slots=1, threads=1)
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, board.key(b"192.0.2.1").to_bytes(8, "little"))
        os._exit(0)
    assert int.from_bytes(os.read(read, 8), "little") == board.key(b"192.0.2.1")
    os.wait()
    assert len({board.key(bytes([n])) for n in range(256)} | {0}) == 257
    assert Clients(slots=1, threads=1).key(b"x") != board.key(b"x"), "nobody can know where a client hashes to"


def test_sessions_of_nobody_count_for_the_server_only() -> None:
    board = Clients(slots=1, threads=1)
    assert board.tables[0].enter(0) == -1
    assert board.total() == 1
    assert board.sessions(0) == 0
    board.tables[0].leave(-1)
    assert board.total() == 0


def test_load_is_of_the_workers_that_take_new_sessions() -> None:
    board = Clients(slots=3, threads=10)
    for table, capacity in zip(board.tables, (10, 10, 0), strict=False):
        table.open(capacity)
        table.enter(board.key(b"a"))
    assert board.load() == (2, 20)
    board.tables[0].open(0)  # drains
    assert board.load() == (1, 10)
    assert board.total() == 3


# --- rates


@pytest.mark.parametrize(
    ("minutes", "seen"),
    [
        (100.5, 10),
        (100.9, 10),
        (101.0, 10),
        (101.25, 7.5),
        (101.5, 5),
        (101.75, 2.5),
        (101.99, 0.1),
        (102.0, 0),
        (999, 0),
    ],
)
def test_a_rate_fades_over_the_minute_after(clock: Clock, minutes: float, seen: float) -> None:
    board = Clients(slots=2, threads=1, clock=clock)
    key = board.key(b"a")
    for table in board.tables[:2]:
        place = table.enter(key)
        table.count(place, MESSAGES, 5)
        table.leave(place)
    clock.minutes = minutes
    assert board.rate(key, MESSAGES) == pytest.approx(seen)


def test_rates_are_kept_apart_and_taken_back(clock: Clock) -> None:
    board = Clients(slots=1, threads=1, clock=clock)
    table, key = board.tables[0], board.key(b"a")
    place = table.enter(key)
    for rate, count in ((CONNECTIONS, 1), (MESSAGES, 2), (RECIPIENTS, 3), (FAILURES, 4), (ATTEMPTS, 5)):
        minute = table.count(place, rate, count)
    assert [board.rate(key, rate) for rate in range(RATES)] == [1, 2, 3, 4, 5]
    table.take_back(place, FAILURES, minute)
    assert board.rate(key, FAILURES) == 3
    table.count(place, FAILURES, clients._MOST + 1)
    assert board.rate(key, FAILURES) == 3, "a count that does not fit is left out"


@pytest.mark.parametrize(("minutes", "left", "more"), [(0, 1, 0), (1, 1, 3), (1.5, 0.5, 3), (2, 0, 3), (3, 0, 3)])
def test_what_is_taken_back_was_counted_then(clock: Clock, minutes: float, left: float, more: int) -> None:
    """Not from what was counted since: that would be credit for whoever takes back a minute late."""
    board = Clients(slots=1, threads=1, clock=clock)
    table, key = board.tables[0], board.key(b"a")
    place = table.enter(key)
    minute = table.count(place, FAILURES, 2)
    clock.minutes += minutes
    table.count(place, FAILURES, more)
    table.take_back(place, FAILURES, minute)
    assert board.rate(key, FAILURES) == left + more
    for _ in range(5):
        table.take_back(place, FAILURES, minute)
    assert board.rate(key, FAILURES) == more, "never below zero"


def test_a_reader_that_took_the_time_before_the_minute_changed_still_sees_the_count(clock: Clock) -> None:
    board = Clients(slots=1, threads=1, clock=clock)
    key = board.key(b"a")
    clock.minutes = 101
    place = board.tables[0].enter(key)
    board.tables[0].count(place, MESSAGES, 7)
    clock.minutes = 100.999
    assert board.rate(key, MESSAGES) == 7


def test_minutes_wrap_round(clock: Clock) -> None:
    board = Clients(slots=1, threads=1, clock=clock)
    key = board.key(b"a")
    clock.minutes = clients._MINUTES
    place = board.tables[0].enter(key)
    board.tables[0].count(place, MESSAGES, 8)
    clock.minutes += 1.5
    assert board.rate(key, MESSAGES) == pytest.approx(4)
    board.tables[0].count(place, MESSAGES, 8)
    assert board.rate(key, MESSAGES) == pytest.approx(12)


# --- full windows


def test_who_is_gone_longest_is_forgotten_first_and_nobody_with_a_session(clock: Clock) -> None:
    board = Clients(slots=1, threads=1, clock=clock)
    table = board.tables[0]
    keys = crowd(table, 77, WINDOW + 3)
    places = [table.enter(key) for key in keys[:WINDOW]]
    assert sorted(places) == list(range(77, 77 + WINDOW))
    assert table.enter(keys[WINDOW]) == -1, "all have sessions"
    assert board.total() == WINDOW + 1
    table.count(places[2], MESSAGES)
    table.leave(places[2])
    clock.minutes += 1
    table.count(places[5], MESSAGES)
    table.leave(places[5])
    assert table.enter(keys[WINDOW + 1]) == places[2]
    assert table.enter(keys[WINDOW + 2]) == places[5]
    assert [board.sessions(key) for key in keys] == [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1]
    assert board.rate(keys[WINDOW + 2], MESSAGES) == 0, "the newcomer does not inherit"


def test_no_number_of_clients_makes_it_grow_or_lose_a_session() -> None:
    board = Clients(slots=1, threads=200)
    table = board.tables[0]
    size = len(board.memory._map)
    lasting = [board.key(b"stay%d" % n) for n in range(200)]
    for key in lasting:
        assert table.enter(key) >= 0
    for n in range(30_000):
        place = table.enter(board.key(b"%d" % n))
        assert place >= 0
        table.leave(place)
    assert [board.sessions(key) for key in lasting] == [1] * 200
    assert board.total() == 200
    assert len(board.memory._map) == size
    assert board._used[0] <= clients.ENTRIES + WINDOW


def test_there_is_room_for_eight_clients_per_thread() -> None:
    table = Clients(slots=1, threads=5000).tables[0]
    assert table._mask + 1 >= 8 * 5000


# --- the end of a worker


def test_release_drops_sessions_and_keeps_rates(clock: Clock) -> None:
    board = Scoreboard(slots=2, rows=4)
    board.clients = Clients(slots=2, threads=4, clock=clock)
    slot = board.claim(1)
    assert slot is not None
    table, key, old = board.clients.tables[slot.index], board.clients.key(b"a"), board.clients.key(b"old")
    table.open(4)
    table.count(table.enter(old), MESSAGES)
    clock.minutes += 2
    place = table.enter(key)
    table.count(place, MESSAGES, 2)
    clock.minutes += 1
    table.count(place, MESSAGES, 3)
    board.release(slot)
    assert (board.clients.sessions(key), board.clients.total(), board.clients.load()) == (0, 0, (0, 0))
    assert board.clients.rate(key, MESSAGES) == 5
    assert board.clients.tables[-1].find(old) == -1, "what nobody asks for any more is not taken over"
    assert not any(table.keys.tolist() + table.sessions.tolist() + [w for rate in table.rates for w in rate.tolist()])
    assert not any(table.header.tolist())
    again = table.enter(key)
    table.count(again, MESSAGES, 4)
    assert board.clients.rate(key, MESSAGES) == 9
    board.clients.release(slot.index)
    assert board.clients.rate(key, MESSAGES) == 9


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


LIMIT, WORKERS, THREADS = 3, 3, 3


def test_the_limit_holds_among_processes_and_after_one_is_killed() -> None:
    """Nine threads in three processes want to be in, three may. `inside` has a byte for each who is."""
    board = Clients(slots=WORKERS, threads=THREADS)
    key = board.key(b"client")
    inside = mmap.mmap(-1, WORKERS * THREADS)
    counts = memoryview(mmap.mmap(-1, 8 * 8 * WORKERS)).cast("Q")  # admitted, excess, stop

    def visit(worker: int, thread: int, table: Table) -> None:
        mine = worker * THREADS + thread
        while not counts[2 * WORKERS]:
            if board.sessions(key) >= LIMIT:
                time.sleep(0)
                continue
            place = table.enter(key)
            if board.sessions(key) <= LIMIT:
                inside[mine] = 1
                counts[worker] += 1
                time.sleep(0.0002)  # long enough for another to come in beside
                if sum(inside[:]) > LIMIT:
                    counts[WORKERS + worker] += 1
                inside[mine] = 0
            table.leave(place)

    def work(worker: int) -> None:
        table = board.tables[worker]
        threads = [threading.Thread(target=visit, args=(worker, n, table), daemon=True) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    pids = [forked(lambda worker=worker: work(worker)) for worker in range(WORKERS)]  # type: ignore[misc]
    try:
        wait_until(lambda: all(counts[worker] > 300 for worker in range(WORKERS)), "each process is let in")
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)
        inside[:THREADS] = bytes(THREADS)
        board.release(0)
        before = [counts[worker] for worker in (1, 2)]
        wait_until(lambda: all(counts[w] > b + 300 for w, b in zip((1, 2), before, strict=True)), "the others go on")
    finally:
        counts[2 * WORKERS] = 1
        for pid in pids[1:]:
            os.waitpid(pid, 0)
    assert [counts[WORKERS + worker] for worker in range(WORKERS)] == [0] * WORKERS, "more were inside than the limit"
    assert (board.sessions(key), board.total()) == (0, 0), "who was killed is not counted for ever"


def test_killed_in_the_middle_of_anything_the_table_is_sound() -> None:
    board = Clients(slots=1, threads=50)
    table = board.tables[0]
    crowded = crowd(table, 5, 3 * WINDOW)

    def work() -> None:
        rng = random.Random(1)
        places: list[int] = []
        while True:
            places.append(table.enter(rng.choice(crowded)))
            if places[-1] >= 0:
                table.count(places[-1], rng.randrange(RATES))
            if len(places) > 6:
                table.leave(places.pop(rng.randrange(len(places))))

    for turn in range(10):
        pid = forked(work)
        wait_until(lambda: board.total() > 5, "it works")
        time.sleep(0.002 * turn)  # not to wait for anything: to be in the middle of something else each time
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        keys = [key for key in table.keys.tolist() if key]
        assert len(keys) == len(set(keys)), "each client stands in one place"
        assert set(keys) <= set(crowded)
        board.release(0)
        assert (board.total(), [board.sessions(key) for key in crowded]) == (0, [0] * len(crowded))
        assert not any(table.keys.tolist())
