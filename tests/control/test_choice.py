"""What of an answer is to be seen, and in which order."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from preforksmtp.control.choice import Choice, Wrong, add_arguments

LINES: list[dict[str, Any]] = [
    {"session": "a", "peer": "192.0.2.1:25", "user": "bob", "worker": 1, "stage": "mail", "seconds": 5, "received": 10},
    {"session": "b", "peer": "[2001:db8::1]:25", "user": "", "worker": 2, "stage": "helo", "seconds": 9, "received": 5},
    {"session": "c", "peer": "unix", "user": "", "worker": 2, "stage": "helo", "seconds": 1, "idle_seconds": 3.0},
    {"worker": 2, "left_out": 7},
]


def choose(*words: str) -> Choice:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--changed", action="store_true")
    return Choice.of(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), "abc"),
        (("--sort", "age"), "bac"),
        (("--sort", "bytes"), "abc"),
        (("--sort", "idle"), "cab"),
        (("--sort", "peer"), "abc"),
        (("--peer", "192.0.2.0/24"), "a"),
        (("--peer", "2001:db8::/32"), "b"),
        (("--login", "bob"), "a"),
        (("--worker", "2"), "bc"),
        (("--stage", "helo", "--limit", "1"), "b"),
    ],
)
def test_sessions(words: tuple[str, ...], wanted: str) -> None:
    found = choose(*words).apply("show sessions", {"sessions": LINES, "silent": []})["sessions"]
    assert "".join(line["session"] for line in found[:-1]) == wanted
    assert found[-1] == {"worker": 2, "left_out": 7}  # no session, and no less true


def test_settings_that_were_changed() -> None:
    rows = [{"name": "a", "origin": "default"}, {"name": "b", "origin": "command line"}]
    assert choose("--changed").apply("show config", rows) == rows[1:]
    assert choose().apply("show config", rows) == rows


@pytest.mark.parametrize("words", [("--peer", "nowhere"), ("--limit", "-1")])
def test_what_is_wrong_is_said(words: tuple[str, ...]) -> None:
    with pytest.raises(Wrong, match=words[0]):
        choose(*words)
