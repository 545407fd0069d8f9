"""Rules: the terms under which one bind serves. Limits, what is required, what is offered; and what EHLO says of it.

Made once per bind in each worker from the settings; the replies that depend only on them are encoded here, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .extensions import keywords
from .handler import Hooks
from .reply import Reply


@dataclass
class Rules:
    """What a session may do. Sizes in bytes, times in seconds, 0 = no limit."""

    hooks: Hooks
    hostname: str = "localhost"
    lmtp: bool = False
    max_message_size: int = 33554432
    max_recipients: int = 1000
    max_errors: int = 10
    command_timeout: float = 300.0
    data_timeout: float = 180.0
    require_tls: bool = False
    require_auth: bool = False
    offer_tls: bool = False  # STARTTLS is possible: a certificate is there, and the bind is not implicit TLS
    allow_insecure_auth: bool = False
    auth_mechanisms: tuple[str, ...] = ()  # empty: all that the handler's hooks allow
    accept_bare_newlines: bool = False
    spool_threshold: int = 1048576
    spool_dir: str | None = None

    greeting: Reply = field(init=False)
    helo: Reply = field(init=False)
    mechanisms: tuple[str, ...] = field(init=False)
    _ehlo: dict[tuple[bool, bool], Reply] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.greeting = Reply(220, f"{self.hostname} {'LMTP' if self.lmtp else 'ESMTP'} preforksmtp", bare=True)
        self.helo = Reply(250, self.hostname, bare=True)
        wanted = {name.upper() for name in self.auth_mechanisms}
        self.mechanisms = tuple(name for name in self.hooks.mechanisms if not wanted or name in wanted)

    def offered_mechanisms(self, tls: bool) -> tuple[str, ...]:
        """The AUTH mechanisms a client may use now: none in clear unless that is allowed (RFC 4954 section 4)."""
        return self.mechanisms if tls or self.allow_insecure_auth else ()

    def ehlo(self, tls: bool, authenticated: bool) -> Reply:
        """The reply to EHLO or LHLO: the greeting domain and one keyword a line (RFC 5321 section 4.1.1.1)."""
        key = (tls, authenticated)
        reply = self._ehlo.get(key)
        if reply is None:
            reply = self._ehlo[key] = Reply(250, [self.hostname, *keywords(self, tls, authenticated)], bare=True)
        return reply
