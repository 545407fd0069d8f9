"""The limits of one session, and what a dialogue asks of the limits on its client. Time is the test's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.smtp import dialogue as dialogue_module
from preforksmtp.smtp import limits as limits_module
from preforksmtp.smtp import reply
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.handler import Handler, Hooks
from preforksmtp.smtp.limits import Overdue, PacedWire, body_wire
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.rules import Rules
from preforksmtp.smtp.session import Endpoint, Session


class Wire:
    """A client whose octets arrive at given times. Waiting moves the clock."""

    def __init__(self, arrivals: Iterable[tuple[float, bytes]], end: float = 0.0, drain_at: float = 1e9) -> None:
        self.now = 0.0
        self.output = b""
        self.pauses: list[float] = []
        self.ended_at = 0.0
        self.limits: Limits | None = None
        self._arrivals = list(arrivals)
        self._buffer = b""
        self._end = end
        self._drain_at = drain_at

    def monotonic(self) -> float:
        return self.now

    @property
    def draining(self) -> bool:
        return self.now >= self._drain_at

    @property
    def expired(self) -> bool:
        return bool(self._end) and self.now >= self._end

    def wait(self, seconds: float) -> bool:
        deadline = min(self.now + seconds, self._end or 1e9)
        coming = self._arrivals[0][0] if self._arrivals else 1e9
        if self._buffer or min(coming, self._drain_at) <= deadline:
            self.now = max(self.now, min(coming, self._drain_at) if not self._buffer else 0.0)
            return True
        self.now = deadline
        return False

    def _receive(self, timeout: float) -> None:
        if not self.wait(timeout):
            raise TimeoutError
        if self.draining:
            raise InterruptedError
        _, octets = self._arrivals.pop(0)
        if not octets:
            raise EOFError
        self._buffer += octets

    def read_line(self, limit: int, timeout: float, idle: bool = False) -> bytes:
        while b"\n" not in self._buffer:
            self._receive(timeout)
        line, self._buffer = self._buffer[: self._buffer.find(b"\n") + 1], self._buffer[self._buffer.find(b"\n") + 1 :]
        return line

    def read_block(self, size: int, timeout: float) -> bytes:
        if not self._buffer:
            self._receive(timeout)
        block, self._buffer = self._buffer, b""
        return block

    def push_back(self, data: bytes) -> None:
        self._buffer = data + self._buffer

    def discard_input(self) -> None:
        self._buffer = b""

    def write(self, data: bytes) -> None:
        self.output += data
        self.ended_at = self.now

    def flush(self) -> None:
        self.asked_at_last_flush = list(self.limits.asked) if self.limits else []

    def pause(self, seconds: float, since: float = 0.0) -> None:
        self.pauses.append(seconds)

    def start_tls(self, timeout: float) -> Any:
        raise NotImplementedError


class Journal:
    """Collects why a session ended."""

    def __init__(self) -> None:
        self.why: list[str] = []

    def handling(self, hook: str, since: float) -> None: ...
    def message(self, session: Session, transaction: Any, size: int, reply: Reply) -> None: ...
    def authenticated(self, session: Session, mechanism: str, username: str | None) -> None: ...
    def tls_started(self, session: Session) -> None: ...
    def handler_failed(self, session: Session, hook: str, error: BaseException) -> None:
        raise error

    def timed_out(self, session: Session, limit: str = "") -> None:
        self.why.append(f"timed out {limit}".rstrip())

    def ended(self, session: Session, why: str) -> None:
        self.why.append(why)


class Limits:
    """Says no to what `refuse` names; notes what it was asked."""

    def __init__(self, refuse: str = "", stressed: bool = False) -> None:
        self.refuse = refuse
        self.is_stressed = stressed
        self.asked: list[str] = []

    def _ask(self, what: str, answer: Reply) -> None:
        self.asked.append(what)
        if what == self.refuse:
            raise Reject(answer)

    def message(self) -> None:
        self._ask("message", reply.MESSAGE_RATE)

    def recipient(self) -> None:
        self._ask("recipient", reply.RECIPIENT_RATE)

    def body(self, sender: str, recipients: Sequence[str]) -> None:
        self._ask("body", reply.POISON)

    def attempt(self) -> None:
        self._ask("attempt", reply.AUTH_FAILURE_RATE)

    def succeeded(self) -> None:
        self._ask("succeeded", reply.LOCAL_ERROR)

    def moved(self) -> None:
        self._ask("moved", reply.TOO_MANY_SESSIONS)

    def stressed(self) -> bool:
        return self.is_stressed

    def leave(self) -> None:
        self._ask("leave", reply.LOCAL_ERROR)


class Mail(Handler):
    def authenticate(self, username: str, password: str) -> bool:
        return password == "right"

    def rcpt(self, recipient: str, params: Any) -> None:
        if recipient.startswith("no"):
            raise Reject(550, "5.1.1 no such user")

    def message(self, message: Any) -> None: ...


class Result(SimpleNamespace):
    codes: list[str]
    why: list[str]
    wire: Wire


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`talk(lines or (time, octets) pairs, limits=..., any rule=...)`: what was answered, and why it ended."""

    def begin(
        says: Iterable[str] | Iterable[tuple[float, bytes]],
        limits: Limits | None = None,
        end: float = 0.0,
        drain_at: float = 1e9,
        **rules: Any,
    ) -> Result:
        arrivals = [(0.0, f"{part}\r\n".encode()) if isinstance(part, str) else part for part in says]
        wire, journal = Wire([*arrivals, (1e8, b"")], end, drain_at), Journal()
        monkeypatch.setattr(limits_module, "monotonic", wire.monotonic)
        monkeypatch.setattr(dialogue_module, "monotonic", wire.monotonic)
        session = Session("s1", Endpoint("192.0.2.1", 1), lambda: Endpoint("192.0.2.2", 25), "smtp://:25", "mx.test")
        dialogue = Dialogue(wire, session, Rules(Hooks.of_class(Mail), allow_insecure_auth=True, **rules), journal)
        dialogue.limits = wire.limits = limits
        dialogue.xclient = True
        try:
            dialogue.run()
        except EOFError:
            journal.why.append("left")
        codes = [line[:9].decode() for line in wire.output.splitlines() if line[3:4] == b" "]
        return Result(codes=codes, why=journal.why, wire=wire)

    return begin


