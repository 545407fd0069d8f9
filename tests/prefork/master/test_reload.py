"""Generations under the real Master: roll, and HUP without root's half."""

from __future__ import annotations

import os
import signal

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
