"""EXTERNAL, and what the hooks behind AUTH may return: nothing lets in by accident."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.fakes import FakeTLS, Talk, recording, talk

CERTIFICATE = {"subject": ((("commonName", "alice"),),)}
EHLO = "EHLO c.test"


def base64_of(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def converse(*lines: str, facts: Any = CERTIFICATE, **hooks: Any) -> Talk:
    def encrypt(dialogue: Any) -> None:
        dialogue.session.tls = FakeTLS(peer_certificate=facts)

    return talk([EHLO, *lines], recording(message=None, **hooks), before=encrypt)


def identify(handler: Any, certificate: Any) -> Any:
    return certificate["subject"][0][0][1]


@pytest.mark.parametrize("lines", [["AUTH EXTERNAL ="], ["AUTH EXTERNAL", ""], ["AUTH EXTERNAL", "YWxpY2U="]])
def test_the_certificate_tells_who_it_is(lines: list[str]) -> None:
    spoken = converse(*lines, certificate=identify)
    assert "AUTH EXTERNAL\n" in spoken.replies[0] + "\n"
    assert spoken.replies[-1].startswith("235") and spoken.session.user == "alice"


@pytest.mark.parametrize("authorization", [b"bob", b"alice\0", b"\xff", b"Alice", b" "])
def test_nobody_acts_for_another(authorization: bytes) -> None:
    spoken = converse(f"AUTH EXTERNAL {base64_of(authorization)}", certificate=identify)
    assert spoken.replies[-1].startswith("535") and spoken.session.user is None


def test_it_is_offered_to_who_has_shown_a_certificate() -> None:
    spoken = converse("AUTH EXTERNAL =", facts=None, certificate=identify)
    assert "EXTERNAL" not in spoken.replies[0]
    assert spoken.replies[1].startswith("504")
    spoken = talk([EHLO, "AUTH EXTERNAL ="], recording(message=None, certificate=identify), allow_insecure_auth=True)
    assert "EXTERNAL" not in spoken.replies[0]
    assert spoken.replies[1].startswith("538")


@pytest.mark.parametrize(
    ("identity", "code"), [(None, "535"), ("", "535"), (True, "451"), (b"alice", "451"), (1, "451")]
)
def test_what_is_no_identity(identity: Any, code: str) -> None:
    spoken = converse("AUTH EXTERNAL =", certificate=lambda handler, certificate: identity)
    assert spoken.replies[-1].startswith(code) and spoken.session.user is None


@pytest.mark.parametrize(
    ("verdict", "user"),
    [
        (True, "bob"),
        ("alice", "alice"),
        ("", None),
        (False, None),
        (None, None),
        (1, None),
        (object(), None),
        ([1], None),
    ],
)
def test_of_token_only_true_or_an_identity_lets_in(verdict: Any, user: str | None) -> None:
    """A coroutine, which a forgotten await leaves, once did."""
    message = base64_of(b"user=bob\1auth=Bearer abc\1\1")
    spoken = converse(f"AUTH XOAUTH2 {message}", "", token=lambda handler, username, token: verdict)
    assert spoken.session.user == user
    assert spoken.codes[-1] == (535 if user is None else 500), "500: the line behind that answers no challenge"


@pytest.mark.parametrize(("secret", "code"), [(b"secret", 451), (1, 451), (True, 451), (None, 535), ("x", 535)])
def test_of_password_only_what_is_one(secret: Any, code: int) -> None:
    spoken = converse(f"AUTH PLAIN {base64_of(b'.bob.secret'.replace(b'.', bytes(1)))}", password=lambda *_: secret)
    assert spoken.codes[-1] == code and spoken.session.user is None
