"""xtext (RFC 3461 section 4): text whose blanks, "+", "=" and what is not ASCII are written +20, +2B, +3D, +C3+BC.

Pure grammar: text in, text out, or None for what is no xtext. What is decoded is always printable: a control character
in it could forge lines later.
"""

from __future__ import annotations

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_LENIENT_XTEXT = re.compile(r"(?:[^\x00-\x20+\x7f-\xa0]|\+[0-9A-Fa-f]{2})+")
_LENIENT_HEXCHARS = re.compile(r"(?:\+[0-9A-Fa-f]{2})+")


def decode_xtext(text: str) -> str | None:
    """As RFC 3461 has it: capitals in hexadecimal, printable ASCII behind it."""
    if _XTEXT.fullmatch(text) is None:
        return None
    if "+" not in text:
        return text
    decoded = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), text)
    return decoded if decoded.isascii() and decoded.isprintable() else None


def decode_lenient_xtext(text: str) -> str | None:
    """As it is sent: hexadecimal in either case, "=" and other characters as themselves, UTF-8 behind it."""
    octets = decode_octets(text)
    try:
        decoded = octets.decode() if octets is not None else ""
    except UnicodeDecodeError:
        return None
    return decoded if decoded and decoded.isprintable() else None


def decode_octets(text: str) -> bytes | None:
    """The octets that such xtext stands for, whatever they are; None for what has a "+" without its two digits."""
    if _LENIENT_XTEXT.fullmatch(text) is None:
        return None
    parts, end = [], 0
    for found in _LENIENT_HEXCHARS.finditer(text):
        parts += [text[end : found.start()].encode(), bytes.fromhex(found[0].replace("+", ""))]
        end = found.end()
    return b"".join([*parts, text[end:].encode()])
