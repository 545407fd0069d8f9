"""Service extensions: the EHLO keywords offered, and the parameters they add to MAIL and RCPT.

Both are tables: an extension is a row in KEYWORDS and a row for each parameter. A keyword's row says when it is
offered and what stands behind it; a parameter's row turns its text into the value handlers see, or refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import reply
from .reply import Reject

if TYPE_CHECKING:
    from .rules import Rules

# keyword -> (rules, tls, authenticated) -> None: not offered; "" or what follows the keyword
KEYWORDS: dict[str, Callable[[Rules, bool, bool], str | None]] = {
    "PIPELINING": lambda rules, tls, authenticated: "",  # RFC 2920
    "SIZE": lambda rules, tls, authenticated: str(rules.max_message_size or ""),  # RFC 1870
    "8BITMIME": lambda rules, tls, authenticated: "",  # RFC 6152
    "SMTPUTF8": lambda rules, tls, authenticated: "",  # RFC 6531
    "ENHANCEDSTATUSCODES": lambda rules, tls, authenticated: "",  # RFC 2034
    "STARTTLS": lambda rules, tls, authenticated: "" if rules.offer_tls and not tls else None,  # RFC 3207
    "AUTH": lambda rules, tls, authenticated: (  # RFC 4954
        None if authenticated else " ".join(rules.offered_mechanisms(tls)) or None
    ),
    "HELP": lambda rules, tls, authenticated: "",
}


def keywords(rules: Rules, tls: bool, authenticated: bool) -> list[str]:
    """The lines of an EHLO reply below its first."""
    offered = ((keyword, offer(rules, tls, authenticated)) for keyword, offer in KEYWORDS.items())
    return [f"{keyword} {value}".rstrip() for keyword, value in offered if value is not None]


def _size(value: str | None) -> int:
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise Reject(reply.BAD_PARAMETER)
    return int(value)


def _body(value: str | None) -> str:
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise Reject(reply.BAD_PARAMETER)
    return body


def _flag(value: str | None) -> bool:
    if value is not None:
        raise Reject(reply.BAD_PARAMETER)
    return True


_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")


def decode_xtext(value: str | None) -> str:
    """xtext (RFC 3461 section 4) decoded; control characters, which could forge lines later, are refused."""
    if not value or _XTEXT.fullmatch(value) is None:
        raise Reject(reply.BAD_PARAMETER)
    if "+" not in value:
        return value
    text = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), value)
    if not text.isascii() or not text.isprintable():
        raise Reject(reply.BAD_PARAMETER)
    return text


def _submitter(value: str | None) -> str:
    """AUTH= of MAIL (RFC 4954 section 5): who submitted it first, "" for `<>`."""
    text = decode_xtext(value)
    return "" if text == "<>" else text


MAIL_PARAMETERS: Mapping[str, Callable[[str | None], Any]] = {
    "SIZE": _size,  # RFC 1870
    "BODY": _body,  # RFC 6152
    "SMTPUTF8": _flag,  # RFC 6531
    "AUTH": _submitter,  # RFC 4954
}
RCPT_PARAMETERS: Mapping[str, Callable[[str | None], Any]] = {}


def read_parameters(
    given: Mapping[str, str | None], known: Mapping[str, Callable[[str | None], Any]]
) -> dict[str, Any]:
    """The values of the parameters given, each by its row in the table `known`: unknown 555, malformed 501."""
    values = {}
    for keyword, text in given.items():
        row = known.get(keyword)
        if row is None:
            raise Reject(reply.UNKNOWN_PARAMETER)
        values[keyword] = row(text)
    return values
