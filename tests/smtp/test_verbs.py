"""smtp/verbs.py: each command's syntax and place, as rows: what was said before, the command, its answer."""

from __future__ import annotations

import pytest

from preforksmtp import Reject, Reply
from preforksmtp.smtp.verbs import VERBS
from tests.fakes import FakeTLS, recording, talk

EHLO, MAIL, RCPT = "EHLO c.test", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"
TO_DATA = [EHLO, MAIL, RCPT]

ROWS = [
    # HELO, EHLO: RFC 5321 section 4.1.1.1
    ([], "HELO c.test", "250 mx.test"),
    ([], "helo c.test", "250 mx.test"),
    ([], "HELO [192.0.2.1]", "250 mx.test"),
    ([], "HELO  c.test ", "250 mx.test"),
    ([], "HELO", "501 5.5.4"),
    ([], "HELO ", "501 5.5.4"),
    ([], "HELO a b", "501 5.5.4"),
    ([], "HELO <x>", "501 5.5.4"),
    ([], "HELO [300.1.1.1]", "501 5.5.4"),
    ([], "EHLO", "501 5.5.4"),
    ([], "EHLO [IPv6:::1]", "250-mx.test"),
    ([], "EHLO -", "501 5.5.4"),
    ([], "LHLO c.test", "500 5.5.1"),
    (["HELO c.test"], EHLO, "250-mx.test"),
    ([EHLO], "HELO c.test", "250 mx.test"),
    # the order of commands: section 4.1.4
    ([], MAIL, "503 5.5.1"),
    ([], RCPT, "503 5.5.1"),
    ([], "DATA", "503 5.5.1"),
    ([EHLO], RCPT, "503 5.5.1"),
    ([EHLO], "DATA", "503 5.5.1"),
    ([EHLO, MAIL], "DATA", "554 5.5.1"),
    ([EHLO, MAIL], MAIL, "503 5.5.1"),
    ([EHLO, MAIL], "MAIL nonsense", "503 5.5.1"),
    (TO_DATA, MAIL, "503 5.5.1"),
    (TO_DATA, RCPT, "250 2.1.5"),
    (TO_DATA, "DATA", "354 "),
    (TO_DATA, "data", "354 "),
    (TO_DATA, "DATA ", "354 "),
    (TO_DATA, "DATA now", "501 5.5.4"),
    ([*TO_DATA, "DATA now"], "DATA", "354 "),
    ([*TO_DATA, "RSET"], "DATA", "503 5.5.1"),
    ([*TO_DATA, "RSET"], RCPT, "503 5.5.1"),
    ([*TO_DATA, "RSET"], MAIL, "250 2.1.0"),
    ([*TO_DATA, EHLO], "DATA", "503 5.5.1"),
    ([*TO_DATA, "HELO c.test"], RCPT, "503 5.5.1"),
    ([*TO_DATA, "EHLO"], "DATA", "354 "),  # what is refused changes nothing
    ([*TO_DATA, "NOOP", "HELP", "VRFY x", "FOO", "MAIL FROM:<x@y>"], "DATA", "354 "),
    ([*TO_DATA, "DATA", b".\r\n"], MAIL, "250 2.1.0"),
    ([*TO_DATA, "DATA", b".\r\n"], RCPT, "503 5.5.1"),
    ([*TO_DATA, "DATA", b".\r\n"], "DATA", "503 5.5.1"),
    # RSET, NOOP, QUIT: sections 4.1.1.5, 4.1.1.9, 4.1.1.10
    ([], "RSET", "250 2.0.0"),
    ([], "RSET now", "501 5.5.4"),
    ([*TO_DATA, "RSET now"], "DATA", "354 "),
    ([], "NOOP", "250 2.0.0"),
    ([], "NoOp anything goes", "250 2.0.0"),
    ([], "QUIT", "221 2.0.0"),
    ([], "quit", "221 2.0.0"),
    ([], "QUIT ", "221 2.0.0"),
    ([], "QUIT now", "501 5.5.4"),
    # VRFY, EXPN, HELP, ETRN: at any time (section 4.1.4)
    ([], "VRFY alice", "252 2.5.0"),
    ([], "VRFY", "501 5.5.4"),
    ([], "VRFY  ", "501 5.5.4"),
    ([], "EXPN staff", "502 5.5.1"),
    ([], "EXPN", "501 5.5.4"),
    ([], "HELP", "214-2.0.0"),
    ([], "HELP MAIL", "214-2.0.0"),
    ([EHLO], "ETRN x.example", "502 5.5.1"),
    # what there is not
    ([], "FOO", "500 5.5.1"),
    ([], "", "500 5.5.1"),
    ([], " NOOP", "500 5.5.1"),
    ([], "NOOPX", "500 5.5.1"),
    ([], "MAILFROM:<a@b>", "500 5.5.1"),
    ([], "R\u017fET", "500 5.5.1"),  # its capitals are RSET
    ([], "QU\u0131T", "500 5.5.1"),
    ([], "SEND FROM:<a@b>", "500 5.5.1"),
    ([], "TURN", "500 5.5.1"),
    ([], "X" * 5000, "500 5.5."),
    ([], "NOOP " + "x" * 2041, "250 2.0.0"),  # 2048 octets with CRLF
    ([], "NOOP " + "x" * 2042, "500 5.5.2"),
    ([], "NOOP " + "x" * 100000, "500 5.5.2"),
    ([], b"NOOP\n", "500 5.5.2"),
    ([], b"NOOP\0\r\n", "500 5.5.2"),
    ([], b"NO\rOP\r\n", "500 5.5.2"),
    ([], b"NOOP \xff\r\n", "501 5.5.2"),
    ([], "STARTTLS", "502 5.5.1"),
    ([], "STARTTLS now", "501 5.5.4"),
    ([], "XCLIENT ADDR=192.0.2.9", "550 5.7.0"),
    ([EHLO], "XFORWARD ADDR=192.0.2.9", "550 5.7.0"),
]


