"""XCLIENT and XFORWARD: a trusted proxy or filter says whom it speaks for (Postfix's XCLIENT_README, XFORWARD_README).

XCLIENT replaces what is known of the client and begins the session anew; XFORWARD is only noted, for logs and handlers.
Values are xtext, and checked as what they claim to be: a trusted peer may pass on what an untrusted one chose.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from . import reply
from .address import is_domain, is_helo_name
from .parameters import decode_xtext
from .reply import Reject, Reply
from .session import Endpoint

if TYPE_CHECKING:
    from .dialogue import Dialogue

_UNKNOWN = frozenset(("[UNAVAILABLE]", "[TEMPUNAVAIL]"))


def _check(condition: bool, value: str) -> str:
    if not condition:
        raise Reject(reply.BAD_ATTRIBUTE)
    return value


def _address(value: str) -> str:
    """192.0.2.1 or IPV6:2001:db8::1, as Endpoint has it."""
    text = value[5:] if value[:5].upper() == "IPV6:" else value
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Reject(reply.BAD_ATTRIBUTE) from None


def _port(value: str) -> str:
    return _check(value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535, value)


def _protocol(value: str) -> str:
    return _check(value.upper() in ("SMTP", "ESMTP"), value.upper())


def _text(value: str) -> str:
    return value  # printable ASCII by decode_xtext


_Attributes = Mapping[str, Callable[[str], str]]

_COMMON: _Attributes = {
    "NAME": lambda value: _check(is_domain(value.rstrip(".")), value.rstrip(".")),
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _protocol,
    "HELO": lambda value: _check(is_helo_name(value), value),
}
XCLIENT_ATTRIBUTES: _Attributes = {**_COMMON, "LOGIN": _text, "DESTADDR": _address, "DESTPORT": _port}
XFORWARD_ATTRIBUTES: _Attributes = {
    **_COMMON,
    "IDENT": _text,
    "SOURCE": lambda value: _check(value.upper() in ("LOCAL", "REMOTE"), value.upper()),
}


def _parse(argument: str, known: _Attributes) -> dict[str, str]:
    """`NAME=value ...`; the value is "" for [UNAVAILABLE] and [TEMPUNAVAIL]."""
    attributes = {}
    for word in argument.split():
        name, equals, encoded = word.partition("=")
        name = name.upper()
        if not equals or name not in known:
            raise Reject(reply.BAD_ATTRIBUTE)
        value = "" if encoded.upper() in _UNKNOWN else known[name](decode_xtext(encoded))
        attributes[name] = value
    if not attributes:
        raise Reject(reply.BAD_ATTRIBUTE)
    return attributes


def xclient(dialogue: Dialogue, argument: str) -> Reply:
    """Take over what the peer says of its client, and greet that client."""
    if not dialogue.xclient:
        raise Reject(reply.NOT_TRUSTED)
    given = _parse(argument, XCLIENT_ATTRIBUTES)
    session = dialogue.session
    if "ADDR" in given or "PORT" in given:
        host = given.get("ADDR") or session.peer.host
        session.peer = Endpoint(host, int(given.get("PORT") or 0))
        session.reverse_dns = ""
    if "NAME" in given:
        session.reverse_dns = given["NAME"]
    if "DESTADDR" in given or "DESTPORT" in given:
        local = session.local
        session.move(Endpoint(given.get("DESTADDR") or local.host, int(given.get("DESTPORT") or local.port)))
    session.helo = given.get("HELO", "")
    session.esmtp = given.get("PROTO") == "ESMTP"
    session.user = given.get("LOGIN") or None
    if "ADDR" in given and dialogue.limits is not None:
        dialogue.limits.moved()
    return dialogue.restart()


def xforward(dialogue: Dialogue, argument: str) -> Reply:
    """Note what the peer says of the next message's client."""
    if not dialogue.xforward:
        raise Reject(reply.NOT_TRUSTED)
    dialogue.session.xforward = dialogue.session.xforward | _parse(argument, XFORWARD_ATTRIBUTES)
    return reply.OK
