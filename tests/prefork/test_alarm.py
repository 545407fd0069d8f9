"""The alarm: code that takes too long is noticed, and interrupted for a reason."""

from __future__ import annotations

import signal
import time

import pytest

from preforksmtp.prefork import alarm as module
from preforksmtp.prefork.alarm import Overdue, alarm


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW", 0.01)
    monkeypatch.setattr(module, "TICK", 0.01)


def never() -> str:
    return ""


def test_quick_code_hears_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW", 3600)  # on a busy machine 10 ms may pass between two lines
    seen: list[str] = []
    with alarm(10, never, lambda: seen.append("slow")):
        pass
    assert seen == []
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_slow_code_is_noticed_once_and_goes_on() -> None:
    seen: list[str] = []
    with alarm(0, never, lambda: seen.append("slow")):
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
    assert seen == ["slow"]


def test_a_reason_to_stop_is_seen_before_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW", 3600)
    seen: list[str] = []
    with pytest.raises(Overdue), alarm(0, lambda: "SIGTERM waits", lambda: seen.append("slow")):
        time.sleep(3600)
    assert seen == []


def test_the_limit() -> None:
    with pytest.raises(Overdue, match=r"it took more than 0\.05 s"), alarm(0.05, never, lambda: None):
        time.sleep(3600)


def test_a_reason_to_stop() -> None:
    with pytest.raises(Overdue, match="SIGTERM waits"), alarm(0, lambda: "SIGTERM waits", lambda: None):
        time.sleep(3600)


def test_code_that_swallows_exceptions_is_interrupted_all_the_same() -> None:
    def stubborn() -> None:
        while True:
            try:
                time.sleep(3600)
            except Exception:
                pass

    with pytest.raises(Overdue), alarm(0.05, never, lambda: None):
        stubborn()


def test_an_alarm_within_an_alarm_leaves_the_outer_in_force() -> None:
    with pytest.raises(Overdue, match="outer"), alarm(0, lambda: "outer", lambda: None):
        with alarm(0, lambda: "inner", lambda: None):
            pass
        time.sleep(3600)
