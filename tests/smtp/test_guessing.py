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
    ("refusal", "told"),
    [
        (Reject(550, "5.7.1 not you"), True), (Reject(534, "5.7.9 stronger, please"), True), (Reject(535, "no"), True),
        (Reject(554, "5.7.13 disabled"), True), (Reject(454, "4.7.0 directory is down"), False),
        (Reject(432, "4.7.12 new password needed"), False), (Reject(501, "5.5.2 malformed"), False),
    ],
)  # fmt: skip
def test_a_hook_may_refuse_in_its_own_words(refusal: Reject, told: bool) -> None:
    """The client has tried in any case; that it failed is not said where it may have been right."""
    spoken = converse(PLAIN, authenticate=refusal)
    assert spoken.replies[-1].encode() + b"\r\n" == refusal.reply.wire
    assert spoken.journal.named("authenticated") == [("PLAIN", None)] * told
    assert spoken.wire.pauses == [2.5]
    assert spoken.dialogue.auth_failures == 1


@pytest.mark.parametrize("hook", [OSError("invalid credentials"), SystemExit(1), Reject(454, "no"), Reject(421, "go")])
def test_a_hook_that_raises_for_a_wrong_password_does_not_open_the_door(hook: BaseException) -> None:
    """Libraries do (LDAP), and who forgets to catch it must not have made guessing free."""
    spoken = converse(*[PLAIN] * 5, authenticate=hook)
    ends = isinstance(hook, Reject) and hook.reply.code == 421
    assert spoken.codes[-1] == 421 and len(spoken.codes) == (2 if ends else 4)
    assert spoken.wire.pauses == [2.5] * (1 if ends else 3)


class Counting:
    """Limits that note what they are asked, and admit after `turns`; then `refuse`."""

    def __init__(self, turns: int = 0, refuse: str = "") -> None:
        self.turns, self.refuse = turns, refuse
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def ask(*_: Any, right: bool | None = None) -> bool:
            self.asked.append(name if right is None else f"{name} {right}")
            if name == self.refuse:
                raise Reject(454, "4.7.0 too many")
            return self.asked.count(name) > self.turns

        return ask


@pytest.mark.parametrize(
    ("lines", "hooks", "asked"),
    [
        ([PLAIN], {"authenticate": lambda *_: True}, ["look", "attempt", "decided True"]),
        ([PLAIN], {"authenticate": lambda *_: False}, ["look", "attempt", "decided False"]),
        ([PLAIN], {"authenticate": OSError()}, ["look", "attempt", "decided False"]),
        ([XOAUTH2, ""], {"token": lambda *_: False}, ["look", "attempt", "decided False"]),
        ([XOAUTH2], {"token": lambda *_: False}, ["look", "attempt", "decided False"]),  # leaves after the error
        (["AUTH LOGIN", "*"], {"authenticate": never}, ["look"]),
        ([SCRAM, "*"], {"password": never}, ["look", "attempt", "decided False"]),
        ([SCRAM, "AAAA"], {"password": never}, ["look", "attempt", "decided False"]),
        ([SCRAM], {"password": never}, ["look", "attempt"]),
        ([SCRAM.replace("biwsb", "biwsc")], {"password": never}, ["look"]),
        (["AUTH CRAM-MD5", "Ym9iIDA="], {"password": never}, ["look", "attempt", "decided False"]),
        (["AUTH CRAM-MD5", "*"], {"password": never}, ["look"]),
    ],
)  # fmt: skip
def test_an_attempt_is_counted_when_it_is_tried(lines: list[str], hooks: Any, asked: list[str]) -> None:
    limits = Counting()
    handler = recording(message=None, **hooks)
    talk([EHLO, *lines], handler, allow_insecure_auth=True, before=lambda dialogue: setattr(dialogue, "limits", limits))
    assert [name for name in limits.asked if name != "leave"] == asked


@pytest.mark.parametrize(("turns", "code"), [(0, 235), (3, 235), (23, 235), (24, 454)])
def test_who_has_many_attempts_under_way_waits_for_a_turn(turns: int, code: int) -> None:
    handler = recording(message=None, authenticate=lambda *_: True)
    limits = Counting(turns)
    spoken = talk([EHLO, PLAIN], handler, allow_insecure_auth=True, auth_failure_delay=2.5,
                  before=lambda dialogue: setattr(dialogue, "limits", limits))  # fmt: skip
    assert spoken.codes[-1] == code
    assert len(spoken.wire.pauses) == (turns if code == 235 else 25), "and the last one is that of a failure"


@pytest.mark.parametrize("refuse", ["look", "attempt"])
def test_who_has_failed_too_often_is_not_asked_about_and_waits_as_long(refuse: str) -> None:
    handler = recording(message=None, authenticate=lambda *_: True)
    spoken = talk([EHLO, *[PLAIN] * 5], handler, allow_insecure_auth=True, auth_failure_delay=2.5,
                  before=lambda dialogue: setattr(dialogue, "limits", Counting(refuse=refuse)))  # fmt: skip
    assert spoken.codes == [250, *[454] * 5]
    assert spoken.wire.pauses == [2.5] * 5
    assert handler.events == [], "the application is not asked"
    assert spoken.journal.named("authenticated") == []


def test_the_delay_begins_with_the_clients_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what the hook took is hidden in it."""
    clock = iter([100.0, 200.0, 300.0])  # the command, the user name, the password
    since: list[float] = []
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    monkeypatch.setattr(FakeWire, "pause", lambda self, seconds, since_=0.0, idle=False: since.append(since_))
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
