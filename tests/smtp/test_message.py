"""smtp/message.py: the message a handler is given. What is read in it: tests/mime."""

from __future__ import annotations

import io
import tempfile

import pytest

from preforksmtp import Attachment, Reject, Reply
from preforksmtp.smtp.message import Message
from preforksmtp.smtp.session import Endpoint, Session
from preforksmtp.smtp.transaction import Recipient, Transaction

CONTENT = b"Subject: =?utf-8?q?h=C3=A9?=\r\nFrom: a@b\r\nX: 1\r\nX: 2\r\n\r\nline one\r\n.line two\r\n"


@pytest.fixture(params=["memory", "file"])
def message(request):
    session = Session("s1", Endpoint("192.0.2.1", 1), lambda: Endpoint("192.0.2.2", 25), "", "mx.test")
    transaction = Transaction("s1-1", "a@b", {"SIZE": 5}, 0.0)
    transaction.recipients = [Recipient("c@d", {"NOTIFY": ("NEVER",)}), Recipient("e@f", {})]
    if request.param == "memory":
        yield Message(session, transaction, 1795852800.0, CONTENT, None, len(CONTENT))
        return
    with tempfile.TemporaryFile() as spool:
        spool.write(CONTENT)
        spool.flush()
        yield Message(session, transaction, 1795852800.0, b"", spool, len(CONTENT))


def test_facts(message):
    assert (message.id, message.sender, message.recipients, message.params, message.size, message.time) == (
        "s1-1", "a@b", ["c@d", "e@f"], {"SIZE": 5}, len(CONTENT), 1795852800.0,
    )  # fmt: skip
    assert message.recipients[0].params == {"NOTIFY": ("NEVER",)}
    assert message.session.peer.host == "192.0.2.1"


def test_content(message):
    assert message.content == CONTENT
    assert message.content == CONTENT, "as often as one likes"


def test_open(message):
    with message.open() as one, message.open() as two:
        assert one.read(8) == CONTENT[:8]
        assert two.read() == CONTENT, "each has its own position"
        assert one.read() == CONTENT[8:]
        assert one.seek(0) == 0
        assert list(one) == CONTENT.splitlines(keepends=True)
        assert one.seek(-3, io.SEEK_END) == len(CONTENT) - 3
        assert one.read() == b"o\r\n"
        assert one.seek(2) == 2
        assert one.seek(3, io.SEEK_CUR) == 5
        assert one.tell() == 5
        buffer = bytearray(4)
        assert one.readinto(buffer) == 4
        assert bytes(buffer) == CONTENT[5:9]
    assert message.content == CONTENT, "closing a reader closes no other"


def test_headers(message):
    assert message.headers["X"] == "1"
    assert message.headers.get_all("X") == ["1", "2"]
    assert message.headers is message.headers, "parsed once"
    assert message.headers["Missing"] is None


def test_parse(message):
    parsed = message.parse()
    assert parsed["Subject"] == "hé"
    assert parsed.get_content().splitlines() == ["line one", ".line two"]


def test_received(message):
    assert message.received.startswith("Received: from unknown ([192.0.2.1])")


MIXED = (
    b"Subject: files\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>Hi</p>\r\n"
    b"--b\r\nContent-Disposition: attachment; filename=../a.txt\r\n\r\ndata\r\n--b--\r\n"
)


def make(content: bytes = CONTENT, sender: str = "a@b") -> Message:
    session = Session("s1", Endpoint("192.0.2.1", 1), lambda: Endpoint("", 0), "", "mx.test")
    return Message(session, Transaction("s1-1", sender, {}, 0.0), 0.0, content, None, len(content))


def test_what_handlers_ask_for():
    message = make(MIXED)
    assert (message.text, message.html) == ("Hi\n", "<p>Hi</p>")
    [attachment] = message.attachments
    assert isinstance(attachment, Attachment)
    assert (attachment.name, attachment.content_type, attachment.content) == ("a.txt", "text/plain", b"data")
    assert [part.get_content_type() for part in message.parse().walk()] == ["multipart/mixed", "text/html", "text/plain"]
    assert message.parse() is not message.parse(), "whoever has it may change it"


@pytest.mark.parametrize(
    ("sender", "field"),
    [
        ("", "Return-Path: <>"),
        ("a@b", "Return-Path: <a@b>"),
        ("grüße@example.org", "Return-Path: <grüße@example.org>"),
        ("a\r\nX-Evil: yes\r\n\r\nbody@x", "Return-Path: <a??X-Evil: yes????body@x>"),
        ('"a\x00\x85b"@x', 'Return-Path: <"a??b"@x>'),
        ("a\udcff@x", "Return-Path: <a\udcff@x>"),
    ],
)
def test_return_path(sender, field):
    assert make(sender=sender).return_path == field


def test_a_message_that_is_filled_later_is_read_anew():
    message = make(b"")
    assert message.headers["Subject"] is None
    assert message.text == ""
    message.fill(MIXED, None)
    message.size = len(MIXED)
    assert message.headers["Subject"] == "files"
    assert message.text == "Hi\n"


def test_nothing_is_read_before_it_is_asked_for():
    message = make(MIXED)
    assert message._read is None
    assert message.content is MIXED


def test_a_file_that_was_cut_off_is_an_error():
    with tempfile.TemporaryFile() as spool:
        spool.write(CONTENT[:10])
        spool.flush()
        session = Session("s1", Endpoint("192.0.2.1", 1), lambda: Endpoint("", 0), "", "mx.test")
        message = Message(session, Transaction("s1-1", "", {}, 0.0), 0.0, b"", spool, len(CONTENT))
        with pytest.raises(OSError, match="not as long as it was"):
            assert message.content is None


def test_reject_one_recipient(message):
    with pytest.raises(ValueError, match="per_recipient"):
        message.reject("c@d", Reply(550, "x"))
    message.params["PRDR"] = True
    assert message.per_recipient
    message.reject("c@d", Reply(452, "4.2.2 full"))
    message.reject("e@f", Reject(550, "5.1.1 no"))
    with pytest.raises(ValueError, match="not a recipient"):
        message.reject("x@y", Reply(550, "x"))
    with pytest.raises(ValueError, match="does not refuse"):
        message.reject("c@d", Reply(250, "x"))
