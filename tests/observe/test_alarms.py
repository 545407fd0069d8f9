"""What an operator must see first, and how bad it is."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from preforksmtp.observe.alarms import BAD, DAY, WARN, Alarm, alarms
from preforksmtp.observe.snapshot import Facts, Snapshot, take
from preforksmtp.observe.trend import Change
from preforksmtp.prefork.scoreboard import COUNTERS, READY, SINCE, Scoreboard

FACTS = Facts("1.0", "mail", 1, time.time())


def board() -> Scoreboard:
    board = Scoreboard(2, 1)
    slot = board.claim(1)
    assert slot is not None
    slot.state, slot.limit, slot.pid = READY, 1, 100
    board.wanted, board.beat = 1, time.monotonic_ns()
    return board


def look(board: Scoreboard, facts: Facts = FACTS, **counted: int) -> list[Alarm]:
    snapshot: Snapshot = take(board, facts)
    return alarms(snapshot, facts, Change(60.0, dict.fromkeys(COUNTERS, 0) | counted, []))


def test_all_is_well() -> None:
    assert look(board(), messages=1000, rejected=50) == []


@pytest.mark.parametrize(
    ("counted", "severity", "text"),
    [
        ({"errors": 546, "deferred": 546}, BAD, "the application failed 546 times in the last minute; see the error log"),
        ({"errors": 1, "messages": 1000}, WARN, "the application failed once in the last minute; see the error log"),
        ({"deferred": 30, "messages": 70}, WARN, "30 of 100 messages were put off (4xx) in the last minute"),
        ({"deferred": 50, "messages": 50}, BAD, "50 of 100 messages were put off (4xx) in the last minute"),
    ],
)
def test_an_application_that_fails(counted: dict[str, int], severity: str, text: str) -> None:
    assert Alarm(severity, text) in look(board(), **counted)


def test_a_few_deferrals_are_none() -> None:
    assert look(board(), deferred=2) == []
    assert look(board(), deferred=9, messages=100) == []


def test_a_reload_that_failed_until_one_succeeds() -> None:
    server = board()
    server.chronicle.note("reload failed", "no such module")
    (alarm,) = look(server)
    assert (alarm.severity, alarm.text) == (BAD, "the last reload failed, the former configuration goes on: no such module")
    assert alarm.time > 0
    server.chronicle.note("reloaded")
    assert look(server) == []


@pytest.mark.parametrize(("deaths", "severity"), [(1, WARN), (3, BAD)])
def test_workers_that_die(deaths: int, severity: str) -> None:
    server = board()
    for number in range(deaths):
        server.chronicle.note("worker died", f"worker {number} was killed by SIGSEGV")
    (alarm,) = look(server)
    assert alarm.severity == severity
    assert alarm.text.endswith(f"the last: worker {deaths - 1} was killed by SIGSEGV")


@pytest.mark.parametrize(
    ("days", "severity", "text"),
    [(20, None, ""), (10, WARN, "ends in 10.0 days"), (2, BAD, "ends in 2.0 days"), (-1, BAD, "has ended")],
)
def test_certificates(days: int, severity: str | None, text: str) -> None:
    found = look(board(), replace(FACTS, certificates=[("b", "c.pem", time.time() + days * DAY)]))
    if severity is None:
        assert found == []
    else:
        assert [(alarm.severity, alarm.text) for alarm in found] == [(severity, f"the certificate c.pem of b {text}")]


def test_busy_unwell_and_lost_lines() -> None:
    server = board()
    server.slots[0].rows[0][SINCE] = 1
    server.slots[0].unwell = 1
    server.tallies.of(0).add("lost access", 12)
    found = {alarm.text.partition(",")[0]: alarm.severity for alarm in look(server)}
    assert found == {
        "the application says that it cannot work; new sessions are answered 421": BAD,
        "all session threads are busy": WARN,
        "12 lines of the access log could not be written since the master began": WARN,
    }
