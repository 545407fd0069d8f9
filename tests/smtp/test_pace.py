"""smtp/pace.py: how long a client may keep us waiting, whatever it owes us. Time is the test's own."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from preforksmtp.smtp import pace as pace_module
from preforksmtp.smtp import reply
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.pace import Allowance, Meter, Overdue, Pace
from tests.clocked import EHLO, MAIL, RCPT, Mail, Wire, talk
from tests.fakes import make_rules

STRESS: dict[str, Any] = {
    "stressed": lambda: True,
    "stress_command_timeout": 10.0,
    "stress_data_timeout": 20.0,
    "min_data_rate": 0,
}
CALM = {**STRESS, "stressed": lambda: False}

# --- whatever it owes us

BEGUN = [EHLO, MAIL, RCPT]
# What was said before, the octets that come of what is owed, how long it may take, how long under stress and after
# which setting that is named.
OWED = {
    "a first command": ([], b"", 300, 10, "stress_command_timeout"),
    "a command": ([EHLO], b"", 300, 10, "stress_command_timeout"),
    "a command of a transaction": (BEGUN, b"", 300, 10, "stress_command_timeout"),
    "the rest of a line": ([EHLO], b"NOO", 300, 10, "stress_command_timeout"),
    "the end of a line": ([EHLO], b"NOOP\r", 300, 10, "stress_command_timeout"),
    "the end of a line that is too long": ([EHLO], b"x" * 20000, 300, 10, "stress_command_timeout"),
    "a response of AUTH": ([EHLO, "AUTH LOGIN"], b"", 300, 10, "stress_command_timeout"),
    "the rest of a response": ([EHLO, "AUTH LOGIN"], b"dXNl", 300, 10, "stress_command_timeout"),
    "the second response": ([EHLO, "AUTH LOGIN", "dXNlcg=="], b"", 300, 10, "stress_command_timeout"),
    "the next chunk's command": ([*BEGUN, "BDAT 5\r\nhel"], b"", 300, 10, "stress_command_timeout"),
    "the rest of the next chunk's command": ([*BEGUN, "BDAT 5\r\nhel"], b"BDA", 300, 10, "stress_command_timeout"),
    "a command between chunks": ([*BEGUN, "BDAT 5\r\nhel", "NOOP"], b"", 300, 10, "stress_command_timeout"),
    "a body": ([*BEGUN, "DATA"], b"", 180, 20, "stress_data_timeout"),
    "the rest of a body": ([*BEGUN, "DATA"], b"half a line", 180, 20, "stress_data_timeout"),
    "a dot": ([*BEGUN, "DATA", "text"], b".", 180, 20, "stress_data_timeout"),
    "the rest of a body that is refused": ([*BEGUN, "DATA"], b"bare\nline", 180, 20, "stress_data_timeout"),
    "a chunk": ([*BEGUN, "BDAT 5"], b"", 180, 20, "stress_data_timeout"),
    "the rest of a chunk": ([*BEGUN, "BDAT 5"], b"he", 180, 20, "stress_data_timeout"),
    "a chunk that is refused": (["BDAT 5"], b"", 180, 20, "stress_data_timeout"),
    "the rest of a chunk that is refused": ([EHLO, "BDAT 5"], b"he", 180, 20, "stress_data_timeout"),
    "a chunk that is too large": ([*BEGUN, "BDAT 99999"], b"he", 180, 20, "stress_data_timeout"),
}


class Streaming(Mail):
    def stream(self, message: Any, body: Any) -> None:
        for _ in body:
            pass


@pytest.mark.parametrize("app", [Mail, Streaming])
@pytest.mark.parametrize("owed", OWED)
def test_silence_ends_the_session_whatever_is_owed(owed: str, app: type[Handler]) -> None:
    before, part, seconds, hurried, limit = OWED[owed]
    says = [(float(n), f"{line}\r\n".encode()) for n, line in enumerate(before)]
    began = says[-1][0] if says else 0.0
    if part:
        says.append((began, part))
    for rules, end, why in ((CALM, seconds, ""), (STRESS, hurried, f" {limit}")):
        result = talk(says, app=app, max_message_size=90000, **rules)
        assert result.why == [f"timed out{why}"]
        assert result.codes[-1] == "421 4.4.2"
        assert result.wire.ended_at - began == pytest.approx(end)


@pytest.mark.parametrize("owed", [name for name, row in OWED.items() if row[2] == 300 and "too long" not in name])
def test_octets_that_trickle_in_earn_no_time(owed: str) -> None:
    before, part, seconds, hurried, _ = OWED[owed]
    says = [(0.0, f"{line}\r\n".encode()) for line in before]
    trickle = [(5.0 * n, b"x") for n in range(1, 200)]
    for rules, end in ((CALM, seconds), (STRESS, hurried)):
        result = talk([*says, (0.0, part or b"x"), *trickle], **rules)
        assert "timed out" in result.why[0]
        assert result.wire.ended_at == pytest.approx(end), "whether it is a command that comes so slowly or not"


def test_the_stress_may_come_later() -> None:
    """It is looked at once in the time that it leaves."""
    asked: list[float] = []
    allowance = Allowance(300.0, 10.0, "x", lambda: bool(asked.append(now)) or now >= 42.0)
    now = 0.0
    with pytest.raises(Overdue):
        while True:
            now = allowance.until(0.0, now)
    assert asked == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert now == 50.0


@pytest.mark.parametrize(
    ("seconds", "stress", "stressed", "now", "until"),
    [
        (300.0, 10.0, None, 0.0, 300.0),
        (300.0, 10.0, None, 299.9, 300.0),
        (300.0, 10.0, None, 300.0, TimeoutError),
        (300.0, 0.0, True, 299.9, 300.0),
        (300.0, 10.0, False, 9.0, 10.0),
        (300.0, 10.0, False, 10.0, 20.0),
        (300.0, 10.0, False, 12.5, 22.5),
        (300.0, 10.0, False, 295.0, 300.0),
        (300.0, 10.0, True, 9.9, 10.0),
        (300.0, 10.0, True, 10.0, Overdue),
        (5.0, 10.0, True, 4.0, 5.0),
        (5.0, 10.0, True, 5.0, TimeoutError),
    ],
)
def test_an_allowance(seconds: float, stress: float, stressed: bool | None, now: float, until: Any) -> None:
    allowance = Allowance(seconds, stress, "limit", None if stressed is None else lambda: bool(stressed))
    for began in (0.0, 1000.0):
        if isinstance(until, float):
            assert allowance.until(began, began + now) == began + until
        else:
            with pytest.raises(until) as caught:
                allowance.until(began, began + now)
            assert caught.type is until


def test_the_pace_of_everything() -> None:
    pace = Pace(300.0, 180.0, 30.0, 7.0, 20.0, None)
    owed = {"header": 5, "hello": 10, "handshake": 30, "command": 300, "block": 180, "replies": 60}
    assert {name: getattr(pace, name).until(0.0, 0.0) for name in owed} == owed
    assert pace.shortest == 180.0
    assert Pace(300.0, 180.0, 4.0, 7.0, 20.0, None).hello.until(0.0, 0.0) == 4.0
    stressed = Pace(300.0, 180.0, 30.0, 7.0, 20.0, lambda: True)
    assert stressed.shortest == 7.0
    for name, seconds in owed.items():
        with pytest.raises(Overdue if seconds > 20 else TimeoutError):
            getattr(stressed, name).until(0.0, 20.0)


def test_under_stress_who_keeps_talking_is_served() -> None:
    lines = [(9.0 * n, b"NOOP\r\n") for n in range(1, 10)]
    result = talk([(0.0, b"EHLO c.test\r\n"), *lines, (90.0, b"QUIT\r\n")], **STRESS)
    assert result.codes[-1] == "221 2.0.0"


def test_the_deadline_of_the_session_holds_under_stress_too() -> None:
    result = talk([EHLO], end=25.0, **CALM)
    assert result.why == ["timed out session_timeout"]
    assert result.wire.ended_at == pytest.approx(25)


# --- slow bodies


def slow_body(step: float, octets: int, number: int) -> list[tuple[float, bytes]]:
    return [(step * n, b"x" * (octets - 2) + b"\r\n") for n in range(1, number + 1)]


@pytest.mark.parametrize("begin", ["DATA", "BDAT 100000 LAST"])
def test_a_body_below_the_minimum_rate_ends_the_session(begin: str) -> None:
    result = talk([EHLO, MAIL, RCPT, begin, *slow_body(1.0, 99, 100)], min_data_rate=100)
    assert result.codes[-1] == "421 4.4.2"
    assert result.wire.output.endswith(reply.TOO_SLOW.wire)
    assert result.why == ["timed out min_data_rate"]
    assert result.wire.ended_at == pytest.approx(10, abs=1), "after the grace"


def test_the_time_between_two_chunks_counts() -> None:
    chunks = [(1.0 * n, b"BDAT 99\r\n" + b"x" * 99) for n in range(1, 100)]
    result = talk([EHLO, MAIL, RCPT, *chunks], min_data_rate=100)
    assert result.why == ["timed out min_data_rate"]
    assert result.wire.ended_at == pytest.approx(11, abs=1), "after the grace, from the first chunk on"
    commands = [(1.0 * n, b"NOOP " + b"x" * 1000 + b"\r\n") for n in range(1, 100)]
    result = talk([EHLO, MAIL, RCPT, "BDAT 1\r\nx", *commands], min_data_rate=100)
    assert result.wire.ended_at == pytest.approx(10, abs=1), "commands are no message"


def test_a_chunk_that_is_refused_must_come_as_fast() -> None:
    result = talk([EHLO, "BDAT 100000", *slow_body(1.0, 99, 100)], min_data_rate=100)
    assert result.why == ["timed out min_data_rate"]
    result = talk([EHLO, MAIL, RCPT, "BDAT 100000", *slow_body(1.0, 99, 100)], min_data_rate=100, max_message_size=50)
    assert result.codes[-2:] == ["552 5.3.4", "421 4.4.2"]
    assert result.wire.ended_at == pytest.approx(10, abs=1)


def test_a_body_that_is_refused_must_come_as_fast_and_may() -> None:
    body = [(0.1, b"bare\n"), *slow_body(1.0, 150, 40), (59.0, b".\r\n"), (59.0, b"QUIT\r\n")]
    result = talk([EHLO, MAIL, RCPT, "DATA", *body], min_data_rate=100)
    assert result.codes[-2:] == ["550 5.6.0", "221 2.0.0"]
    result = talk([EHLO, MAIL, RCPT, "DATA", (0.1, b"bare\n"), *slow_body(1.0, 99, 40)], min_data_rate=100)
    assert result.why == ["timed out min_data_rate"]


def test_a_body_above_it_may_take_its_time_and_rest_on_what_it_sent() -> None:
    body = [*slow_body(1.0, 150, 40), (59.0, b".\r\n"), (59.0, b"QUIT\r\n")]
    result = talk([EHLO, MAIL, RCPT, "DATA", *body], min_data_rate=100)
    assert result.codes[-2:] == ["250 2.0.0", "221 2.0.0"]


def test_silence_ends_it_when_the_average_falls_below() -> None:
    result = talk([EHLO, MAIL, RCPT, "DATA", (0.0, b"x" * 2998 + b"\r\n")], min_data_rate=100)
    assert result.why == ["timed out min_data_rate"]
    assert result.wire.ended_at == pytest.approx(30)


def test_without_a_minimum_the_timeout_of_a_block_holds() -> None:
    result = talk([EHLO, MAIL, RCPT, "DATA", *slow_body(9.0, 4, 10)], data_timeout=10.0)
    assert result.why == ["timed out"]
    assert result.wire.ended_at == pytest.approx(100)


def test_only_waiting_for_the_client_counts() -> None:
    rules = make_rules(Hooks.of_class(Mail), min_data_rate=1000)
    wire = Wire([(0.0, b"a"), (0.0, b"b"), (0.0, b"c")], rules.pace)
    paced = rules.body_wire(wire)
    assert isinstance(paced, Meter)
    with mock.patch.object(pace_module, "monotonic", wire.monotonic):
        for octet in (b"a", b"b", b"c"):
            assert paced.read_block(1) == octet
            wire.now += 60  # the handler
        wire._arrivals = [(wire.now + 10.1, b"d")]
        with pytest.raises(Overdue):
            paced.read_block(1)
    assert wire.pace is rules.pace, "what comes next is no body"
    assert make_rules(Hooks.of_class(Mail)).body_wire(wire) is wire
