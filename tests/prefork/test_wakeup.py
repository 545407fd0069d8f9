"""prefork/wakeup.py: how the master learns that it was stopped."""

from __future__ import annotations

import signal

import pytest

from preforksmtp.prefork.wakeup import Wakeup


@pytest.fixture
def wakeup():
    before = {number: signal.getsignal(number) for number in signal.valid_signals() if number < signal.SIGRTMIN}
    wakeup = Wakeup(signal.SIGABRT)
    yield wakeup
    wakeup.close()
    for number, handler in before.items():
        if signal.getsignal(number) is not handler and handler is not None:
            signal.signal(number, handler)


def test_an_ordinary_round_is_no_stop(wakeup):
    assert wakeup.wait(0) == 0.0
    assert wakeup.wait(0.01) == 0.0


def test_being_stopped_between_two_waits_is_noticed_once(wakeup):
    wakeup.wait(0)
    wakeup._woke -= 10  # as if the process had been stopped for 10 s after the last wake-up, outside of wait()
    assert 10 <= wakeup.wait(0) < 11
    assert wakeup.wait(0) == 0.0
