"""The throttle as arithmetic: who died when -> when the next fork may be."""

from __future__ import annotations

import pytest

from preforksmtp.prefork.master.throttle import LEAST, RATE, Throttle


def test_boot_failures_back_off_to_thirty_seconds() -> None:
    throttle, now, delays = Throttle(), 100.0, []
    for _ in range(8):
        delays.append(throttle.failed(now, now + 0.5))
        assert throttle.open_at == now + 0.5 + delays[-1]
        now = throttle.open_at
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_workers_of_one_wave_count_once() -> None:
    throttle = Throttle()
    assert throttle.failed(10, 11) == 1
    assert throttle.failed(10, 11.5) == 0.5  # what is left of it
    assert throttle.failed(12.5, 13) == 2


def test_one_that_boots_after_the_last_failure_clears_the_record() -> None:
    throttle = Throttle()
    throttle.failed(0, 1)
    throttle.failed(2, 3)
    throttle.booted(0)  # forked before the failure: proves nothing
    assert throttle.failed(41, 42) == 4
    throttle.booted(46)
    assert throttle.failures == 0
    assert throttle.failed(80, 81) == 1


def test_a_crash_each_second_never_waits() -> None:
    throttle = Throttle()
    for second in range(1000):
        now = 100.0 + second
        throttle.crashed(1)
        assert throttle.open_at <= now
        throttle.forked(now)


@pytest.mark.parametrize(("workers", "at_once"), [(1, LEAST), (4, LEAST), (64, 64)])
def test_as_many_as_there_are_workers_are_replaced_at_once(workers: int, at_once: int) -> None:
    throttle, now = Throttle(), 100.0
    for _ in range(at_once + 1):
        throttle.crashed(workers)
    for _ in range(at_once):
        assert throttle.open_at <= now
        throttle.forked(now)
    assert throttle.open_at == now + 1 / RATE


def test_a_crash_loop_forks_at_the_rate() -> None:
    throttle, now, forks = Throttle(), 100.0, 0
    while now < 130.0:
        throttle.crashed(1)
        now = max(now + 0.001, throttle.open_at)
        throttle.forked(now)
        forks += 1
    assert 30 * RATE <= forks <= 30 * RATE + LEAST + 1


def test_a_crash_is_owed_a_successor_though_others_do_not_boot() -> None:
    throttle = Throttle()
    for now in (100.0, 102.0, 105.0):
        throttle.failed(now, now)
    assert throttle.open_at == 109.0
    throttle.crashed(2)
    assert throttle.open_at <= 105.0
    throttle.forked(105.0)
    assert throttle.open_at == 109.0, "one fork, and the others wait on"


def test_what_is_owed_is_forgotten_when_nobody_is_missing_or_nothing_can_be_done() -> None:
    for forget in (Throttle.complete, lambda throttle: throttle.pause(101.0)):
        throttle = Throttle()
        throttle.failed(100.0, 100.0)
        throttle.crashed(2)
        forget(throttle)
        assert throttle.open_at == 101.0
