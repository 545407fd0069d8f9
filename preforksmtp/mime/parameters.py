"""Fields with parameters: Content-Type and Content-Disposition (RFC 2045 section 5.1, RFC 2231).

`name*=utf-8''...` and names in pieces (`name*0`, `name*1*`) come out as one value of one name, encoded words as their
text. What is odd is read for what it means: unquoted blanks, missing quotes, empty parameters.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from preforksmtp.mime.charset import decode, from_raw, without_controls
from preforksmtp.mime.words import show

MOST_PARAMETERS = 100  # of one field, pieces included; others are not read

_PARAMETER = re.compile(
    r';[ \t]*([^\s=;"]*)[ \t]*(?:=[ \t]*("[^"\\]*(?:\\.[^"\\]*)*"?|[^;"]*))?[^;"]*(?:"[^"\\]*(?:\\.[^"\\]*)*"?[^;"]*)*',
    re.DOTALL,
)
_PIECE = re.compile(r"([^*]+)\*(\d{1,4})?(\*)?")
_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED_PAIR = re.compile(r"""\\(["\\])""")
_WORD_END = re.compile(r"[\s;(]")


class Parameterized(NamedTuple):
    """What stands in front of the first semicolon, in lower case, and the parameters by name, in lower case."""

    value: str
    parameters: dict[str, str]

    @property
    def content_type(self) -> str:
        """The value as a type, "" where it is none."""
        return self.value if _TYPE.fullmatch(self.value) else ""


NOTHING = Parameterized("", {})


def parse_parameters(raw: str) -> Parameterized:
    """Of a field as Headers keep it: in one line, with octets above 127 as surrogates."""
    semicolon = raw.find(";")
    head = raw if semicolon < 0 else raw[:semicolon]
    value = _WORD_END.split(head.strip(), maxsplit=1)[0].lower()
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    place = semicolon
    for _ in range(MOST_PARAMETERS):
        found = _PARAMETER.match(raw, place) if place >= 0 else None
        if found is None:
            break
        place = found.end()
        name, text = found[1].lower(), _plain(found[2] or "")
        piece = _PIECE.fullmatch(name)
        if piece is None:
            if name:
                plain.setdefault(name, text)
        else:
            encoded = piece[3] is not None or piece[2] is None
            pieces.setdefault(piece[1], {}).setdefault(int(piece[2] or 0), (text, encoded))
    parameters = {name: from_raw(text) if name == "boundary" else show(from_raw(text)) for name, text in plain.items()}
    for name, numbered in pieces.items():  # RFC 2231 beats a plain one beside it, which is for readers who lack it
        octets, charset = _join(numbered)
        parameters[name] = without_controls(decode(octets, charset))
    return Parameterized(from_raw(value), parameters)


def _plain(text: str) -> str:
    if not text.startswith('"'):
        return text.rstrip()
    text = text[1:-1] if len(text) > 1 and text.endswith('"') else text[1:]
    # Only what must be quoted is: a backslash elsewhere is one of a path of Windows, which nobody quotes.
    return "".join(_QUOTED_PAIR.split(text)) if "\\" in text else text


def _join(numbered: dict[int, tuple[str, bool]]) -> tuple[bytes, str]:
    """The octets of a value in pieces, in the order of their numbers, and its character set (RFC 2231 section 4.1)."""
    charset = ""
    parts = []
    for index, number in enumerate(sorted(numbered)):
        text, encoded = numbered[number]
        if encoded and index == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        octets = text.encode("utf_8", "surrogateescape")
        parts.append(unquote_to_bytes(octets) if encoded else octets)
    return b"".join(parts), charset
