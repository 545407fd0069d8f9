"""AUTH: the command around an exchange of smtp/sasl.py (RFC 4954)."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from . import reply
from .command import AUTH_LINE_OCTETS, verb
from .reply import Reject, Reply
from .sasl import MECHANISMS, decode_response

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
    if name not in rules.offered_mechanisms(session.tls is not None):
        raise Reject(reply.AUTH_NEEDS_TLS)
    initial = decode_response(words[1]) if len(words) == 2 else None
    if dialogue.limits is not None:
        dialogue.limits.attempt()
    try:
        identity = MECHANISMS[name](initial, lambda challenge: _ask(dialogue, challenge), _Verifier(dialogue))
    except Reject as refusal:
        if refusal.reply.code == 535:
            dialogue.journal.authenticated(session, name, None)
        elif dialogue.limits is not None:
            dialogue.limits.succeeded()
        raise
    if dialogue.limits is not None:
        dialogue.limits.succeeded()
    session.user = identity
    dialogue.journal.authenticated(session, name, identity)
    return reply.AUTHENTICATED


class _Verifier:
    """The handler's hooks as a mechanism calls them: only their own failures are the handler's."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    def authenticate(self, username: str, password: str) -> bool:
        verdict: bool = self._dialogue.call(
            "authenticate", self._dialogue.handler.authenticate, username, password
        )
        return verdict


def _ask(dialogue: Dialogue, challenge: bytes) -> bytes:
    """Send a challenge, read the response."""
    dialogue.wire.write(b"334 " + b64encode(challenge) + b"\r\n")
    line = dialogue.wire.read_line(AUTH_LINE_OCTETS, dialogue.rules.command_timeout)
    if line is None:
        raise Reject(reply.AUTH_LINE_TOO_LONG)
    if line[-2:] != b"\r\n" or not line.isascii():
        raise Reject(reply.BAD_BASE64)
    return decode_response(str(line[:-2], "ascii"))
