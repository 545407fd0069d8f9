"""Rules: the terms under which one bind serves: limits, and what is required.

Made once per bind in each worker from the settings; the replies that depend only on them are encoded here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.pace import Meter, Pace
from preforksmtp.smtp.reply import Reply
from preforksmtp.smtp.syntax import SYNTAXES, Syntax
from preforksmtp.smtp.wire import Input, Wire

# The channel bindings that clients look for: whoever is offered -PLUS and finds neither gives up, for a server that
# offers it and then cannot looks like somebody in between (RFC 5802 section 6).
_USUAL_BINDINGS = frozenset(("tls-unique", "tls-exporter"))


class Room:
    """Whether there is room for messages; `short`: there is not, and MAIL is refused (452)."""

    short = False


@dataclass
class Rules:
    """What a session may do. Sizes in bytes, times in seconds, 0 = no limit.

    A field has the name of the setting that it is. The first ones are worked out from several, and given to `of` by
    their names; so a new setting of a session is a row in the table of settings, and a line here.
    """

    hooks: Hooks
    lmtp: bool
    offer_tls: bool  # STARTTLS is possible: a certificate is there, and the bind is not implicit TLS
    accept_bare_newlines: bool
    accept_pipelined_body: bool
    salt_key: bytes = field(repr=False)  # see preforksmtp/server/salts.py
    spool_dir: str | None
    room: Room
    stressed: Callable[[], bool] | None  # whether the server is nearly full; None: nobody looks

    hostname: str
    address_syntax: str  # "lenient" or "strict"
    max_message_size: int
    max_recipients: int
    max_recipient_domains: int  # of one message
    max_messages: int  # in one session
    max_errors: int
    max_refused_recipients: int  # in one session
    max_idle_commands: int  # that bring no message nearer, between two messages
    error_delay: float
    greeting_delay: float
    min_data_rate: int  # octets of a body per second
    min_data_rate_grace: float
    stress_command_timeout: float
    stress_data_timeout: float
    command_timeout: float
    data_timeout: float
    handshake_timeout: float
    require_tls: bool
    require_auth: bool
    allow_insecure_auth: bool
    max_auth_failures: int  # in one session
    auth_failure_delay: float
    auth_mechanisms: tuple[str, ...]  # empty: all that the handler's hooks allow
    channel_binding: str  # "auto", "always", "never"
    max_line_length: int  # of a body, with its CRLF
    spool_threshold: int

    syntax: Syntax = field(init=False)
    greeting: Reply = field(init=False)
    helo: Reply = field(init=False)
    mechanisms: tuple[str, ...] = field(init=False)
    pace: Pace = field(init=False)
    offers: dict[Any, Any] = field(init=False, default_factory=dict, repr=False)  # made so far, see smtp/extensions.py

    def __post_init__(self) -> None:
        self.syntax = SYNTAXES[self.address_syntax]
        self.greeting = Reply(220, f"{self.hostname} {'LMTP' if self.lmtp else 'ESMTP'} preforksmtp", bare=True)
        self.helo = Reply(250, self.hostname, bare=True)
        wanted = [name.upper() for name in self.auth_mechanisms] or self.hooks.mechanisms  # in the order given
        self.mechanisms = tuple(name for name in wanted if name in self.hooks.mechanisms)
        self.pace = Pace(
            self.command_timeout,
            self.data_timeout,
            self.handshake_timeout,
            self.stress_command_timeout,
            self.stress_data_timeout,
            self.stressed,
        )

    @classmethod
    def of(cls, settings: Any, **computed: Any) -> Rules:
        """Those of a bind with these settings; `computed` has every field that is none of them."""
        named = [each.name for each in fields(cls) if each.init and each.name not in computed]
        return cls(**computed, **{name: getattr(settings, name) for name in named})

    def for_trusted(self) -> Rules:
        """The same without what is meant against abuse."""
        return replace(
            self,
            max_messages=0,
            max_idle_commands=0,
            max_refused_recipients=0,
            error_delay=0.0,
            greeting_delay=0.0,
            min_data_rate=0,
            stressed=None,
        )

    def binds(self, bindings: Mapping[str, bytes]) -> bool:
        """Whether -PLUS is offered to a client whose connection has these channel bindings."""
        if self.channel_binding == "auto":
            return not _USUAL_BINDINGS.isdisjoint(bindings)
        return self.channel_binding == "always" and bool(bindings)

    def body_wire(self, wire: Wire) -> Input:
        """The wire to read one body from."""
        if not self.min_data_rate:
            return wire
        return Meter(wire, self.pace, self.min_data_rate, self.min_data_rate_grace)
