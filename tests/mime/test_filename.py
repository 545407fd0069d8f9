"""mime/filename.py: names that are safe as names of files."""

from __future__ import annotations

import os
import random

import pytest

from preforksmtp.mime.filename import MOST_OCTETS, Names, default_name, make_safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("größe.txt", "größe.txt"),
        ("gro\u0308\u00dfe.txt", "größe.txt"),  # composed
        ("two  words\t.txt", "two words .txt"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win.ini"),
        ("/etc/shadow", "shadow"),
        ("C:\\a.txt", "a.txt"),
        ("C:a.txt", "C_a.txt"),
        ("a/", ""),
        ("", ""),
        (".", ""),
        ("..", ""),
        ("...", ""),
        (" . ", ""),
        (".bashrc", "bashrc"),
        ("a.", "a"),
        ("a. . ", "a"),
        ("-rf", "_-rf"),
        ("~root", "_~root"),
        ("a\0b\r\nc\x7f", "a_b c_"),
        ('<>:"|?*', "_______"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("a\u200b\ufeffb\u2028c", "ab c"),
        ("a\ue000\udfffb", "ab"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("Nul .x", "_Nul .x"),
        ("COM1", "_COM1"),
        ("com¹.log", "_com¹.log"),
        ("lpt9.", "_lpt9"),
        ("CONIN$", "_CONIN$"),
        ("console", "console"),
        ("com10", "com10"),
        ("icon.png", "icon.png"),
        ("a" * 300 + ".pdf", "a" * (MOST_OCTETS - 4) + ".pdf"),
        ("a" * 9000 + ".pdf", "a" * (MOST_OCTETS - 4) + ".pdf"),
        ("é" * 300 + ".pdf", "é" * ((MOST_OCTETS - 4) // 2) + ".pdf"),
        ("a." + "b" * 300, "a." + "b" * (MOST_OCTETS - 2)),
        ("." * 300 + "a", "a"),
    ],
)
def test_safe(name: str, safe: str) -> None:
    assert make_safe(name) == safe


def test_whatever_the_sender_says() -> None:
    chance = random.Random(3)
    pieces = ["..", "/", "\\", "\0", "\n", ".", " ", "con", "nul", "a", "é", "\u202e", "😀", "\udcff", "-", "~", ":", "x" * 90, "\u0308"]
    for _ in range(5000):
        safe = make_safe("".join(chance.choice(pieces) for _ in range(chance.randrange(8))))
        assert os.path.basename(safe) == safe
        assert safe not in (".", "..")
        assert safe.isprintable() and safe == safe.strip(" .")
        assert not safe.startswith(("-", "~", "."))
        assert len(safe.encode()) <= MOST_OCTETS + 1


def test_default_names() -> None:
    assert default_name(1, "application/pdf") == "attachment-1.pdf"
    assert default_name(2, "x/y") == "attachment-2.bin"


def test_each_once() -> None:
    names = Names()
    given = [names.take(name) for name in ("a.txt", "a.txt", "A.TXT", "a-2.txt", "b", "b", "ﬁ.x", "fi.x", "a.tar.gz", "a.tar.gz")]
    assert given == ["a.txt", "a-2.txt", "A-3.TXT", "a-2-2.txt", "b", "b-2", "ﬁ.x", "fi-2.x", "a.tar.gz", "a.tar-2.gz"]


def test_each_once_where_they_are_long() -> None:
    names = Names()
    given = {names.take("é" * 73 + ".pdf") for _ in range(1200)}
    assert len(given) == 1200
    assert all(len(name.encode()) <= MOST_OCTETS and name.endswith(".pdf") for name in given)