@pytest.mark.parametrize(("before", "command", "answer"), ROWS)
def test_answer(before, command, answer):
    for cut in (0, 1, 7):
        spoken = talk([*before, command], cut=cut, address_syntax="strict")
        assert spoken.replies[-1].startswith(answer), spoken.replies
        assert spoken.journal.named("handler_failed") == []


@pytest.mark.parametrize(
    ("before", "command", "answer"), [row for row in ROWS if row[1] not in ("QUIT", "quit", "QUIT ")]
)
def test_the_session_is_in_sync_after_it(before, command, answer):
    ending = [b".\r\n"] if answer == "354 " else []
    spoken = talk([*before, command, *ending, "NOOP", "QUIT"], max_errors=0, address_syntax="strict")
    assert spoken.codes[-2:] == [250, 221]


def test_every_verb_has_rows():
    commands = {row[1].split()[0].upper() for row in ROWS if isinstance(row[1], str) and row[1].split()}
    assert set(VERBS) - commands == {"AUTH", "BDAT"}, "those have files of their own"


def test_help_names_the_commands():
    text = talk(["HELP"]).replies[0]
    assert text.split("Commands: ")[1].splitlines()[0] == "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT"


@pytest.mark.parametrize(("name", "rules"), [
    ("STARTTLS", {"offer_tls": True}), ("LHLO", {"lmtp": True}), ("EHLO", {}), ("MAIL", {"lmtp": True}),
])  # fmt: skip
def test_help_names_what_is_offered(name, rules):
    assert f" {name} " in talk(["HELP"], **rules).replies[0]
    if rules:
        assert name == "MAIL" or f" {name} " not in talk(["HELP"]).replies[0]


def test_quit_ends_the_session():
    spoken = talk(["QUIT", "NOOP"])
    assert spoken.codes == [221]
    assert spoken.wire.unread == b"NOOP\r\n"
    assert spoken.dialogue.quit


