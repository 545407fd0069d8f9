"""The back-off as arithmetic: (forked, ready, died) -> delay until the next fork."""

from __future__ import annotations

from preforksmtp.prefork.throttle import Throttle


def test_boot_failures_back_off_to_thirty_seconds() -> None:
    throttle, now, delays = Throttle(), 100.0, []
    for _ in range(8):
        delays.append(throttle.died(now, None, now + 0.5))
        assert throttle.open_at == now + 0.5 + delays[-1]
        now = throttle.open_at
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_early_death_after_ready_is_replaced_at_once_then_backs_off() -> None:
    throttle, now, delays = Throttle(), 100.0, []
    for _ in range(7):
        delays.append(throttle.died(now, now + 0.1, now + 0.5))
        now = throttle.open_at
    assert delays == [0, 1, 2, 4, 8, 16, 30]


def test_a_crash_loop_forks_at_most_six_times_in_thirty_seconds() -> None:
    throttle, now, forks = Throttle(), 0.0, 0
    while now < 30:
        forks += 1
        throttle.died(now, now, now)
        now = throttle.open_at
    assert forks <= 6


def test_the_death_of_a_settled_worker_costs_nothing() -> None:
    throttle = Throttle()
    assert [throttle.died(0, 1, now) for now in (31, 50, 1000)] == [0, 0, 0]
    assert throttle.open_at == 0


def test_workers_of_one_wave_count_once() -> None:
    throttle = Throttle()
    assert throttle.died(10, None, 11) == 1
    assert throttle.died(10, None, 11.5) == 0.5  # what is left of it
    assert throttle.died(12.5, None, 13) == 2


def test_a_survivor_of_thirty_seconds_clears_the_record() -> None:
    throttle = Throttle()
    throttle.died(0, None, 1)
    throttle.died(2, None, 3)
    throttle.settled(0, 0, 40)  # forked before the failure: proves nothing
    assert throttle.died(41, None, 42) == 4
    throttle.settled(46, 46.1, 76)  # not thirty seconds yet
    throttle.settled(46, 46.1, 76.2)
    assert throttle.died(80, None, 81) == 1
