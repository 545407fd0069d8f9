"""AUTH exchanges (RFC 4954), one function a mechanism, written as the client sees them: top to bottom.

A mechanism is given the client's initial response (None where there was none), `ask`, which sends a challenge and
returns the response decoded, and a verifier, which asks the handler's hooks. It returns the identity, or raises Reject.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Protocol

from . import reply
from .reply import Reject


class Verifier(Protocol):
    def authenticate(self, username: str, password: str) -> bool: ...


Ask = Callable[[bytes], bytes]
Mechanism = Callable[["bytes | None", Ask, Verifier], str]


def decode_response(text: str) -> bytes:
    """A base64 response. "=" is an empty initial response (RFC 4954 section 4), "*" cancels."""
    if text == "*":
        raise Reject(reply.AUTH_CANCELLED)
    if text == "=":
        return b""
    if len(text) % 4:  # the decoder lets some excess padding pass
        raise Reject(reply.BAD_BASE64)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Reject(reply.BAD_BASE64) from None


def _text(octets: bytes) -> str:
    """A user name or password as the handler gets it: UTF-8 without NUL (RFC 4616 section 2)."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Reject(reply.AUTH_FAILED) from None
    if "\0" in text:
        raise Reject(reply.AUTH_FAILED)
    return text


def plain(initial: bytes | None, ask: Ask, verifier: Verifier) -> str:
    """PLAIN (RFC 4616): authorization identity NUL user NUL password."""
    response = ask(b"") if initial is None else initial
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise Reject(501, "5.5.2 Malformed PLAIN response")
    authorization, username, password = map(_text, parts)
    if authorization not in ("", username):  # nobody acts for another here
        raise Reject(reply.AUTH_FAILED)
    return _verified(verifier, username, password)


def login(initial: bytes | None, ask: Ask, verifier: Verifier) -> str:
    """LOGIN (draft-murchison-sasl-login): user name, then password."""
    username = _text(ask(b"Username:") if initial is None else initial)
    return _verified(verifier, username, _text(ask(b"Password:")))


def _verified(verifier: Verifier, username: str, password: str) -> str:
    if not username or verifier.authenticate(username, password) is not True:
        raise Reject(reply.AUTH_FAILED)
    return username


MECHANISMS: dict[str, Mechanism] = {"PLAIN": plain, "LOGIN": login}
