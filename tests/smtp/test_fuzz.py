"""Seeded, bounded fuzzing of whole dialogues and of each parser alone.

Invariants: only well-formed replies (tests.fakes.split_replies judges each), nothing is raised but what a connection may
raise, and exactly the messages that were acknowledged reach the application. A bug found here becomes a row elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from preforksmtp.smtp import address, chunks, command, parameters, xclient, xtext
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.syntax import SYNTAXES
from tests.fakes import talk

GRAMMAR = [
    b"EHLO client.example\r\n", b"HELO [192.0.2.1]\r\n", b"MAIL FROM:<a@example.com>\r\n",
    b"MAIL FROM:<> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=a+2Bb SMTPUTF8\r\n", b"RCPT TO:<b@example.org>\r\n",
    b'RCPT TO:<"q s"@[IPv6:::1]> NOTIFY=NEVER ORCPT=rfc822;x\r\n', b"RCPT TO:<Postmaster>\r\n", b"DATA\r\n",
    b"Subject: x\r\n\r\n..text\r\n.\r\n", b".\r\n", b"BDAT 5\r\nhello", b"BDAT 3 LAST\r\nbye", b"BDAT 0 LAST\r\n",
    b"RSET\r\n", b"NOOP x\r\n", b"VRFY x\r\n", b"EXPN x\r\n", b"HELP\r\n", b"AUTH PLAIN AGIAcw==\r\n", b"AUTH LOGIN\r\n",
    b"Yg==\r\n", b"*\r\n", b"STARTTLS\r\n", b"XCLIENT ADDR=192.0.2.9 NAME=a.example\r\n", b"XFORWARD HELO=x\r\n",
    b"EHLO M\xdcLLER (x) ;y\r\n", b"MAIL\tFROM: a..b@c_d. AUTH=+ ENVID=x=y\r\n", b'RCPT TO:\t<< a."b c"@d- >> ORCPT=rfc822;+c3+bc\r\n',
    b"QUIT\r\n", b"\r\n", b"\n", b"\0", b"\xff\xfe", b"GET / HTTP/1.1\r\n", b"A" * 3000, b"MAIL FROM:<" + b"a" * 300,
]  # fmt: skip


def mutate(chance: random.Random, octets: bytes) -> bytes:
    text = bytearray(octets)
    for _ in range(chance.randrange(3)):
        place = chance.randrange(len(text) + 1)
        kind = chance.randrange(3)
        if kind == 0:
            text[place:place] = chance.choice(
                [b"\r", b"\n", b"\0", b".", b"\r\n.\r\n", b" ", b"<", b"=", b"\x80", b"\t"]
            )
        elif kind == 1:
            del text[place : place + chance.randrange(1, 4)]
        elif place < len(text):
            text[place] = chance.randrange(256)
    return bytes(text)


def dialogue(seed: int) -> bytes:
    """Mostly in a sensible order, so that fuzz gets into transactions; each piece may be hurt."""
    chance = random.Random(seed)
    sensible = [GRAMMAR[0], GRAMMAR[2], GRAMMAR[4], chance.choice([GRAMMAR[7] + GRAMMAR[8], GRAMMAR[10] + GRAMMAR[11]])]
    pieces = [chance.choice(GRAMMAR) if chance.random() < 0.3 else piece for piece in sensible * chance.randrange(1, 4)]
    return b"".join(mutate(chance, piece) if chance.random() < 0.4 else piece for piece in pieces)


class App(Handler):
    kept: list[str]

    def authenticate(self, username: str, password: str) -> bool:
        return username == "b"

    def message(self, message: Any) -> str:
        assert message.size == len(message.content)
        assert message.recipients
        assert all(part.isprintable() for part in (message.sender, *message.recipients))
        self.kept.append(message.id)
        return f"kept {message.id}"


class Streaming(App):
    def stream(self, message: Any, body: Any) -> None:
        for _ in body:
            pass


@pytest.mark.parametrize("app", [App, Streaming])
@pytest.mark.parametrize("block", range(8))
def test_dialogues(app: type[App], block: int) -> None:
    for seed in range(block * 150, (block + 1) * 150):
        kept: list[str] = []
        handler = type("Fuzzed", (app,), {"kept": kept})
        sent = dialogue(seed)

        def trust(dialogue: Any) -> None:
            dialogue.xclient = dialogue.xforward = True

        spoken = talk(
            sent, handler, cut=seed % 7, before=trust, max_errors=0, allow_insecure_auth=True, offer_tls=True,
            max_message_size=2000, max_auth_failures=0, address_syntax=("lenient", "strict")[seed % 2],
        )  # fmt: skip
        assert not spoken.journal.named("handler_failed"), f"seed {seed}: {sent!r}"
        acknowledged = [reply.rpartition(" ")[2] for reply in spoken.replies if reply.startswith("250 2.0.0 kept")]
        assert acknowledged == kept, f"seed {seed}: {sent!r}"


PARSERS: list[tuple[str, Callable[[str], object], list[str]]] = [
    ("reverse path", address.read_reverse_path, ["<>", "<a@b.c>", '<"a b\\""@[1.2.3.4]>', "<@a.b,@c.d:e@f.g>", "<a@[IPv6:::1]>"]),
    ("forward path", address.read_forward_path, ["<Postmaster>", "<a@b.c>", "<é@例.jp>", "<a@[x:y]>"]),
    ("parameters", command.parse_parameters, [" SIZE=1 BODY=8BITMIME", " A=b C", " RET=FULL ENVID=x+2By"]),
    ("lenient parameters", SYNTAXES["lenient"].parse_parameters, ["\tSIZE=1 BODY=8BITMIME", " A= C", " RET=FULL\tENVID=x=y"]),
    ("xtext", xtext.decode_xtext, ["abc+2B", "+00", "a=b", "x" * 200]),
    ("lenient xtext", xtext.decode_lenient_xtext, ["abc+2b", "+00", "a=b", "j+C3+BCrg", "+C3"]),
    ("chunk", chunks.parse_chunk, ["1", "0 LAST", "99999999999999999999", "-1", "1 2 3"]),
    ("helo", address.is_helo_name, ["a.b", "[1.2.3.4]", "[IPv6:::1]", "a_b."]),
    ("xclient", lambda text: xclient._parse(text, xclient.XCLIENT_ATTRIBUTES, SYNTAXES["lenient"]), ["ADDR=1.2.3.4 NAME=a.b PORT=1", "LOGIN=x"]),
    *(
        (name, (lambda read: lambda text: read(text or None))(row.read), ["1", "FULL", "rfc822;a@b", "120;R", "2026-01-01T00:00:00Z", "NEVER"])
        for table in (parameters.MAIL_PARAMETERS, parameters.RCPT_PARAMETERS)
        for name, row in table.items()
    ),
    *(
        (f"lenient {name}", (lambda read: lambda text: read(text or None))(row.lenient), ["1", "FULL", "rfc822;a@b", "a+c3+bc", "NEVER"])
        for table in (parameters.MAIL_PARAMETERS, parameters.RCPT_PARAMETERS)
        for name, row in table.items()
        if row.lenient
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parse", "originals"), PARSERS, ids=[name for name, _, _ in PARSERS])
def test_parsers(name: str, parse: Callable[[str], object], originals: list[str]) -> None:
    """A value or a Reject with 4xx or 5xx, whatever the text."""
    chance = random.Random(name)
    for _ in range(1500):
        text = mutate(chance, chance.choice(originals).encode()).decode("utf-8", "ignore")
        try:
            parse(text)
        except Reject as refusal:
            assert 400 <= refusal.reply.code < 600


# --- chunks, and LMTP

CHUNKS = [
    b"BDAT 5\r\nhello", b"BDAT 0\r\n", b"BDAT 3 LAST\r\nbye", b"BDAT 0 LAST\r\n", b"BDAT 4096\r\n" + b"x" * 4096, b"BDAT 7\r\nab\r\n.\r\n",
    b"BDAT 9 LAST\r\nRSET\r\n.\r\n", b"BDAT\r\n", b"BDAT 5 last\r\n12345", b"bdat 1\r\n\0", b"BDAT -1\r\n", b"BDAT 1 2 3\r\n",
    b"BDAT 99999999999999999999999\r\n", b"BDAT 2001\r\n" + b"y" * 2001, b"NOOP\r\n", b"RSET\r\n", b"DATA\r\n", b"VRFY x\r\n", b"QUIT\r\n",
    b"LHLO again.example\r\n", b"MAIL FROM:<c@example.com>\r\n", b"STARTTLS\r\n", b"\r\n", b"BDAT 3\r\nab",
]  # fmt: skip


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("app", [App, Streaming])
def test_chunks(app: type[App], lmtp: bool) -> None:
    """What a client counts as content is never run as a command, and what is acknowledged is what it sent."""
    for seed in range(600):
        chance = random.Random(seed)
        kept: list[str] = []
        handler = type("Fuzzed", (app,), {"kept": kept})
        hello = b"LHLO c.example\r\n" if lmtp else b"EHLO c.example\r\n"
        begun = [hello, b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.org>\r\n"]
        pieces = []
        for _ in range(chance.randrange(1, 4)):
            pieces += begun[bool(pieces) :] if chance.random() < 0.9 else begun
            pieces += [chance.choice(CHUNKS) for _ in range(chance.randrange(1, 6))]
        sent = b"".join(mutate(chance, piece) if chance.random() < 0.1 else piece for piece in pieces)
        spoken = talk(
            sent, handler, cut=seed % 5, lmtp=lmtp, max_errors=0, max_message_size=5000, offer_tls=True, spool_threshold=1000,
        )  # fmt: skip
        assert not spoken.journal.named("handler_failed"), f"seed {seed}: {sent!r}"
        acknowledged = [reply.rpartition(" ")[2] for reply in spoken.replies if reply.startswith("250 2.0.0 kept")]
        assert sorted(set(acknowledged)) == sorted(kept), f"seed {seed}: {sent!r}"


@pytest.mark.parametrize("block", range(4))
def test_lmtp_dialogues(block: int) -> None:
    """A reply for each recipient, and no other after a message."""
    for seed in range(block * 100, (block + 1) * 100):
        kept: list[str] = []
        handler = type("Fuzzed", (App,), {"kept": kept})
        sent = dialogue(seed).replace(b"EHLO", b"LHLO")
        spoken = talk(sent, handler, cut=seed % 7, lmtp=True, max_errors=0, max_message_size=2000)
        assert not spoken.journal.named("handler_failed"), f"seed {seed}: {sent!r}"
        acknowledged = [reply.rpartition(" ")[2] for reply in spoken.replies if reply.startswith("250 2.0.0 kept")]
        assert sorted(set(acknowledged)) == sorted(kept), f"seed {seed}: {sent!r}"


def test_whole_chunks_are_kept_as_they_were_sent() -> None:
    """Of any size, cut anywhere by the network and by the client."""
    for seed in range(150):
        chance = random.Random(seed)
        content = chance.randbytes(chance.choice((0, 1, 5, 300, 4096, 9000)))
        cuts = sorted(chance.randrange(len(content) + 1) for _ in range(chance.randrange(4)))
        parts = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
        sent = b"".join(b"BDAT %d%s\r\n%s" % (len(part), b" LAST" * (n == len(parts) - 1), part) for n, part in enumerate(parts))
        seen: list[bytes] = []

        class Keep(Handler):
            def message(self, message: Any) -> None:
                seen.append(message.open().read())  # noqa: B023 - called at once

        begun = b"EHLO c.example\r\nMAIL FROM:<a@example.com> BODY=BINARYMIME\r\nRCPT TO:<b@example.org>\r\n"
        spoken = talk(begun + sent + b"NOOP\r\nQUIT\r\n", Keep, cut=chance.choice((0, 1, 7, 1000)), spool_threshold=1000)
        assert seen == [content], f"seed {seed}"
        assert spoken.codes[-3:] == [250, 250, 221]
