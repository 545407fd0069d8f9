"""smtp/reply.py: what is encoded, what is refused, and that the standard replies are sound."""

from __future__ import annotations

import re

import pytest

from preforksmtp import Reject, Reply
from preforksmtp.smtp import reply as replies

STANDARD = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}


@pytest.mark.parametrize(
    ("code", "text", "wire"),
    [
        (250, "Ok", b"250 2.0.0 Ok\r\n"),
        (250, "2.1.5 fine", b"250 2.1.5 fine\r\n"),
        (250, "", b"250 2.0.0\r\n"),
        (250, "2.6.0", b"250 2.6.0\r\n"),
        (550, "no", b"550 5.7.1 no\r\n"),
        (550, "5.1.1 no such user", b"550 5.1.1 no such user\r\n"),
        (550, "2.0.0 of another class", b"550 5.7.1 2.0.0 of another class\r\n"),
        (451, "5.0.0 x", b"451 4.3.0 5.0.0 x\r\n"),
        (599, "x", b"599 5.0.0 x\r\n"),
        (499, "x", b"499 4.0.0 x\r\n"),
        (354, "go", b"354 go\r\n"),
        (250, ["2.0.0 one", "two"], b"250-2.0.0 one\r\n250 2.0.0 two\r\n"),
        (250, ["one", "", "three"], b"250-2.0.0 one\r\n250-2.0.0\r\n250 2.0.0 three\r\n"),
        (250, [], b"250 2.0.0\r\n"),
        (250, "a\tb", b"250 2.0.0 a\tb\r\n"),
        (550, "Müll", b"550 5.7.1 M\\xfcll\r\n"),
        (550, "5.1.1.9 x", b"550 5.7.1 5.1.1.9 x\r\n"),
        (550, "5.1.1234 x", b"550 5.7.1 5.1.1234 x\r\n"),
    ],
)
def test_wire(code, text, wire):
    assert Reply(code, text).wire == wire


@pytest.mark.parametrize("code", [0, 100, 199, 600, 2500, -250, "250", 250.0, None, True])
def test_a_code_out_of_range(code):
    with pytest.raises(ValueError, match="200 to 599"):
        Reply(code, "x")


@pytest.mark.parametrize(
    "text",
    [
        "a\r\n250 b",
        "a\nb",
        "a\rb",
        "a\0b",
        "\x1b[2J",
        "a\x85b",
        "a\u2028b",
        "\ud800",
        ["ok", "a\r\nb"],
        [1],
        b"x",
        [None],
    ],
)
def test_a_text_that_could_forge_a_reply(text):
    with pytest.raises((ValueError, TypeError)):
        Reply(250, text)


def test_a_long_text_is_folded():
    wire = Reply(550, "5.1.1 " + "x" * 2000).wire
    lines = wire.split(b"\r\n")[:-1]
    assert all(len(line) <= 510 for line in lines)
    assert all(line.startswith(b"550-5.1.1 ") for line in lines[:-1])
    assert lines[-1].startswith(b"550 5.1.1 ")
    assert b"".join(line[10:] for line in lines) == b"x" * 2000
    assert all(len(line) <= 510 for line in Reply(550, "ü" * 1000).wire.split(b"\r\n"))


def test_facts():
    answer = Reply(550, ["5.1.1 no", "sorry"])
    assert (answer.code, answer.enhanced, answer.lines, answer.text) == (550, "5.1.1", ("no", "sorry"), "no sorry")
    assert not answer.positive
    assert Reply(250).positive
    assert Reply(354, "x").positive
    assert answer == Reply(550, ["5.1.1 no", "sorry"])
    assert hash(answer) == hash(Reply(550, ["5.1.1 no", "sorry"]))
    assert answer != Reply(550, "5.1.1 no")
    assert answer != "550"
    assert repr(answer) == "Reply(550, '5.1.1 no sorry')"


def test_queued_is_what_it_would_be_with_all_checks():
    assert Reply.queued("a1-1") == Reply(250, "2.0.0 Ok: queued as a1-1")
    assert Reply.queued("a1-1").text == Reply(250, "2.0.0 Ok: queued as a1-1").text
    assert Reply.queued("a1-1").enhanced == "2.0.0"


def test_reject():
    refusal = Reject(550, "5.1.1 no such user")
    assert refusal.reply == Reply(550, "5.1.1 no such user")
    assert str(refusal) == "550 5.1.1 no such user"
    assert Reject(refusal.reply).reply is refusal.reply
    assert Reject(450).reply.text == "Rejected"


@pytest.mark.parametrize(
    "arguments", [(250, "ok"), (354, "go"), (399,), (600,), (99,), (550, "a\r\nb"), (Reply(250, "x"),)]
)
def test_what_does_not_refuse_is_no_reject(arguments):
    with pytest.raises(ValueError, match=r"."):
        Reject(*arguments)


@pytest.mark.parametrize("name", STANDARD)
def test_standard_reply(name):
    """One line of printable ASCII, with an enhanced status code of the right class (RFC 2034 section 4)."""
    wire = STANDARD[name].wire
    assert re.fullmatch(rb"[2-5][0-9][0-9] [ -~]{1,500}\r\n", wire)
    if wire[:1] != b"3":
        assert re.match(rb"([245])[0-9][0-9] \1\.[0-9]{1,3}\.[0-9]{1,3} [A-Z]", wire)


def test_every_standard_reply_is_used():
    from pathlib import Path

    folder = Path(replies.__file__).parent.parent
    code = "\n".join(file.read_text() for file in folder.rglob("*.py") if file.name != "reply.py")
    unused = [name for name in STANDARD if not re.search(rf"\breply\.{name}\b", code)]
    assert unused == []
