"""SCRAM: the examples of the RFCs, an honest client, and clients that are not."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any

import pytest

from preforksmtp.smtp import scram as module
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.scram import (
    ITERATIONS,
    SALT_OCTETS,
    Credential,
    ScramSecret,
    check_password,
    read_iterations,
    read_salt_octets,
    scram,
)
from tests.scram import ScramClient as Client


class Verifier:
    """Knows `pencil` for `user`."""

    iterations = ITERATIONS
    salt_octets = SALT_OCTETS
    salt_key = b"of the house"

    def __init__(self, secret: Any = "pencil") -> None:
        self._secret = secret
        self.bindings: dict[str, bytes] = {}
        self.offers_binding = False
        self.asked_binding = ""
        self.tried: list[str] = []

    def password(self, username: str) -> Any:
        return self._secret if username == "user" else None

    def attempt(self) -> None:
        self.tried.append("attempt")

    def succeeded(self) -> None:
        self.tried.append("success")


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
    verifier = Verifier(secret)
    assert scram(algorithm, False, client.first, client, verifier) == "user"
    assert verifier.tried == ["attempt", "success"]
    assert client.said[-1] == b"v=" + base64.b64encode(client.signature), "the server proves itself, too"


def test_without_initial_response() -> None:
    client = Client()
    answers = iter([client.first])
    assert scram("sha256", False, None, lambda c: next(answers) if not c else client(c), Verifier()) == "user"


def outcome(client: Client, verifier: Verifier | None = None, plus: bool = False) -> tuple[int, int]:
    verifier = verifier or Verifier()
    with pytest.raises(Reject) as refusal:
        scram("sha256", plus, client.first, client, verifier)
    assert verifier.tried == ["attempt"] * len(client.said), "a proof that came was tried, and nothing else"
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
        b"n,,n=us=er,r=x", b"n,,n=user,r=a b", b"n,,n=user,r=x,y", b"n,,n=user,r=x,m=1", b"n,a=,n=user,r=x", b"n,,n=\xff,r=x", b"n,,n=user,r=" + b"\0",
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


# --- what a client may learn from failures


class Work:
    """Counts derivations (PBKDF2), and notes after which message of the server each was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
        self.done: list[tuple[int, int]] = []  # messages said by then, iterations
        derive = hashlib.pbkdf2_hmac

        def counted(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
            self.done.append((len(client.said), iterations))
            return derive(name, password, salt, iterations)

        monkeypatch.setattr(module.hashlib, "pbkdf2_hmac", counted)


@pytest.mark.parametrize("iterations", [4096, 5000])
@pytest.mark.parametrize(
    "secret", [None, "", "other", "\ufffd", "stored", "sha1"], ids=["unknown", "empty", "str", "bad", "stored", "sha1"]
)
def test_every_failure_takes_the_same_work_and_none_before_the_challenge(
    monkeypatch: pytest.MonkeyPatch, secret: Any, iterations: int
) -> None:
    if secret in ("stored", "sha1"):
        secret = ScramSecret.make("other", "sha1" if secret == "sha1" else "sha256", iterations)
    verifier, client = Verifier(secret), Client()
    verifier.iterations = iterations
    final = f"c=biws,r=%s,p={base64.b64encode(bytes(32)).decode()}"

    def ask(challenge: bytes) -> bytes:
        client.said.append(challenge)
        assert challenge.endswith(f",i={iterations}".encode())
        return (final % challenge.decode().split(",")[0][2:]).encode()

    work = Work(monkeypatch, client)
    with pytest.raises(Reject) as refusal:
        scram("sha256", False, client.first, ask, verifier)
    assert refusal.value.reply.code == 535
    assert work.done == [(1, iterations)]


@pytest.mark.parametrize("secret", [None, "other"])
def test_check_password_works_alike(monkeypatch: pytest.MonkeyPatch, secret: Any) -> None:
    work = Work(monkeypatch, Client())
    assert not check_password(secret, "x", 5000)
    assert not check_password(ScramSecret("sha256", 5000, b"salt", bytes(32), bytes(32)), "x", 5000)
    assert work.done == [(0, 5000)] * 2


def test_salts_do_not_tell_whose_secret_is_stored() -> None:
    """They stay the same for a user, and differ from hash to hash, as if the one or the other were stored."""
    for secret in (None, "pencil", ScramSecret.make("pencil", "sha1")):
        sha1, sha256 = (Credential(secret, "user", name, Verifier()).salt for name in ("sha1", "sha256"))
        assert sha1 != sha256 and len(sha256) == 16
        assert Credential(secret, "user", "sha256", Verifier()).salt == sha256
        assert Credential(secret, "other", "sha256", Verifier()).salt != sha256


@pytest.mark.parametrize("octets", [1, 16, 28, 64])
def test_the_salt_of_who_is_not_there_is_that_of_the_key(octets: int) -> None:
    """The same in every process that has the key, as long as those that are stored, and nothing like it elsewhere."""
    one, same, other = Verifier(), Verifier(), Verifier()
    other.salt_key = b"of another house"
    salts = []
    for verifier in (one, same, other):
        verifier.salt_octets = octets
        salts.append(Credential(None, "nobody", "sha256", verifier).salt)
    assert salts[0] == salts[1] and len(salts[0]) == octets
    assert salts[0] != salts[2]


def test_the_salt_is_the_same_tomorrow() -> None:
    """It must not change from version to version either."""
    assert Credential(None, "nobody", "sha256", Verifier()).salt.hex() == "838b750734c39970820607858ba704bb"
    assert Credential(None, "nobody", "sha1", Verifier()).salt.hex() == "6c2819ba1ad311bd7aabe89f113dca46"


@pytest.mark.parametrize("value", [0, -1, True, 16.0, "16", None, 129])
def test_lengths_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="scram_salt_octets"):
        read_salt_octets(value)


