"""AUTH: the command around an exchange of smtp/sasl.py (RFC 4954)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, cast

from preforksmtp.smtp import reply
from preforksmtp.smtp.command import AUTH_LINE_OCTETS, verb
from preforksmtp.smtp.conversation import Conversation
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.sasl import MECHANISMS, decode_response
from preforksmtp.smtp.scram import ScramSecret, Secret, check_password

_MISUSE = (500, 501)  # cancelled, malformed, too long
# Seconds between looks for a turn, where a client has as many attempts under way as it may fail: about ten in all.
_TURNS = (0.02, 0.05, 0.1, 0.2) + 20 * (0.5,)


def auth(conversation: Conversation, argument: str) -> Reply:
    """Run the exchange the client asks for; success is remembered in `session.user`, once a session. Also after HELO:
    printers and cameras know nothing else."""
    session, rules = conversation.session, conversation.rules
    if not rules.mechanisms:
        raise Reject(reply.NOT_IMPLEMENTED)
    if session.user is not None:
        raise Reject(reply.ALREADY_AUTHENTICATED)
    words = argument.split()
    if not 1 <= len(words) <= 2:
        raise Reject(reply.AUTH_SYNTAX)
    name = verb(words[0])
    if name not in rules.mechanisms:
        raise Reject(reply.UNKNOWN_MECHANISM)
    if name not in conversation.offer().mechanisms:
        raise Reject(reply.AUTH_NEEDS_TLS if session.tls is None else reply.UNKNOWN_MECHANISM)
    initial = decode_response(words[1], initial=True) if len(words) == 2 else None
    exchange = _Exchange(conversation, name)
    try:
        if conversation.limits is not None:
            conversation.limits.look()
        identity = MECHANISMS[name].run(initial, exchange.ask, exchange)
    except Reject as refusal:
        if exchange.tries or refusal.reply.code not in _MISUSE:  # else nobody was asked anything
            exchange.failed(refusal.reply)
        raise
    exchange.succeeded()
    session.user = identity
    conversation.journal.authenticated(session, name, identity)
    return reply.AUTHENTICATED


class _Exchange:
    """One exchange with the client, and the handler's hooks as a mechanism calls them.

    Only what the hooks themselves raise is the handler's failure. An attempt is counted before anything is tried, so
    that others at the same time cannot overtake the count, and only success takes it back: whatever else comes of it,
    be it an exception of the hook or a client that leaves, was one. `heard`: when the client spoke last (monotonic).
    """

    def __init__(self, conversation: Conversation, mechanism: str) -> None:
        self._conversation = conversation
        self._mechanism = mechanism
        self.heard = monotonic()
        self.tries = False  # the handler was asked, and the client is not known to be right
        self._failed = False
        self.hostname = conversation.rules.hostname
        self.salt_key = conversation.rules.salt_key
        self.iterations = conversation.hooks.scram_iterations
        self.salt_octets = conversation.hooks.scram_salt_octets
        tls = conversation.session.tls
        self.bindings: Mapping[str, bytes] = tls.bindings if tls is not None else {}
        self.offers_binding = any(name.endswith("-PLUS") for name in conversation.offer().mechanisms)
        self.asked_binding = ""
        self._claimed = ""  # the name that was given, unless it is known to be nobody's

    def ask(self, challenge: bytes) -> bytes:
        """Send a challenge, read the response. A drain in a hurry may interrupt the wait: no mail is lost by it."""
        conversation = self._conversation
        conversation.wire.write(b"334 " + b64encode(challenge) + b"\r\n")
        line = conversation.wire.read_line(AUTH_LINE_OCTETS, 2)
        self.heard = monotonic()
        if line is None:
            raise Reject(reply.AUTH_LINE_TOO_LONG)
        if line[-2:] != b"\r\n" or not line.isascii():
            raise Reject(reply.BAD_BASE64)
        return decode_response(str(line[:-2], "ascii"))

    # --- who tries, and how often

    def attempt(self) -> None:
        """See smtp/scram.py. Who has many attempts under way waits for the outcome of some."""
        conversation = self._conversation
        if conversation.limits is not None:
            for seconds in _TURNS:
                if conversation.limits.attempt():
                    break
                conversation.wire.pause(seconds, idle=True)
            else:
                raise Reject(reply.AUTH_FAILURE_RATE)
        self.tries = True

    def succeeded(self) -> None:
        """See smtp/scram.py."""
        if self.tries:
            self.tries = False
            if self._conversation.limits is not None:
                self._conversation.limits.decided(right=True)

    def failed(self, answer: Reply = reply.AUTH_FAILED) -> None:
        """Once: count the failure, and return when the client may hear of it; the last one allowed ends the session.

        Guessing must be slow, and time must not tell what reply will. The wait begins with what the client said last,
        so that it does not tell how long a hook took to say no: one that finds no such user is often faster.
        """
        if self._failed:
            return
        self._failed = True
        conversation = self._conversation
        if conversation.limits is not None:
            if not self.tries and answer.code >= 500:
                with suppress(Reject):
                    conversation.limits.attempt()
            conversation.limits.decided(right=False)
        if answer.code >= 500 and answer.code not in _MISUSE:  # others prove nothing against the client
            conversation.journal.authenticated(
                conversation.session, self._mechanism, None, self.asked_binding, self._claimed
            )
        if answer.code >= 500 or self.tries:
            conversation.auth_failures += 1
        conversation.wire.pause(conversation.rules.auth_failure_delay, self.heard, idle=True)
        if 0 < conversation.rules.max_auth_failures <= conversation.auth_failures:
            conversation.journal.ended(conversation.session, "too many AUTH failures (max_auth_failures)")
            conversation.end(reply.TOO_MANY_AUTH_FAILURES)

    # --- the handler's hooks

    def authenticate(self, username: str, password: str) -> bool:
        conversation = self._conversation
        self.attempt()
        self._claimed = username
        if not conversation.hooks.authenticate:
            return check_password(self.password(username), password, self.iterations)
        return cast("bool", conversation.call("authenticate", conversation.handler.authenticate, username, password))

    def password(self, username: str) -> Secret:
        secret = self._conversation.call("password", _secret, self._conversation.handler.password, username)
        self._claimed = username if secret is not None else ""  # what is no user's name may be a password
        return cast("Secret", secret)

    def token(self, username: str, token: str) -> str | None:
        self.attempt()
        self._claimed = username
        verdict = self._conversation.call("token", self._conversation.handler.token, username, token)
        if isinstance(verdict, str):
            return verdict or None
        return username or None if verdict is True else None  # as with authenticate: nothing else lets in

    def certificate(self) -> str | None:
        conversation = self._conversation
        self.attempt()
        facts = conversation.session.tls.peer_certificate
        return cast("str | None", conversation.call("certificate", _identity, conversation.handler.certificate, facts))


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
