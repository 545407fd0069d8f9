"""RFC 4013: the examples of its section 3, and what each step refuses."""

from __future__ import annotations

import pytest

from preforksmtp.smtp.saslprep import saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("", ""),
        ("\u0627\u0628", "\u0627\u0628"),
    ],
)
def test_prepared(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "text", ["\u0007", "\u0627\u0031", "a\u0627", "\ufffd", "\ud800", "\ue000", "a\u200e", "\u0080"]
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError):
        saslprep(text)


def test_unassigned_code_points_are_refused_in_what_is_stored() -> None:
    assert saslprep("\u0221") == "\u0221"
    with pytest.raises(ValueError):
        saslprep("\u0221", stored=True)
