"""SASL mechanisms (RFC 4954), one function each, written as the client sees them: top to bottom; and MECHANISMS.

A mechanism is given the client's initial response (None where there was none), `ask`, which sends a challenge and
returns the response decoded, and a verifier, which asks the handler's hooks and counts who tries: by itself where a
hook decides, else the mechanism says so. It returns the identity, or raises Reject. SCRAM is in smtp/scram.py, bearer
tokens are in smtp/oauth.py.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from preforksmtp.smtp import reply
from preforksmtp.smtp.oauth import Tokens, oauthbearer, xoauth2
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.saslprep import MOST, saslprep
from preforksmtp.smtp.scram import Passwords, Secret, scram


class Verifier(Passwords, Tokens, Protocol):
    """The handler's hooks, and the facts of the connection that mechanisms bind to."""

    hostname: str

    def authenticate(self, username: str, password: str) -> bool: ...
    def password(self, username: str) -> Secret: ...
    def certificate(self) -> str | None:
        """The identity of the client's verified certificate, None if it has none."""


Ask = Callable[[bytes], bytes]


class Mechanism(NamedTuple):
    """`hooks`: any of these, overridden by a handler, makes it possible. `needs`: what of the connection it needs."""

    run: Callable[[bytes | None, Ask, Verifier], str]
    hooks: tuple[str, ...]
    needs: str = ""  # "binding": a channel binding; "certificate": one of the client


def decode_response(text: str, initial: bool = False) -> bytes:
    """A base64 response; "*" cancels. Of an `initial` one (RFC 4954 section 4) "=" means that it is empty."""
    if text == "*":
        raise Reject(reply.AUTH_CANCELLED)
    if text == "=" and initial:
        return b""
    if len(text) % 4:  # the decoder lets some excess padding pass
        raise Reject(reply.BAD_BASE64)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Reject(reply.BAD_BASE64) from None


def _name(octets: bytes) -> str:
    """A user name as the handler gets it."""
    if len(octets) > MOST:
        raise Reject(reply.AUTH_FAILED)
    return _text(octets)


def _text(octets: bytes) -> str:
    """A user name or password as the handler gets it: UTF-8 without NUL (RFC 4616 section 2), prepared (RFC 4013).

    What needs no preparation may be as long as the line: some send a token for a password.
    """
    if len(octets) > MOST and not octets.isascii():
        raise Reject(reply.AUTH_FAILED)
    try:
        text = octets.decode("utf-8")
        if "\0" in text:
            raise Reject(reply.AUTH_FAILED)
        return saslprep(text) if not text.isascii() else text
    except ValueError:
        raise Reject(reply.AUTH_FAILED) from None


def plain(initial: bytes | None, ask: Ask, verifier: Verifier) -> str:
    """PLAIN (RFC 4616): authorization identity NUL user NUL password."""
    response = ask(b"") if initial is None else initial
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise Reject(reply.MALFORMED_PLAIN)
    authorization, username, password = _name(parts[0]), _name(parts[1]), _text(parts[2])
    if authorization not in ("", username):  # nobody acts for another here
        raise Reject(reply.AUTH_FAILED)
    return _verified(verifier, username, password)


def login(initial: bytes | None, ask: Ask, verifier: Verifier) -> str:
    """LOGIN (draft-murchison-sasl-login): user name, then password. An empty initial response is none."""
    username = _name(initial or ask(b"Username:"))
    return _verified(verifier, username, _text(ask(b"Password:")))


def _verified(verifier: Verifier, username: str, password: str) -> str:
    # Nothing but True lets in: a forgotten await or a user object must not.
    if not username or not username.isprintable() or verifier.authenticate(username, password) is not True:
        raise Reject(reply.AUTH_FAILED)
    return username


def cram_md5(initial: bytes | None, ask: Ask, verifier: Verifier) -> str:
    """CRAM-MD5 (RFC 2195): a digest over our challenge. It needs the password itself, a ScramSecret does not do."""
    if initial is not None:  # RFC 4954 section 4: the server speaks first
        raise Reject(reply.NO_INITIAL_RESPONSE)
    challenge = f"<{os.urandom(16).hex()}@{verifier.hostname}>".encode()
    name, _, digest = ask(challenge).rpartition(b" ")
    username = _name(name)
    if not username or not username.isprintable():
        raise Reject(reply.AUTH_FAILED)
    verifier.attempt()
    secret = verifier.password(username)
    key = secret if isinstance(secret, str) else ""
    if not hmac.compare_digest(cram_md5_digest(key, challenge), digest.lower()) or not key:
        raise Reject(reply.AUTH_FAILED)
    return username


def cram_md5_digest(password: str, challenge: bytes) -> bytes:
    """What proves a password: HMAC-MD5 in hexadecimal (RFC 2195 section 2)."""
    # A handler may have read the password from bytes that are no UTF-8.
    return hmac.new(password.encode("utf-8", "surrogatepass"), challenge, "md5").hexdigest().encode()


def external(initial: bytes | None, ask: Ask, verifier: Verifier) -> str:
    """EXTERNAL (RFC 4422 appendix A): the client's certificate has said who it is."""
    authorization = _name(ask(b"") if initial is None else initial)
    identity = verifier.certificate()
    if not identity or authorization not in ("", identity):
        raise Reject(reply.AUTH_FAILED)
    return identity


_PASSWORD = ("password",)

# In the order they are offered: clients take the first they know.
MECHANISMS: dict[str, Mechanism] = {
    "EXTERNAL": Mechanism(external, ("certificate",), "certificate"),
    "SCRAM-SHA-256-PLUS": Mechanism(partial(scram, "sha256", True), _PASSWORD, "binding"),
    "SCRAM-SHA-1-PLUS": Mechanism(partial(scram, "sha1", True), _PASSWORD, "binding"),
    "SCRAM-SHA-256": Mechanism(partial(scram, "sha256", False), _PASSWORD),
    "SCRAM-SHA-1": Mechanism(partial(scram, "sha1", False), _PASSWORD),
    "CRAM-MD5": Mechanism(cram_md5, _PASSWORD),
    "OAUTHBEARER": Mechanism(oauthbearer, ("token",)),
    "XOAUTH2": Mechanism(xoauth2, ("token",)),
    "PLAIN": Mechanism(plain, ("authenticate", "password")),
    "LOGIN": Mechanism(login, ("authenticate", "password")),
}


def possible(hooks: frozenset[str]) -> tuple[str, ...]:
    """The mechanisms that a handler with these hooks makes possible."""
    return tuple(name for name, mechanism in MECHANISMS.items() if not hooks.isdisjoint(mechanism.hooks))
