"""The journal of a session: what its dialogue tells, written to the logs, to the counters and to the thread's seat.

See smtp/journal.py for what is told. Runs in session threads; nothing here fails but what the logs do.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from preforksmtp.logs.access import AccessLog, AccessRecord, refusal_line
from preforksmtp.logs.escaping import bare, in_quotes
from preforksmtp.net.wire import Wire
from preforksmtp.prefork import calls, scoreboard
from preforksmtp.prefork.atfork import end_stray
from preforksmtp.prefork.tallies import Tally
from preforksmtp.prefork.worker.seat import Seat
from preforksmtp.smtp.reply import LIMITS, Reply
from preforksmtp.smtp.session import Session
from preforksmtp.smtp.transaction import Transaction

BODY_HOOKS = ("message", "stream")
# The stage of a session that each command belongs to; all others are "command". Besides there are "connect", "message"
# (what a body is answered with) and "session" (a reply that ends one, whatever it answers).
STAGES = {
    "HELO": "helo", "EHLO": "helo", "LHLO": "helo", "STARTTLS": "tls", "AUTH": "auth", "MAIL": "mail", "RCPT": "rcpt",
    "DATA": "data", "BDAT": "data", "CONNECT": "connect", "MESSAGE": "message", "SESSION": "session",
}  # fmt: skip
EVERY = 60.0  # seconds between two lines about a back end that fails
TOLD_OF = ("connect", "mail", "rcpt")  # stages whose refusals are a line each in the error log (log_refusals)
# What is shown of a failed AUTH: a name such as users have. Others typed their password where the name belongs.
_NAME = re.compile(r"[\w.+-]{1,64}(?:@[\w.-]{1,255})?", re.ASCII)
_TEXT = scoreboard.CALL + calls.TEXT  # where in a row the call of a handler stands
_TEXT_OCTET = 8 * _TEXT
_put, _INSIDE, _OUTSIDE = calls.put, calls.INSIDE, calls.OUTSIDE


class Deferrals:
    """When it is time to tell of a fault again that goes on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}  # when it is due again, and how often it was not told

    def due(self, kind: str) -> int:
        """Another time: how many times it has happened since it was last due; 0 = do not tell of it."""
        with self._lock:
            next_time, count = self._kinds.get(kind, (0.0, 0))
            now, count = self._clock(), count + 1
            if now >= next_time:
                self._kinds[kind] = (now + EVERY, 0)
                return count
            self._kinds[kind] = (next_time, count)
            return 0


@dataclass(frozen=True)
class Books:
    """What the journals of one worker's sessions write to."""

    log: logging.Logger
    access: AccessLog
    worker: int
    tally: Tally
    refusals: bool = True  # log_refusals
    deferrals: Deferrals = field(default_factory=Deferrals)


