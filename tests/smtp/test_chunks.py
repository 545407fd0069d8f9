"""smtp/chunks.py: BDAT (RFC 3030), counted and never looked into."""

from __future__ import annotations

import itertools

import pytest

from preforksmtp import Reject, Reply
from preforksmtp.smtp import reply
from preforksmtp.smtp.chunks import parse_chunk
from tests.fakes import recording, talk

OPEN = ["EHLO c.test", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"]


def collect():
    return recording(message=lambda self, message: f"{message.content!r}")


def send(handler, *script, **options):
    """The replies behind those to OPEN."""
    spoken = talk([*OPEN, *script], handler or collect(), **options)
    return spoken.replies[3:], spoken


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [("0", (0, False)), ("10", (10, False)), ("10 LAST", (10, True)), ("10  last ", (10, True)), ("0 LAST", (0, True)),
     ("9" * 20, (int("9" * 20), False))],
)  # fmt: skip
def test_syntax(argument, chunk):
    assert parse_chunk(argument) == chunk


@pytest.mark.parametrize(
    "argument",
    [
        "",
        " ",
        "LAST",
        "-1",
        "+1",
        "1.0",
        "0x10",
        "1 2",
        "1 LASTING",
        "1 LAST LAST",
        "9" * 21,
        "\u0663",
        "\u00b2",
        "1_000",
    ],
)
def test_malformed(argument):
    with pytest.raises(Reject) as refusal:
        parse_chunk(argument)
    assert refusal.value.reply == reply.BDAT_SYNTAX


@pytest.mark.parametrize("cut", [0, 1, 4])
@pytest.mark.parametrize(
    ("script", "content"),
    [
        (b"BDAT 5 LAST\r\nhello", b"hello"),
        (b"BDAT 0 LAST\r\n", b""),
        (b"BDAT 3\r\nhelBDAT 2 LAST\r\nlo", b"hello"),
        (b"BDAT 3\r\nhelBDAT 0\r\nBDAT 2\r\nloBDAT 0 LAST\r\n", b"hello"),
        (b"BDAT 8 LAST\r\na\r\n.\r\nb\n", b"a\r\n.\r\nb\n"),
        (b"BDAT 6 LAST\r\nQUIT\r\n", b"QUIT\r\n"),
        (b"BDAT 4 LAST\r\n..\r\n", b"..\r\n"),
        (b"BDAT 4 LAST\r\n\0\xff\r\n", b"\0\xff\r\n"),
        (b"bdat 2 last\r\nab", b"ab"),
    ],
)
def test_content(script, content, cut):
    replies, spoken = send(None, script + b"NOOP\r\nQUIT\r\n", cut=cut)
    assert replies[-3:] == [f"250 2.0.0 {content!r}", "250 2.0.0 Ok", "221 2.0.0 Bye"]
    assert all(answer.endswith("octets received") for answer in replies[:-3])
    assert spoken.journal.named("message") == [("a@b", ["c@d"], len(content), 250)]


@pytest.mark.parametrize("between", ["NOOP", "VRFY x", "EXPN x", "HELP"])
def test_what_may_come_between_two_chunks(between):
    replies, _ = send(None, b"BDAT 2\r\nab", between, b"BDAT 2 LAST\r\ncd")
    assert replies[0] == "250 2.0.0 2 octets received"
    assert replies[-1] == "250 2.0.0 b'abcd'"


@pytest.mark.parametrize(
    ("between", "answer"),
    [
        ("MAIL FROM:<x@y>", "503"), ("RCPT TO:<x@y>", "503"), ("DATA", "503"), ("AUTH PLAIN =", "503"), ("FOO", "500"),
        ("BDAT", "501"), ("BDAT x", "501"), ("NOOP" + "x" * 3000, "500"), (b"NOOP\n", "500"), ("x" * 20000, "500"),
    ],
)  # fmt: skip
def test_what_may_not(between, answer):
    replies, _ = send(None, b"BDAT 2\r\nab", between, b"BDAT 2 LAST\r\ncd")
    assert replies[1][:3] == answer
    assert replies[2:] == ["250 2.0.0 b'abcd'"], "and it does no harm"


