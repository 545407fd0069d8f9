"""A worker's end by the clock, as its master sees it."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.scoreboard import DRAINING, READY, Scoreboard

Sent = list[int]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    numbers: Sent = []
    monkeypatch.setattr(Child, "send", lambda self, number: numbers.append(number))
    return numbers


@pytest.fixture
def worker() -> Child:
    slot = Scoreboard(1, 1).claim(1)
    assert slot is not None
    slot.state = READY
    generation: Any = SimpleNamespace(config=SimpleNamespace(graceful_timeout=10.0))
    return Child(slot, generation)


def test_the_escalation_of_a_graceful_end(worker: Child, sent: Sent) -> None:
    worker.retire("stop")
    begun = worker.next_deadline() - 10.0 - child.SLACK
    assert sent == [signal.SIGTERM]
    assert worker.escalate(begun + 10.9) == []
    assert worker.escalate(begun + 11.0) == [signal.SIGABRT]
    assert worker.escalate(begun + 11.9) == []
    assert worker.escalate(begun + 12.0) == [signal.SIGKILL]
    assert worker.escalate(begun + 99.0) == []


def test_a_late_master_does_not_kill_in_the_moment_it_asks(worker: Child, sent: Sent) -> None:
    worker.retire("stop")
    begun = worker.next_deadline() - 10.0 - child.SLACK
    assert worker.escalate(begun + 60.0) == [signal.SIGABRT]
    assert worker.escalate(begun + 60.9) == []
    assert worker.escalate(begun + 61.1) == [signal.SIGKILL]


def test_the_time_in_which_all_were_stopped_does_not_count(worker: Child, sent: Sent) -> None:
    worker.retire("stop")
    begun = worker.next_deadline() - 10.0 - child.SLACK
    worker.postpone(3600.0)
    assert worker.escalate(begun + 3610.0) == []
    assert worker.escalate(begun + 3611.1) == [signal.SIGABRT]


def test_it_is_deaf_until_it_drains_or_is_given_up(worker: Child, sent: Sent) -> None:
    assert not worker.deaf(time.monotonic())
    worker.retire("reload")
    assert worker.deaf(worker.ended_at + child.HEARING / 2)
    assert not worker.deaf(worker.ended_at + child.HEARING)
    worker.slot.state = DRAINING
    assert not worker.deaf(worker.ended_at)
