"""prefork/worker/seat.py: when a session is told that its worker leaves, and that who waits for a drain is woken."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Iterator

import pytest

from preforksmtp.prefork.worker import seat
from preforksmtp.prefork.worker.seat import BEGINNING, FAREWELL, GRACE, SILENCE, Drain


@pytest.fixture
def drain() -> Iterator[Drain]:
    drain = Drain()
    yield drain
    drain.close()


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(seat, "time", clock)
    return clock


def readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def test_a_drain_is_seen_for_ever_after(drain: Drain) -> None:
    assert not readable(drain.fd) and not readable(drain.notice)
    drain.begin(1.0)
    assert readable(drain.fd) and readable(drain.notice)
    drain.begin(2.0)
    assert readable(drain.fd) and readable(drain.notice)
    assert drain.deadline == 1.0


def test_a_process_that_the_application_has_forked_does_not_hide_it(drain: Drain) -> None:
    held = os.dup(drain._write), os.dup(drain._announce)  # as its child would
    drain.begin(time.monotonic())
    assert readable(drain.fd) and readable(drain.notice)
    for fd in held:
        os.close(fd)


@pytest.mark.parametrize("moves", [[], ["leave"], ["leave", "urge"], ["leave", "stop"], ["stop"], ["begin"]])
def test_no_descriptor_is_left(moves: list[str]) -> None:
    before = os.listdir("/proc/self/fd")
    drain = Drain()
    for move in moves:
        getattr(drain, move)(*([] if move == "urge" else [1.0]))
    drain.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_roll_is_noticed_by_who_is_silent_only(drain: Drain, clock: Clock) -> None:
    drain.leave(30.0)
    begun = clock.now
    assert (drain.leaving, drain.requested, drain.hurried) == (True, False, False)
    assert readable(drain.notice) and not readable(drain.fd)
    assert drain.deadline == begun + 30
    assert drain.until(begun - 300) == begun + GRACE, "idle for long: nothing for two seconds"
    assert drain.until(begun + 10) == begun + 10 + SILENCE
    assert SILENCE >= 1.0
    assert begun + 10 < drain.urge_at < begun + 30
    drain.leave(5.0)
    assert drain.deadline == begun + 30, "a second time changes nothing"


def test_a_roll_that_has_lasted_long_enough(drain: Drain, clock: Clock) -> None:
    drain.leave(30.0)
    begun = clock.now
    clock.now = drain.urge_at
    drain.urge()
    assert (drain.requested, drain.hurried, drain.urge_at) == (True, True, math.inf)
    assert readable(drain.fd)
    assert drain.until(clock.now) == clock.now + SILENCE, "whoever goes on hears it for the next MAIL"
    assert clock.now < drain.until(begun + 29) < drain.deadline, "in time for who begins nothing more"


def test_a_stop(drain: Drain, clock: Clock) -> None:
    drain.stop(30.0)
    begun = clock.now
    assert (drain.leaving, drain.requested, drain.hurried) == (True, True, False)
    assert drain.until(begun - 300) < begun, "idle: at once"
    assert drain.until(begun) == begun + FAREWELL, "time for QUIT"
    assert 0.2 <= FAREWELL < 0.5
    assert drain.until(begun + 20) == begun + 20 + FAREWELL, "whenever that comes"
    clock.now += BEGINNING
    assert drain.hurried


def test_a_stop_in_the_middle_of_a_roll(drain: Drain, clock: Clock) -> None:
    drain.leave(30.0)
    clock.now += 1.0
    drain.stop(60.0)
    assert drain.requested
    assert drain.until(clock.now - 10) < clock.now
    assert drain.deadline == clock.now + 29, "a deadline never moves back"


def test_at_once(drain: Drain, clock: Clock) -> None:
    drain.stop(30.0)
    drain.begin(clock.now + 0.5)
    assert drain.hurried
    assert drain.until(clock.now) == clock.now
    assert drain.deadline == clock.now + 0.5


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3.0])
def test_a_short_graceful_timeout_divides_among_all(clock: Clock, seconds: float) -> None:
    for begin in (Drain.leave, Drain.stop):
        drain = Drain()
        begin(drain, seconds)
        for began in (clock.now - 300, clock.now, clock.now + seconds):
            assert drain.until(began) <= clock.now + seconds, "told before it is cut off"
        drain.close()


def test_waiting_ends_with_the_beginning_of_a_drain(drain: Drain) -> None:
    begun = time.monotonic()
    drain.leave(60.0)
    drain.wait(60.0)
    drain.wait(0.01)
    assert time.monotonic() - begun < 30
