"""The limits on clients, over all workers: what smtp/limits.py asks for, answered from prefork/clients.py.

A Limiter for each listener and worker, a Visit for each session. A client is an address with as much of it as the
prefix settings say; those in trusted_clients, peers that only speak for others (XCLIENT) and clients of a unix
socket are counted as sessions of the server, and not limited, but for poison_limit. Each refusal is a Reject and one
line in the log; what a client was refused does not count against it, so that one who insists still gets its due.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from preforksmtp.config.networks import Networks
from preforksmtp.prefork import calls
from preforksmtp.prefork.clients import ATTEMPTS, CONNECTIONS, FAILURES, MESSAGES, RECIPIENTS, Clients
from preforksmtp.prefork.poison import Poison
from preforksmtp.prefork.scoreboard import CALL
from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.rules import Rules
from preforksmtp.smtp.session import Session

# Settings that a worker can only keep together with the others.
SHARED = (
    "max_connections",
    "busy_reply",
    "max_connections_per_ip",
    "max_connection_rate",
    "max_message_rate",
    "max_recipient_rate",
    "stress_threshold",
    "poison_limit",
)
# Also such a one, but a client that does not try to authenticate need not be known for it.
_AUTH = "max_auth_failure_rate"
_RATES = (
    ("max_connection_rate", CONNECTIONS, reply.TOO_MANY_CONNECTIONS),
    ("max_message_rate", MESSAGES, reply.MESSAGE_RATE),
    ("max_recipient_rate", RECIPIENTS, reply.RECIPIENT_RATE),
    (_AUTH, FAILURES, reply.AUTH_FAILURE_RATE),
)
_POISON = CALL + calls.KEY  # word of a row
_V4_MAPPED = bytes(10) + b"\xff\xff"


def client_octets(host: str, prefix_v4: int, prefix_v6: int) -> bytes:
    """What of an address names the client; b"" where it has none (a unix socket)."""
    try:
        address, prefix, family = socket.inet_pton(socket.AF_INET, host), prefix_v4, b"4"
    except OSError:
        try:
            address, prefix, family = socket.inet_pton(socket.AF_INET6, host.partition("%")[0]), prefix_v6, b"6"
        except OSError:
            return b""
        if address[:12] == _V4_MAPPED:
            address, prefix, family = address[12:], prefix_v4, b"4"
    rest = 8 * len(address) - prefix
    if rest:
        address = (int.from_bytes(address, "big") >> rest << rest).to_bytes(len(address), "big")
    return family + address


def make_limiter(
    config: Any, rules: Rules, clients: Clients, slot: int, log: logging.Logger, poison: Poison | None = None
) -> Limiter | None:
    """The limiter of a listener, None if nothing there needs one. `config` is the settings as the bind has them."""
    if _knows_all(config) or (rules.mechanisms and getattr(config, _AUTH)):
        return Limiter(config, rules, clients, slot, log, poison)
    return None


def _knows_all(config: Any) -> bool:
    """Is each client counted, whatever it does?"""
    return bool(config.trusted_clients) or any(getattr(config, name) for name in SHARED)


class Limiter:
    """What one listener's sessions are limited to. Called by the session threads of one worker."""

    def __init__(
        self,
        config: Any,
        rules: Rules,
        clients: Clients,
        slot: int,
        log: logging.Logger,
        poison: Poison | None = None,
    ) -> None:
        self.clients = clients
        self.poison = poison
        self.poison_limit: int = config.poison_limit
        self.table = clients.tables[slot]
        self.table.open(config.threads)
        self.log = log
        self.knows_all = _knows_all(config)
        self.max_connections: int = config.max_connections
        self.busy_reply: bool = config.busy_reply
        self.max_connections_per_ip: int = config.max_connections_per_ip
        self.rates = {rate: (getattr(config, name), name, answer) for name, rate, answer in _RATES}
        self.stress_threshold: float = config.stress_threshold
        self._prefixes = (config.client_prefix_v4, config.client_prefix_v6)
        self._trusted: Networks = config.trusted_clients
        self._proxies: Networks = config.xclient
        if self.stress_threshold:
            rules = replace(rules, stressed=self.stressed)
        self._rules = (rules, rules.for_trusted() if self._trusted else rules)
        self._overflowed = False

    def enter(self, session: Session, row: memoryview | None = None) -> Visit:
        """A session begins, in the thread of this row; it has a `refusal` where it must not."""
        visit = Visit(self, session, row)
        if self.knows_all:
            try:
                visit.admit()
            except Reject as refused:
                visit.refusal = refused.reply
        return visit

    def rules(self, session: Session) -> Rules:
        """The terms for this client; a proxy's are those of the clients it speaks for."""
        host = session.peer.host
        return self._rules[host in self._trusted and host not in self._proxies]

    def key(self, host: str) -> int:
        """The client's key; 0 if it is not limited."""
        octets = b"" if self.exempt(host) else client_octets(host, *self._prefixes)
        return self.clients.key(octets) if octets else 0

    def stressed(self) -> bool:
        """The server is so full that slow clients get less time."""
        sessions, capacity = self.clients.load()
        return 0 < self.stress_threshold * capacity <= sessions

    def prefix(self, host: str) -> bytes:
        """What names the client, limited or not."""
        return client_octets(host, *self._prefixes) or host.encode()

    def exempt(self, host: str) -> bool:
        return host in self._trusted or host in self._proxies

    def overflowed(self) -> None:
        if not self._overflowed:
            self._overflowed = True
            self.log.warning("the table of clients is full: some are not limited (said once)")


