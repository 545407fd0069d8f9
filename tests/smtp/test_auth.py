"""smtp/auth.py: the command AUTH around an exchange."""

from __future__ import annotations

import base64

import pytest

from preforksmtp import Reject
from tests.fakes import FakeTLS, recording, talk


def base64_of(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


GOOD, WRONG = base64_of(b"\0user\0pass"), base64_of(b"\0user\0wrong")
USER, PASS = base64_of(b"user"), base64_of(b"pass")
EHLO = "EHLO c.test"


def check(handler, username, password):
    return (username, password) == ("user", "pass")


def converse(*lines, before=None, act=check, **rules):
    """The replies behind that to EHLO, and the talk itself."""
    handler = recording(message=None, authenticate=act)
    spoken = talk([EHLO, *lines], handler, before=before, **{"allow_insecure_auth": True, **rules})
    return spoken.replies[1:], spoken


@pytest.mark.parametrize(
    ("lines", "replies"),
    [
        ([f"AUTH PLAIN {GOOD}"], ["235 2.7.0"]),
        ([f"auth plain {GOOD}"], ["235 2.7.0"]),
        ([f"AUTH  PLAIN   {GOOD}  "], ["235 2.7.0"]),
        (["AUTH PLAIN", GOOD], ["334", "235 2.7.0"]),
        (["AUTH LOGIN", USER, PASS], ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0"]),
        ([f"AUTH LOGIN {USER}", PASS], ["334 UGFzc3dvcmQ6", "235 2.7.0"]),
        ([f"AUTH PLAIN {WRONG}"], ["535 5.7.8"]),
        (["AUTH LOGIN", USER, USER], ["334", "334", "535 5.7.8"]),
        (["AUTH LOGIN =", USER, PASS], ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0"]),
        ([f"AUTH PLAIN {WRONG}", f"AUTH PLAIN {GOOD}"], ["535 5.7.8", "235 2.7.0"]),
        (["AUTH PLAIN *"], ["501 5.7.0"]),
        (["AUTH PLAIN", "*"], ["334", "501 5.7.0"]),
        (["AUTH LOGIN", "*", "NOOP"], ["334", "501 5.7.0", "250 2.0.0"]),
        (["AUTH LOGIN", USER, "*", "NOOP"], ["334", "334", "501 5.7.0", "250 2.0.0"]),
        (["AUTH PLAIN", "no base64!", "NOOP"], ["334", "501 5.5.2", "250 2.0.0"]),
        (["AUTH PLAIN ====", "NOOP"], ["501 5.5.2", "250 2.0.0"]),
        (["AUTH PLAIN", "", "NOOP"], ["334", "501 5.5.2", "250 2.0.0"]),
        (["AUTH PLAIN =", "NOOP"], ["501 5.5.2", "250 2.0.0"]),
        (["AUTH PLAIN", b"\xff\r\n", "NOOP"], ["334", "501 5.5.2", "250 2.0.0"]),
        (["AUTH PLAIN", GOOD.encode() + b"\n", "NOOP"], ["334", "501 5.5.2", "250 2.0.0"]),
        (["AUTH PLAIN", "A" * 20000, "NOOP"], ["334", "500 5.5.6", "250 2.0.0"]),
        (["AUTH PLAIN " + "A" * 20000, "NOOP"], ["500 5.5.2", "250 2.0.0"]),
        (["AUTH"], ["501 5.5.4"]),
        (["AUTH "], ["501 5.5.4"]),
        ([f"AUTH PLAIN {GOOD} more"], ["501 5.5.4"]),
        (["AUTH CRAM-SHA99"], ["504 5.5.4"]),
        (["AUTH PLAIN2"], ["504 5.5.4"]),
        (["AUTH PLA\u0131N"], ["504 5.5.4"]),
        ([f"AUTH PLAIN {GOOD}", f"AUTH PLAIN {GOOD}"], ["235 2.7.0", "503 5.5.1"]),
        (["MAIL FROM:<>", f"AUTH PLAIN {GOOD}", "RCPT TO:<a@b>"], ["250 2.1.0", "503 5.5.1", "250 2.1.5"]),
    ],
)
@pytest.mark.parametrize("cut", [0, 1])
def test_exchange(lines, replies, cut):
    spoken = talk([EHLO, *lines], recording(message=None, authenticate=check), cut=cut, allow_insecure_auth=True)
    found = spoken.replies[1:]
    assert len(found) == len(replies)
    assert all(reply.startswith(start) for reply, start in zip(found, replies, strict=True)), found


def test_a_challenge_is_sent_before_the_response_is_awaited():
    _, spoken = converse("AUTH PLAIN", GOOD)
    assert spoken.wire.sent[-2:] == [b"334 \r\n", b"235 2.7.0 Authentication successful\r\n"]


def test_the_longest_line():
    """RFC 4954 section 4: 12288 octets, far more than other commands may have."""
    password = "p" * 9000
    line = base64_of(f"\0user\0{password}".encode())
    assert 2048 < len(line) < 12288 - 13
    replies, _ = converse(f"AUTH PLAIN {line}", act=lambda handler, username, given: given == password)
    assert replies[0].startswith("235")
    replies, _ = converse(f"NOOP {line}", "NOOP")
    assert [reply[:3] for reply in replies] == ["500", "250"]


def test_what_is_remembered_and_told():
    replies, spoken = converse(f"AUTH PLAIN {WRONG}", f"AUTH PLAIN {GOOD}", EHLO)
    assert spoken.session.user == "user"
    assert spoken.journal.named("authenticated") == [("PLAIN", None), ("PLAIN", "user")]
    assert "AUTH" not in replies[-1], "it is not offered again"


def test_cancelling_is_no_failure():
    _, spoken = converse("AUTH PLAIN", "*", "AUTH PLAIN", "!")
    assert spoken.journal.named("authenticated") == []


def test_failures_are_slowed_down_and_counted():
    handler = recording(message=None, authenticate=check)
    rules = {"allow_insecure_auth": True, "auth_failure_delay": 2.5, "max_auth_failures": 3}
    spoken = talk([EHLO, *[f"AUTH PLAIN {WRONG}"] * 4], handler, **rules)
    assert spoken.codes == [250, 535, 535, 421]
    assert spoken.wire.pauses == [2.5] * 3
    assert spoken.journal.named("ended") == [("too many AUTH failures (max_auth_failures)",)]
    spoken = talk([EHLO, f"AUTH PLAIN {WRONG}", f"AUTH PLAIN {GOOD}"], handler, **rules)
    assert spoken.codes == [250, 535, 235]
    assert spoken.wire.pauses == [2.5], "no delay for who is let in"
    assert talk([EHLO, *[f"AUTH PLAIN {WRONG}"] * 4], handler, **{**rules, "max_auth_failures": 0}).codes[-1] == 535


def test_auth_outlives_rset_and_ehlo():
    _, spoken = converse(f"AUTH PLAIN {GOOD}", "RSET", EHLO, "HELO c.test")
    assert spoken.session.user == "user"


def test_it_needs_a_greeting():
    spoken = talk([f"AUTH PLAIN {GOOD}"], recording(message=None, authenticate=check), allow_insecure_auth=True)
    assert spoken.replies[-1].startswith("503 5.5.1")
    assert spoken.session.user is None


@pytest.mark.parametrize(
    "lines",
    [
        [f"AUTH PLAIN {GOOD}"], ["AUTH PLAIN", GOOD], ["AUTH LOGIN", USER, PASS], [f"AUTH LOGIN {USER}", PASS],
        ["auth login ", USER, PASS], [f"AUTH login {USER}", PASS], ["AUTH LOGIN =", USER, PASS],
        [f"AUTH PLAIN {WRONG}", "AUTH LOGIN", USER, PASS],
    ],
)  # fmt: skip
def test_helo_will_do(lines):
    """Printers and cameras say nothing else (and RFC 4954 does not forbid it)."""
    spoken = talk(["HELO printer", *lines, "MAIL FROM:<>"], recording(message=None, authenticate=check),
                  allow_insecure_auth=True, require_auth=True)  # fmt: skip
    assert spoken.codes[-2:] == [235, 250]
    assert spoken.session.user == "user" and not spoken.session.esmtp


def test_helo_does_not_lift_what_ehlo_asks_for():
    rules = {"allow_insecure_auth": False, "auth_mechanisms": ("LOGIN",)}
    for code, tls in ((538, None), (504, FakeTLS())):
        spoken = talk(["HELO printer", "AUTH LOGIN" if tls is None else f"AUTH PLAIN {GOOD}"],
                      recording(message=None, authenticate=check),
                      before=lambda dialogue, tls=tls: setattr(dialogue.session, "tls", tls), **rules)  # fmt: skip
        assert spoken.codes[-1] == code


def test_it_is_not_there_without_the_hook():
    spoken = talk([EHLO, f"AUTH PLAIN {GOOD}"], allow_insecure_auth=True)
    assert "AUTH" not in spoken.replies[0]
    assert spoken.replies[1].startswith("502 5.5.1")


def test_in_clear_only_where_it_is_allowed():
    replies, spoken = converse(f"AUTH PLAIN {GOOD}", allow_insecure_auth=False)
    assert replies[0].startswith("538 5.7.11")
    assert spoken.session.user is None

    def encrypt(dialogue):
        dialogue.session.tls = FakeTLS()

    replies, spoken = converse(f"AUTH PLAIN {GOOD}", allow_insecure_auth=False, before=encrypt)
    assert replies[0].startswith("235")


def test_only_the_mechanisms_of_the_settings():
    replies, _ = converse(f"AUTH PLAIN {GOOD}", "AUTH LOGIN", USER, PASS, auth_mechanisms=("LOGIN",))
    assert [reply[:3] for reply in replies] == ["504", "334", "334", "235"]


@pytest.mark.parametrize(
    ("act", "reply", "failures"),
    [
        (Reject(454, "4.7.0 directory is down"), "454 4.7.0 directory is down", 0),
        (Reject(535, "5.7.8 locked"), "535 5.7.8 locked", 1),
        (Reject(421, "4.7.0 go away"), "421 4.7.0 go away", 0),
        (OSError("database"), "451 4.3.0", 0),
        (SystemExit(1), "451 4.3.0", 0),
        (None, "535 5.7.8", 1),
    ],
)
def test_what_the_hook_raises(act, reply, failures):
    replies, spoken = converse(f"AUTH PLAIN {GOOD}", "NOOP", act=act)
    assert replies[0].startswith(reply)
    assert spoken.session.user is None
    assert spoken.journal.named("authenticated") == [("PLAIN", None)] * failures
    assert len(replies) == (1 if reply.startswith("421") else 2), "421 ends the session"


def test_the_hook_is_timed():
    _, spoken = converse(f"AUTH PLAIN {GOOD}")
    assert spoken.journal.hooks[-2:] == ["authenticate", ""]


def test_a_client_that_leaves_in_the_middle():
    _, spoken = converse("AUTH LOGIN", USER)
    assert isinstance(spoken.fault, EOFError)
    assert spoken.session.user is None


def test_require_auth():
    replies, _ = converse(
        "MAIL FROM:<>", "RCPT TO:<a@b>", "DATA", "VRFY x", "EXPN x", "NOOP", "RSET", "HELP", f"AUTH PLAIN {GOOD}",
        "MAIL FROM:<>", require_auth=True,
    )  # fmt: skip
    assert [reply[:3] for reply in replies] == ["530", "503", "503", "530", "530", "250", "250", "214", "235", "250"]
