"""SCRAM: the examples of the RFCs, an honest client, and clients that are not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from typing import Any

import pytest

from preforksmtp.smtp import scram as module
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.sasl import cram_md5
from preforksmtp.smtp.scram import ScramSecret, check_password, scram, secret_for, server_end_point


class Verifier:
    """Knows `pencil` for `user`."""

    server_certificate = b""
    offers_binding = False
    hostname = "mx.example.com"

    def __init__(self, secret: Any = "pencil") -> None:
        self._secret = secret

    def password(self, username: str) -> Any:
        return self._secret if username == "user" else None


class Client:
    """An honest client, but for what a test changes: it answers as `ask`."""

    def __init__(
        self, password: str = "pencil", name: str = "user", algorithm: str = "sha256", gs2: str = "n,,"
    ) -> None:
        self.password, self.name, self.algorithm, self.gs2 = password, name, algorithm, gs2
        self.binding = b""
        self.bare = f"n={name},r=clientnonce"
        self.said: list[bytes] = []
        self.change = lambda final: final

    @property
    def first(self) -> bytes:
        return (self.gs2 + self.bare).encode()

    def __call__(self, challenge: bytes) -> bytes:
        self.said.append(challenge)
        if challenge.startswith(b"v="):
            return b""
        server = dict(part.split("=", 1) for part in challenge.decode().split(","))
        salted = hashlib.pbkdf2_hmac(
            self.algorithm, self.password.encode(), base64.b64decode(server["s"]), int(server["i"])
        )
        key = hmac.digest(salted, b"Client Key", self.algorithm)
        binding = base64.b64encode(self.gs2.encode() + self.binding).decode()
        without = f"c={binding},r={server['r']}"
        message = f"{self.bare},{challenge.decode()},{without}".encode()
        signature = hmac.digest(hashlib.new(self.algorithm, key).digest(), message, self.algorithm)
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", self.algorithm), message, self.algorithm)
        return self.change(f"{without},p={proof}").encode()


@pytest.mark.parametrize(
    ("algorithm", "salt", "first", "ours", "final", "signature"),
    [
        (  # RFC 5802 section 5
            "sha1", "QSXCR+Q6sek8bf92", b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j",
            b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (  # RFC 7677 section 3
            "sha256", "W22ZaJ0SNY7soEsUEjb6gQ==", b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ],
)  # fmt: skip
def test_examples_of_the_rfcs(
    monkeypatch: pytest.MonkeyPatch, algorithm: str, salt: str, first: bytes, ours: str, final: bytes, signature: bytes
) -> None:
    encode = module._b64
    monkeypatch.setattr(module, "_b64", lambda octets: ours if len(octets) == 18 else encode(octets))
    secret = ScramSecret.make("pencil", algorithm, 4096, base64.b64decode(salt))
    said: list[bytes] = []

    def ask(challenge: bytes) -> bytes:
        said.append(challenge)
        return final if len(said) == 1 else b""

    assert scram(algorithm, False, first, ask, Verifier(secret)) == "user"
    assert said[1] == signature


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@pytest.mark.parametrize("stored", [True, False])
def test_an_honest_client(algorithm: str, stored: bool) -> None:
    client = Client(algorithm=algorithm)
    secret = ScramSecret.make("pencil", algorithm) if stored else "pencil"
    assert scram(algorithm, False, client.first, client, Verifier(secret)) == "user"
    assert client.said[-1] == b"v=" + base64.b64encode(client.signature), "the server proves itself, too"


def test_without_initial_response() -> None:
    client = Client()
    answers = iter([client.first])
    assert scram("sha256", False, None, lambda c: next(answers) if not c else client(c), Verifier()) == "user"


def outcome(client: Client, verifier: Verifier | None = None, plus: bool = False) -> tuple[int, int]:
    with pytest.raises(Reject) as refusal:
        scram("sha256", plus, client.first, client, verifier or Verifier())
    return refusal.value.reply.code, len(client.said)


def test_wrong_password_and_unknown_user_look_alike() -> None:
    wrong, unknown = Client("pen"), Client(name="nobody")
    assert outcome(wrong) == outcome(unknown) == (535, 1)
    again = Client(name="nobody")
    assert outcome(again) == (535, 1)
    salt = [client.said[0].split(b",")[1:] for client in (unknown, again)]
    assert salt[0] == salt[1], "a user who is there has the same salt each time as well"


def test_the_secret_of_another_hash_does_not_fit() -> None:
    assert outcome(Client(), Verifier(ScramSecret.make("pencil", "sha1"))) == (535, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda final: final.replace("r=clientnonce", "r=othernonce"),
        lambda final: final.replace("c=biws", "c=eSws"),
        lambda final: final.rpartition(",")[0] + ",p=AAAA",
    ],
)
def test_a_client_that_cheats(change: Any) -> None:
    client = Client()
    client.change = change
    assert outcome(client)[0] == 535


@pytest.mark.parametrize(
    "first",
    [
        b"", b"n,,", b"n,,n=user", b"n,,r=x", b"n,,n=,r=x", b"x,,n=user,r=x", b"n,n=user,r=x", b"n,,m=1,n=user,r=x",
        b"n,,n=us=er,r=x", b"n,,n=user,r=a b", b"n,,n=user,r=x,y", b"n,,n=\xff,r=x", b"n,,n=user,r=" + b"\0",
    ],
)  # fmt: skip
def test_malformed_first_messages(first: bytes) -> None:
    with pytest.raises(Reject) as refusal:
        scram("sha256", False, first, lambda challenge: b"", Verifier())
    assert refusal.value.reply.code == 501


def test_fuzz() -> None:
    """Whatever a client says, it is refused, and nothing else is raised."""
    chance = random.Random(5802)
    good = b"c=biws,r=clientnonce,p=AAAA"
    for _ in range(3000):
        client = Client()
        first, final = bytearray(client.first), bytearray(good)
        for message in (first, final):
            for _ in range(chance.randrange(4)):
                message[chance.randrange(len(message))] = chance.randrange(256)
        with pytest.raises(Reject):
            scram("sha256", False, bytes(first), lambda challenge, final=bytes(final): final, Verifier(FAST))


FAST = ScramSecret("sha256", 1, b"salt", b"x" * 32, b"y" * 32)


# --- channel binding


def test_plus_binds_to_the_certificate() -> None:
    verifier = Verifier()
    verifier.server_certificate = CERTIFICATE
    client = Client(gs2="p=tls-server-end-point,,")
    client.binding = hashlib.sha256(CERTIFICATE).digest()
    assert scram("sha256", True, client.first, client, verifier) == "user"
    client = Client(gs2="p=tls-server-end-point,,")
    client.binding = hashlib.sha256(b"the certificate of somebody between us").digest()
    assert outcome(client, verifier, plus=True)[0] == 535


@pytest.mark.parametrize(
    ("gs2", "plus", "offered"),
    [
        ("y,,", False, True),
        ("n,,", True, True),
        ("p=tls-unique,,", True, True),
        ("p=tls-server-end-point,,", False, True),
    ],
)
def test_a_downgrade_is_refused(gs2: str, plus: bool, offered: bool) -> None:
    verifier = Verifier()
    verifier.server_certificate, verifier.offers_binding = CERTIFICATE, offered
    assert outcome(Client(gs2=gs2), verifier, plus)[0] == 535


def test_y_is_fine_where_nothing_binds() -> None:
    client = Client(gs2="y,,")
    assert scram("sha256", False, client.first, client, Verifier()) == "user"


def certificate(oid: str) -> bytes:
    """As much of a certificate as the hash is chosen by."""
    tbs = b"\x30\x03\x02\x01\x01"
    identifier = bytes.fromhex(oid)
    algorithm = bytes([0x30, len(identifier) + 2, 6, len(identifier)]) + identifier
    return bytes([0x30, 0x81, len(tbs + algorithm)]) + tbs + algorithm


CERTIFICATE = certificate("2a864886f70d01010b")  # sha256WithRSAEncryption


@pytest.mark.parametrize(
    ("oid", "name"),
    [
        ("2a864886f70d010104", "sha256"),  # MD5 counts as SHA-256 (RFC 5929 section 4.1)
        ("2a864886f70d010105", "sha256"),  # SHA-1 as well
        ("2a864886f70d01010b", "sha256"),
        ("2a864886f70d01010c", "sha384"),
        ("2a8648ce3d040302", "sha256"),
        ("2a8648ce3d040304", "sha512"),
    ],
)
def test_the_hash_of_the_certificates_signature(oid: str, name: str) -> None:
    der = certificate(oid)
    assert server_end_point(der) == hashlib.new(name, der).digest()


# --- secrets


def test_text_and_back() -> None:
    secret = ScramSecret.make("pencil", iterations=5000)
    assert str(ScramSecret.parse(f"{secret}\n")) == str(secret)
    assert secret.verify("pencil") and not secret.verify("pen") and not secret.verify("")
    assert "pencil" not in repr(secret) and str(secret) not in repr(secret)


@pytest.mark.parametrize("text", ["", "SCRAM-SHA-256$4096:AA==$AA==:AA==", "SCRAM-SHA-512$1:a$b:c", "x" * 100])
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(ValueError):
        ScramSecret.parse(text)


@pytest.mark.parametrize(
    ("secret", "password", "right"),
    [
        ("pencil", "pencil", True), ("pencil", "pen", False), (None, "", False), ("", "", False), (None, "x", False),
        ("I\u00adX", "IX", True),  # RFC 4013 section 3
    ],
)  # fmt: skip
def test_check_password(secret: Any, password: str, right: bool) -> None:
    assert check_password(secret, "user", password) is right
    if secret:
        assert check_password(ScramSecret.make(secret), "user", password) is right


def test_a_decoy_is_stable_and_of_the_right_size() -> None:
    for algorithm, size in (("sha1", 20), ("sha256", 32)):
        one, two = (secret_for(None, "nobody", algorithm) for _ in range(2))
        assert one.salt == two.salt and len(one.stored_key) == size
        assert secret_for(None, "nobody else", algorithm).salt != one.salt


# --- CRAM-MD5, the older way


def test_cram_md5_example_of_rfc_2195() -> None:
    challenges: list[bytes] = []

    def ask(challenge: bytes) -> bytes:
        challenges.append(challenge)
        return b"user " + hmac.new(b"pencil", challenge, "md5").hexdigest().encode()

    assert cram_md5(None, ask, Verifier()) == "user"  # type: ignore[arg-type]
    assert cram_md5(None, ask, Verifier()) == "user"  # type: ignore[arg-type]
    assert challenges[0] != challenges[1] and challenges[0].endswith(b"@mx.example.com>")


@pytest.mark.parametrize("secret", ["pen", None, "", ScramSecret.make("pencil")])
def test_cram_md5_refusals(secret: Any) -> None:
    def ask(challenge: bytes) -> bytes:
        return b"user " + hmac.new(b"pencil" if secret else b"", challenge, "md5").hexdigest().encode()

    with pytest.raises(Reject) as refusal:
        cram_md5(None, ask, Verifier(secret))  # type: ignore[arg-type]
    assert refusal.value.reply.code == 535
