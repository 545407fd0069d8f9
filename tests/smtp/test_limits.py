"""The limits of one session, and what a dialogue asks of the limits on its client. Time is the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from preforksmtp.smtp import reply
from preforksmtp.smtp.hooks import Hooks
from tests.clocked import BODY, EHLO, MAIL, MESSAGE, MESSAGE_CODES, RCPT, Limits, Mail, talk
from tests.fakes import make_rules

# --- in one session


def test_max_messages_ends_the_session_at_one_more() -> None:
    result = talk([EHLO, *MESSAGE, *MESSAGE, MAIL, "NOOP"], max_messages=2)
    assert result.codes[2:] == [*MESSAGE_CODES, *MESSAGE_CODES, "421 4.7.0"]
    assert result.why == ["max_messages reached"]


@pytest.mark.parametrize("command", ["NOOP", "RSET", "VRFY x", "EXPN x", "HELP", EHLO, "HELO c.test"])
def test_idle_commands_end_the_session(command: str) -> None:
    result = talk([EHLO, *[command] * 6], max_idle_commands=5)
    assert len(result.codes) == 2 + 6
    assert result.codes[-1] == "421 4.7.0"
    assert result.why == ["max_idle_commands reached"]


def test_a_message_makes_up_for_idle_commands() -> None:
    result = talk([EHLO, *["NOOP"] * 5, *MESSAGE, *["RSET"] * 5, *MESSAGE, "QUIT"], max_idle_commands=5)
    assert result.codes[-1] == "221 2.0.0"
    assert result.why == []


def test_zero_is_no_limit() -> None:
    result = talk([EHLO, *["NOOP"] * 3000, *MESSAGE * 50, "QUIT"], max_idle_commands=0, max_messages=0)
    assert result.codes[-1] == "221 2.0.0"


def test_errors_are_delayed_from_the_fourth_until_a_message() -> None:
    wrong = ["RCPT TO:<no@d.test>", "FOO"]
    result = talk([EHLO, MAIL, *wrong, *wrong, *wrong, RCPT, *BODY, *wrong, "QUIT"], error_delay=2.5)
    assert result.wire.pauses == [2.5] * 3
    assert result.codes[-1] == "221 2.0.0"
    assert talk([EHLO, *wrong * 4, "QUIT"]).wire.pauses == []


@pytest.mark.parametrize(
    ("says", "drain_at", "codes", "why"),
    [
        ([(0.5, b"EHLO c.test\r\n")], 1e9, ["554 5.5.1"], ["spoke before the greeting (greeting_delay)"]),
        ([(0.0, b"\x00")], 1e9, ["554 5.5.1"], ["spoke before the greeting (greeting_delay)"]),
        ([(0.5, b"")], 1e9, [], ["left"]),
        ([(2.0, b"QUIT\r\n")], 1e9, ["220 local", "221 2.0.0"], []),
        ([(2.0, b"QUIT\r\n")], 0.5, ["421 4.3.2"], []),
    ],
    ids=["talks", "one octet", "leaves", "waits", "drain"],
)
def test_greeting_delay(says: Any, drain_at: float, codes: list[str], why: list[str]) -> None:
    result = talk(says, drain_at=drain_at, greeting_delay=1.0)
    assert result.codes == codes
    assert result.why == why
    if drain_at == 0.5:
        assert result.wire.now == 0.5, "a drain is not kept waiting"


def test_the_deadline_of_the_session() -> None:
    result = talk([EHLO, (5.0, b"NOOP\r\n"), (11.0, b"NOOP\r\n")], end=10.0, command_timeout=8.0)
    assert result.wire.output.endswith(reply.SESSION_TIMED_OUT.wire)
    assert result.why == ["timed out session_timeout"]
    result = talk([EHLO], command_timeout=8.0)
    assert result.wire.output.endswith(reply.TIMED_OUT.wire)
    assert result.why == ["timed out"]


# --- over all sessions of a client

RIGHT, WRONG = "AUTH PLAIN AHVzZXIAcmlnaHQ=", "AUTH PLAIN AHVzZXIAd3Jvbmc="


@pytest.mark.parametrize(
    ("says", "refuse", "code", "asked"),
    [
        ([MAIL], "message", "450 4.7.1", ["message"]),
        ([MAIL, RCPT], "recipient", "450 4.7.1", ["message", "recipient"]),
        ([MAIL, "RCPT TO:<no@d.test>"], "", "550 5.1.1", ["message", "recipient"]),
        (["MAIL FROM:<nonsense"], "message", "501 5.1.7", []),
        ([MAIL, RCPT, "DATA"], "body", "451 4.3.0", ["message", "recipient", "body"]),
        ([MAIL, RCPT, "BDAT 0 LAST"], "body", "451 4.3.0", ["message", "recipient", "body"]),
        ([RIGHT], "", "235 2.7.0", ["look", "attempt", "right"]),
        ([WRONG], "", "535 5.7.8", ["look", "attempt", "wrong"]),
        (["AUTH PLAIN", "*"], "", "501 5.7.0", ["look"]),
        (["AUTH PLAIN", "AA=="], "", "501 5.5.2", ["look"]),
        (["AUTH PLAIN", "AMOpAMKA"], "", "535 5.7.8", ["look", "attempt", "wrong"]),
        ([RIGHT], "look", "454 4.7.0", ["look", "wrong"]),
        ([RIGHT], "attempt", "454 4.7.0", ["look", "attempt", "wrong"]),
        (["AUTH FOO"], "attempt", "504 5.5.4", []),
    ],
)
def test_what_is_asked_and_answered(says: list[str], refuse: str, code: str, asked: list[str]) -> None:
    limits = Limits(refuse)
    result = talk([EHLO, *says, "QUIT"], limits)
    assert result.codes[-2:] == [code, "221 2.0.0"], "the session goes on"
    assert limits.asked == [*asked, "leave"]


def test_another_client_by_xclient_is_counted_anew() -> None:
    limits = Limits()
    talk(["XCLIENT PORT=99", "XCLIENT ADDR=192.0.2.9", "QUIT"], limits)
    assert limits.asked == ["moved", "leave"]
    limits = Limits("moved")
    result = talk(["XCLIENT ADDR=192.0.2.9", "NOOP"], limits)
    assert result.codes[-1] == "421 4.7.0"
    assert limits.asked == ["moved", "leave"]


def test_the_session_is_left_before_the_client_can_know_that_it_is_over() -> None:
    result = talk([EHLO, "QUIT"], limits := Limits())
    assert limits.asked == ["leave"]
    assert result.wire.asked_at_last_flush == ["leave"]


def test_trusted_clients_have_rules_without_them() -> None:
    names = ("max_messages", "max_idle_commands", "max_refused_recipients", "error_delay", "greeting_delay", "min_data_rate")
    numbers: dict[str, Any] = dict.fromkeys(names, 5)
    strict = make_rules(Hooks.of_class(Mail), max_recipients=7, stressed=lambda: True, **numbers)
    trusted = strict.for_trusted()
    assert [getattr(trusted, name) for name in names] == [0] * len(names)
    assert trusted.pace.command.until(0.0, 299.0) == 300.0, "nor are they hurried"
    assert trusted.max_recipients == 7