@pytest.mark.parametrize("hooks", [{"message": None}, {"stream": lambda self, message, body: body.read() and None}])
@pytest.mark.parametrize(
    ("command", "codes"),
    [("RSET", [250, 503]), ("EHLO c.test", [250, 503]), ("HELO c.test", [250, 503]), ("QUIT", [221])],
)
def test_what_abandons_the_message(command, codes, hooks):
    handler = recording(**hooks)
    replies, spoken = send(handler, b"BDAT 2\r\nab", command, "DATA")
    assert [int(answer[:3]) for answer in replies] == [250, *codes]
    assert spoken.journal.named("message") == []
    assert "message" not in [event[0] for event in handler.events]
    assert spoken.journal.named("handler_failed") == []


@pytest.mark.parametrize("hooks", [{}, {"stream": lambda self, message, body: f"{body.read()!r}"}])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("RSET x", "501"), ("QUIT x", "501"), ("EHLO", "501"), ("EHLO a\tb", "501"), ("HELO", "501"), ("LHLO c.test", "500"),
        ("STARTTLS", "502"), ("STARTTLS x", "501"), ("XCLIENT ADDR=192.0.2.9", "503"),
    ],
)  # fmt: skip
def test_what_is_refused_abandons_nothing(command, code, hooks):
    replies, _ = send(recording(**hooks) if hooks else None, b"BDAT 3\r\nabc", command, b"BDAT 2 LAST\r\nde")
    assert replies[1][:3] == code
    assert replies[2:] == ["250 2.0.0 b'abcde'"]


def test_what_a_hook_refuses_leaves_no_half_message():
    """The octets are gone by then, so that nothing may be acknowledged but RSET."""

    def refuse(self, name):
        if name == "liar":
            raise Reject(550, "5.7.1 no")

    handler = recording(message=None, helo=refuse)
    replies, spoken = send(
        handler, b"BDAT 3\r\nabc", "EHLO liar", b"BDAT 2 LAST\r\nde", "RCPT TO:<e@f>", "DATA", "RSET", "MAIL FROM:<a@b>"
    )
    assert [answer[:3] for answer in replies] == ["250", "550", "503", "503", "503", "250", "250"]
    assert spoken.journal.named("message") == []


def swallow(self, message, body):
    try:
        return f"{body.read()!r}"
    except Reject:
        return "swallowed"


def wrap(self, message, body):
    try:
        body.read()
    except Reject as error:
        raise RuntimeError("storage failed") from error


@pytest.mark.parametrize("stream", [swallow, wrap])
@pytest.mark.parametrize(("command", "code"), [("RSET", "250"), ("EHLO c.test", "250"), ("QUIT", "221")])
def test_a_stream_that_swallows_the_end_cannot_answer_for_the_command(stream, command, code):
    replies, spoken = send(recording(stream=stream), b"BDAT 3\r\nabc", command, "MAIL FROM:<a@b>")
    assert replies[0] == "250 2.0.0 3 octets received"
    assert replies[1][:3] == code
    assert replies[2:] == ([] if command == "QUIT" else ["250 2.1.0 Sender ok"])
    assert spoken.journal.named("message") == []


def test_it_needs_a_transaction_and_reads_the_chunk_in_any_case():
    spoken = talk(
        [b"BDAT 6\r\nQUIT\r\n", "EHLO c", b"BDAT 6 LAST\r\nQUIT\r\n", "MAIL FROM:<a@b>", b"BDAT 6\r\nQUIT\r\n", "NOOP"]
    )
    assert spoken.codes == [503, 250, 503, 250, 554, 250]


def test_refused_by_the_data_hook():
    spoken = talk([*OPEN, b"BDAT 6 LAST\r\nQUIT\r\n", "NOOP"], recording(message=None, data=Reject(550, "5.7.1 no")))
    assert spoken.codes[3:] == [550, 250]


def test_too_large_as_soon_as_it_is_announced():
    replies, spoken = send(None, b"BDAT 6\r\n123456", b"BDAT 5 LAST\r\nQUIT\n", "NOOP", max_message_size=10)
    assert [answer[:9] for answer in replies] == ["250 2.0.0", "552 5.3.4", "250 2.0.0"]
    assert spoken.journal.named("message") == [("a@b", ["c@d"], 6, 552)]
    replies, _ = send(None, b"BDAT 6\r\n123456BDAT 4 LAST\r\n1234", max_message_size=10)
    assert replies[-1] == "250 2.0.0 b'1234561234'"


