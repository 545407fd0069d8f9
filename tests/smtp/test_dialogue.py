"""smtp/dialogue.py: greeting, loop, pipelining, and every way a session ends."""

from __future__ import annotations

import random

import pytest

from preforksmtp import Handler, Reject, Reply
from preforksmtp.smtp import reply
from preforksmtp.smtp.pace import Overdue
from tests.fakes import recording, split_replies, talk

EHLO, MAIL, RCPT = "EHLO c.test", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"
MESSAGE = [MAIL, RCPT, "DATA", b"hello\r\n.\r\n"]
SESSION = b"".join(f"{line}\r\n".encode() for line in (EHLO, MAIL, RCPT, "DATA")) + b"hello\r\n.\r\nNOOP\r\nQUIT\r\n"


def greeting(handler, *lines, **options):
    spoken = talk(lines, handler, **options)
    replies = split_replies(spoken.wire.output)
    return replies[0] if replies else "", spoken


# --- the greeting


@pytest.mark.parametrize(
    ("connect", "answer", "after"),
    [
        (None, "220 mx.test ESMTP preforksmtp", 250),
        ("mx.test welcomes you", "220 mx.test welcomes you", 250),  # RFC 2034 section 4: no enhanced status code
        ("hello there", "220 mx.test hello there", 250),  # section 4.2: our name comes first
        (Reply(220, "mx.test"), "220 2.0.0 mx.test", 250),
        (Reject(554, "5.7.1 go away"), "554 5.7.1 go away", 503),
        (Reject(451, "4.7.1 later"), "451 4.7.1 later", 503),
        (OSError("x"), "451 4.3.0 Local error in processing, try again later", 503),
        ("a\r\nb", "451 4.3.0 Local error in processing, try again later", 503),
    ],
)
def test_connect(connect, answer, after):
    found, spoken = greeting(recording(message=None, connect=connect), EHLO, "QUIT")
    assert found == answer
    assert spoken.codes == [after, 221]


def test_421_at_the_greeting_closes():
    found, spoken = greeting(recording(message=None, connect=Reject(421, "4.3.2 full")), EHLO)
    assert found == "421 4.3.2 full"
    assert spoken.replies == []
    assert spoken.fault is None


def test_a_refused_session_takes_nothing_but_quit():
    """RFC 5321 section 3.1."""
    _, spoken = greeting(
        recording(message=None, connect=Reject(554, "5.7.1 no")), EHLO, "NOOP", "RSET", "FOO", MAIL, "QUIT"
    )
    assert spoken.codes == [503, 503, 503, 500, 503, 221]


def test_a_handler_that_cannot_be_made():
    class Broken(Handler):
        def __init__(self, session):
            raise RuntimeError("no pool")

        def message(self, message): ...

        def close(self):
            raise AssertionError("there is nothing to close")

    found, spoken = greeting(Broken, EHLO, "QUIT")
    assert found.startswith("451 4.3.0")
    assert [event[0] for event in spoken.journal.named("handler_failed")] == ["__init__"]


def test_a_handler_may_refuse_in_init():
    class Refusing(Handler):
        def __init__(self, session):
            raise Reject(554, "5.7.1 no")

        def message(self, message): ...

    assert greeting(Refusing, "QUIT")[0] == "554 5.7.1 no"


# --- the loop


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 7, 11, 1000])
def test_how_the_octets_arrive_does_not_matter(cut):
    spoken = talk(SESSION, cut=cut)
    assert spoken.codes == [250, 250, 250, 354, 250, 250, 221]
    assert spoken.wire.output == talk(SESSION).wire.output


def test_every_split_point():
    expected = talk(SESSION).wire.output
    for place in range(1, len(SESSION)):
        assert talk([SESSION[:place], SESSION[place:]]).wire.output == expected


