"""smtp/command.py: rows of grammar."""

from __future__ import annotations

import pytest

from preforksmtp import Reject
from preforksmtp.smtp import reply
from preforksmtp.smtp.command import CROSS_PROTOCOL, decode, parse_parameters


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"NOOP\r\n", "NOOP"),
        (b"\r\n", ""),
        (b"noop  x \r\n", "noop  x "),
        ("MAIL FROM:<jürgen@b>\r\n".encode(), "MAIL FROM:<jürgen@b>"),
        ("RCPT TO:<用户@例子>\r\n".encode(), "RCPT TO:<用户@例子>"),
        (
            "RCPT TO:<نامه\u200cای@b>\r\n".encode(),
            "RCPT TO:<نامه\u200cای@b>",
        ),  # a zero width non-joiner, as in IDNA 2008
        ("RCPT TO:<ශ්\u200dරී@b>\r\n".encode(), "RCPT TO:<ශ්\u200dරී@b>"),  # and a joiner
    ],
)
def test_a_line_is_its_text(line, text):
    assert decode(line) == text


@pytest.mark.parametrize("line", [b"QUIT\t\r\n", b"QUIT \t \r\n"])
def test_white_space_behind_a_command_is_tolerated(line):
    """RFC 5321 section 4.1.1."""
    assert decode(line).strip() == "QUIT"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"NOOP\n", reply.BARE_LINE_FEED),
        (b"\n", reply.BARE_LINE_FEED),
        (b"NOOP\r\r\n", reply.BAD_CHARACTERS),
        (b"NO\rOP\r\n", reply.BAD_CHARACTERS),
        (b"NOOP\0\r\n", reply.BAD_CHARACTERS),
        (b"NO\tOP\r\n", reply.BAD_CHARACTERS),
        (b"NOOP\x7f\r\n", reply.BAD_CHARACTERS),
        (b"NOOP\x1b[2J\r\n", reply.BAD_CHARACTERS),
        ("NOOP\u0085\r\n".encode(), reply.BAD_CHARACTERS),
        ("NOOP\u2028x\r\n".encode(), reply.BAD_CHARACTERS),
        ("NOOP\u202ex\r\n".encode(), reply.BAD_CHARACTERS),
        (b"NOOP \xff\r\n", reply.NOT_UTF8),
        (b"NOOP \xc3\r\n", reply.NOT_UTF8),
        (b"NOOP \xc0\xaf\r\n", reply.NOT_UTF8),  # an overlong form
        (b"NOOP \xed\xa0\x80\r\n", reply.NOT_UTF8),  # a surrogate
        ("NOOP jürgen\r\n".encode("latin-1"), reply.NOT_UTF8),
    ],
)
def test_what_is_no_command_line(line, answer):
    with pytest.raises(Reject) as refusal:
        decode(line)
    assert refusal.value.reply == answer


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ("  ", {}),
        (" SIZE=100", {"SIZE": "100"}),
        (" size=100", {"SIZE": "100"}),
        ("   SIZE=100   BODY=8BITMIME  ", {"SIZE": "100", "BODY": "8BITMIME"}),
        (" SMTPUTF8", {"SMTPUTF8": None}),
        (" X-1=!\"#$%&'()*+,-./:;<>?@[]^_`{|}~", {"X-1": "!\"#$%&'()*+,-./:;<>?@[]^_`{|}~"}),
        (" AUTH=<>", {"AUTH": "<>"}),
        (" ORCPT=utf-8;ü@b", {"ORCPT": "utf-8;ü@b"}),
    ],
)
def test_parameters(text, parameters):
    assert parse_parameters(text) == parameters


@pytest.mark.parametrize(
    "text",
    ["SIZE=1", ">", " =1", " SIZE=", " SIZE=1=2", " -X=1", " X_Y=1", " SIZE =1", " SIZE= 1", " ü=1", " A=\u00a0"],
)
def test_malformed_parameters(text):
    with pytest.raises(Reject) as refusal:
        parse_parameters(text)
    assert refusal.value.reply == reply.BAD_PARAMETER


@pytest.mark.parametrize("text", [" SIZE=1 SIZE=1", " SIZE=1 size=2", " A A"])
def test_a_parameter_given_twice(text):
    with pytest.raises(Reject) as refusal:
        parse_parameters(text)
    assert refusal.value.reply == reply.REPEATED_PARAMETER


@pytest.mark.parametrize(
    "line",
    ["GET / HTTP/1.1", "POST /x HTTP/1.0", "get / http/1.1", "CONNECT mx:25 HTTP/1.1", "OPTIONS sip:x SIP/2.0",
     "PRI * HTTP/2.0", "Host: mx", "User-Agent: x", "content-length: 5"],
)  # fmt: skip
def test_another_protocol(line):
    assert CROSS_PROTOCOL.match(line)


@pytest.mark.parametrize("line", ["GET", "GET /", "POSTMASTER", "HELO Host:", "NOOP GET / HTTP/1.1", "HOST"])
def test_no_other_protocol(line):
    assert not CROSS_PROTOCOL.match(line)