def test_helo_and_ehlo_are_remembered():
    assert (talk(["HELO one.test"]).session.helo, talk(["HELO one.test"]).session.esmtp) == ("one.test", False)
    assert (talk(["EHLO two.test"]).session.helo, talk(["EHLO two.test"]).session.esmtp) == ("two.test", True)
    assert talk(["EHLO two.test", "HELO"]).session.helo == "two.test", "a refused one changes nothing"
    assert talk(["EHLO two.test", "RSET"]).session.helo == "two.test"


def test_a_refused_helo_leaves_the_transaction():
    """RFC 5321 section 4.1.4: the server stays in the same state."""
    events = []

    def refuse(handler, name):
        if name == "liar":
            raise Reject(550, "5.7.1 no")

    handler = recording(message=None, helo=refuse, reset=lambda handler: events.append("reset"))
    spoken = talk([EHLO, MAIL, RCPT, "EHLO liar", "DATA"], handler)
    assert spoken.codes == [250, 250, 250, 550, 354]
    assert spoken.session.helo == "c.test"
    assert events == []


def test_the_helo_hook_can_see_which_command_it_was():
    seen = []

    def note(handler, name):
        seen.append((name, handler.session.helo, handler.session.esmtp))
        if name == "liar":
            raise Reject(550, "5.7.1 no")

    spoken = talk(["HELO one.test", "EHLO liar"], recording(message=None, helo=note))
    assert seen == [("one.test", "", False), ("liar", "one.test", True)]
    assert (spoken.session.helo, spoken.session.esmtp) == ("one.test", False), "a refused one changes nothing"
    assert talk(["EHLO two.test", "HELO liar"], recording(message=None, helo=note)).session.esmtp is True


# --- hooks that answer a command


@pytest.mark.parametrize(
    ("hook", "command", "returned", "answer"),
    [
        (
            "verify",
            "VRFY al",
            None,
            "252 2.5.0 Cannot verify the user, but will accept the message and attempt delivery",
        ),
        ("verify", "VRFY al", "Al <al@x.test>", "250 2.0.0 Al <al@x.test>"),
        ("verify", "VRFY al smtputf8", "Al <al@x.test>", "250 2.0.0 Al <al@x.test>"),
        ("verify", "VRFY al", Reply(550, "5.1.1 no such user"), "550 5.1.1 no such user"),
        ("verify", "VRFY al", Reject(553, "5.1.4 ambiguous"), "553 5.1.4 ambiguous"),
        ("expand", "EXPN al", None, "502 5.5.1 Command not implemented"),
        ("expand", "EXPN al", "<al@x.test>", "250 2.0.0 <al@x.test>"),
        ("expand", "EXPN al", Reply(250, ["2.1.5 <a@x>", "<b@x>"]), "250-2.1.5 <a@x>\n250 2.1.5 <b@x>"),
        ("help", "HELP al", "ask somebody", "214 2.0.0 ask somebody"),
        ("etrn", "ETRN al", None, "250 2.0.0 Queuing started"),
        ("etrn", "ETRN al", Reply(458, "4.0.0 cannot"), "458 4.0.0 cannot"),
        ("verify", "VRFY al", "a\r\nb", "451 4.3.0 Local error in processing, try again later"),
        ("verify", "VRFY al", 5, "451 4.3.0 Local error in processing, try again later"),
        ("verify", "VRFY al", Reply(354, "x"), "451 4.3.0 Local error in processing, try again later"),
        ("verify", "VRFY al", SystemExit(), "451 4.3.0 Local error in processing, try again later"),
    ],
)
def test_hook(hook, command, returned, answer):
    handler = recording(message=None, **{hook: returned})
    spoken = talk([EHLO, command, "NOOP"], handler)
    assert spoken.replies[1:] == [answer, "250 2.0.0 Ok"]
    assert handler.events == [(hook, "al")]
    assert bool(spoken.journal.named("handler_failed")) == answer.startswith("451")


