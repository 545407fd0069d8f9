"""Generations under the real Master: roll, HUP without root's half, and a scoreboard that outlives a bigger one."""

from __future__ import annotations

import os
import signal

from preforksmtp.prefork.scoreboard import MESSAGES, Scoreboard
from tests.prefork.conftest import Start
from tests.processes import wait_until


def test_hup_replaces_every_worker(start: Start) -> None:
    server = start(workers=3).ready()
    old = server.children()
    server.send(signal.SIGHUP)
    server.wait_for("reload done, 3 workers")
    wait_until(lambda: len(server.children()) == 3 and not old & server.children(), "three new workers")


def test_one_new_worker_is_ready_before_an_old_one_leaves(start: Start) -> None:
    server = start(workers=3, hearing=60.0).ready()  # a busy machine may be slow to tell them
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    capacity = 3
    for line in server.lines[server.lines.index("INFO serving") :]:
        capacity += ": ready after" in line
        capacity -= "draining" in line
        assert 3 <= capacity <= 4, server.output
    assert capacity == 3


def test_no_second_worker_too_many_while_an_old_one_has_yet_to_begin_draining(start: Start) -> None:
    server = start(workers=3, hearing=60.0).ready()
    old = server.children()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    server.send(signal.SIGHUP)
    server.wait_for(": ready after", count=4)
    for _ in range(3):  # three rounds of the master
        server.totals()
    assert len(server.children()) == 4
    for pid in old:
        os.kill(pid, signal.SIGCONT)
    server.wait_for("reload done, 3 workers")


def test_a_roll_does_not_wait_for_a_worker_that_hangs(start: Start) -> None:
    server = start(workers=2, hearing=0.2).ready()
    old = server.children()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    server.send(signal.SIGHUP)
    server.wait_for(": ready after", count=4)
    for pid in old:
        os.kill(pid, signal.SIGCONT)
    server.wait_for("reload done, 2 workers")


def test_counters_go_on(start: Start) -> None:
    server = start(workers=2).ready()
    for _ in range(3):
        server.ask("count")
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    server.ask("count")
    assert server.totals()["messages"] == 4


def test_hup_while_the_first_generation_boots_is_harmless(start: Start) -> None:
    server = start(workers=2)
    server.wait_for("starting 2 workers")
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    wait_until(lambda: len(server.children()) == 2, "two workers")


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
    assert big.totals()["messages"] == 7
    big.absorb()
    assert big.previous is small  # its worker lives
    slot.rows[0][MESSAGES] = 6
    small.release(slot)
    assert big.totals()["messages"] == 8
    big.absorb()
    assert big.previous is None
    assert big.totals()["messages"] == 8
    assert small.totals()["messages"] == 0  # who still looks there counts nothing twice
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
