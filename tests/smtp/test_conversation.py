"""smtp/conversation.py: what is counted against a client, and what a hook may answer."""

from __future__ import annotations

import pytest

from preforksmtp import Reject, Reply
from preforksmtp.smtp import reply
from preforksmtp.smtp.conversation import Conversation
from preforksmtp.smtp.dialogue import Dialogue
from tests.fakes import recording, talk

EHLO, MAIL, RCPT = "EHLO c.test", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"
MESSAGE = [MAIL, RCPT, "DATA", b"hello\r\n.\r\n"]


# --- too many errors


@pytest.mark.parametrize(
    "bad",
    [
        "FOO",
        "MAIL FROM:<x",
        "RCPT TO:<a@b>",
        "MAIL FROM:<a@b> X=1",
        "EXPN x",
        "AUTH FOO",
        b"NOOP\n",
        b"\xff\r\n",
        "x" * 9999,
    ],
)
def test_too_many_errors(bad):
    spoken = talk([EHLO, *[bad] * 4, "NOOP"], max_errors=3)
    assert len(spoken.codes) == 5
    assert spoken.replies[-1] == reply.TOO_MANY_ERRORS.wire.decode().strip()
    assert spoken.journal.named("ended") == [("too many errors",)]
    assert spoken.fault is None


def test_a_refused_recipient_is_no_error():
    handler = recording(message=None, rcpt=Reject(550, "5.1.1 no"))
    assert talk([EHLO, MAIL, *[RCPT] * 50, "NOOP"], handler, max_errors=3).codes[-1] == 250


def pick(handler, recipient, params):
    if recipient.startswith("no"):
        raise Reject(501 if recipient.startswith("no-such") else 550, "5.1.1 no")


def refusing(recipients, **rules):
    """The good ones and the bad ones in one pipelined transaction."""
    handler = recording(message=None, rcpt=pick)
    script = [EHLO, "\r\n".join([MAIL, *(f"RCPT TO:{to}" for to in recipients), "DATA"]), b"x\r\n.\r\n", "NOOP"]
    spoken = talk(script, handler, **rules)
    return spoken, [event[1].recipients for event in handler.events if event[0] == "message"]


@pytest.mark.parametrize("syntax", ["lenient", "strict"])
@pytest.mark.parametrize("bad", ["<no@d.test>", "<no-such@d.test>", "<a b@c>", "<", "<ü@d.test>", "<c@d.test> FOO=1",
                                 "<c@d.test> NOTIFY=DELAY NOTIFY=DELAY", "<>"])  # fmt: skip
def test_refused_recipients_leave_the_message_to_the_others(bad, syntax):
    good = [f"<{n}@d.test>" for n in range(11)]
    spoken, messages = refusing([*good[:6], *[bad] * 20, *good[6:]], max_errors=3, address_syntax=syntax)
    assert messages == [[to[1:-1] for to in good]]
    assert spoken.codes[-2:] == [250, 250] and spoken.journal.named("ended") == []


def test_refused_recipients_have_a_limit_of_their_own():
    good = ["<a@d.test>"]
    spoken, messages = refusing([*good, *["<no@d.test>"] * 3, *good], max_refused_recipients=3)
    assert messages == [["a@d.test", "a@d.test"]]
    spoken, messages = refusing([*good, *["<no@d.test>"] * 4, *good], max_refused_recipients=3)
    assert messages == [] and spoken.fault is None
    assert spoken.codes[2:] == [250, 550, 550, 550, 421]
    assert spoken.replies[-1] == reply.TOO_MANY_REFUSED.wire.decode().strip()
    assert spoken.journal.named("ended") == [("max_refused_recipients (3) reached",)]


def test_what_is_refused_for_now_is_no_guess():
    handler = recording(message=None, rcpt=Reject(450, "4.2.0 greylisted"))
    assert talk([EHLO, MAIL, *[RCPT] * 20, "NOOP"], handler, max_refused_recipients=3).codes[-1] == 250
    spoken = talk([EHLO, MAIL, *[RCPT] * 20, "NOOP"], max_recipients=1, max_refused_recipients=3)
    assert spoken.codes[-2:] == [452, 250]


def test_an_accepted_message_does_not_make_up_for_refused_recipients():
    handler = recording(message=None, rcpt=pick)
    guess = [MAIL, RCPT, "RCPT TO:<no@d.test>", "DATA", b".\r\n"]
    spoken = talk([EHLO, *guess * 5], handler, max_refused_recipients=3)
    assert (spoken.codes[-1], spoken.codes.count(354)) == (421, 3)


def test_what_was_sent_ahead_of_a_refusal_is_no_error():
    """RFC 2920: RCPT and DATA are there before the client can know that MAIL was refused."""
    handler = recording(message=None, mail=Reject(550, "5.7.1 no"))
    spoken = talk([EHLO, "\r\n".join([MAIL, *[RCPT] * 20, "DATA"]), "NOOP"], handler, max_errors=3)
    assert spoken.codes == [250, 550, *[503] * 21, 250]
    spoken = talk(["LHLO c.test", *[MAIL, "RCPT TO:<x", "DATA", "RSET"] * 9, "NOOP"], max_errors=3, lmtp=True)
    assert spoken.codes[-1] == 250
    assert talk([EHLO, *[RCPT] * 4], max_errors=3).codes[-1] == 421


def test_what_a_handler_says_is_no_bad_command():
    for code in (500, 501, 503, 504, 535, 555):
        handler = recording(message=None, mail=Reject(code, "5.5.4 Malformed parameter"), verify=Reply(code, "5.5.1 no"))
        assert talk([EHLO, *[MAIL] * 9, *["VRFY x"] * 9, "NOOP"], handler, max_errors=3).codes[-1] == 250


def test_an_accepted_message_makes_up_for_errors():
    assert talk([EHLO, *["FOO"] * 3, *MESSAGE, *["FOO"] * 3, "NOOP"], max_errors=3).codes[-1] == 250
    refused = recording(message=Reject(550, "5.7.1 no"))
    assert talk([EHLO, *["FOO"] * 3, *MESSAGE, "FOO", "NOOP"], refused, max_errors=3).codes[-1] == 421


def test_zero_errors_is_no_limit():
    assert talk(["FOO"] * 1000 + ["NOOP"], max_errors=0, max_idle_commands=0).codes[-1] == 250


# --- its shape


def test_the_dialogue_adds_no_state_and_no_dictionary():
    """A dictionary for each session would cost memory and time; and the loop's state would be out of the verbs' reach."""
    assert Dialogue.__slots__ == ()
    assert not hasattr(talk([EHLO]).dialogue, "__dict__")


def test_the_conversation_alone_cannot_run_commands():
    with pytest.raises(NotImplementedError):
        Conversation.execute(talk([EHLO]).dialogue, "NOOP", "", b"NOOP\r\n", ())


# --- what a hook answers


@pytest.mark.parametrize(
    ("returned", "told", "why"),
    [
        (42, "the handler returned 42; None, a str or a Reply is expected", TypeError),
        (Reply(354, "go on"), "it cannot continue the dialogue", ValueError),
    ],
)
def test_a_hook_that_answers_nonsense_has_failed(returned, told, why):
    spoken = talk([EHLO, MAIL], recording(message=None, mail=returned))
    assert spoken.codes == [250, 451]
    [(hook, error)] = spoken.journal.named("handler_failed")
    assert hook == "mail" and isinstance(error, why) and told in str(error)
