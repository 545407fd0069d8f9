"""AUTH: the command around an exchange of smtp/sasl.py (RFC 4954)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from preforksmtp.smtp import reply
from preforksmtp.smtp.command import AUTH_LINE_OCTETS, verb
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.sasl import MECHANISMS, decode_response
from preforksmtp.smtp.scram import ScramSecret, Secret, check_password

if TYPE_CHECKING:
    from preforksmtp.smtp.dialogue import Dialogue

_MISUSE = (500, 501)  # cancelled, malformed, too long
# Seconds between looks for a turn, where a client has as many attempts under way as it may fail: about ten in all.
_TURNS = (0.02, 0.05, 0.1, 0.2) + 20 * (0.5,)


def auth(dialogue: Dialogue, argument: str) -> Reply:
    """Run the exchange the client asks for; success is remembered in `session.user`, once a session. Also after HELO:
    printers and cameras know nothing else."""
    session, rules = dialogue.session, dialogue.rules
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
    if name not in dialogue.offer().mechanisms:
        raise Reject(reply.AUTH_NEEDS_TLS if session.tls is None else reply.UNKNOWN_MECHANISM)
    initial = decode_response(words[1], initial=True) if len(words) == 2 else None
    exchange = _Exchange(dialogue, name)
    try:
        if dialogue.limits is not None:
            dialogue.limits.look()
        identity = MECHANISMS[name].run(initial, exchange.ask, exchange)
    except Reject as refusal:
        if exchange.tries or refusal.reply.code not in _MISUSE:  # else nobody was asked anything
            exchange.failed(refusal.reply)
        raise
    exchange.succeeded()
    session.user = identity
    dialogue.journal.authenticated(session, name, identity)
    return reply.AUTHENTICATED


class _Exchange:
    """One exchange with the client, and the handler's hooks as a mechanism calls them.

    Only what the hooks themselves raise is the handler's failure. An attempt is counted before anything is tried, so
    that others at the same time cannot overtake the count, and only success takes it back: whatever else comes of it,
    be it an exception of the hook or a client that leaves, was one. `heard`: when the client spoke last (monotonic).
    """

    def __init__(self, dialogue: Dialogue, mechanism: str) -> None:
        self._dialogue = dialogue
        self._mechanism = mechanism
        self.heard = monotonic()
        self.tries = False  # the handler was asked, and the client is not known to be right
        self._failed = False
        self.hostname = dialogue.rules.hostname
        self.salt_key = dialogue.rules.salt_key
        self.iterations = dialogue.hooks.scram_iterations
        self.salt_octets = dialogue.hooks.scram_salt_octets
        tls = dialogue.session.tls
        self.bindings: Mapping[str, bytes] = tls.bindings if tls is not None else {}
        self.offers_binding = any(name.endswith("-PLUS") for name in dialogue.offer().mechanisms)
        self.asked_binding = ""
        self._claimed = ""  # the name that was given, unless it is known to be nobody's

    def ask(self, challenge: bytes) -> bytes:
        """Send a challenge, read the response. A drain in a hurry may interrupt the wait: no mail is lost by it."""
        dialogue = self._dialogue
        dialogue.wire.write(b"334 " + b64encode(challenge) + b"\r\n")
        line = dialogue.wire.read_line(AUTH_LINE_OCTETS, 2)
        self.heard = monotonic()
        if line is None:
            raise Reject(reply.AUTH_LINE_TOO_LONG)
        if line[-2:] != b"\r\n" or not line.isascii():
            raise Reject(reply.BAD_BASE64)
        return decode_response(str(line[:-2], "ascii"))

    # --- who tries, and how often

    def attempt(self) -> None:
        """See smtp/scram.py. Who has many attempts under way waits for the outcome of some."""
        dialogue = self._dialogue
        if dialogue.limits is not None:
            for seconds in _TURNS:
                if dialogue.limits.attempt():
                    break
                dialogue.wire.pause(seconds, idle=True)
            else:
                raise Reject(reply.AUTH_FAILURE_RATE)
        self.tries = True

    def succeeded(self) -> None:
        """See smtp/scram.py."""
        if self.tries:
            self.tries = False
            if self._dialogue.limits is not None:
                self._dialogue.limits.decided(right=True)

    def failed(self, answer: Reply = reply.AUTH_FAILED) -> None:
        """Once: count the failure, and return when the client may hear of it; the last one allowed ends the session.

        Guessing must be slow, and time must not tell what reply will. The wait begins with what the client said last,
        so that it does not tell how long a hook took to say no: one that finds no such user is often faster.
        """
        if self._failed:
            return
        self._failed = True
        dialogue = self._dialogue
        if dialogue.limits is not None:
            if not self.tries and answer.code >= 500:
                with suppress(Reject):
                    dialogue.limits.attempt()
            dialogue.limits.decided(right=False)
        if answer.code >= 500 and answer.code not in _MISUSE:  # others prove nothing against the client
            dialogue.journal.authenticated(
                dialogue.session, self._mechanism, None, self.asked_binding, self._claimed
            )
        if answer.code >= 500 or self.tries:
            dialogue.auth_failures += 1
        dialogue.wire.pause(dialogue.rules.auth_failure_delay, self.heard, idle=True)
        if 0 < dialogue.rules.max_auth_failures <= dialogue.auth_failures:
            dialogue.journal.ended(dialogue.session, "too many AUTH failures (max_auth_failures)")
            dialogue.end(reply.TOO_MANY_AUTH_FAILURES)

    # --- the handler's hooks

    def authenticate(self, username: str, password: str) -> bool:
        dialogue = self._dialogue
        self.attempt()
        self._claimed = username
        if not dialogue.hooks.authenticate:
            return check_password(self.password(username), password, self.iterations)
        return cast("bool", dialogue.call("authenticate", dialogue.handler.authenticate, username, password))

    def password(self, username: str) -> Secret:
        secret = self._dialogue.call("password", _secret, self._dialogue.handler.password, username)
        self._claimed = username if secret is not None else ""  # what is no user's name may be a password
        return cast("Secret", secret)

    def token(self, username: str, token: str) -> str | None:
        self.attempt()
        self._claimed = username
        verdict = self._dialogue.call("token", self._dialogue.handler.token, username, token)
        if isinstance(verdict, str):
            return verdict or None
        return username or None if verdict is True else None  # as with authenticate: nothing else lets in

    def certificate(self) -> str | None:
        dialogue = self._dialogue
        self.attempt()
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
