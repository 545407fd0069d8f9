"""smtp/sasl.py: exchanges as the client sees them."""

from __future__ import annotations

import base64

import pytest

from preforksmtp import Reject
from preforksmtp.smtp import reply
from preforksmtp.smtp.sasl import MECHANISMS, decode_response, login, plain


class Verifier:
    """Lets "user" with "pass" in."""

    def __init__(self, verdict=None):
        self.asked = []
        self.verdict = verdict

    def authenticate(self, username, password):
        self.asked.append((username, password))
        return (username, password) == ("user", "pass") if self.verdict is None else self.verdict


class Asker:
    def __init__(self, *responses):
        self.responses = list(responses)
        self.challenges = []

    def __call__(self, challenge):
        self.challenges.append(challenge)
        return self.responses.pop(0)


def refusal(run, *arguments):
    with pytest.raises(Reject) as caught:
        run(*arguments)
    return caught.value.reply


@pytest.mark.parametrize(
    ("text", "octets"),
    [("", b""), ("AAAA", b"\0\0\0"), ("dXNlcg==", b"user"), ("AHVzZXIAcGFzcw==", b"\0user\0pass")],
)
def test_base64(text, octets):
    assert decode_response(text) == octets
    assert decode_response(text, initial=True) == octets


def test_an_equals_sign_is_an_empty_initial_response_only():
    assert decode_response("=", initial=True) == b""
    with pytest.raises(Reject):
        decode_response("=")


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AA",
        "AAA",
        "A===",
        "====",
        "==",
        "AA=A",
        "AAAA=",
        "AA-_",
        "A A=",
        "AAA\n",
        "\u00fc",
        "*=",
        "AAAA*",
        "AAA=AAA=",
    ],
)
def test_what_is_no_base64(text):
    assert refusal(decode_response, text) == reply.BAD_BASE64


@pytest.mark.parametrize("length", range(60))
def test_every_length(length):
    """CVE-2018-6789: no padding is special."""
    octets = bytes(range(length))
    text = base64.b64encode(octets).decode()
    assert decode_response(text) == (octets if octets else b"")
    for cut in range(1, min(3, len(text))):
        shorter = text[:-cut]
        if len(shorter) % 4:
            assert refusal(decode_response, shorter) == reply.BAD_BASE64


def test_cancelled():
    assert refusal(decode_response, "*") == reply.AUTH_CANCELLED


@pytest.mark.parametrize("response", [b"\0user\0pass", b"user\0user\0pass"])
def test_plain(response):
    verifier, ask = Verifier(), Asker(response)
    assert plain(response, ask, verifier) == "user"
    assert ask.challenges == []
    assert plain(None, ask, verifier) == "user"
    assert ask.challenges == [b""]
    assert verifier.asked == [("user", "pass")] * 2


@pytest.mark.parametrize("response", [b"", b"user", b"\0user", b"\0user\0pass\0", b"\0\0user\0pass"])
def test_plain_malformed(response):
    answer = refusal(plain, response, Asker(), Verifier())
    assert (answer.code, answer.enhanced) == (501, "5.5.2")


@pytest.mark.parametrize(
    "response",
    [
        b"\0user\0wrong",
        b"\0\0pass",
        b"\0\0",
        b"other\0user\0pass",
        b"\0\xff\0pass",
        b"\0user\0\xff",
        b"\xff\0user\0pass",
    ],
)
def test_plain_refused(response):
    assert refusal(plain, response, Asker(), Verifier()) == reply.AUTH_FAILED


def test_an_empty_user_name_never_reaches_the_handler():
    verifier = Verifier(verdict=True)
    assert refusal(plain, b"\0\0x", Asker(), verifier) == reply.AUTH_FAILED
    assert verifier.asked == []


@pytest.mark.parametrize("verdict", [False, None, 0, 1, "yes", object()])
def test_only_true_lets_in(verdict):
    verifier = Verifier()
    verifier.authenticate = lambda username, password: verdict
    assert refusal(plain, b"\0user\0pass", Asker(), verifier) == reply.AUTH_FAILED


def test_login():
    ask = Asker(b"user", b"pass")
    assert login(None, ask, Verifier()) == "user"
    assert ask.challenges == [b"Username:", b"Password:"]
    ask = Asker(b"pass")
    assert login(b"user", ask, Verifier()) == "user"
    assert ask.challenges == [b"Password:"]


@pytest.mark.parametrize(
    "responses", [(b"user", b"wrong"), (b"", b"pass"), (b"user", b""), (b"us\0er", b"pass"), (b"user", b"\xff")]
)
def test_login_refused(responses):
    assert refusal(login, None, Asker(*responses), Verifier()) == reply.AUTH_FAILED


def test_utf8():
    verifier = Verifier(verdict=True)
    assert plain("\0jürgen\0пароль".encode(), Asker(), verifier) == "jürgen"
    assert verifier.asked == [("jürgen", "пароль")]


def test_the_table():
    assert MECHANISMS["PLAIN"].run is plain
    assert MECHANISMS["LOGIN"].run is login
