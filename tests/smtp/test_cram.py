"""CRAM-MD5: the example of RFC 2195, fresh challenges, and responses that are none."""

from __future__ import annotations

import hmac
import random
from typing import Any

import pytest

from preforksmtp import ScramSecret
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.sasl import cram_md5, cram_md5_digest


class Verifier:
    hostname = "mx.example.com"

    def __init__(self, secret: Any = "pencil") -> None:
        self._secret = secret
        self.tried = 0

    def attempt(self) -> None:
        self.tried += 1

    def password(self, username: str) -> Any:
        return self._secret if username == "user" else None


class Client:
    """Answers with the digest of this password."""

    def __init__(self, name: str = "user", password: str = "pencil") -> None:
        self.name, self.password = name.encode(), password.encode()
        self.challenges: list[bytes] = []

    def __call__(self, challenge: bytes) -> bytes:
        self.challenges.append(challenge)
        return self.name + b" " + hmac.new(self.password, challenge, "md5").hexdigest().encode()


def refusal(ask: Any, secret: Any = "pencil", initial: bytes | None = None) -> tuple[int, str]:
    verifier = Verifier(secret)
    with pytest.raises(Reject) as caught:
        cram_md5(initial, ask, verifier)  # type: ignore[arg-type]
    assert verifier.tried == (initial is None), "each digest that came was one"
    return caught.value.reply.code, caught.value.reply.enhanced


def test_the_example_of_rfc_2195() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert cram_md5_digest("tanstaaftanstaaf", challenge) == b"b913a602c7eda7a495b4e6e7334d3890"


def test_each_challenge_is_new() -> None:
    client = Client()
    for _ in range(2):
        assert cram_md5(None, client, Verifier()) == "user"  # type: ignore[arg-type]
    first, second = client.challenges
    assert first != second
    assert first.startswith(b"<") and first.endswith(b"@mx.example.com>"), "RFC 2195: like a message id"


def test_a_name_with_spaces_and_a_digest_in_capitals() -> None:
    client = Client()
    assert cram_md5(None, lambda challenge: client(challenge).upper().replace(b"USER", b"user"), Verifier()) == "user"  # type: ignore[arg-type]
    client = Client("a user")
    assert refusal(client) == (535, "5.7.8"), "another user, and no other reading of it"


@pytest.mark.parametrize("secret", ["pen", None, "", ScramSecret.make("pencil"), "p\udcff"])
@pytest.mark.parametrize("password", ["pencil", ""])
def test_refused(secret: Any, password: str) -> None:
    assert refusal(Client(password=password), secret) == (535, "5.7.8")


def test_the_server_speaks_first() -> None:
    """RFC 4954 section 4."""
    assert refusal(Client(), initial=b"") == refusal(Client(), initial=b"user 0") == (501, "5.7.0")


def test_fuzz() -> None:
    chance = random.Random(2195)
    for _ in range(3000):

        def ask(challenge: bytes) -> bytes:
            response = bytearray(Client()(challenge))
            for _ in range(chance.randrange(1, 4)):
                place = chance.randrange(len(response))
                response[place : place + chance.randrange(3)] = bytes(chance.randrange(256) for _ in range(2))
            return bytes(response)

        try:
            assert cram_md5(None, ask, Verifier()) == "user"  # type: ignore[arg-type]
        except Reject as refused:
            assert refused.reply.code == 535
