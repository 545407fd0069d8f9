"""mime/section.py: where a header section ends, and its fields."""

from __future__ import annotations

import pytest

from preforksmtp.mime import section
from preforksmtp.mime.section import MOST_FIELDS, MOST_OCTETS, find_body, mailbox_line, read_section, split_fields
from preforksmtp.mime.source import Memory

ROWS = [  # content; how much of it is the section, and where the body begins; whether an empty line is between
    (b"", 0, 0, True),
    (b"\r\n", 0, 2, True),
    (b"\r\nbody", 0, 2, True),
    (b"\n\nbody", 0, 1, True),
    (b"A: b", 4, 4, True),
    (b"A: b\r\n", 6, 6, True),
    (b"A: b\r\n\r\n", 6, 8, True),
    (b"A: b\r\n\r\nbody", 6, 8, True),
    (b"A: b\n\nbody", 5, 6, True),
    (b"A: b\r\rbody", 5, 6, True),
    (b"A: b\n\r\nbody", 5, 7, True),
    (b"A: b\r\n\nbody", 6, 7, True),
    (b"A: b\r\n c\r\n\td\r\n\r\nbody", 14, 16, True),
    (b"A: b\r\n \r\n c\r\n\r\nbody", 13, 15, True),
    (b"A: b\r\nno field\r\n\r\nbody", 6, 6, False),
    (b"A: b\r\n>From x\r\n\r\nbody", 6, 6, False),
    (b"A: b\r\nFrom x\r\n\r\nbody", 14, 16, True),
    (b": b\r\nA: b\r\n\r\nbody", 11, 13, True),
    (b"A : b\r\n\r\nbody", 7, 9, True),
    (b"A: b\rB: c\r\n\r\nbody", 11, 13, True),
]
FIRST_LINES = [
    (b"no field\r\nA: b\r\n\r\n", 0, 0, False),
    (b"A b\r\n", 0, 0, False),
    (b"\xff: b\r\n\r\nbody", 0, 0, False),
    (b"From x\r\nA: b\r\n\r\nbody", 14, 16, True),
    (b">From x\r\nA: b\r\n\r\nbody", 15, 17, True),
]


@pytest.mark.parametrize(("content", "end", "body", "separated"), [*ROWS, *FIRST_LINES])
def test_read(content: bytes, end: int, body: int, separated: bool) -> None:
    assert read_section(Memory(content), 0, len(content)) == (content[:end], body, True, separated)


@pytest.mark.parametrize(("content", "end", "body", "separated"), [row for row in ROWS if row[1]])
def test_however_little_is_looked_at_first(
    monkeypatch: pytest.MonkeyPatch, content: bytes, end: int, body: int, separated: bool
) -> None:
    content = b"Before: 1\r\n" + content
    for look in range(9, 11 + len(content)):
        monkeypatch.setattr(section, "_FIRST_LOOK", look)
        assert read_section(Memory(content), 0, len(content)) == (content[: end + 11], body + 11, True, separated), look


def test_a_part_of_the_content() -> None:
    assert read_section(Memory(b"xxA: b\r\n\r\nyy"), 2, 8) == (b"A: b\r\n", 8, True, True)


def test_the_bound() -> None:
    content = b"A: b\r\n" * (MOST_OCTETS // 6 + 10) + b"\r\nbody"
    found = read_section(Memory(content), 0, len(content))
    assert (len(found.octets), found.complete) == (MOST_OCTETS, False)
    assert content[find_body(Memory(content), found.body, len(content)) :] == b"body"


@pytest.mark.parametrize("blank", [b"\r\n\r\n", b"\n\n", b"\r\r", b"\n\r\n"])
@pytest.mark.parametrize("block", [5, 6, 7, 8, 1000])
def test_find_body(monkeypatch: pytest.MonkeyPatch, blank: bytes, block: int) -> None:
    monkeypatch.setattr(section, "_BLOCK", block)
    for length in range(12):
        content = b"x" * length + blank + b"body"
        assert content[find_body(Memory(content), 0, len(content)) :] == b"body"
    assert find_body(Memory(b"x" * 50), 0, 50) == 50


@pytest.mark.parametrize(
    ("octets", "fields"),
    [
        (b"", []),
        (b"A: b", [("A", "b")]),
        (b"A:b\r\nC: \t d\r\n", [("A", "b"), ("C", "d")]),
        (b"A: b\r\n c\r\n\td", [("A", "b\n c\n\td")]),
        (b"A:\r\n b", [("A", "\n b")]),
        (b"A: b\r\n \r\n c", [("A", "b\n \n c")]),
        (b" lost\r\nA: b", [("A", "b")]),
        (b": lost\r\n too\r\nA: b", [("A", "b")]),
        (b"A : b\r\nB\t:c", [("A", "b"), ("B", "c")]),
        (b"From x: y\r\nA: b", [("A", "b")]),
        (b"A: b: c", [("A", "b: c")]),
        (b"A: \xff\xc3\xa9", [("A", "\udcff\udcc3\udca9")]),
        (b"A: b\rC: d\nE: f", [("A", "b"), ("C", "d"), ("E", "f")]),
        (b"A: b\r\nA: c", [("A", "b"), ("A", "c")]),
    ],
)
def test_split(octets: bytes, fields: list[tuple[str, str]]) -> None:
    assert split_fields(octets) == fields


def test_not_too_many() -> None:
    octets = b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(MOST_FIELDS + 5))
    fields = split_fields(octets)
    assert fields == [(f"X-{n}", str(n)) for n in range(MOST_FIELDS)]
    assert len(split_fields(b"X: " + b":" * 5000 + b"\r\nY: z")) == 2, "colons are no fields"


def test_mailbox_line() -> None:
    assert mailbox_line(b"From a@b Mon\r\nA: b") == "From a@b Mon"
    assert mailbox_line(b">From a@b\nA: b") == ">From a@b"
    assert mailbox_line(b"From: a@b") is None
