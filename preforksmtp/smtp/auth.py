"""AUTH: the command around an exchange of smtp/sasl.py (RFC 4954)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from . import reply
from .command import AUTH_LINE_OCTETS, verb
from .reply import Reject, Reply
from .sasl import MECHANISMS, decode_response
from .scram import ScramSecret, Secret, check_password

if TYPE_CHECKING:
    from .dialogue import Dialogue


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
    initial = decode_response(words[1]) if len(words) == 2 else None
    if dialogue.limits is not None:
        dialogue.limits.attempt()
    try:
        identity = MECHANISMS[name].run(initial, lambda challenge: _ask(dialogue, challenge), _Verifier(dialogue))
    except Reject as refusal:
        if refusal.reply.code == 535:
            dialogue.journal.authenticated(session, name, None)
            _punish(dialogue)
        elif dialogue.limits is not None:
            dialogue.limits.succeeded()
        raise
    if dialogue.limits is not None:
        dialogue.limits.succeeded()
    session.user = identity
    dialogue.journal.authenticated(session, name, identity)
    return reply.AUTHENTICATED


def _punish(dialogue: Dialogue) -> None:
    """A failure makes the client wait, and the last one allowed in a session ends it: guessing must be slow."""
    dialogue.auth_failures += 1
    dialogue.wire.pause(dialogue.rules.auth_failure_delay)
    if 0 < dialogue.rules.max_auth_failures <= dialogue.auth_failures:
        dialogue.journal.ended(dialogue.session, "too many AUTH failures (max_auth_failures)")
        dialogue.end(reply.TOO_MANY_AUTH_FAILURES)


class _Verifier:
    """The handler's hooks as a mechanism calls them: only their own failures are the handler's."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self.hostname = dialogue.rules.hostname
        tls = dialogue.session.tls
        self.server_certificate: bytes = tls.server_certificate if tls is not None else b""
        self.offers_binding = any(name.endswith("-PLUS") for name in dialogue.offer().mechanisms)

    def authenticate(self, username: str, password: str) -> bool:
        dialogue = self._dialogue
        if not dialogue.hooks.authenticate:
            return check_password(self.password(username), username, password)
        return cast("bool", dialogue.call("authenticate", dialogue.handler.authenticate, username, password))

    def password(self, username: str) -> Secret:
        secret = self._dialogue.call("password", _secret, self._dialogue.handler.password, username)
        return cast("Secret", secret)

    def token(self, username: str, token: str) -> str | None:
        verdict = self._dialogue.call("token", self._dialogue.handler.token, username, token)
        if isinstance(verdict, str):
            return verdict or None
        return (username or None) if verdict else None

    def certificate(self) -> str | None:
        dialogue = self._dialogue
        facts = dialogue.session.tls.peer_certificate
        return cast("str | None", dialogue.call("certificate", dialogue.handler.certificate, facts))


def _secret(function: Callable[[str], Any], username: str) -> Secret:
    secret = function(username)
    if secret is not None and not isinstance(secret, (str, ScramSecret)):
        kind = type(secret).__name__
        raise TypeError(f"the handler's password returned {kind}; a str, a ScramSecret or None is expected")
    return secret


def _ask(dialogue: Dialogue, challenge: bytes) -> bytes:
    """Send a challenge, read the response."""
    dialogue.wire.write(b"334 " + b64encode(challenge) + b"\r\n")
    line = dialogue.wire.read_line(AUTH_LINE_OCTETS, dialogue.rules.command_timeout)
    if line is None:
        raise Reject(reply.AUTH_LINE_TOO_LONG)
    if line[-2:] != b"\r\n" or not line.isascii():
        raise Reject(reply.BAD_BASE64)
    return decode_response(str(line[:-2], "ascii"))
