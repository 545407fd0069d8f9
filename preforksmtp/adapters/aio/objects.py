"""What hooks written for aiosmtpd are given: server, session, envelope, proxy data, login data.

The same attributes as aiosmtpd's own objects have, read from our Session where it knows them; hooks may set them, and
others. What only a server that writes to the connection itself could do (push) raises NotImplementedError.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from preforksmtp import Session


class Envelope:
    """One transaction, as far as it has come; see aiosmtpd.smtp.Envelope."""

    def __init__(self) -> None:
        self.mail_from: str | None = None
        self.mail_options: list[str] = []
        self.smtp_utf8 = False
        self.content: bytes | str | None = None
        self.original_content: bytes | None = None
        self.rcpt_tos: list[str] = []
        self.rcpt_options: list[str] = []


class AioSession:
    """One client; see aiosmtpd.smtp.Session. `greets`: a hook is to set host_name, until then it is None.

    Other than there, `peer` is the client itself behind a PROXY protocol, and `ssl` is set for implicit TLS too:
    a dict with peercert and cipher (name, version, None).
    """

    def __init__(self, facts: Session, loop: Any, greets: bool) -> None:
        self.loop = loop
        self.peer: Any = tuple(facts.peer)
        self.ssl: dict[str, Any] | None = None
        if facts.tls is not None:
            tls = facts.tls
            self.ssl = {"peercert": tls.peer_certificate, "cipher": (tls.cipher, tls.version, None)}
        self.proxy_data: Any = None
        self.auth_data: Any = None
        self.login_data: Any = None
        self.authenticated: bool | None = True if facts.user is not None else None
        self._facts = facts
        self._greets = greets
        self._host_name: str | None = None
        self._extended: bool | None = None

    @property
    def host_name(self) -> str | None:
        """The name given in EHLO or HELO."""
        return self._host_name if self._greets or self._host_name else self._facts.helo or None

    @host_name.setter
    def host_name(self, name: str | None) -> None:
        self._host_name = name

    @property
    def extended_smtp(self) -> bool:
        """Whether it was EHLO."""
        return self._facts.esmtp if self._extended is None else self._extended

    @extended_smtp.setter
    def extended_smtp(self, value: bool) -> None:
        self._extended = value


Current = Callable[[], tuple[AioSession, Envelope]]


class ProxyData:
    """What a PROXY header said; see aiosmtpd.proxy_protocol.ProxyData. Its version and its TLVs are not kept."""

    valid = True
    error = ""
    version = command = family = protocol = tlv = None
    rest = whole_raw = b""

    def __init__(self, facts: Session) -> None:
        self.src_addr, self.src_port = _address(facts.peer.host), facts.peer.port
        self.dst_addr, self.dst_port = _address(facts.local.host), facts.local.port

    def __bool__(self) -> bool:
        return True


def _address(host: str) -> Any:
    try:
        return ipaddress.ip_address(host)
    except ValueError:  # a unix socket
        return host


class _LoginPassword(NamedTuple):
    """What a client gave in AUTH; see aiosmtpd.smtp.LoginPassword."""

    login: bytes
    password: bytes

    def __repr__(self) -> str:  # it may get into a log
        return f"LoginPassword(login={self.login.decode()!r}, password=...)"


def login_password(username: str, password: str) -> Any:
    """aiosmtpd's own LoginPassword where the handler has imported it: authenticators ask for its type."""
    kind = getattr(sys.modules.get("aiosmtpd.smtp"), "LoginPassword", _LoginPassword)
    return kind(username.encode(), password.encode())


class Server:
    """What stands for aiosmtpd.smtp.SMTP: facts, and no way to the wire. A hook returns its status instead."""

    __ident__ = "preforksmtp"

    def __init__(self, facts: Session, current: Current, event_handler: Any, loop: Any) -> None:
        """`current` gives the session and the envelope as they are now: STARTTLS and RSET make new ones."""
        self._current = current
        self.hostname = facts.hostname
        self.event_handler = event_handler
        self.loop = loop
        self.transport = Transport(facts, current)
        self.responses: list[bytes] = []  # of the client, for challenge_auth

    @property
    def session(self) -> AioSession:
        return self._current()[0]

    @property
    def envelope(self) -> Envelope:
        return self._current()[1]

    async def push(self, status: Any) -> None:
        raise NotImplementedError("preforksmtp has no server.push: a hook returns its status instead")

    async def challenge_auth(self, challenge: Any, *arguments: Any, **options: Any) -> bytes:
        """The client's response: the server has run the exchange of PLAIN or LOGIN before any hook is called."""
        if not self.responses:
            raise NotImplementedError("preforksmtp has no server.challenge_auth but in auth_PLAIN and auth_LOGIN")
        return self.responses.pop(0)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"preforksmtp has no server.{name}; it has hostname, event_handler, session, envelope, loop and transport"
        )


class Transport:
    """For `server.transport.get_extra_info(...)`."""

    def __init__(self, facts: Session, current: Current) -> None:
        self._facts = facts
        self._current = current

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """peername, sockname, peercert or cipher."""
        if name == "peername":
            return self._current()[0].peer
        if name == "sockname":
            return tuple(self._facts.local)
        return (self._current()[0].ssl or {}).get(name, default)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        raise NotImplementedError("preforksmtp has no transport.close: a hook returns a status of 421 instead")
