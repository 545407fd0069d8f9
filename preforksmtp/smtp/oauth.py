"""Bearer tokens: XOAUTH2 (Google, Microsoft) and OAUTHBEARER (RFC 7628).

A failure is told in a challenge first, as JSON, which the client answers before it hears 535; so it is counted, and
delayed, before the challenge. Whatever the client answers, or if it leaves: it has tried a token.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.saslprep import MOST


class Tokens(Protocol):
    def token(self, username: str, token: str) -> str | None:
        """The identity that `token` proves, None if it proves none."""

    def failed(self) -> None:
        """The client has failed. Returns when it may be told."""


MOST_FIELDS = 32
_TOKEN = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*) *")


def xoauth2(initial: bytes | None, ask: Callable[[bytes], bytes], verifier: Tokens) -> str:
    """`user=NAME^Aauth=Bearer TOKEN^A^A`."""
    fields = _fields(ask(b"") if initial is None else initial)
    username = _name(fields.get("user", ""))
    token = _token(fields)
    if not username or not token:
        raise Reject(reply.MALFORMED_TOKEN)
    identity = verifier.token(username, token)
    if identity is None:
        raise _refusal(ask, verifier, b'{"status":"401","schemes":"bearer","scope":""}')
    return identity


def oauthbearer(initial: bytes | None, ask: Callable[[bytes], bytes], verifier: Tokens) -> str:
    """`n,a=NAME,^Ahost=...^Aport=...^Aauth=Bearer TOKEN^A^A`; NAME may be missing: the token tells it then."""
    message = ask(b"") if initial is None else initial
    header, separator, rest = message.partition(b"\1")
    found = re.fullmatch(rb"[ny],(?:a=([^,]*))?,", header)
    if found is None or not separator:
        raise Reject(reply.MALFORMED_TOKEN)
    username = _name(_decode(found[1] or b"").replace("=2C", ",").replace("=3D", "="))
    token = _token(_fields(rest))
    identity = verifier.token(username, token) if token else None  # without one a client asks how to get it
    if identity is None:
        raise _refusal(ask, verifier, b'{"status":"invalid_token","schemes":"bearer"}')
    return identity


def _name(text: str) -> str:
    if len(text.encode()) > MOST:
        raise Reject(reply.AUTH_FAILED)
    return text


def _token(fields: dict[str, str]) -> str:
    """The bearer token in the field auth, "" where none is."""
    found = _TOKEN.fullmatch(fields.get("auth", ""))
    return found[1] if found is not None else ""


def _refusal(ask: Callable[[bytes], bytes], verifier: Tokens, challenge: bytes) -> Reject:
    verifier.failed()
    try:
        ask(challenge)
    except Reject:
        pass  # cancelled, or no base64: refused it is
    return Reject(reply.AUTH_FAILED)


def _fields(message: bytes) -> dict[str, str]:
    """key=value, each ended by ^A, and one ^A more."""
    if not message.endswith(b"\1\1") or message.count(b"\1") > MOST_FIELDS:
        raise Reject(reply.MALFORMED_TOKEN)
    pairs = [_decode(part).partition("=") for part in message[:-2].split(b"\1")]
    if not all(equals for _, equals, _ in pairs):
        raise Reject(reply.MALFORMED_TOKEN)
    return {key: value for key, _, value in pairs}


def _decode(octets: bytes) -> str:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Reject(reply.MALFORMED_TOKEN) from None
    if not text.isprintable():
        raise Reject(reply.MALFORMED_TOKEN)
    return text
