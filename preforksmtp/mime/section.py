"""The header section of a message or a part: where it ends, and its fields (RFC 5322 section 2.2).

It ends with the first empty line, or in front of the first line that is no field. At most MOST_OCTETS and MOST_FIELDS
of one section are read; what is beyond is there for whoever reads the content, not for who asks for a field.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from preforksmtp.mime.source import Source

MOST_OCTETS = 1024 * 1024
MOST_FIELDS = 1000
_FIRST_LOOK = 1024  # octets: most sections are not longer
_BLOCK = 256 * 1024

_BLANK = re.compile(rb"\n\n|\n\r\n?|\r\r\n?")  # the end of a line, and an empty one
_FIRST_BLANK = re.compile(rb"\r\n|\n|\r")
# No line of a field. In front of its colon blanks may stand (RFC 5322 section 4.5), or nothing: a field without a name.
_LINE = rb"(?!From |[!-9;-~]*[ \t]*:|[ \t]|[\r\n])"
_NO_FIELD = re.compile(rb"(?:\r\n|\n|\r(?!\n))" + _LINE)
_NO_FIRST_FIELD = re.compile(rb"(?!>From )" + _LINE)
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)", re.MULTILINE)


class Section(NamedTuple):
    """A header section as it was sent."""

    octets: bytes  # without the empty line behind it
    body: int  # where the body begins
    complete: bool  # whether its end was within the bound
    separated: bool  # whether an empty line, or the end of the message, ended it


def read_section(source: Source, start: int, stop: int) -> Section:
    """The section that begins at `start`. Where its end is not within the bound, `body` is the bound."""
    size = _FIRST_LOOK
    while True:
        wanted = min(stop, start + size)
        head = source.read(start, wanted)
        end, body, separated = _find_end(head, whole=wanted == stop)
        if body < len(head) or wanted == stop:
            return Section(head[:end], start + body, True, separated)
        if size >= MOST_OCTETS:
            return Section(head, wanted, False, False)
        size = min(MOST_OCTETS, size * 8)


def find_body(source: Source, start: int, stop: int) -> int:
    """Behind the first empty line from `start` on, within a section that is too long; `stop` if there is none."""
    while start < stop:
        block = source.read(start, min(stop, start + _BLOCK))
        blank = _BLANK.search(block)
        if blank is not None and (blank.end() < len(block) or start + len(block) == stop):
            return start + blank.end()
        if start + len(block) == stop:
            break
        start += max(1, len(block) - 4)
    return stop


def _find_end(head: bytes, whole: bool) -> tuple[int, int, bool]:
    """Where the section ends, where the body begins, and whether an empty line is between (the end is as good as one).

    The body begins at the end of `head` where that is not known yet: without `whole` the last line may go on.
    """
    first = _FIRST_BLANK.match(head)
    if first is not None:
        return 0, first.end(), True
    if head and _NO_FIRST_FIELD.match(head):
        return 0, 0, False
    blank = _BLANK.search(head)
    lines = head[: blank.start()] if blank is not None else head if whole else head[: _last_newline(head)]
    stop = len(lines.rstrip(b"\r\n"))  # no line begins behind the last end of one
    other = _NO_FIELD.search(head, 0, stop)
    if other is not None:
        return other.end(), other.end(), False
    if blank is None:
        return len(head), len(head), True
    return blank.start() + 1, blank.end(), True


def _last_newline(head: bytes) -> int:
    return max(head.rfind(b"\r"), head.rfind(b"\n"), 0)


def split_fields(octets: bytes, most: int = MOST_FIELDS) -> list[tuple[str, str]]:
    """Name and value of each field, folded as it came, with LF, and octets above 127 as surrogates (PEP 383)."""
    text = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in octets else octets
    fields = _FIELD.findall(text) if text.count(b":") <= most else _first_fields(text, most)
    return [
        (name.decode("ascii"), value.decode("ascii", "surrogateescape")) for name, value in fields
    ]


def _first_fields(text: bytes, most: int) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for found in _FIELD.finditer(text):
        if len(fields) == most:
            break
        fields.append((found[1], found[2]))
    return fields


def mailbox_line(octets: bytes) -> str | None:
    """The line "From " that some programs leave in front of the first field."""
    if not octets.startswith((b"From ", b">From ")):
        return None
    return _FIRST_BLANK.split(octets, maxsplit=1)[0].decode("ascii", "surrogateescape")