@pytest.mark.parametrize("value", [0, 4095, -1, True, 4096.0, "4096", None, 10**9])
def test_iterations_that_are_none(value: Any) -> None:
    with pytest.raises(ValueError, match="scram_iterations"):
        read_iterations(value)


@pytest.mark.parametrize("secret", [None, "", "\u00ad", "\ufffd", ScramSecret.make("pencil", "sha1")])
def test_no_password_is_none(secret: Any) -> None:
    """Where there is no secret, the empty password is not it."""
    assert outcome(Client(password=""), Verifier(secret)) == (535, 1)


@pytest.mark.parametrize("nonce", ["clientnonce", "other", "clientnonceAAAA"])
def test_the_nonce_must_be_ours_though_the_proof_is_right(nonce: str) -> None:
    client = Client()
    client.nonce = lambda ours: nonce
    assert outcome(client) == (535, 1)


# --- who asks to act for whom


@pytest.mark.parametrize("name", ["user", "us\u00ader"])
def test_an_authorization_identity_of_ones_own(name: str) -> None:
    client = Client(gs2=f"n,a={name},")
    assert scram("sha256", False, client.first, client, Verifier()) == "user"


def test_an_authorization_identity_of_another() -> None:
    assert outcome(Client(gs2="n,a=root,")) == (535, 0)


# --- channel binding

BINDINGS = {"tls-server-end-point": b"hash of a certificate", "tls-unique": b"finished"}


@pytest.mark.parametrize("name", BINDINGS)
def test_plus(name: str) -> None:
    verifier = Verifier()
    verifier.bindings = BINDINGS
    client = Client(gs2=f"p={name},,")
    client.binding = BINDINGS[name]
    assert scram("sha256", True, client.first, client, verifier) == "user"
    client = Client(gs2=f"p={name},,")
    client.binding = b"what somebody between us has"
    verifier.tried.clear()
    assert outcome(client, verifier, plus=True) == (535, 1)
    assert verifier.asked_binding == name


@pytest.mark.parametrize(
    ("gs2", "plus", "offered", "asked"),
    [
        ("y,,", False, True, "none, for it was told of none"),
        ("n,,", True, True, "none"),
        ("y,,", True, True, "none"),
        ("p=tls-exporter,,", True, True, "tls-exporter, which this connection lacks"),
        ("p=tls-server-end-point,,", False, True, "tls-server-end-point, without -PLUS"),
    ],
)
def test_a_downgrade_is_refused(gs2: str, plus: bool, offered: bool, asked: str) -> None:
    verifier = Verifier()
    verifier.bindings, verifier.offers_binding = BINDINGS, offered
    assert outcome(Client(gs2=gs2), verifier, plus) == (535, 0)
    assert verifier.asked_binding == asked


def test_y_is_fine_where_nothing_binds() -> None:
    client = Client(gs2="y,,")
    assert scram("sha256", False, client.first, client, Verifier()) == "user"


# --- secrets


def test_text_and_back() -> None:
    secret = ScramSecret.make("pencil", iterations=5000)
    assert str(ScramSecret.parse(f"{secret}\n")) == str(secret)
    assert secret.verify("pencil") and not secret.verify("pen") and not secret.verify("")
    assert "pencil" not in repr(secret) and str(secret) not in repr(secret)


STORED = str(ScramSecret.make("pencil"))


@pytest.mark.parametrize(
    "text",
    [
        "", "SCRAM-SHA-256$4096:AA==$AA==:AA==", "SCRAM-SHA-512$1:a$b:c", "x" * 100,
        STORED.replace("4096", "0"), STORED.replace("4096", "999999999"), STORED.replace("4096", "10000001"),
    ],
)  # fmt: skip
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
    assert check_password(secret, password) is right
    if secret:
        assert check_password(ScramSecret.make(secret), password) is right