EHLO, MAIL, RCPT, BODY = "EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA\r\n\r\nbody\r\n."
MESSAGE = [MAIL, RCPT, BODY]
MESSAGE_CODES = ["250 2.1.0", "250 2.1.5", "354 End d", "250 2.0.0"]


# --- in one session


def test_max_messages_ends_the_session_at_one_more(talk: Any) -> None:
    result = talk([EHLO, *MESSAGE, *MESSAGE, MAIL, "NOOP"], max_messages=2)
    assert result.codes[2:] == [*MESSAGE_CODES, *MESSAGE_CODES, "421 4.7.0"]
    assert result.why == ["max_messages reached"]


@pytest.mark.parametrize("command", ["NOOP", "RSET", "VRFY x", "EXPN x", "HELP", EHLO, "HELO c.test"])
def test_idle_commands_end_the_session(talk: Any, command: str) -> None:
    result = talk([EHLO, *[command] * 6], max_idle_commands=5)
    assert len(result.codes) == 2 + 6
    assert result.codes[-1] == "421 4.7.0"
    assert result.why == ["max_idle_commands reached"]


def test_a_message_makes_up_for_idle_commands(talk: Any) -> None:
    result = talk([EHLO, *["NOOP"] * 5, *MESSAGE, *["RSET"] * 5, *MESSAGE, "QUIT"], max_idle_commands=5)
    assert result.codes[-1] == "221 2.0.0"
    assert result.why == []


def test_zero_is_no_limit(talk: Any) -> None:
    result = talk([EHLO, *["NOOP"] * 3000, *MESSAGE * 50, "QUIT"], max_idle_commands=0, max_messages=0)
    assert result.codes[-1] == "221 2.0.0"


