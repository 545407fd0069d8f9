"""transcript.py: everything that is said, and nothing that is secret."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from preforksmtp.connection.transcribed import TranscribedWire
from preforksmtp.logs.transcript import Transcript, open_transcript
from preforksmtp.smtp.session import Endpoint, Session
from tests.fakes import FakeWire

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} s1 ([CS*]: .*)")
SECRET = "c2VjcmV0"  # letters and digits only: it looks like a command
PLAIN = base64.b64encode(b"\0bob\0secret").decode()


@pytest.fixture
def transcript(tmp_path: Path) -> Transcript:
    made = open_transcript(SimpleNamespace(transcript=str(tmp_path / "dialogue")))
    assert made is not None
    return made


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[str]]:
    def lines() -> list[str]:
        found = [LINE.fullmatch(line) for line in (tmp_path / "dialogue").read_text().split("\n")[:-1]]
        assert all(found)
        first, *others = [match[1] for match in found if match]
        assert first == "*: [connection of 192.0.2.1:2525]"
        return others

    return lines


@pytest.fixture
def wire(transcript: Transcript) -> Callable[[bytes], TranscribedWire]:
    def wire(script: bytes) -> TranscribedWire:
        peer, local = Endpoint("192.0.2.1", 2525), Endpoint("192.0.2.2", 25)
        session = Session("s1", peer, lambda: local, "smtp://x", "mx.test", False)
        inner = FakeWire(script)
        inner.wake = inner.interrupt = inner.cut = inner.dismiss = lambda: None  # type: ignore[attr-defined]
        inner.activity = lambda: (0.0, 0, 0)  # type: ignore[attr-defined]
        inner.local_address = lambda: ("192.0.2.2", 25)  # type: ignore[attr-defined]
        return TranscribedWire(inner, transcript, session)  # type: ignore[arg-type]

    return wire


def hear(wire: TranscribedWire, count: int = 1) -> None:
    for _ in range(count):
        wire.read_line(12288, 1.0)


def test_off_is_off():
    assert open_transcript(SimpleNamespace(transcript=None)) is None


def test_commands_and_replies(wire, lines):
    it = wire(b"EHLO c.test\r\n")
    it.write(b"220 mx.test\r\n")
    hear(it)
    it.write(b"250-mx.test\r\n250 SIZE 1\r\n")
    assert lines() == ["S: 220 mx.test", "C: EHLO c.test", "S: 250-mx.test", "S: 250 SIZE 1"]


def test_a_line_is_one_write(wire, monkeypatch):
    written: list[bytes] = []
    monkeypatch.setattr("preforksmtp.logs.error.os.write", lambda fd, data: written.append(data) or len(data))
    wire(b"").write(b"250-a\r\n250 b\r\n")
    assert [line.count(b"\n") for line in written] == [1, 1, 1]
    assert all(line.endswith(b"\n") for line in written)


def test_nothing_is_forged(wire, lines):
    it = wire(b"NOOP \x1b[2J\r2026 \xff\xe2\x80\xa8\n")
    hear(it)
    assert lines() == ["C: NOOP \\x1b[2J\\x0d2026 \\xff\\u2028\\x0a"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (f"AUTH PLAIN {PLAIN}", "AUTH PLAIN ********"),
        (f"auth plain {PLAIN}", "auth plain ********"),
        (f"AUTH XOAUTH2 {SECRET} {SECRET}", "AUTH XOAUTH2 ********"),
        (f" AUTH\t PLAIN\t{SECRET}", "AUTH PLAIN ********"),
        (f"AUTH {SECRET}", "AUTH ********"),
        (f"AUTH {SECRET} {SECRET}", "AUTH ******** ********"),
        ("AUTH", "AUTH"),
        ("AUTH LOGIN", "AUTH LOGIN"),
        (f"AUHT PLAIN {PLAIN}", "AUHT ********"),
        (f"PASS {SECRET}", "PASS ********"),
        (SECRET + "==", "[12 octets that are no command]"),
        ("HALLO", "HALLO"),
        ("\x16\x03\x01", "[5 octets that are no command]"),
        ("MAIL FROM:<a@b> AUTH=a", "MAIL FROM:<a@b> AUTH=a"),
    ],
)
def test_secrets_in_commands(wire, lines, sent, shown):
    hear(wire(sent.encode() + b"\r\n"))
    assert lines() == ["C: " + shown]


def test_an_exchange(wire, lines):
    it = wire(f"AUTH LOGIN\r\nYm9i\r\n{SECRET}\r\nNOOP\r\n".encode())
    hear(it)
    it.write(b"334 VXNlcm5hbWU6\r\n")
    hear(it)
    it.write(b"334 \r\n")
    hear(it)
    it.write(b"235 2.7.0 ok\r\n")
    hear(it)
    assert lines() == [
        "C: AUTH LOGIN", "S: 334 ********", "C: ********", "S: 334 ", "C: ********", "S: 235 2.7.0 ok", "C: NOOP",
    ]  # fmt: skip


def test_cancelling_is_no_secret(wire, lines):
    it = wire(b"*\r\n")
    it.write(b"334 \r\n")
    hear(it)
    assert lines()[1:] == ["C: *"]


@pytest.mark.parametrize("first", ["AUTH LOGIN", "AUHT LOGIN", "AUTH PLAIN " + "x" * 12288])
def test_a_client_that_sends_its_password_before_it_hears_that_auth_is_refused(wire, lines, first):
    it = wire(f"{first}\r\nYm9i\r\n{SECRET}\r\nQUIT\r\n".encode())
    for _ in range(4):
        hear(it)
        it.write(b"503 no\r\n")
    said = [line for line in lines() if line.startswith("C:")]
    assert said[1:] == ["C: [6 octets that are no command]", "C: [10 octets that are no command]", "C: QUIT"]


def test_octets_are_counted(wire, lines):
    it = wire(b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n")
    hear(it)
    it.write(b"354 go\r\n")
    block = it.read_block(4096, 1.0)
    it.push_back(block[-6:])
    it.write(b"250 ok\r\n")
    hear(it)
    assert lines() == ["C: DATA", "S: 354 go", "C: [24 octets of data]", "S: 250 ok", "C: QUIT"]


def test_a_line_that_is_put_back_is_told_once(wire, lines):
    it = wire(b"RSET\r\nRSET\r\n")
    line = it.read_line(100, 1.0)
    it.push_back(line)
    hear(it, 2)
    assert lines() == ["C: RSET", "C: RSET"]


def test_tls_and_the_end(wire, lines):
    it = wire(b"")
    it.start_tls()
    it._wire.close = lambda linger, wait: None
    it.close(False)
    assert lines() == ["*: [TLS: TLSv1.3 TLS_FAKE]", "*: [closed]"]


def test_a_handshake_that_fails(wire, lines):
    it = wire(b"")

    def fail() -> None:
        raise ConnectionError("no shared cipher")

    it._wire.start_tls = fail
    with pytest.raises(ConnectionError):
        it.start_tls()
    assert lines() == ["*: [no TLS: no shared cipher]"]


def test_a_full_disk_costs_lines_only(wire, monkeypatch):
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preforksmtp.logs.error.os.write", full)
    it = wire(b"QUIT\r\n")
    hear(it)
    it.write(b"221 bye\r\n")
    it.flush()
    assert it._wire.output == b"221 bye\r\n"


def test_reopen(wire, transcript, lines, tmp_path):
    it = wire(b"")
    it.write(b"220 old\r\n")
    os.rename(tmp_path / "dialogue", tmp_path / "old")
    transcript.reopen()
    it.write(b"220 new\r\n")
    assert (tmp_path / "dialogue").read_text().endswith("S: 220 new\n")
    assert (tmp_path / "old").read_text().endswith("S: 220 old\n")
