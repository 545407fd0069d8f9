"""One accepted connection -> Wire -> Dialogue: the only file that joins the rooms smtp/ and net/.

Runs in the session threads of a worker. What ends a session otherwise than by QUIT is one line in the error log here;
counters and the access log are written here, once a message.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import ssl
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from preforksmtp.config.networks import Networks
from preforksmtp.connection.limits import Limiter, Visit
from preforksmtp.connection.transcribed import TranscribedWire
from preforksmtp.logs.access import AccessLog, AccessRecord
from preforksmtp.logs.transcript import Transcript
from preforksmtp.net.bind import Bind
from preforksmtp.net.listener import ACCEPT_TIMEOUT
from preforksmtp.net.pace import Wait
from preforksmtp.net.proxy import read_header
from preforksmtp.net.resolver import Resolver
from preforksmtp.net.wire import Wire
from preforksmtp.prefork import calls, scoreboard
from preforksmtp.prefork.atfork import end_stray
from preforksmtp.prefork.worker.seat import Seat
from preforksmtp.smtp import reply
from preforksmtp.smtp.address import is_host_name
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.handler import Hooks
from preforksmtp.smtp.reply import Reply
from preforksmtp.smtp.rules import Rules
from preforksmtp.smtp.session import Endpoint, Session
from preforksmtp.smtp.transaction import Transaction

BODY_HOOKS = ("message", "stream")
_TEXT = scoreboard.CALL + calls.TEXT  # where in a row the call of a handler stands
_TEXT_OCTET = 8 * _TEXT
_put, _INSIDE, _OUTSIDE = calls.put, calls.INSIDE, calls.OUTSIDE
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Terms:
    """What one listener's sessions are served under."""

    bind: str
    rules: Rules
    context: ssl.SSLContext | None
    implicit_tls: bool
    session_timeout: float
    proxies: Networks  # must send a PROXY header
    xclient: Networks
    xforward: Networks
    local: Endpoint | None  # of the listener, where it is one address
    reverse_dns_timeout: float  # 0: no look-up
    limiter: Limiter | None
    inherited: float  # SO_RCVTIMEO of a connection just accepted; 0: none


def make_terms(
    config: Any,
    bind: Bind,
    address: Any,
    context: ssl.SSLContext | None,
    hooks: Hooks,
    limiter: Callable[[Any, Rules], Limiter | None] | None = None,
    salt_key: bytes | None = None,
    folder: str = "",
) -> Terms:
    """The terms of one listener. `config` is the settings as the bind has them, `address` its getsockname(), `folder`
    what relative paths begin from. `salt_key`: see salts.py; None: one for the time being."""
    rules = Rules(
        hooks=hooks,
        hostname=config.hostname,
        lmtp=bind.lmtp,
        address_syntax=config.address_syntax,
        max_message_size=config.max_message_size,
        max_recipients=config.max_recipients,
        max_recipient_domains=config.max_recipient_domains,
        max_errors=config.max_errors,
        max_refused_recipients=config.max_refused_recipients,
        max_messages=config.max_messages,
        max_idle_commands=config.max_idle_commands,
        error_delay=config.error_delay,
        greeting_delay=config.greeting_delay,
        min_data_rate=config.min_data_rate,
        min_data_rate_grace=config.min_data_rate_grace,
        stress_command_timeout=config.stress_command_timeout,
        stress_data_timeout=config.stress_data_timeout,
        command_timeout=config.command_timeout,
        data_timeout=config.data_timeout,
        handshake_timeout=config.handshake_timeout,
        require_tls=config.require_tls,
        require_auth=config.require_auth,
        offer_tls=context is not None and not bind.implicit_tls,
        allow_insecure_auth=config.allow_insecure_auth,
        max_auth_failures=config.max_auth_failures,
        auth_failure_delay=config.auth_failure_delay,
        auth_mechanisms=config.auth_mechanisms,
        channel_binding=config.channel_binding,
        salt_key=salt_key or os.urandom(32),
        max_line_length=config.max_line_length,
        accept_bare_newlines=config.bare_newlines == "accept",
        accept_pipelined_body=config.pipelined_body == "accept",
        spool_threshold=config.spool_threshold,
        spool_dir=None if config.spool_dir is None else os.path.join(folder, config.spool_dir),
    )
    local = _endpoint(address)
    return Terms(
        bind=bind.text,
        rules=rules,
        context=context,
        implicit_tls=bind.implicit_tls,
        session_timeout=config.session_timeout,
        proxies=config.proxy_protocol,
        xclient=config.xclient,
        xforward=config.xforward,
        local=None if local.host in ("0.0.0.0", "::") else local,
        reverse_dns_timeout=config.reverse_dns_timeout if config.reverse_dns else 0.0,
        limiter=limiter(config, rules) if limiter is not None else None,
        # Linux hands it down to TCP connections, and to no other ones.
        inherited=ACCEPT_TIMEOUT if sys.platform == "linux" and isinstance(address, tuple) else 0.0,
    )