def test_errors_are_delayed_from_the_fourth_until_a_message(talk: Any) -> None:
    wrong = ["RCPT TO:<no@d.test>", "FOO"]
    result = talk([EHLO, MAIL, *wrong, *wrong, *wrong, RCPT, BODY, *wrong, "QUIT"], error_delay=2.5)
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
def test_greeting_delay(talk: Any, says: Any, drain_at: float, codes: list[str], why: list[str]) -> None:
    result = talk(says, drain_at=drain_at, greeting_delay=1.0)
    assert result.codes == codes
    assert result.why == why
    if drain_at == 0.5:
        assert result.wire.now == 0.5, "a drain is not kept waiting"


def test_the_deadline_of_the_session(talk: Any) -> None:
    result = talk([EHLO, (5.0, b"NOOP\r\n"), (11.0, b"NOOP\r\n")], end=10.0, command_timeout=8.0)
    assert result.wire.output.endswith(reply.SESSION_TIMED_OUT.wire)
    assert result.why == ["timed out session_timeout"]
    result = talk([EHLO], command_timeout=8.0)
    assert result.wire.output.endswith(reply.TIMED_OUT.wire)
    assert result.why == ["timed out"]


# --- slow bodies


def slow_body(step: float, octets: int, number: int) -> list[tuple[float, bytes]]:
    return [(step * n, b"x" * (octets - 2) + b"\r\n") for n in range(1, number + 1)]


@pytest.mark.parametrize("begin", ["DATA", "BDAT 100000 LAST"])
def test_a_body_below_the_minimum_rate_ends_the_session(talk: Any, begin: str) -> None:
    result = talk([EHLO, MAIL, RCPT, begin, *slow_body(1.0, 99, 100)], min_data_rate=100)
    assert result.codes[-1] == "421 4.4.2"
    assert result.wire.output.endswith(reply.TOO_SLOW.wire)
    assert result.why == ["timed out min_data_rate"]
    assert result.wire.ended_at == pytest.approx(10, abs=1), "after the grace"


def test_a_body_above_it_may_take_its_time_and_rest_on_what_it_sent(talk: Any) -> None:
    body = [*slow_body(1.0, 150, 40), (59.0, b".\r\n"), (59.0, b"QUIT\r\n")]
    result = talk([EHLO, MAIL, RCPT, "DATA", *body], min_data_rate=100)
    assert result.codes[-2:] == ["250 2.0.0", "221 2.0.0"]


def test_silence_ends_it_when_the_average_falls_below(talk: Any) -> None:
    result = talk([EHLO, MAIL, RCPT, "DATA", (0.0, b"x" * 2998 + b"\r\n")], min_data_rate=100)
    assert result.why == ["timed out min_data_rate"]
    assert result.wire.ended_at == pytest.approx(30)


def test_without_a_minimum_the_timeout_of_a_block_holds(talk: Any) -> None:
    result = talk([EHLO, MAIL, RCPT, "DATA", *slow_body(9.0, 4, 10)], data_timeout=10.0)
    assert result.why == ["timed out"]
    assert result.wire.ended_at == pytest.approx(100)


