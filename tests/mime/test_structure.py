"""mime/structure.py: the parts of a message, in memory and in a file."""

from __future__ import annotations

import email
import email.policy
import random
import re
import tempfile
from typing import Any

import pytest

from preforksmtp.mime import structure
from preforksmtp.mime.entity import parse_message
from preforksmtp.mime.source import Memory, Spooled
from preforksmtp.mime.structure import MOST_LEVELS, MOST_PARTS, Part, read_structure

TOP = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def tree(part: Part, content: bytes) -> Any:
    """Type and content of each part, or its parts."""
    if part.parts:
        return part.content_type, [tree(each, content) for each in part.parts]
    return part.content_type, content[part.body : part.end]


PLAIN = "text/plain"
MIXED = "multipart/mixed"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", (PLAIN, b"")),
        (b"A: b\r\n\r\nbody", (PLAIN, b"body")),
        (b"body\r\n", (PLAIN, b"body\r\n")),
        (TOP + b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n", (MIXED, [(PLAIN, b"one"), (PLAIN, b"two")])),
        (TOP + b"pre\r\n--b\r\n\r\none\r\n--b--\r\npost\r\n--b\r\n\r\nno", (MIXED, [(PLAIN, b"one")])),
        (TOP + b"--b\r\n\r\none", (MIXED, [(PLAIN, b"one")])),
        (TOP + b"--b", (MIXED, [(PLAIN, b"")])),
        (TOP + b"--b--", (PLAIN, b"--b--")),
        (TOP + b"--b\r\n--b\r\n\r\none\r\n--b--", (MIXED, [(PLAIN, b"one")])),
        (TOP + b"--b\r\n--b--", (MIXED, [(PLAIN, b"")])),
        (TOP + b"--b \t\r\n\r\none\r\n--b-- \r\n", (MIXED, [(PLAIN, b"one")])),
        (TOP + b"--b\r\n\r\none\r\n--bb\r\n --b\r\nx--b\r\n--b x\r\n--b-\r\n--b--", (MIXED, [(PLAIN, b"one\r\n--bb\r\n --b\r\nx--b\r\n--b x\r\n--b-")])),
        (TOP + b"--b\r\nA: c\r\n--b\r\n\r\ntwo\r\n--b--", (MIXED, [(PLAIN, b""), (PLAIN, b"two")])),
        (TOP.replace(b"\r\n\r\n", b"\r\n") + b"--b\r\n\r\none\r\n--b--", (MIXED, [(PLAIN, b"one")])),
        ((TOP + b"--b\r\n\r\none\r\n--b--\r\n").replace(b"\r\n", b"\n"), (MIXED, [(PLAIN, b"one")])),
        ((TOP + b"--b\r\n\r\none\r\n--b--\r\n").replace(b"\r\n", b"\r"), (MIXED, [(PLAIN, b"one")])),
        (TOP + b"--b\r\n" + TOP.replace(b"=b", b"=c") + b"--c\r\n\r\nin\r\n--b\r\n\r\nout\r\n--b--", (MIXED, [(MIXED, [(PLAIN, b"in")]), (PLAIN, b"out")])),
        (TOP + b"--b\r\n" + TOP + b"--b\r\n\r\nout\r\n--b--", (MIXED, [(PLAIN, b""), (PLAIN, b"out")])),
        (TOP + b"--b\r\n" + TOP.replace(b"=b", b"=b--") + b"--b--\r\n\r\nin", (MIXED, [(PLAIN, b"")])),
        (TOP.replace(b"=b", b'=" b "') + b"-- b\r\n\r\none\r\n-- b--", (MIXED, [(PLAIN, b"one")])),
        (TOP.replace(b"b\r", b'""\r') + b"--\r\n\r\none\r\n----", (PLAIN, b"--\r\n\r\none\r\n----")),
        (TOP.replace(b"=b", b"=\xff") + b"--\xff\r\n\r\none", (PLAIN, b"--\xff\r\n\r\none")),
        (TOP.replace(b"=b", b"=" + b"b" * 2000) + b"--" + b"b" * 2000 + b"\r\n\r\none", (PLAIN, b"--" + b"b" * 2000 + b"\r\n\r\none")),
        (b"Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\nin", ("message/rfc822", [(PLAIN, b"in")])),
        (TOP.replace(b"mixed", b"digest") + b"--b\r\n\r\nA: b\r\n\r\nin\r\n--b--", ("multipart/digest", [("message/rfc822", [(PLAIN, b"in")])])),
        (b"Content-Type: message/delivery-status\r\n\r\nA: b\r\n\r\nC: d", ("message/delivery-status", b"A: b\r\n\r\nC: d")),
    ],
)
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_parts(content: bytes, wanted: Any, kind: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        source = Memory(content) if kind == "memory" else Spooled(file, len(content))
        assert tree(read_structure(source), content) == wanted


def test_levels() -> None:
    content = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(2000))
    part = read_structure(Memory(content))
    for level in range(MOST_LEVELS):
        assert (part.level, part.content_type, len(part.parts)) == (level, MIXED, 1)
        part = part.parts[0]
    assert (part.level, part.content_type, part.parts, part.unread) == (MOST_LEVELS, PLAIN, [], True)
    assert content[part.body : part.end] == content[part.body : -2], "nothing of it is lost"
    assert [type(defect) for defect in part.defects] == [structure.TooLargeDefect]
    part = read_structure(Memory(b"Content-Type: message/rfc822\r\n\r\n" * 2000))
    assert sum(1 for _ in walk(part)) == MOST_LEVELS + 1


