"""mime/entity.py: EmailMessage that reads anything. The corpus is read in tests/program/test_corpus.py, and here mutated."""

from __future__ import annotations

import copy
import email
import email.policy
import pickle
import random
import smtplib
from email.message import EmailMessage, Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from preforksmtp.mime.content import Content
from preforksmtp.mime.entity import Entity, Headers, parse_message
from preforksmtp.mime.source import Memory
from preforksmtp.mime.structure import MOST_PARTS, TooLargeDefect
from tests.corpus.read import read, read_parsed

CORPUS = [file.read_bytes()[:6000] for file in sorted((Path(__file__).parent.parent / "corpus").glob("*.eml"))]
PIECES = [
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\xff", b"\xc3\xa9", b'"', b"(", b")", b"<", b">", b"@", b"[", b"]", b";", b":",
    b",", b"=", b"*", b"'", b"%", b"\\", b"=?utf-8?q?a?=", b"=?utf-8?b?", b"?=", b"--b", b"--b--", b"; name*0*=utf-8''%e9",
    b"boundary=b", b"\r\nContent-Type: ", b"multipart/mixed", b"message/rfc822", b"message/delivery-status",
    b"multipart/related; start=x", b"\r\nContent-Disposition: attachment; filename=", b"\r\nContent-Transfer-Encoding: base64",
    b"quoted-printable", b"x-uuencode", b"charset=utf-7", b"charset*=''", b"\r\nTo: ", b"\r\nFrom: ", b"\r\nSender: ",
    b"\r\nDate: Mon, ", b"\r\nMIME-Version: ", b"\r\nMessage-ID: <", b"9" * 30, b"1.0", b"+0000", b"&#", b"<style", b"<!--",
    b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x85", b"\x1b$B", b"begin 644 x\r\n", b"=\r\n", b" ", b"\t",
]  # fmt: skip


def mutated(seed: int) -> bytes:
    chance = random.Random(seed)
    content = bytearray(chance.choice(CORPUS))
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(len(content) + 1)
        kind = chance.randrange(5)
        if kind < 3:
            content[place:place] = chance.choice(PIECES)
        elif kind == 3:
            del content[place : place + chance.randrange(1, 12)]
        else:
            other = chance.choice(CORPUS)
            begin = chance.randrange(len(other) + 1)
            content[place:place] = other[begin : begin + chance.randrange(200)]
    return bytes(content)


@pytest.mark.parametrize("block", range(4))
def test_everything_can_be_read_of_any_message(block: int) -> None:
    for seed in range(block * 150, (block + 1) * 150):
        content = mutated(seed)
        try:
            read(Content(Memory(content)))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {content!r}") from error


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: text/plain; name*\r\n\r\nx",
        b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(1200)),
        b"Message-ID: <[..]@[..]>\r\n\r\nx",
        b"To: (c):\r\n\r\nx",
        b"From: a@[\r\n\r\nx",
        b"Content-Type: text/plain; charset=x-unknown\r\n\r\n\xff",
        b"Content-Type: text/plain; charset*=''\r\n\r\n\xff",
        b'Content-Type: text/plain; charset="a\0b"\r\n\r\n\xff',
        b"Content-Type: multipart/related\r\n\r\ntext",
        b"Content-Type: multipart/alternative\r\n\r\ntext",
        b"Content-Type: message/rfc822\r\n\r\n" * 1200,
        b"Content-Type: font/woff\r\n\r\nx",
        b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 x\r\n\xff\xff\r\nend\r\n",
        b"Content-Disposition: (\r\nContent-Transfer-Encoding: (\r\nMIME-Version: (\r\n\r\nx",
        b"To: " + b"(" * 100_000 + b"\r\n\r\nx",
        b"Sender: a@b, c@d\r\n\r\nx",
        b"Subject: \xff\xfe\r\n\r\nx",
        b"Content-Type: multipart/mixed; boundary=\xff\r\n\r\n--\xff\r\n\r\nx",
    ],
)  # fmt: skip
def test_messages_for_which_cpython_raises(content: bytes) -> None:
    read(Content(Memory(content)))


def test_it_is_an_email_message() -> None:
    message = parse_message(Memory(b"Subject: x\r\nTo: Ann <a@b>\r\n\r\ntext\r\n"))
    assert isinstance(message, EmailMessage)
    assert message["To"].addresses[0].display_name == "Ann"
    assert message.get_content() == "text\n", "lines end with LF, as BytesParser has them"
    assert message.get_body() is message


