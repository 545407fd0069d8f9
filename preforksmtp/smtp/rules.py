"""Rules: the terms under which one bind serves. Limits, what is required, what is offered; and what EHLO says of it.

Made once per bind in each worker from the settings; the replies that depend only on them are encoded here, once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from preforksmtp.smtp.extensions import Standing, offered
from preforksmtp.smtp.handler import Hooks
from preforksmtp.smtp.pace import Meter, Pace
from preforksmtp.smtp.parameters import MAIL_PARAMETERS, RCPT_PARAMETERS, Parameter, Parameters
from preforksmtp.smtp.reply import Reply
from preforksmtp.smtp.sasl import MECHANISMS
from preforksmtp.smtp.syntax import SYNTAXES, Syntax
from preforksmtp.smtp.wire import Input, Wire

# The channel bindings that clients look for: whoever is offered -PLUS and finds neither gives up, for a server that
# offers it and then cannot looks like somebody in between (RFC 5802 section 6).
_USUAL_BINDINGS = frozenset(("tls-unique", "tls-exporter"))


@dataclass
class Rules:
    """What a session may do. Sizes in bytes, times in seconds, 0 = no limit."""

    hooks: Hooks
    hostname: str = "localhost"
    lmtp: bool = False
    address_syntax: str = "lenient"  # or "strict"
    max_message_size: int = 33554432
    max_recipients: int = 1000
    max_recipient_domains: int = 0  # of one message
    max_messages: int = 0  # in one session
    max_errors: int = 10
    max_refused_recipients: int = 0  # in one session
    max_idle_commands: int = 1000  # that bring no message nearer, between two messages
    error_delay: float = 0.0
    greeting_delay: float = 0.0
    min_data_rate: int = 0  # octets of a body per second
    min_data_rate_grace: float = 10.0
    stressed: Callable[[], bool] | None = None  # whether the server is nearly full; None: nobody looks
    stress_command_timeout: float = 10.0
    stress_data_timeout: float = 10.0
    command_timeout: float = 300.0
    data_timeout: float = 180.0
    handshake_timeout: float = 30.0
    require_tls: bool = False
    require_auth: bool = False
    offer_tls: bool = False  # STARTTLS is possible: a certificate is there, and the bind is not implicit TLS
    allow_insecure_auth: bool = False
    max_auth_failures: int = 3  # in one session
    auth_failure_delay: float = 1.0
    auth_mechanisms: tuple[str, ...] = ()  # empty: all that the handler's hooks allow
    channel_binding: str = "auto"  # or "always", "never"
    salt_key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)  # see preforksmtp/server/salts.py
    accept_bare_newlines: bool = False
    accept_pipelined_body: bool = False
    max_line_length: int = 0  # of a body, with its CRLF
    spool_threshold: int = 1048576
    spool_dir: str | None = None

    syntax: Syntax = field(init=False)
    greeting: Reply = field(init=False)
    helo: Reply = field(init=False)
    mechanisms: tuple[str, ...] = field(init=False)
    pace: Pace = field(init=False)
    _offers: dict[Standing, Offer] = field(init=False, default_factory=dict)

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

    def offered_mechanisms(self, standing: Standing) -> tuple[str, ...]:
        """The AUTH mechanisms a client may use now: none in clear unless that is allowed (RFC 4954 section 4).

        That holds for those too that do not show the password: they do not hide the rest of the session.
        """
        if not standing.tls and not self.allow_insecure_auth:
            return ()
        has = {"": True, "binding": standing.binding, "certificate": standing.certificate}
        return tuple(name for name in self.mechanisms if has[MECHANISMS[name].needs])

    def offer(self, standing: Standing) -> Offer:
        """What a client of this standing is offered."""
        offer = self._offers.get(standing)
        if offer is None:
            offer = self._offers[standing] = Offer(self, standing)
        return offer


class Offer:
    """The extensions offered to clients of one standing, as the EHLO reply and as the parameters they may use."""

    def __init__(self, rules: Rules, standing: Standing) -> None:
        self._rules = rules
        self._standing = standing
        self.keywords = keywords = offered(rules, standing)
        self.mechanisms = rules.offered_mechanisms(standing)
        self._reply = None if "FUTURERELEASE" in keywords else self._encode(keywords)
        self.mail_parameters = self._known(MAIL_PARAMETERS)
        self.rcpt_parameters = self._known(RCPT_PARAMETERS)

    @property
    def ehlo(self) -> Reply:
        """The reply to EHLO or LHLO: the greeting domain and one keyword a line (RFC 5321 section 4.1.1.1)."""
        return self._reply or self._encode(offered(self._rules, self._standing))  # a keyword with a date in it

    def _encode(self, keywords: dict[str, str]) -> Reply:
        lines = [f"{keyword} {value}".rstrip() for keyword, value in keywords.items()]
        return Reply(250, [self._rules.hostname, *lines], bare=True)

    def _known(self, table: dict[str, Parameter]) -> Parameters:
        choose = self._rules.syntax.choose_reader
        return {name: choose(row) for name, row in table.items() if not row.extension or row.extension in self.keywords}
