"""Fuzz of every mechanism through the command AUTH: mutants of what honest clients say, seeded and bounded.

Only well-formed replies come back, nothing is raised, no hook is made to fail, and nobody is let in but a user who has
said the right secret.
"""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from preforksmtp import Handler, ScramSecret
from preforksmtp.smtp.sasl import MECHANISMS
from tests.fakes import FakeTLS, talk

STORED = ScramSecret("sha256", 1, b"salt", bytes(32), bytes(32))  # one iteration: many exchanges
MESSAGES: dict[str, list[bytes]] = {
    "EXTERNAL": [b"", b"alice"],
    "CRAM-MD5": [b"bob b913a602c7eda7a495b4e6e7334d3890"],
    "OAUTHBEARER": [b"n,a=bob,\1host=h\1port=25\1auth=Bearer abc\1\1", b"\1"],
    "XOAUTH2": [b"user=bob\1auth=Bearer abc\1\1", b""],
    "PLAIN": [b"\0bob\0secret", b"bob\0bob\0secret"],
    "LOGIN": [b"bob", b"secret"],
}
for name in MECHANISMS:
    if name.startswith("SCRAM"):
        gs2 = b"p=tls-server-end-point,," if name.endswith("PLUS") else b"n,,"
        MESSAGES[name] = [gs2 + b"n=bob,r=abc", b"c=" + base64.b64encode(gs2 + b"x") + b",r=abc,p=" + b"A" * 43 + b"="]


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


def mutate(chance: random.Random, octets: bytes) -> bytes:
    text = bytearray(octets)
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        place = chance.randrange(len(text) + 1)
        text[place : place + chance.randrange(3)] = chance.choice(
            [b"", b"\0", b",", b"=", b"\1", b"\xff", b"\r\n", "\u00ad\u0627".encode(), bytes([chance.randrange(256)])]
        )
    return bytes(text) * chance.choice([1, 1, 1, 1, 1, 2, 50])


def script(chance: random.Random, name: str) -> list[bytes]:
    """Exchanges as lines; most messages are base64 of a mutant, some are mutants of base64."""
    lines = [b"EHLO c.test"]
    for _ in range(chance.randrange(1, 4)):
        lines.append(b"AUTH " + name.encode())
        for number in range(chance.randrange(4)):
            message = mutate(chance, MESSAGES[name][number % len(MESSAGES[name])])
            line = base64.b64encode(message)
            if chance.random() < 0.2:
                line = mutate(chance, line).replace(b"\r\n", b"")
            if number == 0 and chance.random() < 0.5:
                lines[-1] += b" " + line
            else:
                lines.append(line)
    return [line[:20000] + b"\r\n" for line in lines]  # beyond the 12288 octets of a line, but not far


def encrypt(dialogue: Any) -> None:
    dialogue.session.tls = FakeTLS(peer_certificate={"subject": ()}, bindings={"tls-server-end-point": b"x"})


def test_all_have_messages() -> None:
    assert MESSAGES.keys() == MECHANISMS.keys()


@pytest.mark.parametrize("name", MECHANISMS)
def test_fuzz(name: str) -> None:
    codes: set[int] = set()
    for seed in range(400):
        chance = random.Random(f"{name} {seed}")
        lines = script(chance, name)
        spoken = talk(lines, All, before=encrypt, max_auth_failures=0, max_errors=0, cut=chance.choice([0, 0, 7]))
        assert spoken.journal.named("handler_failed") == [], lines
        assert spoken.session.user in (None, "eve"), lines
        assert isinstance(spoken.fault, EOFError), lines
        codes.update(spoken.codes)
    assert codes <= {221, 235, 250, 334, 500, 501, 502, 503, 504, 535}
    assert {334, 501, 535} <= codes, "the fuzz reaches both the parser and what is behind it"
