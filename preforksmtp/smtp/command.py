"""Commands: one line of bytes -> verb and argument; the ESMTP parameters behind a path.

Pure grammar (RFC 5321 sections 2.3.8 and 4.1.1): bytes in, value out or Reject.
"""

from __future__ import annotations

import re
from collections.abc import Container

from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reject

COMMAND_LINE_OCTETS = 2048  # RFC 5321 section 4.5.3.1.4 asks for 512
ENVELOPE_LINE_OCTETS = 4096  # of MAIL and RCPT: a path, and as much for the parameters that extensions add
AUTH_LINE_OCTETS = 12288  # RFC 4954 section 4

# What a browser made to speak to us would send (ALPACA, CVE-2021-3618): no SMTP client begins a line so.
CROSS_PROTOCOL = re.compile(
    r"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|CONNECT|TRACE|PATCH|PRI) [^ ]+ (?:HTTP|RTSP|SIP)/|"
    r"(?:Host|User-Agent|Content-Type|Content-Length|Accept|Referer|Cookie|Connection|Origin):",
    re.IGNORECASE,
)

_GREETINGS = frozenset(("EHLO", "HELO", "LHLO"))
_OWN_BLANKS = _GREETINGS | {"MAIL", "RCPT"}  # whose grammar says itself where a tab may stand
_VERB = re.compile(r"([A-Za-z]{4,8})[ \t]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_VALUE = re.compile(r"[^\x00-\x20=\x7f-\xa0]+")  # RFC 5321 esmtp-value, RFC 6531 section 3.3; see address.py
_ANY_VALUE = re.compile(r"[^\x00-\x20\x7f-\xa0]*")

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
    """What is not printable and yet legal: tabs at the end (RFC 5321 section 4.1.1); joiners of Indic and Arabic."""
    text = text.rstrip(" \t")
    if not text.translate(_JOINERS).isprintable():
        raise Reject(reply.BAD_CHARACTERS)
    return text


def decode_lenient(line: bytes) -> str:
    """The same, with blanks of all kinds between verb and argument, and with any octets in a greeting that are none of
    control: a tab stays one only in the argument of MAIL, RCPT and the greetings."""
    if line[-2:] != b"\r\n":
        raise Reject(reply.BARE_LINE_FEED)
    try:
        text = line[:-2].decode()
    except UnicodeDecodeError:
        text = line[:-2].decode(errors="replace")
        if text[:4].upper() not in _GREETINGS:
            raise Reject(reply.NOT_UTF8) from None
    return text if text.isprintable() else _forgive_blanks(text)


def _forgive_blanks(text: str) -> str:
    found = _VERB.match(text)
    name, argument = (found[1], text[found.end() :].rstrip(" \t")) if found else ("", text)
    if name.upper() in _GREETINGS and not _CONTROL.search(argument):
        argument = "".join(char if char.isprintable() else "\ufffd" for char in argument)
    elif not argument.replace("\t", " ").translate(_JOINERS).isprintable():
        raise Reject(reply.BAD_CHARACTERS)
    if name.upper() not in _OWN_BLANKS:
        argument = argument.replace("\t", " ")
    return f"{name} {argument}" if found else argument.rstrip(" ")


def verb(name: str) -> str:
    """A command as VERBS has it. Some letters outside of ASCII have capitals in it: those are no commands."""
    return name.upper() if name.isascii() else name


def parse_parameters(
    text: str, blanks: str = " ", forgiven: Container[str] = frozenset()
) -> dict[str, str | None]:
    """The parameters behind a path, by keyword in capitals; the value is None where there is no "=".

    Refuses what is malformed and what is given twice (501), but for the values of those `forgiven`.
    """
    parameters: dict[str, str | None] = {}
    if text and text[0] not in blanks:
        raise Reject(reply.BAD_PARAMETER)
    for word in text.split():
        keyword, equals, value = word.partition("=")
        known = keyword.upper()
        if _KEYWORD.fullmatch(keyword) is None or (
            equals and _VALUE.fullmatch(value) is None and not (known in forgiven and _ANY_VALUE.fullmatch(value))
        ):
            raise Reject(reply.BAD_PARAMETER)
        keyword = known
        if keyword in parameters:
            raise Reject(reply.REPEATED_PARAMETER)
        parameters[keyword] = value if equals else None
    return parameters
