"""The service: one accepted connection becomes a Wire, and the Wire a Dialogue.

Runs in the session threads of a worker. What ends a session otherwise than by QUIT is one line in the error log;
counters and the access log are the journal's (connection/journal.py).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from preforksmtp.connection.journal import Books, SessionJournal
from preforksmtp.connection.limits import Visit
from preforksmtp.connection.terms import Terms, endpoint
from preforksmtp.connection.transcribed import TranscribedWire
from preforksmtp.logs.transcript import LoggedTranscript, Transcript
from preforksmtp.net.pace import Wait
from preforksmtp.net.proxy import read_header
from preforksmtp.net.resolver import Resolver
from preforksmtp.net.wire import Wire
from preforksmtp.prefork.watchlist import Watchlist
from preforksmtp.prefork.worker.seat import Seat
from preforksmtp.smtp import reply
from preforksmtp.smtp.address import is_host_name
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.reply import Reply
from preforksmtp.smtp.session import Endpoint, Session
from preforksmtp.smtp.transaction import Transaction

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Health:
    """Whether the application can work; `unwell`: new sessions are turned away (see server/vitals.py)."""

    unwell = False


class Service:
    """What a worker's session threads call. One a worker."""

    def __init__(
        self,
        terms: Sequence[Terms],
        books: Books,
        transcript: Transcript | None = None,
        journal: Callable[[Books, Seat, Wire], SessionJournal] = SessionJournal,
        health: Health | None = None,
        watchlist: Watchlist | None = None,
    ) -> None:
        """`journal`: makes that of each session; connection/observed.py has others. `watchlist`: whose sessions are
        transcribed for a while, where there is no `transcript` of all."""
        self._terms = terms
        self._journal = journal
        self._books = books
        self._log = books.log
        self._transcript = transcript
        self._health = health or Health()
        self._watchlist = watchlist or Watchlist()
        self._watched = self._watchlist.until  # one word: it costs a session no call
        # Names of sessions: unique over workers and restarts, and short enough for a log line.
        self._prefix = _base36(int(time.time() * 1000) % 36**6) + _base36(os.getpid())
        self._numbers = itertools.count(1)
        self._resolver = Resolver(is_host_name)

    def serve(self, sock: socket.socket, peer: Any, index: int, seat: Seat) -> None:
        """Serve one connection to its end, and close it."""
        terms = self._terms[index]
        rules = terms.rules
        plain = Wire(
            sock,
            seat.drain,
            rules.pace,
            terms.context,
            time.monotonic() + terms.session_timeout if terms.session_timeout else 0.0,
            terms.inherited,
        )
        local = terms.local
        session = Session(
            f"{self._prefix}{next(self._numbers):x}",
            endpoint(peer),
            (lambda: local) if local is not None else (lambda: endpoint(plain.local_address())),
            terms.bind,
            rules.hostname,
            rules.lmtp,
        )
        wire = plain if self._transcript is None else TranscribedWire(plain, self._transcript, session)
        seat.session, seat.line = session, wire
        journal = self._journal(self._books, seat, plain)
        linger, how = True, "quit"
        wait = not seat.drain.requested  # or the whole server stops, and the connection was still in the kernel's queue
        visit: Visit | None = None
        try:
            if terms.proxies and session.peer.host in terms.proxies:
                _proxied(session, sock, Wait(rules.pace.header, seat.drain))
            if self._watched[0]:  # after the header: it says who the client is
                wire = self._watch(wire, session)
            if terms.limiter is not None:
                visit = terms.limiter.enter(session, seat.row)
            seat.dialogue = dialogue = self._admit(session, wire, journal, terms, visit)
            if dialogue is None:
                linger = False  # the client has yet to speak
            elif not wait:  # there may be many more
                _say(wire, reply.SHUTTING_DOWN)
            else:
                dialogue.run()
                linger = not dialogue.quit
        except EOFError:
            linger, how = False, "left"
            self._log.debug("session %s: %s left without QUIT", session.id, session.peer)
        except OSError as error:
            linger, how = False, _how(error)
            if session.helo or not isinstance(error, (ConnectionResetError, BrokenPipeError)):
                journal.ended(session, error.strerror or str(error) or type(error).__name__)
            else:  # a health check or a port scanner, which never said a word
                self._log.debug("session %s: %s reset before a command", session.id, session.peer)
        finally:
            seat.line = None  # before the descriptor's number can be another connection's
            if visit is not None:
                visit.leave()
            wire.close(linger, wait)
            journal.finished(session, how)

    def _watch(self, wire: Wire | TranscribedWire, session: Session) -> Wire | TranscribedWire:
        """The same wire, transcribed where its client is on the watchlist, and as long as it is."""
        host = session.peer.host
        if isinstance(wire, TranscribedWire) or not self._watchlist.has(host):
            return wire
        return TranscribedWire(wire, LoggedTranscript(self._log, partial(self._watchlist.has, host)), session)

    def _admit(
        self,
        session: Session,
        wire: Wire | TranscribedWire,
        journal: SessionJournal,
        terms: Terms,
        visit: Visit | None,
    ) -> Dialogue | None:
        """What comes before a word is spoken. None where the client was turned away."""
        rules = terms.rules
        if visit is not None and terms.limiter is not None:
            rules = terms.limiter.rules(session)
            wire.keep_pace(rules.pace)
            if visit.refusal is not None:
                _turn_down(wire, session, visit.refusal, journal, terms)
                return None
        if self._health.unwell:
            _turn_down(wire, session, reply.UNWELL, journal, terms)
            return None
        if terms.implicit_tls:
            session.tls = wire.start_tls()
            journal.tls_started(session)
        dialogue = Dialogue(wire, session, rules, journal)
        dialogue.limits = visit
        if terms.reverse_dns_timeout and session.peer.port:
            session.reverse_dns = self._resolver.lookup(session.peer.host, terms.reverse_dns_timeout)
        if terms.xclient or terms.xforward:
            dialogue.xclient = session.peer.host in terms.xclient
            dialogue.xforward = session.peer.host in terms.xforward
        return dialogue

    def turn_away(self, sock: socket.socket, index: int) -> None:
        """Worker, main thread: the server ends, and no thread is free. Without waiting for anything; close it."""
        with sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            if not self._terms[index].implicit_tls:
                sock.send(reply.SHUTTING_DOWN.wire)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(65536)  # what is unread at the close would reset the connection, and the reply with it


