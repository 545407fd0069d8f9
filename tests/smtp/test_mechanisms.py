"""Fuzz of every mechanism through the command AUTH: mutants of what honest clients say, and the worst each can be given.

Seeded and bounded. Only well-formed replies come back, nothing is raised, no hook is made to fail, nobody is let in but
a user who has said the right secret, the next command is found, and no input costs more than a few milliseconds.
"""

from __future__ import annotations

import base64
import random
import time
from typing import Any

import pytest

from preforksmtp import Handler, ScramSecret
from preforksmtp.smtp.sasl import MECHANISMS
from tests.fakes import FakeTLS, Talk, talk
from tests.hostile_auth import BINDING, MESSAGES, exchanges, worst

STORED = ScramSecret("sha256", 1, b"salt", bytes(32), bytes(32))  # one iteration: many exchanges
LONGEST = 0.010  # seconds of CPU for one exchange: twice what is promised, for a slow machine


class All(Handler):
    def password(self, username: str) -> Any:
        assert username and username.isprintable()
        return {"bob": STORED, "eve": "secret"}.get(username)

    def token(self, username: str, token: str) -> bool:
        assert username.isprintable() and token.isascii()
        return False

    def certificate(self, certificate: Any) -> str | None:
        return None

    def message(self, message: Any) -> None:
        pass


def encrypt(dialogue: Any) -> None:
    dialogue.session.tls = FakeTLS(peer_certificate={"subject": ()}, bindings={BINDING: b"x"})


def test_all_have_messages() -> None:
    assert MESSAGES.keys() == MECHANISMS.keys()


def converse(name: str, lines: list[bytes], **rules: Any) -> Talk:
    spoken = talk([b"EHLO c.test\r\n", *lines, b"NOOP\r\n"], All, before=encrypt, max_auth_failures=0, max_errors=0,
                  **rules)  # fmt: skip
    assert spoken.journal.named("handler_failed") == [], lines
    assert spoken.session.user in (None, "eve"), lines
    assert isinstance(spoken.fault, EOFError), lines
    assert spoken.dialogue.transaction is None
    return spoken


@pytest.mark.parametrize("name", MECHANISMS)
def test_fuzz(name: str) -> None:
    codes: set[int] = set()
    for seed in range(400):
        chance = random.Random(f"{name} {seed}")
        spoken = converse(name, exchanges(chance, name), cut=chance.choice([0, 0, 7]))
        codes.update(spoken.codes)
    assert codes <= {221, 235, 250, 334, 500, 501, 502, 503, 504, 535}
    assert {334, 501, 535} <= codes, "the fuzz reaches both the parser and what is behind it"


def exchange(name: str, messages: list[bytes]) -> float:
    """Seconds of CPU that one takes."""
    lines = [f"AUTH {name}\r\n".encode(), *(base64.b64encode(message) + b"\r\n" for message in messages)]
    began = time.thread_time()
    converse(name, lines)
    return time.thread_time() - began


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_worst_that_can_be_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalization made 55,000 characters of 9 KB once, and looked at each: a third of a second."""
    monkeypatch.setattr(All, "scram_iterations", 4096)
    exchange(name, MESSAGES[name])
    for messages in worst(name):
        took = min(exchange(name, messages), 1.0)
        if took > LONGEST:  # the machine, or we?
            took = min(exchange(name, messages) for _ in range(5))
        assert took < LONGEST, f"{took:.4f} s for {[message[:60] for message in messages]}"
