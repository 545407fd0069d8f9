"""Bearer tokens: the messages of XOAUTH2 and OAUTHBEARER, good, bad and malformed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from preforksmtp.smtp import reply
from preforksmtp.smtp.oauth import oauthbearer, xoauth2
from preforksmtp.smtp.reply import Reject, Reply


class Verifier:
    def __init__(self) -> None:
        self.failures = 0

    def failed(self) -> None:
        self.failures += 1

    def token(self, username: str, token: str) -> str | None:
        return (username or "bob") if token == "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==" else None


class Unasked(Verifier):
    def token(self, username: str, token: str) -> str | None:
        raise AssertionError(token)


def never(challenge: bytes) -> bytes:
    raise AssertionError(challenge)


TOKEN = b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
GOOD = [
    (xoauth2, b"user=user@example.com\1" + TOKEN, "user@example.com"),
    (
        oauthbearer,
        b"n,a=user@example.com,\1host=server.example.com\1port=143\1" + TOKEN,
        "user@example.com",
    ),  # RFC 7628 4.1
    (oauthbearer, b"n,,\1" + TOKEN, "bob"),
    (oauthbearer, b"y,a=a=2Cb=3D,\1" + TOKEN, "a,b="),
]


@pytest.mark.parametrize(("mechanism", "message", "identity"), GOOD)
def test_good(mechanism: Any, message: bytes, identity: str) -> None:
    assert mechanism(message, None, Verifier()) == identity
    assert mechanism(None, lambda challenge: message, Verifier()) == identity


@pytest.mark.parametrize(("mechanism", "message", "identity"), GOOD)
def test_a_wrong_token_is_told_as_json_first(mechanism: Any, message: bytes, identity: str) -> None:
    challenges: list[bytes] = []
    verifier = Verifier()

    def ask(challenge: bytes) -> bytes:
        assert verifier.failures == 1, "it is counted and delayed before it is told"
        challenges.append(challenge)
        return b"\1"

    with pytest.raises(Reject) as refusal:
        mechanism(message.replace(b"vF9", b"vF8"), ask, verifier)
    assert refusal.value.reply.code == 535
    assert "status" in json.loads(challenges[0])


@pytest.mark.parametrize("answer", [reply.AUTH_CANCELLED, reply.BAD_BASE64, reply.AUTH_LINE_TOO_LONG])
@pytest.mark.parametrize(("mechanism", "message", "identity"), GOOD)
def test_a_failure_is_one_whatever_the_client_answers(
    mechanism: Any, message: bytes, identity: str, answer: Reply
) -> None:
    """Cancelling after the challenge once hid that a token had been tried."""

    def ask(challenge: bytes) -> bytes:
        raise Reject(answer)

    with pytest.raises(Reject) as refusal:
        mechanism(message.replace(b"vF9", b"vF8"), ask, Verifier())
    assert refusal.value.reply == reply.AUTH_FAILED


@pytest.mark.parametrize("auth", [b"", b"auth=\1", b"auth=Bearer\1", b"auth=Basic dTpw\1"])
def test_oauthbearer_without_a_token_asks_how(auth: bytes) -> None:
    """RFC 7628 section 3.1: the error is the answer; the handler is not asked."""
    challenges: list[bytes] = []

    def ask(challenge: bytes) -> bytes:
        challenges.append(challenge)
        return b"\1"

    with pytest.raises(Reject) as refusal:
        oauthbearer(b"n,,\1host=a\1" + auth + b"\1", ask, Unasked())
    assert refusal.value.reply.code == 535 and b"invalid_token" in challenges[0]


@pytest.mark.parametrize("scheme", [b"bearer", b"BEARER"])
def test_the_scheme_in_any_case(scheme: bytes) -> None:
    assert xoauth2(b"user=a\1" + TOKEN.replace(b"Bearer", scheme), never, Verifier()) == "a"


@pytest.mark.parametrize("mechanism", [xoauth2, oauthbearer])
def test_malformed(mechanism: Any) -> None:
    """Mutants of good messages, seeded: an identity or a Reject, and nothing else."""
    chance = random.Random(7628)
    originals = [message for kind, message, _ in GOOD if kind is mechanism]
    for _ in range(3000):
        message = bytearray(chance.choice(originals))
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(message))
            message[place : place + chance.randrange(3)] = bytes([chance.randrange(256)])
        try:
            identity = mechanism(bytes(message), lambda challenge: b"", Verifier())
        except Reject as refusal:
            assert refusal.reply.code in (501, 535)
        else:
            assert identity and identity.isprintable()
