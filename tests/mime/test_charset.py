"""mime/charset.py: names of character sets, and text without surprises."""

from __future__ import annotations

import codecs
import encodings

import pytest

from preforksmtp.mime.charset import _CODECS, decode, find_codec, from_raw, without_controls

UTF8 = "Grüße".encode()


@pytest.mark.parametrize(
    ("name", "octets", "text"),
    [
        ("utf-8", UTF8, "Grüße"),
        ("UTF8", UTF8, "Grüße"),
        (None, UTF8, "Grüße"),
        ("", UTF8, "Grüße"),
        ("us-ascii", UTF8, "Grüße"),  # a wrong label; UTF-8 has the same letters and more
        ("x-unknown", UTF8, "Grüße"),
        ("x-unknown", b"Gr\xfc", "Gr\ufffd"),
        ("iso-8859-1", b"Gr\xfc\x93", "Grü“"),
        ("ISO_8859-1:1987", b"\xfc", "ü"),
        ("latin1", b"\xfc", "ü"),
        ("windows-1251", b"\xcf", "П"),
        ("iso-8859-8-i", b"\xe0", "א"),
        ("gb2312", "你好".encode("gb18030"), "你好"),
        ("ks_c_5601-1987", "한".encode("cp949"), "한"),
        ("Shift_JIS", "テ".encode("cp932"), "テ"),
        ("utf-7", b"+2AA-x", "\ufffdx"),  # half of a pair
        ("utf-7", b"+2D3eAA-", "😀"),
        ("utf-16", b"\xff\xfeA\0\0\xd8", "A\ufffd"),
        ("idna", b"xn--a", "xn--a"),
        ("punycode", b"a-b", "a-b"),
        ("rot13", b"abc", "abc"),
        ("base64", b"YQ==", "YQ=="),
        ("unicode_escape", b"\\u0041", "\\u0041"),
        ("undefined", b"x", "x"),
        ("utf-8\0", UTF8, "Grüße"),
        ("x" * 100_000, b"x", "x"),
    ],
)
def test_decode(name: str | None, octets: bytes, text: str) -> None:
    assert decode(octets, name) == text


@pytest.mark.parametrize("codec", sorted(set(_CODECS.values())))
def test_every_codec_takes_anything(codec: str) -> None:
    octets = bytes(range(256)) * 4
    text = decode(octets, codec)
    assert text.encode("utf-8") is not None, "no surrogates"
    assert codecs.lookup(codec)._is_text_encoding


def test_a_name_that_is_unknown_leaves_nothing_behind() -> None:
    before = len(encodings._cache)  # type: ignore[attr-defined]
    for number in range(1000):
        decode(b"x", f"x-charset-{number}")
    assert len(encodings._cache) == before  # type: ignore[attr-defined]
    assert find_codec("x-charset-1") is None


def test_raw_text() -> None:
    assert from_raw("Gr\udcc3\udcbc\udcff") == "Grü\ufffd"
    assert from_raw("plain") == "plain"


@pytest.mark.parametrize("control", ["\r\n", "\n", "\0", "\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\u2028", "\u2029"])
def test_controls(control: str) -> None:
    assert without_controls(f"a{control}b") == "a b"
    assert len(without_controls(f"a{control}b").splitlines()) == 1


def test_a_tab_stays() -> None:
    assert without_controls("a\tb") == "a\tb"
