"""The conversation with one client: its state, and what commands do with it.

Legal states are facts, not numbers: `session.helo`, `session.tls`, `session.user`, `transaction` (None outside one).
Every refusal is a Reject raised anywhere below and answered in one place; any other exception of a handler is logged
with its traceback and answered 451. The loop over the commands is smtp/dialogue.py.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from time import monotonic
from typing import Any

from preforksmtp.smtp import command, reply
from preforksmtp.smtp.extensions import Offer, Standing, offer
from preforksmtp.smtp.journal import Journal
from preforksmtp.smtp.limits import Limits
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.rules import Rules
from preforksmtp.smtp.session import NOTHING, Ended, Session
from preforksmtp.smtp.transaction import Transaction
from preforksmtp.smtp.wire import Input, Wire

# What a command may need. TLS and AUTH count where the rules require them. IDLE: patience, for it brings no message
# nearer (max_idle_commands).
HELO, TLS, AUTH, OUTSIDE, TRANSACTION, NO_ARGUMENT, ARGUMENT, IDLE = 1, 2, 4, 8, 16, 32, 64, 128

# Our replies to what is no SMTP, or not its turn (--max-errors). What a handler says of its mail never counts, nor what
# a client has sent ahead (RFC 2920) and a refusal before it has made wrong.
_BAD_COMMANDS = frozenset(
    id(answer) for answer in vars(reply).values()
    if isinstance(answer, Reply) and answer.code in (500, 501, 502, 503, 504, 530, 535, 538, 555)
) - {id(reply.RECIPIENT_FIRST)}  # fmt: skip
_NO_COMMAND = frozenset(
    map(id, (reply.LINE_TOO_LONG, reply.BARE_LINE_FEED, reply.BAD_CHARACTERS, reply.NOT_UTF8, reply.UNRECOGNIZED))
)
_FREE_REFUSALS = 3  # that are not delayed by error_delay


class Conversation:
    """What is known of one client, and what it has been told."""

    __slots__ = (
        "_errors", "_idle", "_needs", "_refusals", "_refused_recipients", "_transactions", "auth_failures", "handler",
        "hooks", "journal", "limits", "mail_refused", "quit", "refused", "rules", "session", "transaction", "wire",
        "xclient", "xforward",
    )  # fmt: skip

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

    # --- replies

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

    def require(self, needs: int) -> None:
        """Refuse where one of `needs` (the constants above) is missing."""
        missing(self, needs & self._needs, "")

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

    def execute(self, name: str, argument: str, line: bytes, allowed: Container[str]) -> None:
        """Run one command that read_command returned, if it is `allowed`."""
        raise NotImplementedError  # the loop knows the commands: smtp/dialogue.py

    # --- the handler

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

    def _close(self) -> None:
        try:
            self.call("close", self.handler.close)
        except Reject:
            pass  # nobody is there to be told; an exception has been logged

    def offer(self) -> Offer:
        """The extensions this client is offered now."""
        session = self.session
        tls = session.tls
        return offer(
            self.rules,
            Standing(
                tls is not None,
                session.user is not None,
                self.xclient,
                self.xforward,
                binding=tls is not None and self.rules.binds(tls.bindings),
                certificate=tls is not None and bool(tls.peer_certificate),
            ),
        )

    # --- the transaction

    @property
    def begun(self) -> int:
        """Transactions, so far."""
        return self._transactions

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


def missing(conversation: Conversation, needs: int, argument: str) -> None:
    """Refuse a command that lacks one of `needs`, in the order a client would mend it."""
    if needs & IDLE:
        conversation.idle()
    if needs & NO_ARGUMENT and argument.strip():
        raise Reject(reply.NO_ARGUMENT_ALLOWED)
    if needs & ARGUMENT and not argument.strip():
        raise Reject(reply.NEEDS_ARGUMENT)
    if needs & TLS and conversation.session.tls is None:
        raise Reject(reply.TLS_FIRST)
    if needs & HELO and not conversation.session.helo:
        raise Reject(reply.HELO_FIRST)
    if needs & AUTH and conversation.session.user is None:
        raise Reject(reply.AUTH_FIRST)
    if needs & TRANSACTION and conversation.transaction is None:
        raise Reject(reply.MAIL_FIRST)
    if needs & OUTSIDE and conversation.transaction is not None:
        raise Reject(reply.IN_TRANSACTION)


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
