"""mime/addresses.py: lists of mailboxes and groups."""

from __future__ import annotations

import email.policy
import random

import pytest

from preforksmtp.mime.addresses import MOST_TOKENS, parse_addresses

# --- what the standard library makes of them, too
SAME = [
    "a@b.example",
    "Ann <a@b.example>",
    '"Doe, Ann" <a@b.example>, c@d.example',
    "=?utf-8?q?J=C3=B6rg?= <j@x.example>",
    "=?utf-8?q?Doe,_Ann?= <a@b.example>",
    "Ann Bee Cee <a@b.example>",
    '"quoted local"@b.example',
    '"a\\"b"@b.example',
    "<a@b.example>",
    "a@[192.0.2.1]",
    "Friends: a@b.example, Ann <c@d.example>; , e@f.example",
    "undisclosed-recipients:;",
    "a@b.example (Ann)",
    "Ann (x) <a@b.example>",
    "J. R. Doe <a@b.example>",
    "grüße@b.example",
    "Größe <a@münchen.example>",
    "<@relay.example,@other.example:a@b.example>",
    "root",
    "",
]
VALID = [
    ("ann . bee @ example . com", ["ann.bee@example.com"]),
    ("a@b (x (y) z)", ["a@b"]),
    ("a@b (unbalanced \\) still)", ["a@b"]),
    (",, a@b ,, c@d ,", ["a@b", "c@d"]),
    ("=?utf-8?q?two words?= <a@b>", ["two words <a@b>"]),
    ("=?utf-8?q?boss=40bank=2C?= <me@x>", ['"boss@bank," <me@x>']),
    ("=?utf-8?q?a=0d=0aTo:b?= <me@x>", ['"a To:b" <me@x>']),
    ("<>", ["<>"]),
]
NOT_VALID = [
    ("(c):", [":;"]),
    ("a@[", []),
    ("a@", []),
    ("@", []),
    ("@b", []),
    ("a@b@c", []),
    ("a b@c", []),
    ("a@b c", []),
    ("John Doe", []),
    ("<a@b", []),
    ("<a@b> c", []),
    ("<<a@b>>", []),
    ("a@b>", []),
    ("a@b <c@d>", []),
    ('"unfinished <a@b>', []),
    ("(unfinished a@b", []),
    ("a@b; c@d", ["a@b", "c@d"]),
    ("x: a@b", ["x: a@b;"]),
    ("x: y: a@b;", ["y: a@b;"]),
    ("a@b, c d@e, f@g", ["a@b", "f@g"]),
    ("a\\b@c", []),
    ("<a@b, c@d>", []),
    ("a@[1.2.3.4]x", []),
]


@pytest.mark.parametrize("text", SAME)
def test_as_the_standard_library(text: str) -> None:
    groups, valid = parse_addresses(text)
    field = email.policy.default.header_factory("To", text)
    assert valid
    assert [str(group) for group in groups] == [str(group) for group in field.groups]
    assert [str(address) for group in groups for address in group.addresses] == [str(each) for each in field.addresses]


@pytest.mark.parametrize(("text", "wanted"), VALID)
def test_valid(text: str, wanted: list[str]) -> None:
    groups, valid = parse_addresses(text)
    assert ([str(group) for group in groups], valid) == (wanted, True)


@pytest.mark.parametrize(("text", "wanted"), NOT_VALID)
def test_not_valid(text: str, wanted: list[str]) -> None:
    groups, valid = parse_addresses(text)
    assert ([str(group) for group in groups], valid) == (wanted, False)


def test_a_long_list_has_an_end() -> None:
    groups, valid = parse_addresses("a@b," * MOST_TOKENS)
    assert not valid
    assert len(groups) == MOST_TOKENS // 4


def test_random_text_is_taken() -> None:
    chance = random.Random(1)
    pieces = ["a", "b.c", "@", "<", ">", ",", ";", ":", '"', "(", ")", "[", "]", "\\", " ", ".", "=?utf-8?q?x,?=", "é", "\t"]
    for _ in range(20_000):
        groups, _ = parse_addresses("".join(chance.choice(pieces) for _ in range(chance.randrange(1, 14))))
        for group in groups:
            assert str(group)
            for address in group.addresses:
                assert not set("\r\n") & set(str(address))