def test_pipelined_commands_are_answered_in_one_segment():
    """RFC 2920 section 3.2."""
    spoken = talk([EHLO, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<nonsense\r\nDATA\r\n", b".\r\n", "QUIT"])
    assert [answer[:3] for answer in split_replies(spoken.wire.sent[2])] == ["250", "250", "501", "354"]


def test_pipelined_mail_refused_and_data():
    """The body that follows is not taken for commands by a client that waits for the 354; both answers say no."""
    spoken = talk([EHLO, b"MAIL FROM:<a@b>\r\nRCPT TO:<x\r\nDATA\r\n", b"QUIT\r\n"])
    assert spoken.codes == [250, 250, 501, 554, 221]


def test_several_messages_in_one_session():
    got = []
    spoken = talk([EHLO, *MESSAGE * 3, "QUIT"], lambda message: got.append(message.id))
    assert got == ["s1-1", "s1-2", "s1-3"]
    assert spoken.codes == [250, *[250, 250, 354, 250] * 3, 221]


def test_a_message_that_failed_leaves_the_session_usable():
    acts = iter([Reject(550, "5.7.1 no"), OSError("x"), None])

    def message(handler, message):
        act = next(acts)
        if act:
            raise act

    spoken = talk([EHLO, *MESSAGE * 3], recording(message=message))
    assert [code for code in spoken.codes if code not in (250, 354)] == [550, 451]
    assert spoken.codes[-1] == 250


def test_random_octets_never_break_it():
    """Whatever comes, it is answered by well-formed replies, without a traceback, and the session ends."""
    chance = random.Random(5321)
    words = [
        b"MAIL FROM:",
        b"RCPT TO:",
        b"<a@b>",
        b"DATA\r\n",
        b"\r\n.\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b".",
        b"\0",
        b"\xff",
        b" ",
        b"EHLO x\r\n",
        b"BDAT 3\r\n",
        b"BDAT 9999999999 LAST\r\n",
        b"AUTH PLAIN ",
        b"=",
        b"RSET\r\n",
        b"SIZE=1",
        b"x" * 3000,
        b"BDAT 2 LAST\r\nab",
        b"XCLIENT ADDR=1.2.3.4\r\n",
        b"*\r\n",
        b"AUTH LOGIN\r\n",
    ]
    for _ in range(400):
        script = b"EHLO c\r\n" + b"".join(chance.choices(words, k=30))
        spoken = talk(
            script,
            recording(message=None, authenticate=False),
            cut=chance.choice([0, 1, 50]),
            allow_insecure_auth=True,
            before=lambda dialogue: setattr(dialogue, "xclient", True),
        )
        split_replies(spoken.wire.output)
        assert spoken.fault is None or isinstance(spoken.fault, EOFError)
        assert spoken.journal.named("handler_failed") == []


# --- other protocols


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nHost: mx\r\n\r\n", b"POST /x HTTP/1.0\r\n", b"HOST: x\r\n"])
def test_another_protocol_ends_the_session(first):
    """ALPACA (CVE-2021-3618): nothing of the body of a web request becomes a command."""
    spoken = talk([first + b"EHLO c\r\nMAIL FROM:<evil@x>\r\n"])
    assert [answer[:3] for answer in spoken.replies] == ["554"]
    assert spoken.journal.named("ended") == [("speaks another protocol than SMTP",)]


def test_a_web_request_is_refused_in_a_refused_session_too():
    assert greeting(recording(message=None, connect=Reject(554, "5.7.1 no")), "GET / HTTP/1.1", "NOOP")[1].codes == [
        554
    ]


# --- how a session ends


@pytest.mark.parametrize(
    "where", [[], [EHLO], [EHLO, MAIL], [EHLO, MAIL, RCPT, "DATA"], [EHLO, MAIL, RCPT, "DATA", b"abc"]]
)
@pytest.mark.parametrize("fault", [EOFError("left"), ConnectionResetError(104, "reset"), BrokenPipeError(32, "pipe")])
def test_the_client_leaves(where, fault):
    handler = recording(message=None, close=None)
    spoken = talk(where, handler, faults=[fault])
    assert spoken.fault is fault
    assert handler.events == [("close",)], "it is told, and gets no part of a message"
    assert spoken.journal.events == []


@pytest.mark.parametrize("where", [[], [EHLO], [EHLO, MAIL], [EHLO, MAIL, RCPT, "DATA", b"abc"]])
@pytest.mark.parametrize(
    ("fault", "answer", "told"),
    [
        (TimeoutError(), reply.TIMED_OUT, ("timed_out", "")),
        (Overdue("min_data_rate", reply.TOO_SLOW), reply.TOO_SLOW, ("timed_out", "min_data_rate")),
    ],
)
def test_a_timeout(where, fault, answer, told):
    handler = recording(message=None, close=None)
    spoken = talk(where, handler, faults=[fault])
    assert spoken.wire.output.endswith(answer.wire)
    assert spoken.journal.events == [told]
    assert handler.events == [("close",)]
    assert spoken.fault is None


def test_the_deadline_of_the_session():
    spoken = talk([EHLO], faults=[TimeoutError()], before=lambda dialogue: setattr(dialogue.wire, "expired", True))
    assert spoken.wire.output.endswith(reply.SESSION_TIMED_OUT.wire)
    assert spoken.journal.named("timed_out") == [("session_timeout",)]


def test_a_drain_between_transactions():
    spoken = talk([EHLO, *MESSAGE], faults=[InterruptedError()])
    assert spoken.replies[-1] == "421 4.3.2 Service shutting down, try again later"
    assert spoken.journal.named("ended") == []


@pytest.mark.parametrize(("last", "code"), [(b"QUIT\r\n", 221), (b"quit \n", 221), (b"MAIL FROM:<a@b>\r\n", 421)])
def test_quit_is_answered_221_whenever_it_comes(last, code):
    """The wire has read it, and says nevertheless that it is too late."""

    def late(dialogue):
        dialogue.wire.take_line = lambda: last

    spoken = talk([EHLO, *MESSAGE], faults=[InterruptedError()], before=late)
    assert spoken.codes[-1] == code
    assert spoken.dialogue.quit == (code == 221)


def test_a_wait_in_a_transaction_is_not_idle():
    """It is the wire that interrupts idle reads: so the dialogue must say which they are."""
    idle = []

    def watch(dialogue):
        read_line = dialogue.wire.read_line
        dialogue.wire.read_line = lambda limit, idle_=False: (idle.append(idle_), read_line(limit))[1]

    talk([EHLO, MAIL, RCPT, "DATA", b".\r\n", "NOOP", "QUIT"], before=watch)
    assert idle == [True, True, False, False, True, True]


@pytest.mark.parametrize("act", [None, OSError("x"), SystemExit(), Reject(550, "x")])
def test_close_is_called_once_and_harms_nobody(act):
    handler = recording(message=None, close=act)
    spoken = talk([EHLO, "QUIT"], handler)
    assert handler.events == [("close",)]
    assert spoken.codes == [250, 221]
    assert len(spoken.journal.named("handler_failed")) == (0 if act is None or isinstance(act, Reject) else 1)
