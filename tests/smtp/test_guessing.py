"""Guessing passwords: no way of trying one goes uncounted, and none is answered before its time."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from preforksmtp import Handler, Reject, ScramSecret
from preforksmtp.smtp import auth as module
from tests.fakes import FakeWire, Talk, recording, talk
from tests.scram import ScramClient

EHLO = "EHLO c.test"


def base64_of(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


PLAIN = f"AUTH PLAIN {base64_of(b'.bob.wrong'.replace(b'.', bytes(1)))}"
XOAUTH2 = f"AUTH XOAUTH2 {base64_of(b'user=bob.auth=Bearer x..'.replace(b'.', bytes([1])))}"
SCRAM = f"AUTH SCRAM-SHA-256 {base64_of(b'n,,n=bob,r=x')}"


def converse(*lines: Any, **hooks: Any) -> Talk:
    handler = recording(message=None, **hooks)
    return talk([EHLO, *lines], handler, allow_insecure_auth=True, auth_failure_delay=2.5)


def never(*_: Any) -> None:
    return None


@pytest.mark.parametrize("answer", ["*", "", "!", base64_of(b"\1"), "A" * 20000])
def test_a_wrong_token_is_counted_whatever_is_answered_to_the_error(answer: str) -> None:
    spoken = converse(XOAUTH2, answer, token=lambda *_: False)
    assert spoken.replies[-1] == "535 5.7.8 Authentication credentials invalid"
    assert spoken.journal.named("authenticated") == [("XOAUTH2", None)]
    assert spoken.wire.pauses == [2.5]


@pytest.mark.parametrize(
    ("refusal", "counted"),
    [
        (Reject(550, "5.7.1 not you"), True), (Reject(534, "5.7.9 stronger, please"), True), (Reject(535, "no"), True),
        (Reject(554, "5.7.13 disabled"), True), (Reject(454, "4.7.0 directory is down"), False),
        (Reject(432, "4.7.12 new password needed"), False), (Reject(501, "5.5.2 malformed"), False),
    ],
)  # fmt: skip
def test_a_hook_may_refuse_in_its_own_words(refusal: Reject, counted: bool) -> None:
    spoken = converse(PLAIN, authenticate=refusal)
    assert spoken.replies[-1].encode() + b"\r\n" == refusal.reply.wire
    assert spoken.journal.named("authenticated") == [("PLAIN", None)] * counted
    assert spoken.wire.pauses == [2.5] * counted


def test_the_delay_begins_with_the_clients_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what the hook took is hidden in it."""
    clock = iter([100.0, 200.0, 300.0])  # the command, the user name, the password
    since: list[float] = []
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    monkeypatch.setattr(FakeWire, "pause", lambda self, seconds, since_=0.0: since.append(since_))
    converse("AUTH LOGIN", "Ym9i", "d3Jvbmc=", authenticate=lambda *_: False)
    assert since == [300.0]


@pytest.mark.parametrize("command", [SCRAM, "AUTH LOGIN", "AUTH CRAM-MD5"])
def test_a_drain_may_interrupt_an_exchange(command: str) -> None:
    handler = recording(message=None, password=never)
    spoken = talk([EHLO, command], handler, allow_insecure_auth=True, faults=[InterruptedError()])
    assert spoken.codes == [250, 334, 421]
    assert spoken.session.user is None


class Strong(Handler):
    """Its secrets have many iterations."""

    scram_iterations = 9000

    def password(self, username: str) -> ScramSecret | None:
        return ScramSecret("sha256", 9000, b"salt", bytes(32), bytes(32)) if username == "bob" else None

    def message(self, message: Any) -> None:
        pass


def test_the_iterations_of_an_unknown_user() -> None:
    challenges = []
    for name in ("bob", "nobody"):
        first = f"AUTH SCRAM-SHA-256 {base64_of(ScramClient(name=name).first)}"
        spoken = talk([EHLO, first], Strong, allow_insecure_auth=True)
        challenges.append(base64.b64decode(spoken.replies[-1][4:]).decode().split(",")[2])
    assert challenges == ["i=9000", "i=9000"]


def test_iterations_that_are_none_are_found_at_the_start() -> None:
    weak = type("Weak", (Strong,), {"scram_iterations": 1})
    with pytest.raises(ValueError, match="scram_iterations must be from 4096"):
        talk([EHLO], weak)


class Both(Handler):
    """`authenticate` has the word for PLAIN and LOGIN, `password` for the rest."""

    def authenticate(self, username: str, password: str) -> bool:
        return password == "plain"

    def password(self, username: str) -> str | None:
        return "scram"

    def message(self, message: Any) -> None:
        pass


@pytest.mark.parametrize(("password", "code"), [("plain", 235), ("scram", 535)])
def test_authenticate_comes_before_password(password: str, code: int) -> None:
    spoken = talk([EHLO, f"AUTH PLAIN {base64_of(f'.bob.{password}'.replace('.', chr(0)).encode())}"], Both,
                  allow_insecure_auth=True)  # fmt: skip
    assert spoken.codes[-1] == code
