"""The dialogue of one session: read a command, look it up in VERBS, answer it.

Legal states are facts, not numbers: `session.helo`, `session.tls`, `session.user`, `transaction` (None outside one).
Every refusal is a Reject raised anywhere below and answered in one place; any other exception of a handler is logged
with its traceback and answered 451. Faults of the connection end the dialogue (see smtp/wire.py).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from time import monotonic
from typing import Any

from preforksmtp.smtp import command, reply
from preforksmtp.smtp.extensions import Standing
from preforksmtp.smtp.journal import Journal
from preforksmtp.smtp.limits import Limits
from preforksmtp.smtp.pace import Overdue
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.rules import Offer, Rules
from preforksmtp.smtp.session import NOTHING, Ended, Session
from preforksmtp.smtp.transaction import Transaction
from preforksmtp.smtp.verbs import AUTH, HELO, IDLE, TLS, TRANSACTION, VERBS, missing
from preforksmtp.smtp.wire import Input, Wire

# Our replies to what is no SMTP, or not its turn (--max-errors). What a handler says of its mail never counts, nor what
# a client has sent ahead (RFC 2920) and a refusal before it has made wrong.
_BAD_COMMANDS = frozenset(
    id(answer) for answer in vars(reply).values()
    if isinstance(answer, Reply) and answer.code in (500, 501, 502, 503, 504, 530, 535, 538, 555)
) - {id(reply.RECIPIENT_FIRST)}  # fmt: skip
_NO_COMMAND = frozenset(
    map(id, (reply.LINE_TOO_LONG, reply.BARE_LINE_FEED, reply.BAD_CHARACTERS, reply.NOT_UTF8, reply.UNRECOGNIZED))
)
_LINE_OCTETS = command.AUTH_LINE_OCTETS  # the longest of any verb; each has its own limit
_FREE_REFUSALS = 3  # that are not delayed by error_delay


class Dialogue:
    """One session from greeting to goodbye. `run` returns when it is over; the caller closes the connection."""

    __slots__ = (
        "_errors", "_idle", "_needs", "_refusals", "_refused_recipients", "_transactions", "auth_failures", "handler",
        "hooks", "journal", "limits", "mail_refused", "quit", "refused", "rules", "session", "transaction", "wire",
        "xclient", "xforward",
    )  # fmt: skip

    BEFORE_CHUNK = TLS | HELO | TRANSACTION

    def __init__(self, wire: Wire, session: Session, rules: Rules, journal: Journal) -> None:
        self.wire = wire
        self.session = session
        self.rules = rules
        self.hooks = rules.hooks
        self.journal = journal
        self.limits: Limits | None = None
        self.handler: Any = None
        self.transaction: Transaction | None = None
        self.xclient = self.xforward = False  # whether this client is trusted to use them
        self.mail_refused = False  # the last MAIL, so that what follows it has no transaction
        self.quit = False  # the client has said goodbye
        self.refused = False  # by the handler's connect: only QUIT is left
        unasked = (0 if rules.require_tls else TLS) | (0 if rules.require_auth else AUTH)
        self._needs = ~(unasked | (0 if rules.max_idle_commands else IDLE))
        self.auth_failures = 0
        self._transactions = 0
        self._errors = 0  # these three since the last message
        self._refusals = 0
        self._idle = 0
        self._refused_recipients = 0  # in the session

    def run(self) -> None:
        """Serve the session to its end. Raises EOFError or OSError where the connection failed."""
        try:
            self._converse()
            if self.limits is not None:
                self.limits.leave()  # before the client reads that it is over: it may come back at once
            self.wire.flush()  # before the handler's close, which may take its time
        finally:
            if self.hooks.close and self.handler is not None:
                self._close()

    def _converse(self) -> None:
        """From the greeting to the last reply, which is written but not yet sent."""
        try:
            if self.rules.greeting_delay:
                self._listen()
            self._greet()
            self._serve()
        except InterruptedError:
            self.journal.told()
            self.quit = self.wire.take_line().strip().upper() == b"QUIT"
            self.wire.write((reply.CLOSING if self.quit else reply.SHUTTING_DOWN).wire)
        except Overdue as slow:
            self.journal.timed_out(self.session, slow.limit)
            self.wire.write(slow.reply.wire)
        except TimeoutError as late:
            expired = self.wire.expired
            self.journal.timed_out(self.session, "session_timeout" if expired else str(late))
            self.wire.write((reply.SESSION_TIMED_OUT if expired else reply.TIMED_OUT).wire)
        except Ended:
            pass

    def _listen(self) -> None:
        """Wait before the greeting: a client that does not is no mail server (RFC 5321 section 3.1)."""
        if self.wire.wait(self.rules.greeting_delay):
            if self.wire.draining:
                raise InterruptedError
            self.wire.read_block(1024)  # raises EOFError where it has only left
            self.journal.ended(self.session, "spoke before the greeting (greeting_delay)")
            self.end(reply.EARLY_TALKER)
        if self.wire.expired:
            raise TimeoutError

    def _greet(self) -> None:
        greeting = self._welcome()
        if greeting.code == 421:
            self.end(greeting)
        if self.refused:
            self.journal.refused(self.session, "CONNECT", greeting)
        self.wire.write(greeting.wire)

    def restart(self) -> Reply:
        """XCLIENT has made this another client's session: a new handler, and a new greeting."""
        if self.hooks.close:
            self._close()
        return self._welcome()

    def _welcome(self) -> Reply:
        """220, or what the handler's connect says instead (RFC 5321 section 3.1)."""
        greeting = self.rules.greeting
        try:
            self.handler = self.hooks.shared
            if self.hooks.new is not None:
                self.handler = self.call("__init__", self.hooks.new, self.session)
            if self.hooks.connect:
                greeting = self.ask("connect", greeting, self.handler.connect)
        except Reject as refusal:
            greeting = refusal.reply
        self.refused = not greeting.positive
        return greeting

    def _serve(self) -> None:
        """Command by command, until Ended or a fault of the connection is raised."""
        wire, needed = self.wire, self._needs
        read_line, write, decode = wire.read_line, wire.write, self.rules.syntax.decode
        find = self.journal.commands(VERBS).get
        needs = 0  # of what is no command at all: those of the one before, it matters little (max_errors)
        name = argument = ""
        while True:
            try:
                line = read_line(_LINE_OCTETS, self.transaction is None)
                if line is None:
                    raise Reject(reply.LINE_TOO_LONG)
                text = decode(line)
                name, _, argument = text.partition(" ")
                verb = find(name) or find(command.verb(name))
                if verb is None or self.refused or len(line) > verb.octets:
                    verb = self._exceptional(command.verb(name), line, text)
                needs = verb.needs & needed
                if needs:
                    missing(self, needs, argument)
                answer = verb.run(self, argument)
            except Reject as refusal:
                answer = refusal.reply
            if answer is not None:
                if answer.code >= 400:
                    self.answer(answer, needs, name, argument)
                else:
                    write(answer.wire)

    def read_command(self, wire: Input) -> tuple[str, str, bytes]:
        """The next command, its argument and its line, where the ordinary loop does not read: between two chunks."""
        while True:
            line = wire.read_line(command.AUTH_LINE_OCTETS)
            try:
                if line is None:
                    raise Reject(reply.LINE_TOO_LONG)
                name, _, argument = self.rules.syntax.decode(line).partition(" ")
                return command.verb(name), argument, line
            except Reject as refusal:
                self.answer(refusal.reply)

    def execute(self, name: str, argument: str, line: bytes, allowed: Container[str]) -> None:
        """Run one command that read_command returned, if it is `allowed`."""
        needs = 0
        try:
            verb = VERBS.get(name)
            if verb is None or len(line) > verb.octets:
                verb = self._exceptional(name, line, self.rules.syntax.decode(line))
            if name not in allowed:
                raise Reject(reply.CHUNKS_OPEN)
            needs = verb.needs & self._needs
            missing(self, needs, argument)
            answer = verb.run(self, argument)
        except Reject as refusal:
            answer = refusal.reply
        if answer is not None:
            self.answer(answer, needs, name, argument)

    def require(self, needs: int) -> None:
        """Refuse where one of `needs` (see smtp/verbs.py) is missing."""
        missing(self, needs & self._needs, "")

    def _exceptional(self, name: str, line: bytes, text: str) -> Any:
        """What to do with a command that is unknown, too long, or comes after the session was refused."""
        verb = VERBS.get(name)
        if verb is None:
            if command.CROSS_PROTOCOL.match(text):
                self.journal.ended(self.session, "speaks another protocol than SMTP")
                self.end(reply.CROSS_PROTOCOL)
            raise Reject(reply.UNRECOGNIZED)
        if len(line) > verb.octets:
            raise Reject(reply.LINE_TOO_LONG)
        if name != "QUIT":
            raise Reject(reply.REFUSED_SESSION)
        return verb

    def answer(self, answer: Reply, needs: int = 0, name: str = "", argument: str = "") -> None:
        """Write the reply to a command that has these `needs`; end the session with 421 where it says so, or after too
        many bad commands."""
        if answer.code == 421:
            self.end(answer)
        if answer.code >= 400:
            verb = "" if id(answer) in _NO_COMMAND else command.verb(name)
            self.journal.refused(self.session, verb, answer, argument)
        if answer.code >= 400 and not needs & IDLE:  # or it has been counted
            self.idle()
        if id(answer) in _BAD_COMMANDS and not (answer is reply.MAIL_FIRST and self.mail_refused):
            self._errors += 1
            if 0 < self.rules.max_errors < self._errors:
                self.journal.ended(self.session, "too many errors")
                self.end(reply.TOO_MANY_ERRORS)
        self._refuse(answer)

    def refuse_recipient(self, answer: Reply, argument: str) -> None:
        """Write the refusal of a recipient: no bad command, but who guesses at addresses hears many of them."""
        if answer.code == 421:
            self.end(answer)
        self.journal.refused(self.session, "RCPT", answer, argument)
        self.idle()
        if answer.code >= 500:
            self._refused_recipients += 1
            most = self.rules.max_refused_recipients
            if 0 < most < self._refused_recipients:
                self.journal.ended(self.session, f"max_refused_recipients ({most}) reached")
                self.end(reply.TOO_MANY_REFUSED)
        self._refuse(answer)

    def _refuse(self, answer: Reply) -> None:
        if answer.code >= 400 and self.rules.error_delay:
            self._refusals += 1
            if self._refusals > _FREE_REFUSALS:
                self.wire.pause(self.rules.error_delay, idle=self.transaction is None)
        self.wire.write(answer.wire)

    def idle(self) -> None:
        """Count a command that brings no message nearer; end the session with 421 where it is one too many.

        Those are: what is refused, whatever it is, a message too; commands that are IDLE in VERBS; EHLO again; an empty
        chunk. The others have an end of their own: one EHLO, AUTH and STARTTLS a session, one MAIL a transaction,
        max_recipients, max_message_size.
        """
        self._idle += 1
        if 0 < self.rules.max_idle_commands < self._idle:
            self.journal.ended(self.session, "max_idle_commands reached")
            self.end(reply.TOO_MANY_IDLE)

    def end(self, last: Reply) -> None:
        """Say `last` and end the session."""
        if last.code >= 400:
            self.journal.refused(self.session, "SESSION", last)
        self.wire.write(last.wire)
        raise Ended

    # --- the handler

    def call(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run one hook: Reject passes, anything else it raises is logged and becomes 451."""
        journal = self.journal
        journal.handling(hook, monotonic())
        try:
            return function(*arguments)
        except Reject as refusal:
            cause = refusal.__cause__
            if cause is not None and refusal.reply.code < 500:
                journal.deferred(self.session, hook, refusal.reply, cause)
            refusal.__traceback__ = refusal.__context__ = None  # a handler may raise one object again and again
            raise refusal.fresh() from cause
        except BaseException as error:  # SystemExit too: it would silently end this thread
            journal.handler_failed(self.session, hook, error)
            error.__traceback__ = error.__context__ = None
            raise Reject(reply.LOCAL_ERROR) from None
        finally:
            journal.handling("", 0.0)

    def ask(self, hook: str, standard: Reply, function: Callable[..., Any], *arguments: Any) -> Reply:
        """Run one hook that answers a command: None is the standard reply, a str its text, a Reply itself."""
        answer: Reply = self.call(hook, _answer, standard, function, *arguments)
        return answer

    def offer(self) -> Offer:
        """The extensions this client is offered now."""
        session = self.session
        tls = session.tls
        return self.rules.offer(
            Standing(
                tls is not None,
                session.user is not None,
                self.xclient,
                self.xforward,
                binding=tls is not None and self.rules.binds(tls.bindings),
                certificate=tls is not None and bool(tls.peer_certificate),
            )
        )

    # --- the transaction

    def may_begin(self) -> bool:
        """While the worker drains: is there time for one that is the first?"""
        return not self._transactions and not self.wire.hurried

    def admit_message(self) -> None:
        """May this client begin one more message?"""
        if 0 < self.rules.max_messages <= self._transactions:
            self.journal.ended(self.session, "max_messages reached")
            raise Reject(reply.TOO_MANY_MESSAGES)
        if self.limits is not None:
            self.limits.message()

    def begin(self, sender: str, params: dict[str, Any]) -> Transaction:
        self._transactions += 1
        self.mail_refused = False
        self.transaction = Transaction(f"{self.session.id}-{self._transactions}", sender, params, monotonic())
        return self.transaction

    def reset(self) -> None:
        """Abandon the open transaction, if there is one (RFC 5321 section 4.1.1.5), and what XFORWARD said of it."""
        self.session.xforward = NOTHING
        if self.transaction is not None:
            self.journal.abandoned(self.transaction)
            self.transaction = None
            if self.hooks.reset:
                self.call("reset", self.handler.reset)

    def forgive(self) -> None:
        """A message was accepted: the errors before it do not count against the next."""
        self._errors = self._refusals = self._idle = 0

    def _close(self) -> None:
        try:
            self.call("close", self.handler.close)
        except Reject:
            pass  # nobody is there to be told; an exception has been logged


def _answer(standard: Reply, function: Callable[..., Any], *arguments: Any) -> Reply:
    result = function(*arguments)
    if result is None:
        return standard
    if isinstance(result, str):
        # Where the standard reply is "no" or "perhaps" (EXPN, VRFY), a text is the "yes". RFC 2034 section 4: the
        # greeting has no enhanced status code.
        code = standard.code
        if code == 220:  # section 4.2: the greeting begins with our name
            hostname = standard.text.partition(" ")[0]
            return Reply(code, result if result.split(" ", 1)[0] == hostname else f"{hostname} {result}", bare=True)
        return Reply(250 if code in (252, 502) else code, result)
    if not isinstance(result, Reply):
        raise TypeError(f"the handler returned {result!r:.100}; None, a str or a Reply is expected")
    if result.code // 100 == 3:
        raise ValueError(f"the handler returned {result}; it cannot continue the dialogue")
    return result
