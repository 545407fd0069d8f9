"""The journal of a session: what its dialogue tells, written to the logs, to the counters and to the thread's seat.

See smtp/journal.py for what is told. Runs in session threads; nothing here fails but what the logs do.
"""

from __future__ import annotations

import logging
import os
import time
from bisect import bisect_left

from preforksmtp.logs.access import AccessLog, AccessRecord
from preforksmtp.prefork import calls, scoreboard
from preforksmtp.prefork.atfork import end_stray
from preforksmtp.prefork.worker.seat import Seat
from preforksmtp.smtp.reply import Reply
from preforksmtp.smtp.session import Session
from preforksmtp.smtp.transaction import Transaction

BODY_HOOKS = ("message", "stream")
_TEXT = scoreboard.CALL + calls.TEXT  # where in a row the call of a handler stands
_TEXT_OCTET = 8 * _TEXT
_put, _INSIDE, _OUTSIDE = calls.put, calls.INSIDE, calls.OUTSIDE


class SessionJournal:
    """See smtp/journal.py. Writes to the logs, to the thread's row of the scoreboard, and to its seat."""

    __slots__ = ("_access", "_log", "_row", "_seat", "_worker")

    def __init__(self, log: logging.Logger, access: AccessLog, seat: Seat, worker: int) -> None:
        self._log = log
        self._access = access
        self._seat = seat
        self._row = seat.row
        self._worker = worker

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
        if self._access.enabled:
            self._write_access(session, transaction, size, answer)

    def _write_access(self, session: Session, transaction: Transaction, size: int, answer: Reply) -> None:
        self._access.write(
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
                worker=self._worker,
            )
        )

    def refused(self) -> None:
        """The service's own: by a limit, before a word was spoken."""
        self._row[scoreboard.REFUSED] += 1

    def authenticated(self, session: Session, mechanism: str, username: str | None, binding: str = "") -> None:
        self._row[scoreboard.AUTH_FAILED if username is None else scoreboard.AUTH_OK] += 1
        if username is None:
            asked = f" (channel binding {binding})" if binding else ""
            self._log.info("session %s: %s failed AUTH %s%s", session.id, session.peer, mechanism, asked)

    def tls_started(self, session: Session) -> None:
        self._row[scoreboard.TLS] += 1

    def handler_failed(self, session: Session, hook: str, error: BaseException) -> None:
        self._row[scoreboard.ERRORS] += 1
        name = type(error).__name__
        self._log.error("session %s: the handler's %s raised %s", session.id, hook, name, exc_info=error)

    def timed_out(self, session: Session, limit: str = "") -> None:
        self._row[scoreboard.TIMEOUTS] += 1
        self.ended(session, f"timed out ({limit})" if limit else "timed out")

    def ended(self, session: Session, why: str) -> None:
        self._log.info("session %s: %s: %s", session.id, session.peer, why)


class TimingJournal(SessionJournal):
    """Also measures how long the handler takes with each body. Only where somebody looks: for so little it costs much,
    4 % of the CPU of a session that waits in between (its code and data are cold each time)."""

    __slots__ = ("_spent",)

    def __init__(self, log: logging.Logger, access: AccessLog, seat: Seat, worker: int) -> None:
        super().__init__(log, access, seat, worker)
        self._spent = 0.0  # seconds, with the body that is under way

    def handling(self, hook: str, since: float) -> None:
        seat = self._seat
        if not hook and seat.hook in BODY_HOOKS:
            self._spent += time.monotonic() - seat.since
        super().handling(hook, since)

    def message(self, session: Session, transaction: Transaction, size: int, answer: Reply) -> None:
        spent = self._spent
        if spent:
            self._spent = 0.0
            self._row[scoreboard.HANDLER_NS] += int(spent * 1e9)
            self._row[scoreboard.BUCKETS + bisect_left(scoreboard.BOUNDS, spent)] += 1
        super().message(session, transaction, size, answer)


def end_strays() -> None:
    """In a child that the application has forked in a hook: where the hook returns to us there, it ends. Journals are
    the first to hear of that, all of them: a body that is read has its own reference."""

    def handling(journal: SessionJournal, hook: str, since: float) -> None:
        end_stray(f"session {journal._seat.name}")

    def handler_failed(journal: SessionJournal, session: Session, hook: str, error: BaseException) -> None:
        end_stray(f"session {session.id}, the handler's {hook}", error)

    for kind in (SessionJournal, TimingJournal):
        kind.handling, kind.handler_failed = handling, handler_failed  # type: ignore[method-assign,assignment]
