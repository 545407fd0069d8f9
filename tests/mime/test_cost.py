"""What reading costs for the worst that a sender may write: it grows with the length, and no faster.

96 KiB of each pattern. A cost that grows with the square would be many seconds here, and an infinite loop never ends;
so the bound is wide, and of processor time, which a busy machine does not spend.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from preforksmtp.mime.content import Content
from preforksmtp.mime.source import Memory

SIZE = 96 * 1024
BOUND = 1.0  # seconds of processor time, where a tenth is the most

VALUES = [
    "(", ")", "()", '"', '\\"', "=?a?q?b?=", "=?a?q?b?= ", "=?u?b?x?=", "=?utf-8?q?=C3?= ", "=?a?q?", "=?", "?=", "@", "a@", ".", ",",
    ";", ":", "<", ">", "<>", "[", "[]", " ", "\t", "a", "a ", "a@b, ", "a:b@c;", ";a=b", ";a*0*=b", ";a*", "%41", "\\", "é", "=",
    "a\r\n ", "\r\n ", "x <y@z>, ", '"a" ', "(a) ", '"a\\', "\\(", "9", "1.", "+0", "/", "../", "\u202e",
]  # fmt: skip
FIELDS = [
    "Subject: ", "To: ", "Sender: ", "Date: ", "Message-ID: <", "MIME-Version: ", "Content-Type: text/plain; name=", "X: ",
    'Content-Type: multipart/mixed; boundary="', "Content-Disposition: attachment; filename=", "Content-Transfer-Encoding: ",
    "Content-Type: text/plain; charset=",
]  # fmt: skip
LINES = ["a:\r\n", ": x\r\n", "From \r\n", "a\r\n", " x\r\n", "a:\r\n \r\n", "To:a\r\n", "Content-Type:a/b;a=b\r\n", "a:\n", "a:\r", "\n"]
MIXED = "Content-Type: multipart/mixed; boundary=B\r\n\r\n"
BODIES = [
    "--B\r\n", "--B\n", "--B\r\n\r\n", "--B\r\na: b\r\n\r\n", "--\r\n", "--a\r\n", "--B--\r\n", "--B \r\n", "\r\n", "-", "\n--",
    "--B\r\nContent-Type: message/rfc822\r\n\r\n", "--B\r\nContent-Type: message/delivery-status\r\n\r\na: b\r\n\r\n",
    "--B\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n", "--B\r\nContent-Disposition: attachment; filename=a\r\n\r\n",
]  # fmt: skip
MARKUP = ["<a>", "<", '<a "', "<a '\"", "<!--", "<script>", "<title", "&lt", "&#1;", "<p ", "</td>", "<!", "<p>\n"]
ENCODED = ["=", "A=", "AA=", "A\r\n", "#\r\n", "=\r\n", "=A", "\n", "M"]
CHARSETS = {"utf-7": "+2AA-", "idna": "xn--a.", "punycode": "a-", "iso-2022-jp": "\x1b$B", "hz": "~{", "utf-16": "\xd8\0", "x": "\xff"}


def fill(pattern: str, size: int = SIZE) -> bytes:
    octets = pattern.encode("utf-8", "surrogateescape")
    return (octets * (size // len(octets) + 1))[:size]


def fields() -> Iterator[tuple[str, bytes]]:
    for field in FIELDS:
        for value in VALUES:
            yield f"{field}{value!r}", field.encode() + fill(value) + b"\r\n\r\nx"
    for line in LINES:
        yield f"lines {line!r}", fill(line)


def bodies() -> Iterator[tuple[str, bytes]]:
    for body in BODIES:
        yield repr(body), MIXED.encode() + fill(body)
    yield "levels", b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(1800))
    yield "messages", fill("Content-Type: message/rfc822\r\n\r\n")
    yield "blocks", b"Content-Type: message/delivery-status\r\n\r\n" + fill("a:b\r\n\r\n")
    for markup in MARKUP:
        yield f"html {markup!r}", b"Content-Type: text/html\r\n\r\n" + fill(markup)
    for encoding in ("base64", "quoted-printable", "x-uuencode"):
        for pattern in ENCODED:
            head = f"Content-Type: x/y\r\nContent-Transfer-Encoding: {encoding}\r\n\r\nbegin 644 x\r\n".encode()
            yield f"{encoding} {pattern!r}", head + fill(pattern)
    for charset, pattern in CHARSETS.items():
        yield f"charset {charset}", f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode() + fill(pattern)


def read_headers(content: Content) -> None:
    headers = content.headers
    headers.items(), headers["To"], headers.get_all("Received"), headers.get_content_type(), headers.get_filename()


def read_content(content: Content) -> None:
    assert content.text is not None
    for attachment in content.attachments:
        with attachment.open() as file:
            while file.read(65536):
                pass


def read_parsed(content: Content) -> None:
    message = content.parse()
    for part in message.walk():
        for value in part.values():
            repr(getattr(value, "addresses", None))
        part.get_content_type(), part.get_filename(), part.is_attachment(), part.get_payload(decode=True)
    message.get_body(), message.as_bytes()


def rows() -> Iterator[Any]:
    for name, octets in fields():
        yield pytest.param(read_headers, octets, id=f"headers {name}")
        yield pytest.param(read_parsed, octets, id=f"parse {name}")
    for name, octets in bodies():
        yield pytest.param(read_content, octets, id=f"content {name}")
        yield pytest.param(read_parsed, octets, id=f"parse {name}")


def test_the_worst() -> None:
    """One test, for a thousand patterns are no thousand facts; the message says which it was."""
    for row in rows():
        read: Callable[[Content], None] = row.values[0]
        begun = time.thread_time()
        read(Content(Memory(row.values[1])))
        spent = time.thread_time() - begun
        assert spent < BOUND, f"{row.id}: {spent:.1f} s"
