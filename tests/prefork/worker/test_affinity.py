"""prefork/worker/affinity.py: when session threads stay on one processor, on which one, and that nobody else has to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from preforksmtp.prefork.scoreboard import READY, Scoreboard, Slot
from preforksmtp.prefork.worker import affinity
from preforksmtp.prefork.worker.affinity import CALM, CONTENDED, HOLD, PROVEN, STAYING, TRIAL, Affinity
from preforksmtp.prefork.worker.seat import Drain, Seat
from tests.processes import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sched_setaffinity is Linux'")


class Machine:
    """Two processors and a worker; the clock, and what the kernel would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slots: int = 4) -> None:
        self.now = 100.0
        self.interruptions = self.idle = self.all = 0
        self.board = Scoreboard(slots, 1)
        self.set: dict[int, set[int]] = {}
        monkeypatch.setattr(affinity, "_interruptions", lambda: self.interruptions)
        monkeypatch.setattr(affinity, "_processor_times", lambda processors: (self.idle + 1, self.all + 1))
        monkeypatch.setattr(affinity, "_threads", lambda: list(self.threads))
        monkeypatch.setattr(affinity, "_children", lambda threads: list(self.children))
        monkeypatch.setattr(affinity.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 7})
        monkeypatch.setattr(os, "sched_setaffinity", lambda pid, mask: self.set.__setitem__(pid, set(mask)))
        self.threads: list[int] = [1, 11]
        self.children: list[int] = []
        self.seats = [seat(11)]

    def worker(self, place: int = -1) -> tuple[Slot, Affinity]:
        slot = self.board.claim(1)
        assert slot is not None
        slot.state, slot.place = READY, place + 1
        return slot, Affinity(slot, self.board.slots)

    def look(self, worker: Affinity, seconds: float = 0.25, idle: float = 0.0, contended: bool = True) -> float:
        """After so many seconds, of which the processors were idle for a share."""
        self.now += seconds
        self.interruptions += int(1000 * seconds) if contended else 0
        self.all += int(200 * seconds)
        self.idle += int(200 * seconds * idle)
        return worker.look(self.seats, self.now)


def seat(native: int) -> Seat:
    made = Seat(memoryview(bytearray(8)), Drain())
    made.native = native
    return made


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_worker_that_nobody_interrupts_does_not_look(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    slot, worker = machine.worker()
    monkeypatch.setattr(affinity, "_processor_times", lambda processors: pytest.fail("it looked"))
    for _ in range(5):
        assert machine.look(worker, contended=False) == CALM
    assert (slot.place, machine.set) == (0, {})


def test_it_stays_while_all_processors_are_busy(machine: Machine) -> None:
    slot, worker = machine.worker()
    assert machine.look(worker) == CONTENDED  # from here on it is measured
    assert slot.place == 0
    assert machine.look(worker, idle=0.02) == STAYING
    assert slot.place == 4 + 1
    assert machine.set == {11: {4}, 1: {4, 7}}  # the session thread, and not the main thread


def test_it_roams_while_one_is_idle(machine: Machine) -> None:
    slot, worker = machine.worker()
    for _ in range(10):
        assert machine.look(worker, idle=0.2) == CONTENDED
    assert (slot.place, machine.set) == (0, {})


def test_it_roams_again_when_staying_leaves_processors_idle(machine: Machine) -> None:
    slot, worker = machine.worker()
    for _ in range(2):
        machine.look(worker)
    assert slot.place
    machine.look(worker, TRIAL / 2, idle=1.0)  # too short to judge
    assert slot.place
    machine.look(worker, TRIAL / 2, idle=0.0)
    assert slot.place == 0
    assert machine.set[11] == {4, 7}
    hold = machine.now + 2 * HOLD
    while machine.now + 0.25 < hold:
        machine.look(worker)
        assert slot.place == 0
    machine.look(worker)
    machine.look(worker)
    assert slot.place  # another attempt, which is a good one
    machine.look(worker, PROVEN)
    machine.look(worker, TRIAL, idle=0.5)
    began = machine.now
    while not slot.place:
        machine.look(worker)
    assert HOLD <= machine.now - began < 2 * HOLD


def test_workers_that_decide_at_once_spread(machine: Machine) -> None:
    workers = [machine.worker() for _ in range(4)]
    for _, worker in workers:
        machine.look(worker)
    for slot, worker in workers:
        before = slot.place
        machine.look(worker)
        assert not before
    assert sorted(slot.place - 1 for slot, _ in workers) == [4, 4, 7, 7]


def test_where_two_too_many_are_one_moves(machine: Machine) -> None:
    workers = [machine.worker() for _ in range(3)]
    for _, worker in workers:
        machine.look(worker)
        worker._stay(4)
    for _ in range(3):
        for _, worker in workers:
            machine.look(worker, TRIAL)
    assert sorted(slot.place - 1 for slot, _ in workers) == [4, 4, 7]


def test_what_a_handler_starts_is_let_go(machine: Machine) -> None:
    _, worker = machine.worker()
    machine.look(worker)
    machine.look(worker)
    machine.threads += [12, 13]
    machine.children = [99]
    machine.seats.append(seat(13))
    machine.look(worker, 0.5)
    assert machine.set == {1: {4, 7}, 11: {4}, 12: {4, 7}, 13: {4}, 99: {4, 7}}
    machine.set.clear()
    machine.look(worker, 0.25)
    assert machine.set == {}  # once each


def test_one_processor_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    board = Scoreboard(1, 1)
    assert not Affinity(board.slots[0], board.slots).possible


@pytest.fixture
def session() -> Iterator[tuple[Seat, threading.Event, threading.Event]]:
    """A thread on a seat that starts another thread and a process when it is told to."""
    there, go, over = seat(0), threading.Event(), threading.Event()
    children: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def run() -> None:
        there.native = threading.get_native_id()
        ready.set()
        go.wait()
        threading.Thread(target=over.wait, name="helper").start()
        children.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        over.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    yield there, go, over
    go.set()
    over.set()
    thread.join()
    for child in children:
        child.communicate()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_on_this_machine(session: tuple[Seat, threading.Event, threading.Event]) -> None:
    there, go, _ = session
    allowed = os.sched_getaffinity(0)
    board = Scoreboard(1, 1)
    worker = Affinity(board.slots[0], board.slots)
    worker._stay(min(allowed))
    worker._apply([there])
    assert os.sched_getaffinity(there.native) == {min(allowed)}
    assert os.sched_getaffinity(0) == allowed
    go.set()

    def started() -> list[int]:
        threads = [thread.native_id or 0 for thread in threading.enumerate() if thread.name == "helper"]
        children = affinity._children([there.native])
        return threads + children if threads and children else []

    wait_until(started, "a thread and a process")
    assert {frozenset(os.sched_getaffinity(number)) for number in started()} == {frozenset({min(allowed)})}
    worker._apply([there])
    assert {frozenset(os.sched_getaffinity(number)) for number in started()} == {frozenset(allowed)}
    worker._stay(-1)
    worker._apply([there])
    assert os.sched_getaffinity(there.native) == allowed
    idle, every = affinity._processor_times(sorted(allowed))
    assert 0 < idle < every