def test_chunks_behind_a_refused_one_find_no_transaction():
    replies, _ = send(
        None, b"BDAT 20\r\n" + b"x" * 20 + b"BDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\nNOOP\r\n", max_message_size=10
    )
    assert [answer[:3] for answer in replies] == ["552", "503", "503", "250"]


@pytest.mark.parametrize("act", [Reject(550, "5.7.1 no"), OSError("x"), Reply(550, "5.7.1 no")])
@pytest.mark.parametrize("reads", [0, 1, 3])
def test_a_stream_that_refuses_early(act, reads):
    def stream(self, message, body):
        body.read(reads)
        if isinstance(act, Exception):
            raise act
        return act

    replies, _ = send(recording(stream=stream), b"BDAT 6\r\nQUIT\r\n", b"BDAT 6 LAST\r\nQUIT\r\n", "NOOP")
    assert replies[0][:3] == ("451" if isinstance(act, OSError) else "550")
    assert [answer[:3] for answer in replies[1:]] == ["503", "250"]


def test_a_stream_that_returns_early_still_gets_all_chunks_received():
    replies, _ = send(recording(stream="fine"), b"BDAT 2\r\nab", b"BDAT 2 LAST\r\ncd", "NOOP")
    assert replies == ["250 2.0.0 2 octets received", "250 2.0.0 fine", "250 2.0.0 Ok"]


def test_a_stream_that_returns_early_cannot_accept_what_is_too_large():
    replies, _ = send(recording(stream="fine"), b"BDAT 20 LAST\r\n" + b"x" * 20, "NOOP", max_message_size=10)
    assert [answer[:9] for answer in replies] == ["552 5.3.4", "250 2.0.0"]


@pytest.mark.parametrize("fault", [EOFError("gone"), TimeoutError(), ConnectionResetError(104, "reset")])
@pytest.mark.parametrize("where", [b"BDAT 5\r\n", b"BDAT 5\r\nab", b"BDAT 5\r\nabcde", b"BDAT 5\r\nabcdeBDAT 5 LA"])
@pytest.mark.parametrize("hooks", [{"message": None}, {"stream": lambda self, message, body: body.read() and None}])
def test_the_connection_fails(where, fault, hooks):
    handler = recording(**hooks)
    _, spoken = send(handler, where, faults=[fault])
    assert spoken.journal.named("message") == []
    assert "message" not in [event[0] for event in handler.events]
    assert (spoken.fault is None) == isinstance(fault, TimeoutError)


def test_too_many_errors_between_chunks_end_the_session():
    for hooks in ({"message": None}, {"stream": lambda self, message, body: body.read() and None}):
        replies, spoken = send(recording(**hooks), b"BDAT 1\r\nx", *["FOO"] * 4, "NOOP", max_errors=3)
        assert [answer[:3] for answer in replies] == ["250", "500", "500", "500", "421"]
        assert spoken.fault is None
        assert spoken.journal.named("message") == []


def test_binarymime_needs_bdat():
    """RFC 3030 section 3."""
    script = ["EHLO c.test", "MAIL FROM:<a@b> BODY=BINARYMIME", "RCPT TO:<c@d>", "DATA", b"BDAT 3 LAST\r\n\0\r\n"]
    spoken = talk(script, collect())
    assert spoken.codes == [250, 250, 250, 503, 250]
    assert spoken.replies[-1] == "250 2.0.0 b'\\x00\\r\\n'"


def test_every_division_of_a_body_gives_the_same_message():
    content = b"a\r\n.\r\nb"
    for places in itertools.combinations(range(len(content) + 1), 2):
        parts = [content[: places[0]], content[places[0] : places[1]], content[places[1] :]]
        script = b"".join(b"BDAT %d%b\r\n%b" % (len(part), b" LAST" * (i == 2), part) for i, part in enumerate(parts))
        replies, _ = send(None, script)
        assert replies[-1] == f"250 2.0.0 {content!r}"
