"""One rule for all that a client can repeat for ever without a message (max_idle_commands), as a table over every verb.

A row: the rules and the handler, what is said before, and what is repeated. Errors have a limit of their own, which is
out of the way here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from preforksmtp import Handler, Reject
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.verbs import VERBS
from tests.clocked import Limits
from tests.fakes import Talk, make_rules, recording, talk

EHLO, MAIL, RCPT = "EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"
BEGUN = [EHLO, MAIL, RCPT]
MESSAGE = [MAIL, RCPT, "DATA", b"text\r\n.\r\n"]
NO = Reject(550, "5.7.1 no")
LIMIT = 20


def limited(refuse: str) -> Callable[[Dialogue], None]:
    """A client that the limits over all sessions refuse this."""

    def set_limits(dialogue: Dialogue) -> None:
        dialogue.limits = Limits(refuse)

    return set_limits


def trusted(dialogue: Dialogue) -> None:
    dialogue.xclient = dialogue.xforward = True


def row(verb: str, *repeated: Any, before: Any = (EHLO,), trust: Any = None, rules: Any = None, **hooks: Any) -> Any:
    handler = recording(message=hooks.pop("message", None), **hooks)
    name = f"{verb}: {', '.join(hooks) or ' '.join(str(part)[:14] for part in repeated)}"
    return pytest.param(verb, list(before), list(repeated), handler, trust, rules or {}, id=name)


ROWS = [
    row("HELO", "HELO c.test"),
    row("HELO", "HELO c.test", before=(), helo=NO),
    row("EHLO", EHLO),
    row("EHLO", EHLO, before=(), helo=NO),
    row("EHLO", "EHLO", before=()),
    row("EHLO", MAIL, EHLO),
    row("LHLO", "LHLO c.test", before=["LHLO c.test"], rules={"lmtp": True}),
    row("STARTTLS", "STARTTLS"),
    row("STARTTLS", "STARTTLS", before=[EHLO, "STARTTLS", EHLO], rules={"offer_tls": True}),
    row("AUTH", "AUTH LOGIN", "*", authenticate=False),
    row("AUTH", "AUTH LOGIN", "no base64", authenticate=False),
    row("AUTH", "AUTH PLAIN AHUAcA==", authenticate=False),
    row("AUTH", "AUTH PLAIN AHUAcA==", authenticate=OSError()),
    row("AUTH", "AUTH PLAIN AHUAcA==", authenticate=Reject(454, "4.7.0 later")),
    row("AUTH", "AUTH PLAIN AHUAcA==", authenticate=True, trust=limited("attempt")),
    row("AUTH", "AUTH PLAIN AHUAcA==", before=[EHLO, "AUTH PLAIN AHUAcA=="], authenticate=True),
    row("AUTH", "AUTH FOO", authenticate=False),
    row("MAIL", MAIL, "RSET"),
    row("MAIL", MAIL, before=BEGUN),
    row("MAIL", MAIL, mail=NO),
    row("MAIL", MAIL, mail=OSError()),
    row("MAIL", MAIL, trust=limited("message")),
    row("MAIL", MAIL + " SIZE=2000"),
    row("RCPT", RCPT),
    row("RCPT", RCPT, before=BEGUN, rules={"max_recipients": 1}),
    row("RCPT", "RCPT TO:<c@e.test>", before=BEGUN, rules={"max_recipient_domains": 1}),
    row("RCPT", RCPT, before=[EHLO, MAIL], rcpt=NO),
    row("RCPT", RCPT, before=[EHLO, MAIL], rcpt=OSError()),
    row("RCPT", RCPT, before=[EHLO, MAIL], trust=limited("recipient")),
    row("DATA", "DATA", before=[EHLO, MAIL]),
    row("DATA", "DATA", before=BEGUN, data=NO),
    row("DATA", *MESSAGE, message=NO),
    row("DATA", *MESSAGE, message=None, stream=NO),
    row("DATA", *MESSAGE[:3], b"bare\n\r\n.\r\n"),
    row("DATA", *MESSAGE[:3], b"x" * 2000 + b"\r\n.\r\n"),
    row("BDAT", "BDAT 0", before=BEGUN),
    row("BDAT", "BDAT 0", before=BEGUN, stream=lambda handler, message, body: body.read() and None),
    row("BDAT", "BDAT 0", before=[EHLO, MAIL]),
    row("BDAT", b"BDAT 1\r\nx", before=()),
    row("BDAT", MAIL, RCPT, "BDAT 0", "RSET"),
    row("BDAT", MAIL, RCPT, b"BDAT 1001\r\n" + b"x" * 1001),
    row("BDAT", MAIL, RCPT, "BDAT 0 LAST", message=NO),
    row("BDAT", "BDAT x", before=[*BEGUN, "BDAT 0"]),
    row("RSET", "RSET"),
    row("RSET", "RSET now"),
    row("NOOP", "NOOP"),
    row("NOOP", "NOOP", before=[*BEGUN, "BDAT 0"]),
    row("VRFY", "VRFY x"),
    row("VRFY", "VRFY x", verify="somebody"),
    row("VRFY", "VRFY x", verify=NO),
    row("VRFY", "VRFY x", before=[*BEGUN, "BDAT 0"], verify=NO),
    row("EXPN", "EXPN x"),
    row("EXPN", "EXPN x", expand="somebody"),
    row("ETRN", "ETRN x"),
    row("ETRN", "ETRN x", etrn="begun"),
    row("XCLIENT", "XCLIENT NAME=a.test"),
    row("XCLIENT", "XCLIENT NAME=a.test", trust=trusted),
    row("XCLIENT", "XCLIENT NAME=a.test", EHLO, MAIL, trust=trusted, mail=NO),
    row("XFORWARD", "XFORWARD NAME=a.test", trust=trusted),
    row("XFORWARD", "XFORWARD nonsense", trust=trusted),
    row("HELP", "HELP"),
    row("QUIT", "QUIT now"),
    row("nothing", ""),
    row("nothing", "", before=[*BEGUN, "BDAT 0"]),
    row("nothing", "FOO"),
    row("nothing", b"NOOP\0\r\n"),
    row("nothing", b"NOOP\n"),
    row("nothing", b"NOOP \xff\r\n"),
    row("nothing", b"x" * 30000 + b"\r\n"),
    row("nothing", "MAIL FROM:<" + "x" * 5000),
    row("nothing", MAIL, before=[*BEGUN, "BDAT 0"]),
    row("nothing", "NOOP", before=(), connect=NO),
]


def repeat(times: int, before: Any, repeated: Any, handler: type[Handler], trust: Any, rules: Any, **more: Any) -> Talk:
    settings: dict[str, Any] = {"max_errors": 0, "max_auth_failures": 0, "allow_insecure_auth": True, "max_message_size": 1000}
    return talk([*before, *repeated * times, "QUIT"], handler, before=trust, **{**settings, **rules, **more})


@pytest.mark.parametrize(("verb", "before", "repeated", "handler", "trust", "rules"), ROWS)
def test_whatever_is_repeated_ends_the_session(
    verb: str, before: Any, repeated: Any, handler: type[Handler], trust: Any, rules: Any
) -> None:
    endless = repeat(3 * LIMIT, before, repeated, handler, trust, rules, max_idle_commands=0)
    assert endless.codes[-1] == 221, "without the rule it goes on"
    ended = repeat(3 * LIMIT, before, repeated, handler, trust, rules, max_idle_commands=LIMIT)
    assert ended.replies[-1] == "421 4.7.0 Too many commands without a message, closing the connection"
    assert ended.journal.named("ended")[-1] == ("max_idle_commands reached",)
    assert len(ended.codes) >= LIMIT, "not sooner than it says"
    assert ended.codes.count(421) == 1
    few = repeat(LIMIT // len(repeated) // 2, before, repeated, handler, trust, rules, max_idle_commands=LIMIT)
    assert few.codes[-1] == 221


def test_every_verb_has_rows() -> None:
    assert {row.values[0] for row in ROWS} == {*VERBS, "nothing"}


@pytest.mark.parametrize("message", [MESSAGE, [MAIL, RCPT, "BDAT 0", b"BDAT 6\r\ntext\r\n", "BDAT 0 LAST"]])
def test_an_accepted_message_makes_up_for_all_of_it(message: Any) -> None:
    cycle = [*["NOOP"] * 10, *["RCPT TO:<x"] * 5, *message]
    spoken = talk([EHLO, *cycle * 30, "QUIT"], max_idle_commands=LIMIT, max_errors=0)
    assert spoken.codes[-1] == 221
    assert len(spoken.journal.named("message")) == 30


def test_what_brings_a_message_nearer_costs_nothing() -> None:
    session = [EHLO, "STARTTLS", EHLO, "AUTH PLAIN AHUAcA==", MAIL, *[RCPT] * 50, "DATA", b".\r\n", "QUIT"]
    spoken = talk(session, recording(message=None, authenticate=True), offer_tls=True, max_idle_commands=1)
    assert (spoken.codes[-1], spoken.codes[-2]) == (221, 250)


def test_chunks_with_content_have_max_message_size() -> None:
    spoken = talk([*BEGUN, *[b"BDAT 1\r\nx"] * 500, "BDAT 0 LAST", "QUIT"], max_idle_commands=1)
    assert spoken.codes[-2:] == [250, 221]


@pytest.mark.parametrize("good", [11, 1000])
def test_the_default_is_generous(good: int) -> None:
    """Refusals of recipients in a pipelined transaction, and what RFC 5321 section 4.5.3.1.10 has a client do with
    more recipients than we take."""

    def rcpt(handler: Any, recipient: str, params: Any) -> None:
        if recipient.startswith("no"):
            raise NO

    refused = ["RCPT TO:<no@d.test>"] * 10
    spoken = talk([EHLO, MAIL, *[RCPT] * good, *refused, "DATA", b".\r\n", "QUIT"], recording(message=None, rcpt=rcpt))
    assert spoken.codes[-2:] == [250, 221]
    assert spoken.journal.named("message")[0][3] == 250
    beyond = talk([EHLO, MAIL, *[RCPT] * (good + 900), "DATA", b".\r\n", "QUIT"], max_recipients=good)
    assert beyond.codes[-2:] == [250, 221]
    assert make_rules(beyond.dialogue.hooks).max_idle_commands == 1000