def describe(seat: Seat) -> dict[str, Any]:
    """Worker, main thread: the session on this seat, for who asks what goes on. It may end while we look."""
    session, dialogue = seat.session, seat.dialogue
    if session is None:
        return {}
    transaction = dialogue.transaction if dialogue is not None else None
    return {
        "session": session.id,
        "peer": str(session.peer),
        "bind": session.bind,
        "helo": session.helo,
        "tls": session.tls.version if session.tls else "",
        "user": session.user or "",
        "sender": transaction.sender if transaction is not None else None,
        "recipients": len(transaction.recipients) if transaction is not None else 0,
        "stage": _stage(seat, session, transaction),
        "messages": dialogue.begun if dialogue is not None else 0,
        **_activity(seat),
    }


def _stage(seat: Seat, session: Session, transaction: Transaction | None) -> str:
    """What a session is at now."""
    if seat.hook:
        return seat.hook
    if seat.dialogue is None:
        return "connect"
    if transaction is not None:
        return "rcpt" if transaction.recipients else "mail"
    return "command" if session.helo else "helo"


def _activity(seat: Seat) -> dict[str, Any]:
    line: Any = seat.line
    try:
        silent, received, sent = line.activity()
    except (AttributeError, OSError):  # it has just ended
        return {}
    return {"idle_seconds": round(silent, 3), "received": received, "sent": sent}


def _say(wire: Wire | TranscribedWire, answer: Reply) -> None:
    wire.write(answer.wire)
    wire.flush()


def _turn_down(
    wire: Wire | TranscribedWire, session: Session, refusal: Reply, journal: SessionJournal, terms: Terms
) -> None:
    """Refuse a session by a limit, before a word is spoken."""
    journal.turned_away(session, refusal)
    if not terms.implicit_tls:  # a handshake is work that the limit is there to save
        _say(wire, refusal)


def _proxied(session: Session, sock: socket.socket, wait: Wait) -> None:
    """Take over what the PROXY header in front of SMTP or TLS says; the connection's own ends where it says nothing."""
    source, destination = read_header(sock, wait)
    session.proxy = session.peer
    if source is not None and destination is not None:
        session.peer = Endpoint(*source)
        session.move(Endpoint(*destination))


def _how(error: OSError) -> str:
    """How a session ended whose connection failed."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return "reset"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "tls" if isinstance(error, ssl.SSLError) or "TLS" in str(error) else "error"


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


