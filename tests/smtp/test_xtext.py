"""smtp/xtext.py: the encoding of RFC 3461 section 4, as the RFC has it and as clients send it."""

from __future__ import annotations

import pytest

from preforksmtp.smtp.xtext import decode_lenient_xtext, decode_octets, decode_xtext


@pytest.mark.parametrize(("text", "value"), [("abc", "abc"), ("+2B+3D+20", "+= "), ("a+41", "aA")])
def test_xtext(text, value):
    assert decode_xtext(text) == value


@pytest.mark.parametrize("text", ["", "+", "+4", "+4g", "+aa", "a b", "a=b", "+0A", "+1B", "+80", "\t"])
def test_what_is_no_xtext(text):
    assert decode_xtext(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("abc", "abc"), ("+2b+3D", "+="), ("a=b", "a=b"), ("j+C3+BCrg", "jürg"), ("j+c3+bcrg", "jürg"), ("ü+20x", "ü x"),
        ("", None), ("+", None), ("+4", None), ("a+4g", None), ("a b", None), ("+C3", None), ("+FF", None), ("+0A", None),
        ("+E2+80+A8", None), ("+C2+85", None), ("a\tb", None),
    ],
)  # fmt: skip
def test_lenient_xtext(text, value):
    assert decode_lenient_xtext(text) == value


def test_octets_of_xtext():
    assert (decode_octets("a+FF+00b"), decode_octets("a+"), decode_octets("")) == (b"a\xff\0b", None, None)