def test_only_waiting_for_the_client_counts(talk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire([(0.0, b"a"), (0.0, b"b"), (0.0, b"c")])
    monkeypatch.setattr(limits_module, "monotonic", wire.monotonic)
    rules = Rules(Hooks.of_class(Mail), min_data_rate=1000)
    paced = body_wire(SimpleNamespace(wire=wire, rules=rules, limits=None))  # type: ignore[arg-type]
    assert isinstance(paced, PacedWire)
    for octet in (b"a", b"b", b"c"):
        assert paced.read_block(1, 180.0) == octet
        wire.now += 60  # the handler
    wire._arrivals = [(wire.now + 10.1, b"d")]
    with pytest.raises(Overdue):
        paced.read_block(1, 180.0)
    assert body_wire(SimpleNamespace(wire=wire, rules=Rules(Hooks.of_class(Mail)))) is wire  # type: ignore[arg-type]


# --- stress

STRESS = {"stress_command_timeout": 10.0, "stress_data_timeout": 20.0}


@pytest.mark.parametrize(
    ("stressed", "end", "why"), [(True, 10, "timed out stress_command_timeout"), (False, 300, "timed out")]
)
def test_under_stress_a_silent_client_makes_room(talk: Any, stressed: bool, end: float, why: str) -> None:
    result = talk([EHLO], Limits(stressed=stressed), **STRESS)
    assert result.codes[-1] == "421 4.4.2"
    assert result.why == [why]
    assert result.wire.ended_at == pytest.approx(end)


@pytest.mark.parametrize(
    ("stressed", "end", "why"), [(True, 20, "timed out stress_data_timeout"), (False, 180, "timed out")]
)
def test_under_stress_a_silent_body_makes_room(talk: Any, stressed: bool, end: float, why: str) -> None:
    result = talk([EHLO, MAIL, RCPT, "DATA"], Limits(stressed=stressed), **STRESS)
    assert result.codes[-1] == "421 4.4.2"
    assert result.why == [why]
    assert result.wire.ended_at == pytest.approx(end)


def test_under_stress_who_keeps_talking_is_served(talk: Any) -> None:
    lines = [(9.0 * n, b"NOOP\r\n") for n in range(1, 10)]
    result = talk([EHLO, *lines, (90.0, b"QUIT\r\n")], Limits(stressed=True), **STRESS)
    assert result.codes[-1] == "221 2.0.0"


def test_the_deadline_of_the_session_holds_under_stress_too(talk: Any) -> None:
    result = talk([EHLO], Limits(), end=25.0, **STRESS)
    assert result.why == ["timed out session_timeout"]
    assert result.wire.ended_at == pytest.approx(25)


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
        ([RIGHT], "", "235 2.7.0", ["attempt", "succeeded"]),
        ([WRONG], "", "535 5.7.8", ["attempt"]),
        (["AUTH PLAIN", "*"], "", "501 5.7.0", ["attempt", "succeeded"]),
        ([RIGHT], "attempt", "454 4.7.0", ["attempt"]),
        (["AUTH FOO"], "attempt", "504 5.5.4", []),
    ],
)
def test_what_is_asked_and_answered(talk: Any, says: list[str], refuse: str, code: str, asked: list[str]) -> None:
    limits = Limits(refuse)
    result = talk([EHLO, *says, "QUIT"], limits)
    assert result.codes[-2:] == [code, "221 2.0.0"], "the session goes on"
    assert limits.asked == [*asked, "leave"]


def test_another_client_by_xclient_is_counted_anew(talk: Any) -> None:
    limits = Limits()
    talk(["XCLIENT PORT=99", "XCLIENT ADDR=192.0.2.9", "QUIT"], limits)
    assert limits.asked == ["moved", "leave"]
    limits = Limits("moved")
    result = talk(["XCLIENT ADDR=192.0.2.9", "NOOP"], limits)
    assert result.codes[-1] == "421 4.7.0"
    assert limits.asked == ["moved", "leave"]


def test_the_session_is_left_before_the_client_can_know_that_it_is_over(talk: Any) -> None:
    result = talk([EHLO, "QUIT"], limits := Limits())
    assert limits.asked == ["leave"]
    assert result.wire.asked_at_last_flush == ["leave"]


def test_trusted_clients_have_rules_without_them() -> None:
    names = ("max_messages", "max_idle_commands", "error_delay", "greeting_delay", "min_data_rate", *STRESS)
    strict = Rules(Hooks.of_class(Mail), max_recipients=7, **dict.fromkeys(names, 5))  # type: ignore[arg-type]
    trusted = strict.for_trusted()
    assert [getattr(trusted, name) for name in names] == [0] * len(names)
    assert trusted.max_recipients == 7
