"""AUTH: the command around an exchange of smtp/sasl.py (RFC 4954)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from . import reply
from .command import AUTH_LINE_OCTETS, verb
from .reply import Reject, Reply
from .sasl import MECHANISMS, decode_response
from .scram import ScramSecret, Secret, check_password

if TYPE_CHECKING:
    from .dialogue import Dialogue

_MISUSE = (500, 501)  # refused, but nothing was tried: cancelled, malformed, too long


def auth(dialogue: Dialogue, argument: str) -> Reply:
    """Run the exchange the client asks for; success is remembered in `session.user`, once a session."""
    session, rules = dialogue.session, dialogue.rules
    if not rules.mechanisms:
        raise Reject(reply.NOT_IMPLEMENTED)
    if not session.esmtp:
        raise Reject(reply.EHLO_FIRST)
    if session.user is not None:
        raise Reject(reply.ALREADY_AUTHENTICATED)
    words = argument.split()
    if not 1 <= len(words) <= 2:
        raise Reject(reply.AUTH_SYNTAX)
    name = verb(words[0])
    if name not in rules.mechanisms:
        raise Reject(reply.UNKNOWN_MECHANISM)
    if name not in dialogue.offer().mechanisms:
        raise Reject(reply.AUTH_NEEDS_TLS if session.tls is None else reply.UNKNOWN_MECHANISM)
    initial = decode_response(words[1], initial=True) if len(words) == 2 else None
    if dialogue.limits is not None:
        dialogue.limits.attempt()
    exchange = _Exchange(dialogue)
    try:
        identity = MECHANISMS[name].run(initial, exchange.ask, exchange)
    except Reject as refusal:
        if refusal.reply.code >= 500 and refusal.reply.code not in _MISUSE:  # a hook may refuse in its own words
            dialogue.journal.authenticated(session, name, None)
            _punish(dialogue, exchange.heard)
        elif dialogue.limits is not None:
            dialogue.limits.succeeded()
        raise
    if dialogue.limits is not None:
        dialogue.limits.succeeded()
    session.user = identity
    dialogue.journal.authenticated(session, name, identity)
    return reply.AUTHENTICATED


def _punish(dialogue: Dialogue, heard: float) -> None:
    """A failure makes the client wait, and the last one allowed in a session ends it: guessing must be slow.

    The wait begins with what the client said last, so that it does not tell how long a hook took to say no: one that
    finds no such user is often faster.
    """
    dialogue.auth_failures += 1
    dialogue.wire.pause(dialogue.rules.auth_failure_delay, heard)
    if 0 < dialogue.rules.max_auth_failures <= dialogue.auth_failures:
        dialogue.journal.ended(dialogue.session, "too many AUTH failures (max_auth_failures)")
        dialogue.end(reply.TOO_MANY_AUTH_FAILURES)


class _Exchange:
    """One exchange with the client, and the handler's hooks as a mechanism calls them.

    Only what the hooks themselves raise is the handler's failure. `heard`: when the client spoke last (monotonic).
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self.heard = monotonic()
        self.hostname = dialogue.rules.hostname
        self.iterations = dialogue.hooks.scram_iterations
        tls = dialogue.session.tls
        self.bindings: Mapping[str, bytes] = tls.bindings if tls is not None else {}
        self.offers_binding = any(name.endswith("-PLUS") for name in dialogue.offer().mechanisms)

    def ask(self, challenge: bytes) -> bytes:
        """Send a challenge, read the response. A drain in a hurry may interrupt the wait: no mail is lost by it."""
        dialogue = self._dialogue
        dialogue.wire.write(b"334 " + b64encode(challenge) + b"\r\n")
        line = dialogue.wire.read_line(AUTH_LINE_OCTETS, dialogue.rules.command_timeout, 2)
        self.heard = monotonic()
        if line is None:
            raise Reject(reply.AUTH_LINE_TOO_LONG)
        if line[-2:] != b"\r\n" or not line.isascii():
            raise Reject(reply.BAD_BASE64)
        return decode_response(str(line[:-2], "ascii"))

    def authenticate(self, username: str, password: str) -> bool:
        dialogue = self._dialogue
        if not dialogue.hooks.authenticate:
            return check_password(self.password(username), password, self.iterations)
        return cast("bool", dialogue.call("authenticate", dialogue.handler.authenticate, username, password))

    def password(self, username: str) -> Secret:
        secret = self._dialogue.call("password", _secret, self._dialogue.handler.password, username)
        return cast("Secret", secret)

    def token(self, username: str, token: str) -> str | None:
        verdict = self._dialogue.call("token", self._dialogue.handler.token, username, token)
        if isinstance(verdict, str):
            return verdict or None
        return username or None if verdict is True else None  # as with authenticate: nothing else lets in

    def certificate(self) -> str | None:
        dialogue = self._dialogue
        facts = dialogue.session.tls.peer_certificate
        return cast("str | None", dialogue.call("certificate", _identity, dialogue.handler.certificate, facts))


def _secret(function: Callable[[str], Any], username: str) -> Secret:
    secret = function(username)
    if secret is not None and not isinstance(secret, (str, ScramSecret)):
        kind = type(secret).__name__
        raise TypeError(f"the handler's password returned {kind}; a str, a ScramSecret or None is expected")
    return secret


def _identity(function: Callable[[Any], Any], certificate: Any) -> str | None:
    identity = function(certificate)
    if identity is not None and not isinstance(identity, str):
        raise TypeError(f"the handler's certificate returned {type(identity).__name__}; a str or None is expected")
    return identity
