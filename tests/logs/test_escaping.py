"""What a client chose can neither begin a line nor shift or forge a field."""

from __future__ import annotations

import pytest

from preforksmtp.logs.escaping import bare, escape, escape_character, in_brackets, in_quotes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain", "plain"),
        ("a\r\nb\0", r"a\x0d\x0ab\x00"),
        ("\u2028\u202e\U000e0001", r"\u2028\u202e\U000e0001"),
        ("\x1b[31m\x9b", r"\x1b[31m\x9b"),
        ("\u00fc \u4e2d", "\u00fc \u4e2d"),
        ("\udcff", r"\udcff"),
    ],
)
def test_escape(text, wanted):
    assert escape(text) == wanted


@pytest.mark.parametrize(
    ("function", "text", "wanted"),
    [
        (in_quotes, 'say "x" \\ y\n', r"say \"x\" \\ y\x0a"),
        (in_brackets, '"> to=<x"@y', r"\x22\x3e\x20to=\x3cx\x22@y"),
        (bare, 'a b"c\\', r"a\x20b\x22c\x5c"),
        (bare, "", "-"),
        (in_brackets, "", ""),
    ],
)
def test_each_place_has_its_own(function, text, wanted):
    assert function(text) == wanted


def test_every_character_comes_out_printable():
    for code in (*range(0x3000), 0xD800, 0xFEFF, 0x10FFFF):
        assert escape(chr(code)).isprintable()
        assert escape_character(chr(code)).isascii()
