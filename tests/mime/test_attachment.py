"""mime/attachment.py: the files in a message."""

from __future__ import annotations

import base64
import random
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from preforksmtp.mime.content import Content
from preforksmtp.mime.source import Memory, Spooled


def attachments(*parts: str, kind: str = "mixed") -> list[tuple[str, str, bytes]]:
    body = "".join(f"--b\n{part}\n" for part in parts)
    content = f"Content-Type: multipart/{kind}; boundary=b\n\n{body}--b--\n".replace("\n", "\r\n").encode()
    return [(each.name, each.content_type, each.content) for each in Content(Memory(content)).attachments]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ("\ntext", []),
        ("Content-Type: text/html\n\ntext", []),
        ("Content-Type: text/enriched\n\ntext", []),
        ("Content-Type: text/plain\nContent-Disposition: inline\n\ntext", []),
        ("Content-Type: text/plain\nContent-Disposition: attachment\n\nx", [("attachment-1.txt", "text/plain", b"x")]),
        ("Content-Type: text/plain; name=a.txt\n\nx", [("a.txt", "text/plain", b"x")]),
        ("Content-Type: text/html\nContent-Disposition: inline; filename=a.html\n\nx", [("a.html", "text/html", b"x")]),
        ("Content-Type: text/csv\n\nx", [("attachment-1.csv", "text/csv", b"x")]),
        ("Content-Type: application/pdf\n\nx", [("attachment-1.pdf", "application/pdf", b"x")]),
        ("Content-Type: font/x-odd\n\nx", [("attachment-1.bin", "font/x-odd", b"x")]),
        ("Content-Type: message/rfc822\n\nSubject: in\n\nx", [("attachment-1.eml", "message/rfc822", b"Subject: in\r\n\r\nx")]),
        ("Content-Disposition: attachment; filename=../a\n\nx", [("a", "text/plain", b"x")]),
        ("Content-Type: image/png; name=b\nContent-Disposition: attachment; filename=a\n\nx", [("a", "image/png", b"x")]),
        ("Content-Type: image/png; name=b\nContent-Disposition: attachment\n\nx", [("b", "image/png", b"x")]),
        ("Content-Type: image/png\nContent-Transfer-Encoding: base64\n\neA==", [("attachment-1.png", "image/png", b"x")]),
        ("Content-Type: multipart/mixed; boundary=i\n\n--i\nContent-Type: image/png; name=a\n\nx\n--i--", [("a", "image/png", b"x")]),
    ],
)
def test_which(part: str, wanted: list[tuple[str, str, bytes]]) -> None:
    assert attachments(part) == wanted
    assert attachments("\ntext", part) == wanted


def test_facts() -> None:
    content = (
        b"Content-Type: multipart/related; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-ID: <=?utf-8?q?p=0d=0ai?=@x>\r\n\r\n1\r\n"
        b"--b\r\nContent-Type: IMAGE/GIF; name==?utf-8?q?a=2Fb?=\r\nContent-Disposition: INLINE\r\n\r\n2\r\n"
        b"--b\r\nContent-Type: x/y\r\nContent-Disposition: attachment; filename=../c\r\nContent-ID: d\r\n\r\n3\r\n--b--\r\n"
    )
    found = Content(Memory(content)).attachments
    assert [(each.name, each.declared_name, each.content_type, each.inline, each.content_id) for each in found] == [
        ("attachment-1.png", "", "image/png", True, "p i@x"),
        ("b", "a/b", "image/gif", True, ""),
        ("c", "../c", "x/y", False, "d"),
    ]
    assert repr(found[1]) == "<Attachment 'b' image/gif>"


def test_a_message_that_is_a_file() -> None:
    content = b"Subject: x\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\neHl6\r\n"
    [only] = Content(Memory(content)).attachments
    assert (only.name, only.content) == ("a.pdf", b"xyz")
    assert Content(Memory(content)).text == ""


def test_a_large_one_is_not_held_in_memory(tmp_path: Path) -> None:
    """8 MiB encoded, in the temporary file of a large message: read and decoded in blocks."""
    data = random.Random(5).randbytes(6 * 1024 * 1024)
    with tempfile.TemporaryFile() as file:
        file.write(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n")
        file.write(b"Content-Disposition: attachment; filename=big.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n")
        file.write(base64.encodebytes(data).replace(b"\n", b"\r\n"))
        file.write(b"--b--\r\n")
        file.flush()
        tracemalloc.start()
        try:
            content = Content(Spooled(file, file.tell()))
            [only] = content.attachments
            with only.open() as source, open(tmp_path / only.name, "xb") as target:
                shutil.copyfileobj(source, target)
            assert content.text == "text"
            assert content.headers["Content-Type"] == "multipart/mixed; boundary=b"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (tmp_path / "big.bin").read_bytes() == data
    assert peak < 2 * 1024 * 1024