class Service:
    """What a worker's session threads call. One a worker."""

    def __init__(
        self,
        terms: Sequence[Terms],
        log: logging.Logger,
        access: AccessLog,
        worker: int,
        transcript: Transcript | None = None,
        *,
        timing: bool = False,
    ) -> None:
        """`timing`: measure the handler."""
        self._terms = terms
        self._journal = TimingJournal if timing else SessionJournal
        self._log = log
        self._access = access
        self._worker = worker
        self._transcript = transcript
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
            _endpoint(peer),
            (lambda: local) if local is not None else (lambda: _endpoint(plain.local_address())),
            terms.bind,
            rules.hostname,
            rules.lmtp,
        )
        wire = plain if self._transcript is None else TranscribedWire(plain, self._transcript, session)
        seat.session, seat.line = session, wire
        journal = self._journal(self._log, self._access, seat, self._worker)
        linger = True
        wait = not seat.drain.requested  # or the whole server stops, and the connection was still in the kernel's queue
        visit: Visit | None = None
        try:
            if terms.proxies and session.peer.host in terms.proxies:
                _proxied(session, sock, Wait(rules.pace.header, seat.drain))
            if terms.limiter is not None:
                visit = terms.limiter.enter(session, seat.row)
                rules = terms.limiter.rules(session)
                wire.keep_pace(rules.pace)
                if visit.refusal is not None:
                    linger = False  # the client has yet to speak
                    _turn_down(wire, visit.refusal, journal, terms)
                    return
            if terms.implicit_tls:
                session.tls = wire.start_tls()
                journal.tls_started(session)
            if not wait:  # there may be many more
                _say(wire, reply.SHUTTING_DOWN)
            else:
                dialogue = Dialogue(wire, session, rules, journal)
                dialogue.limits, seat.dialogue = visit, dialogue
                self._introduce(dialogue, terms)
                dialogue.run()
                linger = not dialogue.quit
        except EOFError:
            linger = False
            self._log.debug("session %s: %s left without QUIT", session.id, session.peer)
        except OSError as error:
            linger = False
            if session.helo or not isinstance(error, (ConnectionResetError, BrokenPipeError)):
                journal.ended(session, error.strerror or str(error) or type(error).__name__)
            else:  # a health check or a port scanner, which never said a word
                self._log.debug("session %s: %s reset before a command", session.id, session.peer)
        finally:
            seat.line = None  # before the descriptor's number can be another connection's
            if visit is not None:
                visit.leave()
            wire.close(linger, wait)

    def turn_away(self, sock: socket.socket, index: int) -> None:
        """Worker, main thread: the server ends, and no thread is free. Without waiting for anything; close it."""
        with sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            if not self._terms[index].implicit_tls:
                sock.send(reply.SHUTTING_DOWN.wire)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(65536)  # what is unread at the close would reset the connection, and the reply with it

    def _introduce(self, dialogue: Dialogue, terms: Terms) -> None:
        """What is known of the client before a word is spoken."""
        session = dialogue.session
        if terms.reverse_dns_timeout and session.peer.port:
            session.reverse_dns = self._resolver.lookup(session.peer.host, terms.reverse_dns_timeout)
        if terms.xclient or terms.xforward:
            dialogue.xclient = session.peer.host in terms.xclient
            dialogue.xforward = session.peer.host in terms.xforward


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
    }


def _say(wire: Wire | TranscribedWire, answer: Reply) -> None:
    wire.write(answer.wire)
    wire.flush()


def _turn_down(wire: Wire | TranscribedWire, refusal: Reply, journal: SessionJournal, terms: Terms) -> None:
    """Refuse a session by a limit, before a word is spoken."""
    journal.refused()
    if not terms.implicit_tls:  # a handshake is work that the limit is there to save
        _say(wire, refusal)


def _proxied(session: Session, sock: socket.socket, wait: Wait) -> None:
    """Take over what the PROXY header in front of SMTP or TLS says; the connection's own ends where it says nothing."""
    source, destination = read_header(sock, wait)
    session.proxy = session.peer
    if source is not None and destination is not None:
        session.peer = Endpoint(*source)
        session.move(Endpoint(*destination))


def _endpoint(address: Any) -> Endpoint:
    """Of what the socket module calls an address. An IPv4 client of an IPv6 socket is an IPv4 client."""
    if not isinstance(address, tuple):
        return Endpoint("unix", 0)
    host: str = address[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return Endpoint(host, address[1])


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