def walk(part: Part) -> Any:
    yield part
    for each in part.parts:
        yield from walk(each)


def test_number_of_parts() -> None:
    content = TOP + b"".join(b"--b\r\nA: b\r\n\r\n%d\r\n" % n for n in range(2 * MOST_PARTS)) + b"--b--\r\n"
    root = read_structure(Memory(content))
    assert len(root.parts) == MOST_PARTS
    assert [content[part.body : part.end] for part in root.parts[:-1]] == [b"%d" % n for n in range(MOST_PARTS - 1)]
    rest = root.parts[-1]
    assert rest.unread
    assert content[rest.body : rest.end].startswith(b"A: b\r\n\r\n%d\r\n--b" % (MOST_PARTS - 1))
    assert content[rest.body : rest.end].endswith(b"--b--")
    empty = read_structure(Memory(TOP + b"--b\r\n" * 100_000))
    assert len(empty.parts) <= MOST_PARTS + 1


def test_number_of_fields_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "MOST_PART_FIELDS", 10)
    root = read_structure(Memory(TOP + b"".join(b"--b\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n" for _ in range(5))))
    assert [len(part.fields) for part in (root, *root.parts)] == [1, 3, 3, 3, 0, 0]


def test_a_section_without_end_is_skipped() -> None:
    content = TOP.replace(b"\r\n\r\n", b"\r\n") + b"X: y\r\n" * 400_000 + b"\r\n--b\r\n\r\none\r\n--b--\r\n"
    root = read_structure(Memory(content))
    assert tree(root, content) == (MIXED, [(PLAIN, b"one")])
    assert any(isinstance(defect, structure.TooLargeDefect) for defect in root.defects)


@pytest.mark.parametrize("block", [4, 7, 16, 300])
def test_it_does_not_matter_where_the_blocks_end(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    for seed in range(300):
        content = odd_message(seed)
        monkeypatch.setattr(structure, "_BLOCK", 256 * 1024)
        whole = tree(read_structure(Memory(content)), content)
        monkeypatch.setattr(structure, "_BLOCK", block)
        monkeypatch.setattr(structure, "_LONGEST_LINE", 2 * block)
        found = tree(read_structure(Memory(content)), content)
        if block >= 16:  # no line that matters is longer
            assert found == whole, content


# --- beside the standard library

LINES = [
    b"--A", b"--A--", b"--B", b"--B--", b"--C", b"--C--", b"", b"", b"text", b"x: y", b"Subject: s", b" cont", b"--A ", b"--AB",
    b"--", b"-- ", b"From x", b"Content-Type: multipart/mixed; boundary=A", b'Content-Type: multipart/alternative; boundary="B"',
    b"Content-Type: multipart/digest; boundary=C", b"Content-Type: message/rfc822", b"Content-Type: text/html",
    b"Content-Type: multipart/mixed", b"no colon", b"a: b\x80",
]  # fmt: skip
# Where it differs on purpose: the library takes the last delimiter line for another first one if it follows at once, has
# a folded line as part of the type, and "From " at the end of a section as the first line of the body.
DIFFERENT = re.compile(rb"--(\w+)[ ]?\r?\n--\1--|Content-Type: [^\n]*\n cont|\nFrom x")


def odd_message(seed: int) -> bytes:
    chance = random.Random(seed)
    newline = chance.choice([b"\r\n", b"\n"])
    lines = [chance.choice(LINES[17:20]), b""] if chance.random() < 0.8 else []
    lines += [chance.choice(LINES) for _ in range(chance.randrange(1, 22))]
    return newline.join(lines) + (newline if chance.random() < 0.7 else b"")


def described(part: Any) -> Any:
    fields = [(name, str(value).replace("\r", "").lstrip()) for name, value in part.raw_items()]
    if getattr(part, "reads_as_text", False) or (part.get_content_maintype() == "multipart" and not part.is_multipart()):
        return fields
    inner = [described(each) for each in part.get_payload()] if part.is_multipart() else with_lf(part._payload)
    return part.get_content_type(), fields, part.get_unixfrom(), with_lf(part.preamble), with_lf(part.epilogue), inner


def with_lf(text: str | None) -> str | None:
    return text and text.replace("\r\n", "\n")


def test_as_the_standard_library() -> None:
    compared = 0
    for seed in range(900):
        content = odd_message(seed)
        if DIFFERENT.search(content):
            continue
        library = email.message_from_bytes(content, policy=email.policy.default)
        ours = parse_message(Memory(content))
        assert described(ours) == described(library), (seed, content)
        compared += 1
        if content.isascii() and not any(part.reads_as_text for part in ours.walk()):  # 3.13 encodes other octets
            assert ours.as_bytes().replace(b"\r", b"") == library.as_bytes().replace(b"\r", b""), (seed, content)
    assert compared > 300
