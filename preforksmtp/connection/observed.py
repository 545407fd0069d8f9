"""Journals that count and sum up more, made only where somebody looks: for so little it costs much, 4 % of the CPU of a
session that waits in between (its code and data are cold each time).

Runs in session threads; nothing here fails but what the logs do.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from preforksmtp.connection.journal import BODY_HOOKS, STAGES, Books, SessionJournal
from preforksmtp.logs.sessions import SessionRecord
from preforksmtp.net.wire import Wire
from preforksmtp.prefork import scoreboard
from preforksmtp.prefork.worker.seat import Seat
from preforksmtp.smtp.reply import LIMITS, Reply
from preforksmtp.smtp.session import Session
from preforksmtp.smtp.transaction import Transaction


class Traffic:
    """Octets of SMTP that one session has received and sent, within TLS where there is any."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0

    def receiver(self, receive: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """The same as `receive`, counted."""

        def counted(size: int) -> bytes:
            data = receive(size)
            self.received += len(data)
            return data

        return counted

    def sender(self, send: Callable[[bytes, int], int]) -> Callable[[bytes, int], int]:
        """The same as `send`, counted."""

        def counted(data: bytes, flags: int) -> int:
            sent = send(data, flags)
            self.sent += sent
            return sent

        return counted


class ObservedJournal(SessionJournal):
    """Also counts refusals by stage and reply, limits, mechanisms, versions, octets; and how long each hook takes."""

    __slots__ = ("_spent", "_traffic", "_why")

    def __init__(self, books: Books, seat: Seat, wire: Wire) -> None:
        super().__init__(books, seat, wire)
        self._spent = 0.0  # seconds, with the body that is under way
        self._why = ""  # it ends, where that is not how the client leaves
        self._traffic = Traffic()
        wire.count(self._traffic)

    def handling(self, hook: str, since: float) -> None:
        seat = self._seat
        if not hook and seat.hook:
            spent = time.monotonic() - seat.since
            if seat.hook in BODY_HOOKS:
                self._spent += spent
            else:
                self._time(seat.hook, spent)
        super().handling(hook, since)

    def _time(self, hook: str, spent: float) -> None:
        tally = self._books.tally
        tally.add(f"hook {hook} {bisect_left(scoreboard.BOUNDS, spent)}")
        tally.add(f"hook_ns {hook}", int(spent * 1e9))

    def greeted(self) -> None:
        self._row[scoreboard.GREETED] += 1

    def message(self, session: Session, transaction: Transaction, size: int, answer: Reply) -> None:
        spent = self._spent
        if spent:
            self._spent = 0.0
            self._row[scoreboard.HANDLER_NS] += int(spent * 1e9)
            self._row[scoreboard.BUCKETS + bisect_left(scoreboard.BOUNDS, spent)] += 1
        super().message(session, transaction, size, answer)
        if answer.code >= 400:
            self._books.tally.add("accepted rcpt", len(transaction.recipients))
            self._count_refusal("message", answer)

    def refused(self, session: Session, verb: str, answer: Reply, argument: str = "") -> None:
        super().refused(session, verb, answer, argument)
        self._count_refusal(STAGES.get(verb, "command"), answer)

    def _count_refusal(self, stage: str, answer: Reply) -> None:
        tally, limit = self._books.tally, LIMITS.get(id(answer))
        tally.count("refused", stage, str(answer.code), answer.enhanced)
        if limit is not None:
            tally.count("limit", limit)
            if answer.code == 421:
                self._why = self._why or "limit"

    def abandoned(self, transaction: Transaction) -> None:
        self._books.tally.add("accepted mail")
        if transaction.recipients:
            self._books.tally.add("accepted rcpt", len(transaction.recipients))

    def authenticated(
        self, session: Session, mechanism: str, username: str | None, binding: str = "", claimed: str = ""
    ) -> None:
        super().authenticated(session, mechanism, username, binding, claimed)
        self._books.tally.count("auth", mechanism, "failed" if username is None else "ok")

    def tls_started(self, session: Session) -> None:
        super().tls_started(session)
        self._books.tally.count("tls", session.tls.version)

    def handler_failed(self, session: Session, hook: str, error: BaseException) -> None:
        super().handler_failed(session, hook, error)
        self._books.tally.count("hook_error", hook)

    def deferred(self, session: Session, hook: str, answer: Reply, cause: BaseException) -> None:
        super().deferred(session, hook, answer, cause)
        self._books.tally.count("hook_deferred", hook)

    def storage_failed(self, session: Session, cause: BaseException | None) -> None:
        super().storage_failed(session, cause)
        self._books.tally.count("hook_error", "spool")

    def timed_out(self, session: Session, limit: str = "") -> None:
        super().timed_out(session, limit)
        self._books.tally.count("timeout", limit or "command_timeout")
        self._why = "timeout"

    def told(self) -> None:
        self._why = "told"

    def finished(self, session: Session, how: str) -> None:
        row, traffic, open_one = self._row, self._traffic, self._transaction()
        if open_one is not None:
            self.abandoned(open_one)
        if how == "quit" and not self._why:
            row[scoreboard.QUITS] += 1
        else:
            self._books.tally.add(f"ended {self._why or how}")
        row[scoreboard.OCTETS_IN] += traffic.received
        row[scoreboard.OCTETS_OUT] += traffic.sent


class _Watched:
    """The table of commands, and how often each was looked up."""

    def __init__(self, verbs: Mapping[str, Any]) -> None:
        self._verbs = verbs
        self.counts: Counter[str] = Counter()

    def get(self, name: str) -> Any:
        verb = self._verbs.get(name)
        if verb is not None:
            self.counts[name] += 1
        return verb


class SummingJournal(ObservedJournal):
    """Also writes a line to the access log when the session ends (access_log_sessions)."""

    __slots__ = ("_accepted", "_began", "_refusals", "_watched")

    def __init__(self, books: Books, seat: Seat, wire: Wire) -> None:
        super().__init__(books, seat, wire)
        self._watched: _Watched | None = None
        self._refusals: Counter[str] = Counter()
        self._accepted = 0
        self._began = time.monotonic()

    def commands(self, verbs: Mapping[str, Any]) -> Any:
        self._watched = _Watched(verbs)
        return self._watched

    def message(self, session: Session, transaction: Transaction, size: int, answer: Reply) -> None:
        super().message(session, transaction, size, answer)
        self._accepted += answer.code < 400
        if answer.code >= 400:
            self._refusals["DATA"] += 1

    def refused(self, session: Session, verb: str, answer: Reply, argument: str = "") -> None:
        super().refused(session, verb, answer, argument)
        self._refusals[verb] += 1

    def finished(self, session: Session, how: str) -> None:
        super().finished(session, how)
        traffic = self._traffic
        self._books.access.write_session(
            SessionRecord(
                time=time.time(),
                session_id=session.id,
                peer_host=session.peer.host,
                peer_port=session.peer.port,
                bind=session.bind,
                helo=session.helo,
                tls=session.tls.version if session.tls else "",
                user=session.user or "",
                commands=self._watched.counts if self._watched is not None else {},
                refusals=self._refusals,
                messages=self._accepted,
                received=traffic.received,
                sent=traffic.sent,
                seconds=time.monotonic() - self._began,
                end=self._why or how,
                worker=self._books.worker,
            )
        )


KINDS = (SessionJournal, ObservedJournal, SummingJournal)
