"""A dialogue on a clock of its own: a client whose octets arrive at given times, and waiting that moves the clock.

The wire obeys the pace as net/wire.py does: it asks for the next look at the clock, and waits no longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from preforksmtp.smtp import conversation as conversation_module
from preforksmtp.smtp import pace as pace_module
from preforksmtp.smtp import reply
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.session import Endpoint, Session
from tests.fakes import RecordingJournal, make_rules

NEVER = 1e9


class Wire:
    """See smtp/wire.py. `arrivals`: when which octets come; b"" is the client's end."""

    def __init__(self, arrivals: Iterable[tuple[float, bytes]], pace: Any, end: float = 0.0, drain_at: float = NEVER) -> None:
        self.now = 0.0
        self.output = b""
        self.pauses: list[float] = []
        self.ended_at = 0.0
        self.limits: Limits | None = None
        self.pace = pace
        self._arrivals = list(arrivals)
        self._buffer = b""
        self._end = end
        self._drain_at = drain_at

    def monotonic(self) -> float:
        return self.now

    def keep_pace(self, pace: Any) -> None:
        self.pace = pace

    @property
    def draining(self) -> bool:
        return self.now >= self._drain_at

    @property
    def expired(self) -> bool:
        return bool(self._end) and self.now >= self._end

    @property
    def ahead(self) -> bool:
        return bool(self._buffer)

    hurried = True

    def take_line(self) -> bytes:
        return b""

    def wait(self, seconds: float, idle: bool = False) -> bool:
        return bool(self._buffer) or self._pass(min(self.now + seconds, self._end or NEVER), idle=True)

    def _pass(self, until: float, idle: int) -> bool:
        """Move the clock to the next event, at most so far; False where none came."""
        coming = self._arrivals[0][0] if self._arrivals else NEVER
        event = min(coming, self._drain_at if idle else NEVER)
        self.now = max(self.now, min(event, until))
        return event <= until

    def _receive(self, began: float, owed: str, idle: int) -> None:
        while True:
            until = getattr(self.pace, owed).until(began, self.now)
            assert until > self.now, "a look at the clock tells when the next one is due"
            if self.expired:
                raise TimeoutError
            if self._pass(min(until, self._end or NEVER), idle):
                break
        if idle and self.draining:
            raise InterruptedError
        _, octets = self._arrivals.pop(0)
        if not octets:
            raise EOFError
        self._buffer += octets

    def read_line(self, limit: int, idle: int = False) -> bytes:
        began = self.now
        while b"\n" not in self._buffer:
            self._receive(began, "command", idle)
        end = self._buffer.find(b"\n") + 1
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        return line

    def read_block(self, size: int, idle: int = False) -> bytes:
        if not self._buffer:
            self._receive(self.now, "block", idle)
        block, self._buffer = self._buffer[:size], self._buffer[size:]
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

    def pause(self, seconds: float, since: float = 0.0, idle: bool = False) -> None:
        self.pauses.append(seconds)

    def start_tls(self) -> Any:
        raise NotImplementedError


class Journal(RecordingJournal):
    """Collects why a session ended."""

    def __init__(self) -> None:
        super().__init__()
        self.why: list[str] = []

    def handling(self, hook: str, since: float) -> None:
        """The clock may stand at 0."""

    def handler_failed(self, session: Session, hook: str, error: BaseException) -> None:
        raise error

    def timed_out(self, session: Session, limit: str = "") -> None:
        self.why.append(f"timed out {limit}".rstrip())

    def ended(self, session: Session, why: str) -> None:
        self.why.append(why)


class Limits:
    """Says no to what `refuse` names; notes what it was asked."""

    def __init__(self, refuse: str = "") -> None:
        self.refuse = refuse
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

    def look(self) -> None:
        self._ask("look", reply.AUTH_FAILURE_RATE)

    def attempt(self) -> bool:
        self._ask("attempt", reply.AUTH_FAILURE_RATE)
        return True

    def decided(self, right: bool) -> None:
        self._ask("right" if right else "wrong", reply.LOCAL_ERROR)

    def moved(self) -> None:
        self._ask("moved", reply.TOO_MANY_SESSIONS)

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


def talk(
    says: Iterable[str] | Iterable[tuple[float, bytes]],
    limits: Limits | None = None,
    end: float = 0.0,
    drain_at: float = NEVER,
    app: type[Handler] = Mail,
    **rules: Any,
) -> Result:
    """Lines, or (time, octets) pairs: what was answered, and why it ended."""
    arrivals = [(0.0, f"{part}\r\n".encode()) if isinstance(part, str) else part for part in says]
    terms = make_rules(Hooks.of_class(app), **{"allow_insecure_auth": True, **rules})
    wire, journal = Wire([*arrivals, (NEVER / 10, b"")], terms.pace, end, drain_at), Journal()
    session = Session("s1", Endpoint("192.0.2.1", 1), lambda: Endpoint("192.0.2.2", 25), "smtp://:25", "mx.test")
    dialogue = Dialogue(wire, session, terms, journal)
    dialogue.limits = wire.limits = limits
    dialogue.xclient = True
    with mock.patch.object(pace_module, "monotonic", wire.monotonic), mock.patch.object(
        conversation_module, "monotonic", wire.monotonic
    ):
        try:
            dialogue.run()
        except EOFError:
            journal.why.append("left")
    codes = [line[:9].decode() for line in wire.output.splitlines() if line[3:4] == b" "]
    return Result(codes=codes, why=journal.why, wire=wire)


EHLO, MAIL, RCPT = "EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"
BODY = ("DATA", "\r\nbody\r\n.")
MESSAGE = [MAIL, RCPT, *BODY]
MESSAGE_CODES = ["250 2.1.0", "250 2.1.5", "354 End d", "250 2.0.0"]