class SessionJournal:
    """See smtp/journal.py. Writes to the logs, to the thread's row of the scoreboard, and to its seat."""

    __slots__ = ("_books", "_row", "_seat")

    def __init__(self, books: Books, seat: Seat, wire: Wire) -> None:
        self._books = books
        self._seat = seat
        self._row = seat.row

    def handling(self, hook: str, since: float) -> None:
        seat = self._seat
        seat.since = since
        seat.hook = hook
        if not hook:
            self._row[_TEXT] = 0
            return
        # What the master is to find here if the worker dies in this call.
        session, transaction = seat.session, seat.dialogue.transaction
        if transaction is None:
            text = _OUTSIDE % (hook, session.peer[0], session.id)
        else:
            text = _INSIDE % (hook, session.peer[0], transaction.id, transaction.sender, transaction.recipients[:4])
        _put(self._row, _TEXT_OCTET, text.encode())

    def commands(self, verbs: Mapping[str, Any]) -> Any:
        return verbs

    def greeted(self) -> None:
        pass

    def message(self, session: Session, transaction: Transaction, size: int, answer: Reply) -> None:
        row = self._row
        if answer.code < 400:
            row[scoreboard.MESSAGES] += 1
            row[scoreboard.RECIPIENTS] += len(transaction.recipients)
            row[scoreboard.BYTES] += size
        elif answer.code < 500:
            row[scoreboard.DEFERRED] += 1
        else:
            row[scoreboard.REJECTED] += 1
        if self._books.access.enabled:
            self._write_access(session, transaction, size, answer)

    def _write_access(self, session: Session, transaction: Transaction, size: int, answer: Reply) -> None:
        books = self._books
        books.access.write(
            AccessRecord(
                time=time.time(),
                session_id=session.id,
                message_id=transaction.id,
                peer_host=session.peer.host,
                peer_port=session.peer.port,
                helo=session.helo,
                user=session.user or "",
                sender=transaction.sender,
                recipients=transaction.recipients,
                size=size,
                command="DATA",
                code=answer.code,
                enhanced=answer.enhanced,
                text=answer.text,
                seconds=time.monotonic() - transaction.started,
                tls=session.tls.version if session.tls else "",
                cipher=session.tls.cipher if session.tls else "",
                pid=os.getpid(),
                worker=books.worker,
                bind=session.bind,
            )
        )

    def refused(self, session: Session, verb: str, answer: Reply, argument: str = "") -> None:
        books, stage = self._books, STAGES.get(verb, "command")
        if not books.refusals or stage not in TOLD_OF:
            return
        address = argument.partition("<")[2].rpartition(">")[0] if "<" in argument else argument.strip()
        transaction = self._transaction()
        record = AccessRecord(
            session_id=session.id, peer_host=session.peer.host, peer_port=session.peer.port, helo=session.helo,
            user=session.user or "", command=stage, code=answer.code, enhanced=answer.enhanced, text=answer.text,
            sender=address if stage == "mail" else transaction.sender if transaction is not None else "",
            recipients=[address] if stage == "rcpt" else (), bind=session.bind,
        )  # fmt: skip
        fields = {
            "stage": stage, "code": answer.code, "enhanced": answer.enhanced, "text": answer.text, "helo": session.helo,
            "sender": record.sender, "recipient": address if stage == "rcpt" else "",
            "limit": LIMITS.get(id(answer), ""),
        }  # fmt: skip
        books.log.info("%s", refusal_line(record), extra=self.fields(session, **fields))

    def _transaction(self) -> Transaction | None:
        dialogue = self._seat.dialogue
        return dialogue.transaction if dialogue is not None else None

    def fields(self, session: Session, **more: Any) -> dict[str, Any]:
        """What a line in JSON says beside its text."""
        transaction = self._transaction()
        known = {
            "session": session.id, "message_id": transaction.id if transaction is not None else "",
            "peer": session.peer.host, "port": session.peer.port, "user": session.user or "", "bind": session.bind,
            "worker": self._books.worker,
        }  # fmt: skip
        return {"fields": {name: value for name, value in (known | more).items() if value not in ("", None)}}

    def turned_away(self, session: Session, answer: Reply) -> None:
        """The service's own: refused by a limit, before a word was spoken."""
        self._row[scoreboard.REFUSED] += 1
        self.refused(session, "CONNECT", answer)

    def abandoned(self, transaction: Transaction) -> None:
        pass

    def authenticated(
        self, session: Session, mechanism: str, username: str | None, binding: str = "", claimed: str = ""
    ) -> None:
        self._row[scoreboard.AUTH_FAILED if username is None else scoreboard.AUTH_OK] += 1
        host, port = session.peer.host, session.peer.port or "-"
        said = username if username is not None else claimed if _NAME.fullmatch(claimed) else ""
        self._books.log.info(
            "auth %s session=%s peer=[%s]:%s mechanism=%s user=%s%s",
            "failed" if username is None else "ok", session.id, host, port, mechanism, bare(said),
            f' binding="{in_quotes(binding)}"' if binding else "",
            extra=self.fields(session, stage="auth", mechanism=mechanism, user=said),
        )  # fmt: skip

    def tls_started(self, session: Session) -> None:
        self._row[scoreboard.TLS] += 1

    def handler_failed(self, session: Session, hook: str, error: BaseException) -> None:
        self._row[scoreboard.ERRORS] += 1
        name = type(error).__name__
        extra = self.fields(session, hook=hook)
        self._books.log.error(
            "session %s: the handler's %s raised %s", session.id, hook, name, exc_info=error, extra=extra
        )

    def deferred(self, session: Session, hook: str, answer: Reply, cause: BaseException) -> None:
        """Once a minute for each hook and kind of cause; how often it happened meanwhile is said with the next one."""
        kind = f"{hook} {type(cause).__name__}"
        times = self._books.deferrals.due(kind)
        if times:
            again = f" ({times} times since the last such line)" if times > 1 else ""
            text = "session %s: the handler's %s answered %d %s %s because of %s: %s%s"
            said = (session.id, hook, answer.code, answer.enhanced, answer.text, type(cause).__name__, cause, again)
            self._books.log.error(text, *said, extra=self.fields(session, hook=hook))

    def storage_failed(self, session: Session, cause: BaseException | None) -> None:
        """Counted each time, and told of as `deferred` is."""
        self._row[scoreboard.ERRORS] += 1
        times = self._books.deferrals.due("spool")
        if times:
            again = f" ({times} times since the last such line)" if times > 1 else ""
            text, extra = "session %s: could not store the body: %s%s", self.fields(session, hook="spool")
            self._books.log.error(text, session.id, cause, again, extra=extra)

    def timed_out(self, session: Session, limit: str = "") -> None:
        self._row[scoreboard.TIMEOUTS] += 1
        self._end(session, f"timed out ({limit})" if limit else "timed out", limit)

    def ended(self, session: Session, why: str) -> None:
        self._end(session, why)

    def told(self) -> None:
        pass

    def _end(self, session: Session, why: str, limit: str = "") -> None:
        self._books.log.info(
            "session %s: %s: %s", session.id, session.peer, why, extra=self.fields(session, limit=limit)
        )

    def finished(self, session: Session, how: str) -> None:
        """The service's own, at the very end: how the client left."""


def end_strays(kinds: Sequence[type[SessionJournal]]) -> None:
    """In a child that the application has forked in a hook: where the hook returns to us there, it ends. Journals are
    the first to hear of that, all of them: a body that is read has its own reference."""

    def handling(journal: SessionJournal, hook: str, since: float) -> None:
        end_stray(f"session {journal._seat.name}")

    def handler_failed(journal: SessionJournal, session: Session, hook: str, error: BaseException) -> None:
        end_stray(f"session {session.id}, the handler's {hook}", error)

    for kind in kinds:
        kind.handling, kind.handler_failed = handling, handler_failed  # type: ignore[method-assign,assignment]
