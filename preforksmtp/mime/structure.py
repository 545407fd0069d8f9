"""The parts of a message (RFC 2046): where each begins and ends, found in one pass, without holding the content.

What feedparser of the email package makes of odd messages is made of them here, too: boundaries that are missing, never
begin or never end, those of an outer part inside an inner one. At most MOST_LEVELS and MOST_PARTS are read: a part that
is deeper is text, and so is what comes behind the last part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.errors import (
    CloseBoundaryNotFoundDefect,
    MessageDefect,
    MissingHeaderBodySeparatorDefect,
    NoBoundaryInMultipartDefect,
    StartBoundaryNotFoundDefect,
)
from typing import NamedTuple

from preforksmtp.mime.parameters import NOTHING, Parameterized, parse_parameters
from preforksmtp.mime.section import MOST_FIELDS, MOST_OCTETS, find_body, mailbox_line, read_section, split_fields
from preforksmtp.mime.source import Source
from preforksmtp.mime.transfer import name_encoding

MOST_LEVELS = 50
MOST_PARTS = 1000
MOST_PART_FIELDS = 10_000  # of all parts together
_LONGEST_BOUNDARY = 1000  # RFC 2046 allows 70
_LONGEST_LINE = 2 * _LONGEST_BOUNDARY  # blanks may follow
_BLOCK = 256 * 1024

_DASHES = re.compile(rb"--([^\r\n]*)")
_NEWLINES = b"\r\n"
REPORT = "message/delivery-status"  # holds blocks of fields, no message


class TooLargeDefect(MessageDefect):
    """A bound of this reader: header fields, levels or parts beyond it were not read as what they are."""


class Part:
    """A message, or a part of one: its fields, and where its body is. Offsets count octets of the whole content."""

    __slots__ = (
        "begun", "body", "closed", "content_type", "default_type", "defects", "disposition", "end", "epilogue",
        "fields", "level", "mailbox_line", "parameters", "parts", "preamble", "start", "unread",
    )  # fmt: skip

    def __init__(self, start: int, level: int, default_type: str) -> None:
        self.start = start
        self.level = level
        self.default_type = default_type
        self.body = self.end = start
        self.fields: list[tuple[str, str]] = []
        self.mailbox_line: str | None = None
        self.content_type = default_type
        self.parameters: dict[str, str] = {}
        self.disposition: Parameterized = NOTHING
        self.parts: list[Part] = []  # of a multipart; the one message of a message/*
        self.preamble: tuple[int, int] | None = None  # in front of the first part and behind the last
        self.epilogue: tuple[int, int] | None = None
        self.begun = self.closed = False  # whether its first delimiter line was there, and its last
        self.unread = False  # whether a bound of this reader keeps it from being what it says
        self.defects: list[MessageDefect] = []

    def leaves(self) -> Iterator[Part]:
        """The parts that have none, in their order. A message within the message is one of them."""
        if self.maintype != "multipart":
            yield self
            return
        for part in self.parts:
            yield from part.leaves()

    @property
    def maintype(self) -> str:
        return self.content_type.partition("/")[0]

    @property
    def subtype(self) -> str:
        return self.content_type.partition("/")[2]

    @property
    def filename(self) -> str:
        """The name that the sender gave, "" for none."""
        return self.disposition.parameters.get("filename") or self.parameters.get("name") or ""

    @property
    def encoding(self) -> str:
        """How the body is encoded, for mime.transfer."""
        return name_encoding(self.get("content-transfer-encoding"))

    def get(self, name: str) -> str | None:
        """The first field of this name, in one line, with octets above 127 as surrogates."""
        for each, value in self.fields:
            if each.lower() == name:
                return value.replace("\n", "")
        return None

    def read_types(self) -> None:
        """Set what the fields say of the body."""
        for name, value in reversed(self.fields):  # the first of several counts
            lower = name.lower()
            if lower == "content-type":
                content = parse_parameters(value.replace("\n", ""))
                self.content_type = content.content_type or "text/plain"
                self.parameters = content.parameters
            elif lower == "content-disposition":
                self.disposition = parse_parameters(value.replace("\n", ""))


def read_structure(source: Source) -> Part:
    """The message as a tree of parts."""
    return _Scan(source).run()


class _Scan:
    """One pass over the content. `_open` are the parts that have begun and not ended, each within the one before."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = _DelimiterLines(source)
        self._open: list[Part] = []
        self._count = 0
        self._fields = MOST_PART_FIELDS

    def run(self) -> Part:
        root = self._begin(0, 0, "text/plain")
        place = self._open[-1].body
        while (line := self._lines.find(place, self._source.size)) is not None:
            place = line.next
            end = self._before_newline(line.start)
            self._end_above(line.owner, end)
            part = self._open[line.owner]
            if not part.begun:
                part.begun = True
                part.preamble = (part.body, end) if end >= part.body else None
            if line.closes:
                part.closed = True
                part.epilogue = (place, place)
                self._lines.forget(line.owner)
            elif self._count >= MOST_PARTS:
                self._take_rest(part, place)
                break
            else:
                self._begin_next(part, place)
                place = self._open[-1].body if len(self._open) > line.owner + 1 else place
        size = self._source.size
        unclosed = next((place for place, part in enumerate(self._open) if part.begun and not part.closed), None)
        if unclosed is not None:  # as if its last line were there
            self._end_above(unclosed, self._before_newline(size))
        self._end_above(-1, size)
        return root

    def _begin_next(self, parent: Part, start: int) -> None:
        """The part behind a delimiter line, unless another such line follows at once."""
        following = self._lines.find(start, start + 1)
        if following is not None and not following.closes:
            self._count += 1  # it costs as much as one
        else:
            default = "message/rfc822" if parent.content_type == "multipart/digest" else "text/plain"
            parent.parts.append(self._begin(start, parent.level + 1, default))

    def _begin(self, start: int, level: int, default_type: str) -> Part:
        """Open the part that begins at `start`, and the messages within it. Returns the outermost."""
        first = part = self._read_part(start, level, default_type)
        while True:
            self._open.append(part)
            if part.maintype == "multipart":
                self._expect_parts(part)
            if part.maintype != "message" or part.content_type == REPORT or self._is_too_much(part):
                return first
            part.parts.append(self._read_part(part.body, part.level + 1, "text/plain"))
            part = part.parts[0]

    def _is_too_much(self, part: Part) -> bool:
        if part.level < MOST_LEVELS and self._count < MOST_PARTS:
            return False
        part.defects.append(TooLargeDefect("too many levels or parts: read as text"))
        part.content_type, part.unread = "text/plain", True
        return True

    def _expect_parts(self, part: Part) -> None:
        boundary = part.parameters.get("boundary", "").rstrip()
        if not boundary or not boundary.isascii() or len(boundary) > _LONGEST_BOUNDARY:
            part.defects.append(NoBoundaryInMultipartDefect())
        elif not self._is_too_much(part):
            self._lines.expect(boundary.encode(), len(self._open) - 1)

    def _read_part(self, start: int, level: int, default_type: str) -> Part:
        """A part with its fields, which end in front of the next delimiter line of a part around it at the latest."""
        self._count += 1
        part = Part(start, level, default_type)
        section = read_section(self._source, start, self._source.size)
        octets, part.body = section.octets, section.body
        line = self._lines.find(start, section.body)
        if line is not None:
            octets, part.body = self._source.read(start, line.start), line.start
        elif not section.complete:
            part.defects.append(TooLargeDefect(f"more than {MOST_OCTETS} octets of header fields"))
            part.body = find_body(self._source, max(start, section.body - 4), self._source.size)
        elif not section.separated:
            part.defects.append(MissingHeaderBodySeparatorDefect())
        most = min(MOST_FIELDS, self._fields)
        part.fields = split_fields(octets, most)
        if len(part.fields) == most:
            part.defects.append(TooLargeDefect(f"{most} header fields or more"))
        self._fields -= len(part.fields)
        part.mailbox_line = mailbox_line(octets)
        part.read_types()
        return part

    def _before_newline(self, start: int) -> int:
        """The newline in front of a delimiter line belongs to it."""
        before = self._source.read(max(0, start - 2), start)
        return start - (2 if before == b"\r\n" else 1 if before and before[-1] in _NEWLINES else 0)

    def _end_above(self, owner: int, end: int) -> None:
        """All parts that are open within this one end here."""
        while len(self._open) > owner + 1:
            part = self._open.pop()
            part.end = max(end, part.body)
            if part.epilogue is not None:
                part.epilogue = (part.epilogue[0], end) if end >= part.epilogue[0] else None
            self._lines.forget(len(self._open))
            if part.maintype != "multipart":
                continue
            if part.parts and not part.closed:
                part.defects.append(CloseBoundaryNotFoundDefect())
            elif not part.parts:
                part.content_type, part.preamble, part.epilogue = "text/plain", None, None
                if part.parameters.get("boundary"):
                    part.defects.append(StartBoundaryNotFoundDefect())

    def _take_rest(self, parent: Part, start: int) -> None:
        """The last part: all that comes, as text."""
        part = Part(start, parent.level + 1, "text/plain")
        part.unread = True
        part.defects.append(TooLargeDefect(f"more than {MOST_PARTS} parts: the rest is text"))
        parent.parts.append(part)
        self._open.append(part)