def test_content_of_each_kind() -> None:
    def content_of(head: bytes, body: bytes = b"x") -> Any:
        return parse_message(Memory(head + b"\r\n\r\n" + body)).get_content()

    assert content_of(b"Content-Type: text/html; charset=latin1", b"\xfc") == "ü"
    assert content_of(b"Content-Type: image/png", b"\r\n\r\xff\n") == b"\r\n\r\xff\n", "octets are not lines"
    assert content_of(b"Content-Type: x/y\r\nContent-Transfer-Encoding: base64", b"eA==") == b"x"
    assert content_of(b"Content-Type: message/rfc822", b"Subject: in\r\n\r\nx")["Subject"] == "in"
    assert content_of(b"Content-Type: message/partial", b"Subject: in\r\n\r\nx") == b"Subject: in\n\nx"
    assert content_of(b"Content-Type: multipart/mixed") == "x", "it has no parts"
    with pytest.raises(KeyError, match="multipart/mixed"):
        content_of(b"Content-Type: multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n--b--")


def test_a_report_has_blocks() -> None:
    content = b"Content-Type: message/delivery-status\r\n\r\nA: 1\r\n\r\nB: 2\r\nC: 3\r\n\r\n\r\nno field\r\n"
    message = parse_message(Memory(content))
    assert [each.items() for each in message.iter_parts()] == [[("A", "1")], [("B", "2"), ("C", "3")], []]
    assert message.get_payload()[2].get_payload() == "no field"
    many = parse_message(Memory(content + b"A: b\r\n\r\n" * 5000))
    assert len(many.get_payload()) == MOST_PARTS + 1
    none = parse_message(Memory(b"Content-Type: message/delivery-status\r\n\r\n"))
    assert len(none.get_payload()) == 1


def test_written_out_as_it_came() -> None:
    content = (
        b"From x@y\r\nSubject: raw \xc3\xa9 \xff\r\nTo: a@[\r\n (folded)\r\nX:  y \r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"pre\r\n--b\r\nContent-Type: text/plain; charset=nonsense\r\n\r\n\xff\r\n--b--\r\npost\r\n"
    )
    message = parse_message(Memory(content))
    assert message.as_bytes(policy=message.policy.clone(linesep="\r\n")) == content.partition(b"\r\n")[2].replace(b"X:  ", b"X: ")
    assert message.as_bytes(unixfrom=True).startswith(b"From x@y\n")
    assert message.as_string().startswith("Subject: raw é \ufffd\n")
    for policy in (email.policy.SMTP, email.policy.compat32, email.policy.SMTPUTF8, email.policy.default.clone(cte_type="7bit")):
        again = BytesParser(policy=email.policy.compat32).parsebytes(message.as_bytes(policy=policy))
        assert again["To"].split() == ["a@[", "(folded)"]


def test_it_may_be_changed_and_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    message = parse_message(Memory(b"Subject: x\r\nFrom: Ann <a@b>\r\nTo: c@d\r\nBad: a@[\r\n\r\ntext\r\n"))
    message.replace_header("Subject", "neu: ü")
    message["X-New"] = "y"
    del message["To"]
    message["To"] = "e@f"
    message.add_attachment(b"data", maintype="x", subtype="y", filename="ü.bin")
    sent = []
    monkeypatch.setattr(smtplib.SMTP, "sendmail", lambda self, sender, to, content, *_: sent.append((sender, to, content)))
    monkeypatch.setattr(smtplib.SMTP, "ehlo_or_helo_if_needed", lambda self: None)
    client = smtplib.SMTP()
    client.send_message(message)
    [(sender, to, content)] = sent
    assert (sender, to) == ("a@b", ["e@f"])
    again = email.message_from_bytes(content, policy=email.policy.default)
    assert (again["Subject"], again["Bad"], again["X-New"]) == ("neu: ü", "a@[", "y")
    assert [part.get_filename() for part in again.iter_attachments()] == ["ü.bin"]
    reply = EmailMessage()
    reply["To"] = message["From"]
    reply["Subject"] = message["Subject"]
    assert reply.as_string() == "To: Ann <a@b>\nSubject: neu: =?utf-8?q?=C3=BC?=\n\n"


