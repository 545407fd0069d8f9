"""What address_syntax=lenient takes, in each ready-made handler: nothing a client says becomes a field, a line, an
argument or a command of somebody else's; and a strict next hop takes whatever has a strict form."""

from __future__ import annotations

import email
import json
import mailbox
import re
import smtplib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preforksmtp import quote_address
from preforksmtp.handlers import Forward, Maildir, Mbox, Pipe, Print, Webhook
from preforksmtp.smtp.address import is_mailbox
from preforksmtp.testing import Server
from tests.fakes import talk
from tests.handlers.forward.fakehop import FakeHop
from tests.handlers.test_webhook import Receiver, receiver  # noqa: F401 - the fixture
from tests.smtp.test_lenient import NAMES, ORDINARY, TAKEN

BODY = b"Subject: odd\r\n\r\nbody\r\n"
# What tries to be more than an address, or a name. Those that are refused never come as far as a handler.
EVIL = [
    '<"a> \r\nX: y <"@b>', '<"a\\\r\nX: y"@b>', '<"Bcc: x"@b>', '<"--help"@b>', "<--help>", "<-oQ/tmp@b>", "<-f>", '<"$(id)"@b>',
    "<`id`@b>", "<${x}@b>", '<"; id"@b>', '<"|sh"@b>', '<"../../etc/passwd"@b>', "<../x@b>", '<"a\\">"@b>', '<"<b@c>"@d>',
    '<"a\\\\"@b>', "<From>", '<"From x"@b>', "<a\\\nb@c>", '<"x> by evil with SMTP id 1; <"@b>', "<%s%n@b>", "<{0}@b>",
    '<"\'\\" OR 1=1"@b>', "<a@b> X-EVIL=1", "<\\x00@b>", '<"a,b@c"@d>',
]  # fmt: skip
ENVELOPES = [text for text, _ in (*TAKEN, *ORDINARY) if len(text) < 300] + EVIL