def test_a_helo_refused_by_the_handler():
    spoken = talk([EHLO, MAIL], recording(message=None, helo=Reject(550, "5.7.1 who are you")))
    assert spoken.codes == [550, 503]


@pytest.mark.parametrize("hook", ["helo", "data", "reset"])
def test_an_exception_in_a_hook_that_answers_nothing(hook):
    spoken = talk(
        [EHLO, MAIL, RCPT, "RSET", MAIL, RCPT, "DATA", b".\r\n", "NOOP"],
        recording(message=None, **{hook: OSError("x")}),
    )
    assert 451 in spoken.codes
    assert spoken.codes[-1] == 250
    assert spoken.journal.named("handler_failed")[0][0] == hook


def test_reset_is_called_for_rset_and_its_equals():
    handler = recording(message=None, reset=None)
    talk([EHLO, "RSET", MAIL, "RSET", MAIL, EHLO, MAIL, "HELO c.test", EHLO, *TO_DATA[1:], "DATA", b".\r\n"], handler)
    assert [event[0] for event in handler.events] == ["reset"] * 4 + ["message"]


# --- STARTTLS


def test_starttls_forgets_everything():
    """RFC 3207 section 4.2: and what was pipelined behind it is never looked at (CVE-2011-0411)."""
    handler = recording(message=None, authenticate=True, reset=None)
    spoken = talk(
        [EHLO, "AUTH PLAIN AHUAcA==", MAIL, b"STARTTLS\r\nRSET\r\nNOOP\r\nMAIL FR", "NOOP", RCPT, MAIL],
        handler, offer_tls=True, allow_insecure_auth=True,
    )  # fmt: skip
    assert spoken.codes == [250, 235, 250, 220, 250, 503, 503]
    assert (spoken.session.helo, spoken.session.esmtp, spoken.session.user) == ("", False, None)
    assert spoken.session.tls == FakeTLS()
    assert spoken.journal.named("tls_started") == [()]
    assert handler.events[-1] == ("reset",)


def test_starttls_is_offered_in_clear_only():
    spoken = talk([EHLO, "STARTTLS", EHLO, "STARTTLS", "NOOP"], offer_tls=True)
    assert "\n250-STARTTLS\n" in spoken.replies[0]
    assert "STARTTLS" not in spoken.replies[2]
    assert spoken.codes == [250, 220, 250, 503, 250]


def test_the_220_is_sent_before_the_handshake():
    assert talk(["STARTTLS"], offer_tls=True).wire.sent[-1].startswith(b"220 2.0.0 Ready")


def test_a_hook_that_fails_at_starttls_says_nothing_inside_tls():
    """A reply to nothing would be taken for the answer to the client's next command."""
    handler = recording(message=None, reset=OSError("x"))
    spoken = talk([EHLO, MAIL, "STARTTLS", EHLO], handler, offer_tls=True)
    assert spoken.codes == [250, 250, 451, 250], "refused in clear, and in sync"
    assert spoken.session.tls is None


def test_a_failed_handshake_ends_the_session():
    def fail(dialogue):
        dialogue.wire.tls = ConnectionError("TLS handshake failed")

    spoken = talk(["STARTTLS", "NOOP"], before=fail, offer_tls=True)
    assert spoken.codes == [220]
    assert isinstance(spoken.fault, ConnectionError)


def test_require_tls():
    """RFC 3207 section 4: everything but EHLO, NOOP, STARTTLS and QUIT."""
    commands = [
        "HELO c.test",
        EHLO,
        MAIL,
        RCPT,
        "DATA",
        "RSET",
        "VRFY x",
        "EXPN x",
        "HELP",
        "AUTH PLAIN =",
        "BDAT 0",
        "NOOP",
        "STARTTLS",
    ]
    spoken = talk([*commands, EHLO, MAIL], require_tls=True, offer_tls=True)
    assert spoken.codes == [530, 250, *[530] * 9, 250, 220, 250, 250]
    assert talk(["QUIT"], require_tls=True).codes == [221]
