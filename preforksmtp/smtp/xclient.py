"""XCLIENT and XFORWARD: a trusted proxy or filter says whom it speaks for (Postfix's XCLIENT_README, XFORWARD_README).

XCLIENT replaces what is known of the client and begins the session anew; XFORWARD is only noted, for logs and handlers.
A trusted peer passes on what an untrusted client chose, so each value is checked as what it claims to be, and for
itself: refused (501) is only what is malformed, for a proxy that is refused may go on as itself, with all its rights.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from preforksmtp.smtp import reply
from preforksmtp.smtp.address import is_domain
from preforksmtp.smtp.conversation import Conversation
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.session import Endpoint
from preforksmtp.smtp.xtext import decode_octets

if TYPE_CHECKING:
    from preforksmtp.smtp.syntax import Syntax

_UNAVAILABLE = ""
_UNKNOWN = frozenset(("[UNAVAILABLE]", "[TEMPUNAVAIL]"))


def _address(value: str, syntax: Syntax) -> str:
    """192.0.2.1 or IPV6:2001:db8::1, as Endpoint has it. Its scope is the proxy's affair, and may be any text."""
    text = value[5:] if value[:5].upper() == "IPV6:" else value
    try:
        return str(ipaddress.ip_address(text.partition("%")[0] if ":" in text else text))
    except ValueError:
        raise Reject(reply.BAD_ATTRIBUTE) from None


def _port(value: str, syntax: Syntax) -> str:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise Reject(reply.BAD_ATTRIBUTE)
    return value


def _name(value: str, syntax: Syntax) -> str:
    name = value.rstrip(".")
    return name if name.isascii() and is_domain(name) else _UNAVAILABLE


def _helo(value: str, syntax: Syntax) -> str:
    return value if value and syntax.is_helo(value) else _UNAVAILABLE


def _text(value: str, syntax: Syntax) -> str:
    return value if value.isprintable() else _UNAVAILABLE


def _one_of(*words: str) -> Callable[[str, Syntax], str]:
    return lambda value, syntax: value.upper() if value.upper() in words else _UNAVAILABLE


_Attributes = Mapping[str, Callable[[str, "Syntax"], str]]

_COMMON: _Attributes = {
    "NAME": _name,
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _one_of("SMTP", "ESMTP"),
    "HELO": _helo,
}
XCLIENT_ATTRIBUTES: _Attributes = {**_COMMON, "LOGIN": _text, "DESTADDR": _address, "DESTPORT": _port}
XFORWARD_ATTRIBUTES: _Attributes = {**_COMMON, "IDENT": _text, "SOURCE": _one_of("LOCAL", "REMOTE")}


def _parse(argument: str, known: _Attributes, syntax: Syntax) -> dict[str, str]:
    """`NAME=value ...`; the value is "" for [UNAVAILABLE] and [TEMPUNAVAIL]."""
    attributes: dict[str, str] = {}
    for word in argument.split():
        name, _, encoded = word.partition("=")
        name = name.upper()
        if not encoded or name not in known or name in attributes:  # once each: a line has room for thousands
            raise Reject(reply.BAD_ATTRIBUTE)
        unknown = encoded.upper() in _UNKNOWN
        attributes[name] = _UNAVAILABLE if unknown else known[name](_decode(encoded), syntax)
    if not attributes:
        raise Reject(reply.BAD_ATTRIBUTE)
    return attributes


def _decode(encoded: str) -> str:
    """xtext, or text as it is: some proxies do not encode it, and a login may have a "+"."""
    octets = decode_octets(encoded)
    return encoded if octets is None else octets.decode(errors="replace")


def xclient(conversation: Conversation, argument: str) -> Reply:
    """Take over what the peer says of its client, and greet that client."""
    if not conversation.xclient:
        raise Reject(reply.NOT_TRUSTED)
    given = _parse(argument, XCLIENT_ATTRIBUTES, conversation.rules.syntax)
    session = conversation.session
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
    if "ADDR" in given and conversation.limits is not None:
        conversation.limits.moved()
    return conversation.restart()


def xforward(conversation: Conversation, argument: str) -> Reply:
    """Note what the peer says of the next message's client."""
    if not conversation.xforward:
        raise Reject(reply.NOT_TRUSTED)
    given = _parse(argument, XFORWARD_ATTRIBUTES, conversation.rules.syntax)
    conversation.session.xforward = conversation.session.xforward | given
    return reply.OK