def test_copies() -> None:
    message = parse_message(Memory(CORPUS[0] if CORPUS[0] else b"x"))
    for twin in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert isinstance(twin, Entity)
        assert twin.items() == message.items()
        assert read_parsed(twin) == read_parsed(message)


# --- header fields alone

HEADERS = Headers(Memory(
    b"Subject: =?utf-8?q?h=C3=A9?=\r\nX-Raw: \xc3\xa9\xff\r\nTo: =?utf-8?q?Doe=2C_Ann?= <a@b>,\r\n c@d\r\nx-raw: two\r\n"
    b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nEvil: =?utf-8?q?a=0d=0aBcc:_x=40y?=\r\n\r\nbody: not read\r\n"
))  # fmt: skip


def test_headers_are_strings() -> None:
    assert HEADERS["Subject"] == "hé"
    assert HEADERS["subject"] == HEADERS.get("SUBJECT") == "hé"
    assert HEADERS["X-Raw"] == "é\ufffd"
    assert HEADERS.get_all("x-raw") == ["é\ufffd", "two"]
    assert HEADERS["To"] == '"Doe, Ann" <a@b>, c@d'
    assert HEADERS["Content-Type"] == "text/plain;\tcharset=utf-8"
    assert HEADERS["Evil"] == "a Bcc: x@y"
    assert HEADERS["Missing"] is None
    assert HEADERS.get("Missing", "x") == "x"
    assert HEADERS.get_all("Missing") is None
    assert HEADERS.get_all("Missing", []) == []
    assert ("Subject" in HEADERS, "missing" in HEADERS) == (True, False)
    assert list(HEADERS) == HEADERS.keys() == ["Subject", "X-Raw", "To", "x-raw", "Content-Type", "Evil"]
    assert HEADERS.items() == list(zip(HEADERS.keys(), HEADERS.values(), strict=True))
    assert {type(value) for value in HEADERS.values()} == {str}
    assert len(HEADERS) == 6
    assert HEADERS.raw.startswith(b"Subject: =?utf-8?q?h=C3=A9?=\r\nX-Raw: \xc3\xa9\xff\r\n")
    assert HEADERS.raw.endswith(b"Bcc:_x=40y?=\r\n")


def test_headers_have_what_a_message_has() -> None:
    assert isinstance(HEADERS, Message)
    assert (HEADERS.get_content_type(), HEADERS.get_content_charset(), HEADERS.get_filename()) == ("text/plain", "utf-8", None)
    assert HEADERS.as_bytes() == HEADERS.raw.replace(b"\r\n", b"\n") + b"\n"
    assert not HEADERS.is_multipart()
    for kind in (b"multipart/mixed; boundary=b", b"message/rfc822", b"message/delivery-status", b"multipart/mixed"):
        headers = Headers(Memory(b"Content-Type: " + kind + b"\r\n\r\nbody"))
        assert bytes(headers) == b"Content-Type: " + kind + b"\n\n"
    assert copy.deepcopy(HEADERS).items() == pickle.loads(pickle.dumps(HEADERS)).items() == HEADERS.items()


@pytest.mark.parametrize("line", [b"X: y\r\n", b"X" * 70 + b": " + b"y" * 900 + b"\r\n", b"X:\r\n y\r\n"])
def test_headers_without_end(line: bytes) -> None:
    """100,000 fields, or 30 MiB: the first thousand, or the first MiB."""
    headers = Headers(Memory(b"Subject: first\r\n" + line * min(100_000, 30 * 1024 * 1024 // len(line)) + b"Subject: last\r\n\r\n"))
    assert headers["Subject"] == "first"
    assert 0 < len(headers) <= 1000
    assert headers.get_all("Subject") == ["first"]
    assert len(headers.raw) <= 1024 * 1024
    assert [type(defect) for defect in headers.defects] == [TooLargeDefect]


def test_the_body_is_not_read() -> None:
    class Watched(Memory):
        """Notes how far it was read."""

        furthest = 0

        def read(self, start: int, stop: int) -> bytes:
            self.furthest = max(self.furthest, stop)
            return super().read(start, stop)

    source = Watched(b"Subject: x\r\n\r\n" + b"body\r\n" * 1_000_000)
    assert Headers(source)["Subject"] == "x"
    assert source.furthest <= 4096