class _DelimiterLine(NamedTuple):
    start: int
    next: int  # where the next line begins
    owner: int  # which of the open parts it belongs to
    closes: bool


class _DelimiterLines:
    """Finds the lines that separate and end the parts of those multiparts that are expected to have more."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._base = 0  # where the block begins
        self._block = b""
        self._owners: dict[bytes, tuple[int, bool]] = {}  # by what stands behind the two dashes
        self._boundaries: dict[int, bytes] = {}

    def expect(self, boundary: bytes, owner: int) -> None:
        """From now on, unless a part around it has the same boundary: then the lines are that one's."""
        if boundary not in self._owners:
            self._owners[boundary] = (owner, False)
            self._owners.setdefault(boundary + b"--", (owner, True))
            self._boundaries[owner] = boundary

    def forget(self, owner: int) -> None:
        boundary = self._boundaries.pop(owner, None)
        if boundary is not None:
            for text in (boundary, boundary + b"--"):
                if self._owners[text][0] == owner:
                    del self._owners[text]

    def find(self, place: int, stop: int) -> _DelimiterLine | None:
        """The first that begins between `place`, where a line begins, and `stop`."""
        look, stop = place, min(stop, self._source.size)
        while self._owners and look < stop:
            self._load(look)
            block, base = self._block, self._base
            is_last = base + len(block) >= self._source.size
            begin, look = look - base, base + len(block) - (not is_last)  # a dash at the end may have another behind it
            for found in _DASHES.finditer(block, begin):
                start = base + found.start()
                if start >= stop:
                    return None
                if found.end() + 1 >= len(block) and not is_last:
                    look = start if found.start() > 1 else look  # else it fills the block: none of those we look for
                    break
                owner = self._owners.get(found[1].rstrip(b" \t"))
                if owner is not None and (start == place or block[found.start() - 1] in _NEWLINES):
                    newline = block[found.end() : found.end() + 2]
                    following = base + found.end() + (2 if newline == b"\r\n" else len(newline[:1]))
                    return _DelimiterLine(start, following, *owner)
        return None

    def _load(self, place: int) -> None:
        """Have a block with the octet in front of `place`, and the whole of the line there if it is not too long."""
        end = self._base + len(self._block)
        if self._base <= max(0, place - 1) and (place + _LONGEST_LINE <= end or end >= self._source.size > place):
            return
        self._base = max(0, place - 1)
        self._block = self._source.read(self._base, min(self._source.size, self._base + _BLOCK))
