"""Bearer tokens: XOAUTH2 (Google, Microsoft) and OAUTHBEARER (RFC 7628).

A failure is told in a challenge first, as JSON, which the client answers before it hears 535. Whatever it answers:
a client that could cancel there would try tokens without being counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from . import reply
from .reply import Reject


class Tokens(Protocol):
    def token(self, username: str, token: str) -> str | None:
        """The identity that `token` proves, None if it proves none."""


_TOKEN = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*) *")
_MALFORMED = Reject(501, "5.5.2 Malformed token message")


def xoauth2(initial: bytes | None, ask: Callable[[bytes], bytes], verifier: Tokens) -> str:
    """`user=NAME^Aauth=Bearer TOKEN^A^A`."""
    fields = _fields(ask(b"") if initial is None else initial)
    username = fields.get("user", "")
    if not username:
        raise _MALFORMED
    token = _token(fields)
    if not token:
        raise _MALFORMED
    identity = verifier.token(username, token)
    if identity is None:
        raise _refusal(ask, b'{"status":"401","schemes":"bearer","scope":""}')
    return identity


def oauthbearer(initial: bytes | None, ask: Callable[[bytes], bytes], verifier: Tokens) -> str:
    """`n,a=NAME,^Ahost=...^Aport=...^Aauth=Bearer TOKEN^A^A`; NAME may be missing: the token tells it then."""
    message = ask(b"") if initial is None else initial
    header, separator, rest = message.partition(b"\1")
    found = re.fullmatch(rb"[ny],(?:a=([^,]*))?,", header)
    if found is None or not separator:
        raise _MALFORMED
    username = _decode(found[1] or b"").replace("=2C", ",").replace("=3D", "=")
    token = _token(_fields(rest))
    identity = verifier.token(username, token) if token else None  # without one a client asks how to get it
    if identity is None:
        raise _refusal(ask, b'{"status":"invalid_token","schemes":"bearer"}')
    return identity


def _token(fields: dict[str, str]) -> str:
    """The bearer token in the field auth, "" where none is."""
    found = _TOKEN.fullmatch(fields.get("auth", ""))
    return found[1] if found is not None else ""


def _refusal(ask: Callable[[bytes], bytes], challenge: bytes) -> Reject:
    try:
        ask(challenge)
    except Reject:
        pass  # cancelled, or no base64: refused it is
    return Reject(reply.AUTH_FAILED)


def _fields(message: bytes) -> dict[str, str]:
    """key=value, each ended by ^A, and one ^A more."""
    if not message.endswith(b"\1\1"):
        raise _MALFORMED
    pairs = [_decode(part).partition("=") for part in message[:-2].split(b"\1")]
    if not all(equals for _, equals, _ in pairs):
        raise _MALFORMED
    return {key: value for key, _, value in pairs}


def _decode(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _MALFORMED from None
    if not text.isprintable():
        raise _MALFORMED
    return text
