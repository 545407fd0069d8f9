"""handlers/print.py: what appears on standard output."""

from __future__ import annotations

import sys

import pytest

from preforksmtp.handlers import Print
from tests.handlers.fake import message


def test_message_with_its_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    Print()(message(recipients=["bob@example.org", "carol@example.org"]))
    assert capsys.readouterr().out == (
        "---------- message 42: 25 bytes from <alice@example.org> to <bob@example.org>, <carol@example.org>\n"
        "Subject: hello\n\nworld\n"
        "---------- end of 42\n"
    )


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", "\n"),
        (b"no line end", "no line end\n"),
        (b"a\tb\r\n", "a\tb\n"),
        ("Grüße\r\n".encode(), "Grüße\n"),
        (b"\xff\xfe\r\n", "\\xff\\xfe\n"),
        (b"\x1b[2J\x00\x07\x7f\r\n", "\\x1b[2J\\x00\\x07\\x7f\n"),
        (b"over\rwrite\r\n", "over\\rwrite\n"),
        ("\u202etxt\u2028\x9b\r\n".encode(), "\\u202etxt\\u2028\\x9b\n"),
    ],
)
def test_control_characters_are_readable(
    capsys: pytest.CaptureFixture[str], content: bytes, shown: str
) -> None:
    Print()(message(content=content))
    assert capsys.readouterr().out.split("\n", 1)[1] == shown + "---------- end of 42\n"


def test_sender_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Print()(message(sender="a\r\n---------- end of 42"))
    assert capsys.readouterr().out.startswith(
        "---------- message 42: 25 bytes from <a\\n---------- end of 42> to <bob@example.org>\n"
    )


def test_limit(capsys: pytest.CaptureFixture[str]) -> None:
    Print(limit=4)(message(content=b"x" * 10))
    assert "\nxxxx\n[6 more bytes]\n----------" in capsys.readouterr().out


def test_one_write_per_message(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    class Recorder:
        encoding = "ascii"

        @property
        def buffer(self) -> Recorder:
            return self

        def write(self, data: bytes) -> None:
            written.append(data)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Recorder())
    Print()(message(content="Grüße\r\n".encode()))
    assert len(written) == 1
    assert b"Gr\\xfc\\xdfe\n" in written[0]
