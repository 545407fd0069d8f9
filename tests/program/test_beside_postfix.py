"""What a Postfix takes, the server takes: envelopes, names in EHLO and parameters, said to both; and what a Postfix in
front of it has taken arrives. Each difference is a row here, with its reason."""

from __future__ import annotations

import os
import smtplib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Server, need
from tests.program.postfix import Postfix, over_lmtp, relaying
from tests.smtp.test_lenient import NAMES, ORDINARY, REFUSED, TAKEN

APP = """
def handler(message):
    with open("messages", "a") as file:
        file.write(f"{message.sender} {' '.join(message.recipients)}\\n")
"""
PATHS = [*(text for text, _ in (*TAKEN, *ORDINARY)), *REFUSED, "<>", "< >", '""', '<"">', "<jürgen@b.example>", "<a@ü.example>"]

# Taken by Postfix, refused here.
BLANKS, UNBALANCED, TWO = "blanks inside an address", "unbalanced", "could be two addresses"
REFUSED_HERE = {
    "<a @b>": BLANKS, "<a@ b>": BLANKS, "<a(b c)@d>": BLANKS,
    "a@b>": UNBALANCED, "<a@b>>": UNBALANCED, "<a(b@c>": UNBALANCED, "<a)b@c>": UNBALANCED, "<a]b@c>": UNBALANCED,
    "<a@[1.2.3.4>": UNBALANCED,
    "<a@b@c>": TWO, "<a@@b>": TWO, "a@b@c": TWO, "<@a@b>": TWO, "<@a:@b>": TWO, "<group:a@b;>": TWO, ",a@b": TWO, ";a@b": TWO,
    "<a@b>,,": TWO, "a@b,;x": TWO, "<a(b@c)d@e>": TWO,
    "<@b>": "no local part", "<@:c@d>": "no route", "<@a,b:c@d>": "no route", "<@a:>": "nothing", ">": UNBALANCED,
    "<()>": "nothing", "<,>": "nothing", "<;>": "nothing", ";": "nothing",
    '<"">,': "nothing", "<>;": "nothing", "<>,": "nothing",
    '<a@"b">': "a domain is not quoted", "<[1.2.3.4]>": "a domain alone", "<$(id)@b>": "commands of a shell",
    "<|/bin/sh>": "a program", "|/bin/sh": "a program", "</etc/passwd>": "a file", '<"|x y">': "a program",
    "<jürgen@b.example>": "RFC 6531 section 3.5: needs SMTPUTF8",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("beside")
    (folder / "app.py").write_text(APP)
    with Server(folder, "-b", LOOPBACK, "-b", f"lmtp://{LOOPBACK}", "--max-errors", "1000", "app") as running:
        yield running.ready()
        assert running.stop() == 0
        assert "[ERROR]" not in running.output, running.output


@pytest.fixture
def folder() -> Iterator[Path]:
    need("postfix")
    if os.geteuid():
        pytest.skip("starting a Postfix of its own needs root")
    with tempfile.TemporaryDirectory(prefix="postfix") as name:  # not below tmp_path, which only root may enter
        os.chmod(name, 0o755)
        yield Path(name)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def say(port: int, *lines: str | bytes) -> list[int]:
    """The code of each reply."""
    with smtplib.SMTP(timeout=PATIENCE) as client:
        client.connect("127.0.0.1", port)
        codes = []
        for line in lines:
            client.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
            codes.append(client.getreply()[0])
        return codes


@pytest.fixture
def listening(folder: Path) -> Iterator[int]:
    """The port of a Postfix that relays for us."""
    port = free_port()
    limits = {f"smtpd_{name}_limit": "10000" for name in ("soft_error", "hard_error", "junk_command")}
    with Postfix(folder, "[127.0.0.1]:9", port, mynetworks="127.0.0.0/8", smtpd_error_sleep_time="0", **limits) as postfix:
        wait_until(lambda: "daemon started" in postfix.read_log(), "Postfix starts")
        yield port
        postfix.stop()


def test_what_postfix_takes_is_taken(listening: int, server: Server) -> None:
    """All at once, a session each: a failure names every row."""

    def compare(kind: str, said: Callable[[int], bool], allowed: str | None) -> None:
        theirs, ours = said(listening), said(server.port())
        if theirs and not ours and allowed is None:
            different.append(f"{kind}: Postfix takes it")
        if allowed is not None and ours:
            different.append(f"{kind}: taken here")

    different: list[str] = []
    for path in PATHS:
        allowed = REFUSED_HERE.get(path)
        if any(not char.isprintable() for char in path) and path.strip(" \t") not in [text.strip(" \t") for text, _ in TAKEN]:
            continue  # control characters are refused, whatever others do
        compare(f"MAIL FROM:{path}", lambda port, path=path: say(port, "EHLO c", f"MAIL FROM:{path}")[1] == 250, allowed)
        if path not in ("<>", "< >", '""', '<"">', '<"">,', "<>,", "<>;", "<()>", "<,>", "<;>", ";"):
            compare(f"RCPT TO:{path}",
                    lambda port, path=path: say(port, "EHLO c", "MAIL FROM:<a@b>", f"RCPT TO:{path}")[2] == 250, allowed)  # fmt: skip
    for name in (*NAMES, "", " "):
        for verb in ("EHLO", "HELO"):
            compare(f"{verb} {name}", lambda port, line=f"{verb} {name}": say(port, line)[0] == 250, None)
    for line in ("MAIL\tFROM:<a@b>", "MAIL  FROM:<a@b>", "MAIL FROM: \t<a@b>\tSIZE=1", "NOOP\tx", "RSET\t", "QUIT\t", "MAIL FROM:"):
        compare(line, lambda port, line=line: say(port, "EHLO c", line)[1] < 400, None)
    for words in ("AUTH=", "AUTH=x=y", "AUTH=a+zz", "ENVID=a=b", f"ENVID={'x' * 200}", "RET=HDRS ENVID=a+3d", "BODY=8bitmime", "FOO"):
        compare(words, lambda port, words=words: say(port, "EHLO c", f"MAIL FROM:<a@b> {words}")[1] == 250, None)
    for words in ("NOTIFY=SUCCESS,", "NOTIFY=DELAY,DELAY", "ORCPT=rfc822;a+2b", "ORCPT=rfc822;", "ORCPT=rfc822;+C3+BC", "ORCPT=x;y", "FOO"):
        compare(words, lambda port, words=words: say(port, "EHLO c", "MAIL FROM:<a@b>", f"RCPT TO:<a@b> {words}")[2] == 250, None)
    assert "\n".join(different) == ""


@pytest.mark.parametrize("transport", ["smtp", "lmtp"])
def test_what_a_postfix_in_front_has_taken_arrives(folder: Path, server: Server, transport: str) -> None:
    """It names recipients in UTF-8 in an ORCPT of the type rfc822 (RFC 6533 section 3 wants utf-8)."""
    settings = over_lmtp(server) if transport == "lmtp" else {}
    paths = ["<bounces+" + "1" * 62 + "@example.com>", "<a..b@docomo.example>", "<ilo.@example.com>", "<root@web_1.compose_default>",
             "<a@b.example.>", "a@b.example", "<jürgen@exämple.com>", "<müller@example.com>", "<用户@例子.example>"]  # fmt: skip
    port, marker = free_port(), f"from-{transport}@example.com"
    with relaying(folder, server, f"[127.0.0.1]:{server.port()}", port, mynetworks="127.0.0.0/8", **settings) as postfix:
        recipients = [f"RCPT TO:{path}" for path in paths]
        codes = say(port, "EHLO c", f"MAIL FROM:<{marker}> SMTPUTF8 BODY=8BITMIME", *recipients, "DATA",
                    "Subject: Grüße\r\n\r\nx\r\n.")  # fmt: skip
        assert codes == [250, 250, *[250] * len(paths), 354, 250]
        wait_until(lambda: postfix.read_log().count("status=sent") >= len(paths), "all is delivered")
        assert postfix.read_log().count("status=") == len(paths)
    lines = (server.folder / "messages").read_text().splitlines()
    seen = sorted(word for line in lines if line.startswith(f"{marker} ") for word in line.split()[1:])
    assert seen == sorted(
        ["bounces+" + "1" * 62 + "@example.com", '"a..b"@docomo.example', '"ilo."@example.com', "root@web_1.compose_default",
         "a@b.example", "a@b.example", "jürgen@exämple.com", "müller@example.com", "用户@例子.example"]
    )  # fmt: skip