class Visit:
    """One session's limits; see smtp/limits.py."""

    __slots__ = ("_here", "_key", "_limiter", "_minutes", "_place", "_row", "_said", "_session", "refusal")

    def __init__(self, limiter: Limiter, session: Session, row: memoryview | None) -> None:
        self._row = row
        self._limiter = limiter
        self._session = session
        self._key = 0  # 0: not limited
        self._place = -1
        self._here = False
        self._said = ""
        self._minutes: tuple[int, int] | None = None  # in which the attempt under way was counted
        self.refusal: Reply | None = None

    def admit(self) -> None:
        """Count the session, then see whether it is one too many: so two at once cannot both be the last.

        Before that, look without counting: or those who insist could keep each other out though there is room.
        """
        limiter, host = self._limiter, self._session.peer.host
        limited = not limiter.exempt(host)
        self._key = limiter.key(host)
        try:
            if limited:
                self._look(1)
            self._place = limiter.table.enter(self._key)
            self._here = True
            if self._key and self._place < 0:
                self._key = 0
                limiter.overflowed()
            if limited:
                self._look(0)
            self._count(CONNECTIONS)
        except Reject:
            self.leave()
            raise

    def moved(self) -> None:
        self.leave()
        if self._limiter.knows_all:
            self.admit()

    def leave(self) -> None:
        self.decided(right=False)  # in the middle of an exchange
        if self._here:
            self._here = False
            self._limiter.table.leave(self._place)
            if self._row is not None:
                self._row[_POISON] = 0  # the next session of this thread may have none
        self._key, self._place = 0, -1

    def message(self) -> None:
        self._count(MESSAGES)

    def recipient(self) -> None:
        self._count(RECIPIENTS)

    def body(self, sender: str, recipients: Sequence[str]) -> None:
        """Refuse what has killed workers. If this one dies of it the master finds the key in our row."""
        poison, most = self._limiter.poison, self._limiter.poison_limit
        if not most or poison is None or self._row is None:
            return
        envelope = "\n".join([sender, *sorted(recipients)])
        key = poison.key(self._limiter.prefix(self._session.peer.host) + envelope.encode())
        self._row[_POISON] = key
        if poison.refuses(key, most):
            self._refuse("poison_limit", most, reply.POISON)

    def look(self) -> None:
        if not self._here:
            self.admit()
        most, name, answer = self._limiter.rates[FAILURES]
        if most and self._key and self._failures() >= most:
            self._refuse(name, most, answer)

    def attempt(self) -> bool:
        self.look()
        most = self._limiter.rates[FAILURES][0]
        if not most or not self._key:
            return True
        table = self._limiter.table
        self._minutes = table.count(self._place, ATTEMPTS), table.count(self._place, FAILURES)
        if self._limiter.clients.rate(self._key, FAILURES) <= most:
            return True
        self.decided(right=True)
        return False

    def decided(self, right: bool) -> None:
        if self._minutes is not None:
            attempt, failure = self._minutes
            self._minutes = None
            table = self._limiter.table
            if right:
                table.take_back(self._place, FAILURES, failure)
            table.take_back(self._place, ATTEMPTS, attempt)

    def _failures(self) -> float:
        """Those that are certain; attempts that begin while we look make them fewer, but `attempt` counts exactly."""
        clients = self._limiter.clients
        failures = clients.rate(self._key, FAILURES)
        return failures - clients.rate(self._key, ATTEMPTS)

    def _look(self, coming: int) -> None:
        """Is there room for all who are counted, and `coming` more?"""
        limiter = self._limiter
        most = limiter.max_connections
        if most and limiter.clients.total() + coming > most:
            self._refuse("max_connections", most, reply.TOO_BUSY)
        if limiter.busy_reply:
            sessions, capacity = limiter.clients.load()
            if sessions + coming >= max(capacity, 2):  # the last thread of all is kept to say so
                self._refuse("busy_reply", capacity, reply.TOO_BUSY)
        most = limiter.max_connections_per_ip
        if most and self._key and limiter.clients.sessions(self._key) + coming > most:
            self._refuse("max_connections_per_ip", most, reply.TOO_MANY_SESSIONS)

    def _count(self, rate: int) -> None:
        """Count first, then see, then take back: as with sessions."""
        most, name, answer = self._limiter.rates[rate]
        if not most or not self._key:
            return
        table = self._limiter.table
        minute = table.count(self._place, rate)
        if self._limiter.clients.rate(self._key, rate) > most:
            table.take_back(self._place, rate, minute)
            self._refuse(name, most, answer)

    def _refuse(self, limit: str, most: int, answer: Reply) -> None:
        if self._said != limit:  # one line for a session that keeps trying
            self._said = limit
            self._limiter.log.info("session %s: %s: %s (%d) reached", self._session.id, self._session.peer, limit, most)
        raise Reject(answer)
