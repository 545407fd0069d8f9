"""Counters with names: what each worker counts, what the master keeps of it, and what it does not believe."""

from __future__ import annotations

import pytest

from preforksmtp.prefork.tallies import FASTEST, KEYS, LOST, Tallies, Tally, add_up, key, labels


@pytest.mark.parametrize(
    "text, parts",
    [
        ("refused rcpt 550 5.1.1", ("refused", "rcpt", "550", "5.1.1")),
        ("refused connect 421 -", ("refused", "connect", "421", "")),
        ("limit max_errors", ("limit", "max_errors")),
        ("auth SCRAM-SHA-256-PLUS ok", ("auth", "SCRAM-SHA-256-PLUS", "ok")),
        ("lost", ("lost",)),
    ],
)
def test_keys_and_labels(text, parts):
    assert key(*parts) == text
    assert labels(text) == (parts[0], list(parts[1:]))


@pytest.mark.parametrize("label", ["a b", "a\nb", 'a"b', "\u00fc", "x" * 31])
def test_what_is_no_label(label):
    assert key("limit", label) == "limit other"


def test_counts_add_up_over_workers_and_their_graves():
    tallies = Tallies(2)
    one, two = tallies.of(0), tallies.of(1)
    one.count("limit", "max_errors")
    one.add("wire in", 1000)
    two.count("limit", "max_errors")
    assert tallies.read(0, 1) == {"limit max_errors": 1, "wire in": 1000}
    tallies.release(0, 1)
    assert tallies.read(0, 1) == {}
    tallies.of(0).add("wire in", 5)
    total = add_up(iter([tallies.total(), tallies.read(0, 1), tallies.read(1, 1)]))
    assert total == {"limit max_errors": 2, "wire in": 1005}


def test_a_tally_goes_on_where_the_section_is():
    tallies = Tallies(1)
    tallies.of(0).count("limit", "a")
    tallies.of(0).count("limit", "a")
    assert tallies.read(0, 1) == {"limit a": 2}


def test_what_has_no_place_is_counted_as_lost():
    tallies = Tallies(1)
    tally = tallies.of(0)
    for number in range(KEYS + 10):
        tally.count("limit", f"n{number}")
    found = tallies.read(0, 1)
    assert len(found) == KEYS
    assert found[LOST] == 11
    assert sum(found.values()) == KEYS + 10


def test_nothing_but_keys_of_ours_is_believed_of_a_worker():
    tallies = Tallies(1)
    words = tallies.memory.sections[0]
    Tally(words).count("limit", "good")
    words[8:15] = memoryview(b'evil{x="1"}'.ljust(56, b"\0")).cast("Q")
    words[15] = 7
    words[16:23] = memoryview(b"\xff\xfe\xfd".ljust(56, b"\1")).cast("Q")
    Tally(words[24:]).add("limit late", FASTEST * 61)
    assert tallies.read(0, 0) == {"limit good": 1}
    assert tallies.read(0, 2) == {"limit good": 1, "limit late": FASTEST * 61}


def test_a_total_stays_within_a_word():
    tally = Tallies(1).of(0)
    tally.add("wire in", 1 << 62)
    tally.add("wire in", 1 << 62)
    tally.add("wire in", 1 << 62)
    assert add_up(iter([{"a": 1 << 62}, {"a": 1 << 62}, {"a": 5}])) == {"a": (1 << 63) - 1}
