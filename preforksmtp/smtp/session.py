"""The session: the facts of one client connection, as handlers see them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    Log = logging.LoggerAdapter[logging.Logger]  # which is no generic class before Python 3.11

_LOG = logging.getLogger("preforksmtp.session")


class Ended(Exception):
    """The session is over, and what was to be said is written."""


class Endpoint(NamedTuple):
    """One end of a connection: an address and a port; ("unix", 0) for a unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


NOTHING: dict[str, str] = {}  # shared, and never written to


class Session:
    """One client connection.

    id           names it in logs
    peer, local  Endpoint of the client, and of this server
    proxy        Endpoint of the proxy that named them in a PROXY header, or None
    bind         the bind the client came to, as configured
    hostname     what this server calls itself
    helo, esmtp  the name given in EHLO or HELO ("" before), and whether it was EHLO
    lmtp         whether this is an LMTP session (RFC 2033)
    tls          version, cipher, sni, peer_certificate (as the ssl module gives it), peer_certificate_der,
                 server_certificate and bindings (by name) of the TLS connection, or None in clear
    user         the authenticated identity, or None
    reverse_dns  the validated host name of the peer's address, "" if not known
    xforward     what a trusted peer said of the message's client (XFORWARD): {"ADDR": ..., "NAME": ...}
    state        a namespace for the handler's own use
    log          writes to the error log, with the session's name: session.log.info("...")
    """

    __slots__ = (
        "_local", "_state", "bind", "esmtp", "helo", "hostname", "id", "lmtp", "peer", "proxy", "reverse_dns", "tls",
        "user", "xforward",
    )  # fmt: skip

    def __init__(
        self, id: str, peer: Endpoint, local: Callable[[], Endpoint], bind: str, hostname: str, lmtp: bool = False
    ) -> None:
        self.id = id
        self.peer = peer
        self.proxy: Endpoint | None = None
        self.bind = bind
        self.hostname = hostname
        self.lmtp = lmtp
        self.helo = ""
        self.esmtp = False
        self.tls: Any = None
        self.user: str | None = None
        self.reverse_dns = ""
        self.xforward: dict[str, str] = NOTHING
        self._local = local
        self._state: SimpleNamespace | None = None

    @property
    def local(self) -> Endpoint:
        return self._local()

    def move(self, local: Endpoint) -> None:
        """A proxy says where the client connected to."""
        self._local = lambda: local

    @property
    def log(self) -> Log:
        peer, user = self.peer.host, self.user or ""
        fields = {"logger": _LOG.name, "session": self.id, "peer": peer, "user": user, "bind": self.bind}
        return logging.LoggerAdapter(_LOG, {"fields": fields})

    @property
    def state(self) -> SimpleNamespace:
        if self._state is None:  # most handlers never ask
            self._state = SimpleNamespace()
        return self._state