@pytest.fixture(params=range(4))
def share(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """A quarter of all envelopes, each with a name for EHLO."""
    names = [name for name in NAMES if len(name) < 300]
    return [(text, names[i % len(names)]) for i, text in enumerate(ENVELOPES)][request.param :: 4]


def deliver(app: Any, text: str, name: str) -> tuple[str, list[str]] | None:
    """Sender and recipients as the handler saw them; None where it was not asked."""
    seen: list[Any] = []

    def handler(message: Any) -> Any:
        seen.append((message.sender, list(message.recipients)))
        return app(message)

    script = [f"EHLO {name}", f"MAIL FROM:{text}", f"RCPT TO:{text}", "RCPT TO:<last@x>", "DATA", BODY + b".\r\n", "QUIT"]
    spoken = talk(script, handler, max_errors=0)
    assert not spoken.journal.named("handler_failed"), (text, spoken.journal.events)
    return seen[0] if seen else None


def fields(content: bytes) -> list[str]:
    message = email.message_from_bytes(content)
    assert message.get_payload() == "body\r\n" or message.get_payload() == "body\n"
    assert not message.defects
    return message.keys()


def test_maildir(share: list[tuple[str, str]], tmp_path: Path) -> None:
    store = Maildir(tmp_path / "box")
    count = sum(deliver(store, *each) is not None for each in share)
    stored = list((tmp_path / "box" / "new").iterdir())
    assert len(stored) == count > 10
    for file in stored:
        assert fields(file.read_bytes()) == ["Return-Path", "Received", "Subject"]


def test_mbox(share: list[tuple[str, str]], tmp_path: Path) -> None:
    store = Mbox(tmp_path / "box")
    count = sum(deliver(store, *each) is not None for each in share)
    box = mailbox.mbox(str(tmp_path / "box"))
    assert len(box) == count > 10
    for message in box:
        assert message.keys() == ["Return-Path", "Received", "Subject"]
        assert message.get_payload() == "body\n"
    box.close()


def test_print(share: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    count = sum(deliver(Print(), *each) is not None for each in share)
    lines = capsys.readouterr().out.split("\n")
    assert len([line for line in lines if line.startswith("---------- message ")]) == count > 10
    assert len(lines) == count * 5 + 1


def test_pipe(share: list[tuple[str, str]], tmp_path: Path) -> None:
    """One line of JSON: the arguments, the envelope in the environment, the fields."""
    code = (
        "import sys, os, json, email; m = email.message_from_bytes(sys.stdin.buffer.read()); "
        "open(sys.argv[1], 'a').write(json.dumps([sys.argv[2:], os.environ['SENDER'], os.environ['RECIPIENTS'],"
        " os.environ['CLIENT_HELO'], m.keys()]) + '\\n')"
    )
    pipe = Pipe([sys.executable, "-I", "-c", code, str(tmp_path / "out"), "--", "fixed"])
    seen = [each for each in (deliver(pipe, *pair) for pair in share[::4]) if each is not None]
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(sender, to.split("\n")) for _, sender, to, _, _ in lines] == seen != []
    assert all(arguments == ["--", "fixed"] for arguments, *_ in lines)
    assert all(keys == ["Return-Path", "Received", "Subject"] and helo.isprintable() for *_, helo, keys in lines)


def test_webhook(share: list[tuple[str, str]], receiver: Receiver) -> None:  # noqa: F811
    hook = Webhook(receiver.url)
    seen = [each for each in (deliver(hook, *pair) for pair in share) if each is not None]
    posted = [json.loads(content) for _, _, content in receiver.requests]
    assert [(post["sender"], [to["address"] for to in post["recipients"]]) for post in posted] == seen != []
    assert all(path == "/" and headers["Content-Type"] == "application/json" for path, headers, _ in receiver.requests)


# --- the logs, of the real program


def test_logs(tmp_path: Path) -> None:
    """One line for each message, whose fields are where they were."""
    log, transcript = tmp_path / "access.log", tmp_path / "transcript"
    count = 0
    with Server(access_logfile=str(log), transcript=str(transcript)) as server:
        for text, name in zip(ENVELOPES, [*NAMES, *NAMES, *NAMES, *NAMES, *NAMES], strict=False):
            with raw(server) as ask:
                ask(f"EHLO {name}")
                if ask(f"MAIL FROM:{text}") + ask(f"RCPT TO:{text}") == "250250":
                    ask("DATA")
                    count += ask(BODY.decode() + ".") == "250"
    lines = log.read_text().splitlines()
    assert len(lines) == count > 60
    words = [re.findall(r' (\w+)=("(?:[^"\\]|\\.)*"|\S*)', line) for line in lines]
    assert {tuple(name for name, _ in line) for line in words} == {
        ("session", "message", "peer", "helo", "user", "from", "to", "nrcpt", "size", "reply", "time", "tls")
    }
    assert all(dict(line)["user"] == "-" and dict(line)["nrcpt"] == "1" for line in words)
    assert all(re.match(r"\S+ \S+ \S+ \S+ [*CS]: ", line) for line in transcript.read_text().splitlines())


@contextmanager
def raw(server: Server) -> Iterator[Callable[[str], str]]:
    """Says what no library would: the code of each reply."""
    client = smtplib.SMTP(timeout=20)
    client.connect(server.host, server.port)
    try:
        yield lambda line: str((client.send(line.encode() + b"\r\n"), client.getreply())[1][0])
    finally:
        client.close()


# --- Forward


@pytest.mark.parametrize("lmtp", [False, True])
def test_what_is_told_to_the_next_hop_is_strict_wherever_it_can_be(lmtp: bool) -> None:
    """One hop takes all and shows what it was told, a strict one takes what has a strict form; its answer is ours."""
    rows = [*TAKEN, *ORDINARY]
    bind = f"{'lmtp' if lmtp else 'smtp'}://127.0.0.1:0"
    with FakeHop(lmtp=lmtp) as hop, Server(Forward("127.0.0.1", hop.port, lmtp=lmtp, tls="never")) as front:
        for text, address in rows:
            onward = quote_address(address)
            with raw(front) as ask:
                ask("EHLO c.test")
                assert ask(f"MAIL FROM:{text}") + ask(f"RCPT TO:{text}") == "250250"
                envelopes = [said for said in hop.commands if said.startswith(("MAIL", "RCPT"))]
                # The QUIT of the session before may come in between.
                assert envelopes[-2:] == [f"MAIL FROM:<{onward}>", f"RCPT TO:<{onward}>"]
    with (
        Server(bind=bind, address_syntax="strict", max_errors=1000) as strict,
        Server(Forward("127.0.0.1", strict.port, lmtp=lmtp, tls="never")) as front,
    ):
        for text, address in rows:
            with raw(front) as ask:
                ask("EHLO c.test")
                ask("MAIL FROM:<a@b>")
                assert ask(f"RCPT TO:{text}") == ("250" if is_mailbox(quote_address(address)) else "501"), text
    assert sum(is_mailbox(quote_address(address)) for _, address in rows) > 40
