"""Commands: one line of bytes -> verb and argument; the ESMTP parameters behind a path.

Pure grammar (RFC 5321 sections 2.3.8 and 4.1.1): bytes in, value out or Reject.
"""

from __future__ import annotations

import re

from . import reply
from .reply import Reject

COMMAND_LINE_OCTETS = 2048  # RFC 5321 4.5.3.1.4 asks for 512 and more where extensions add parameters
AUTH_LINE_OCTETS = 12288  # RFC 4954 section 4

# What a browser made to speak to us would send (ALPACA, CVE-2021-3618): no SMTP client begins a line so.
CROSS_PROTOCOL = re.compile(
    r"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|TRACE|PATCH|PRI) [^ ]+ (?:HTTP|RTSP|SIP)/|"
    r"(?:Host|User-Agent|Content-Type|Content-Length|Accept|Referer|Cookie|Connection|Origin):",
    re.IGNORECASE,
)

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_VALUE = re.compile(r"[^\x00-\x20=\x7f-\xa0]+")  # RFC 5321 esmtp-value, RFC 6531 section 3.3; see address.py

_JOINERS = dict.fromkeys((0x200C, 0x200D))


def decode(line: bytes) -> str:
    """The text of one command line, without its CRLF. Refuses a bare LF, control characters and broken UTF-8."""
    if line[-2:] != b"\r\n":
        raise Reject(reply.BARE_LINE_FEED)
    try:
        text = line[:-2].decode()
    except UnicodeDecodeError:
        raise Reject(reply.NOT_UTF8) from None
    return text if text.isprintable() else _forgive(text)


def _forgive(text: str) -> str:
    """What is not printable and yet legal: tabs at the end (RFC 5321 4.1.1); the joiners of Indic and Arabic."""
    text = text.rstrip(" \t")
    if not text.translate(_JOINERS).isprintable():
        raise Reject(reply.BAD_CHARACTERS)
    return text


def verb(name: str) -> str:
    """A command as VERBS has it. Some letters outside of ASCII have capitals in it: those are no commands."""
    return name.upper() if name.isascii() else name


def parse_parameters(text: str) -> dict[str, str | None]:
    """The parameters behind a path, by keyword in capitals; the value is None where there is no "=".

    Refuses what is malformed and what is given twice (501).
    """
    parameters: dict[str, str | None] = {}
    if text and text[0] != " ":
        raise Reject(reply.BAD_PARAMETER)
    for word in text.split():
        keyword, equals, value = word.partition("=")
        if _KEYWORD.fullmatch(keyword) is None or (equals and _VALUE.fullmatch(value) is None):
            raise Reject(reply.BAD_PARAMETER)
        keyword = keyword.upper()
        if keyword in parameters:
            raise Reject(reply.REPEATED_PARAMETER)
        parameters[keyword] = value if equals else None
    return parameters
