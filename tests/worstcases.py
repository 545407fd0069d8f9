"""Worst cases of every parser that a client reaches: the generators of tests/test_cost.py and loadtest/cost.py.

A case makes, for a number of octets, a function that parses that much; what it raises does not matter. `most` is the
longest input that the parser is ever given: 64 KiB of it are so many times as much work.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import logging
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from preforksmtp.logs.escaping import escape
from preforksmtp.net.client_hello import MOST_OCTETS, HelloReader
from preforksmtp.net.proxy import SIGNATURE, V1_OCTETS, crc32c, parse_v1, parse_v2
from preforksmtp.net.wire import Wire
from preforksmtp.observe import web
from preforksmtp.smtp import address, chunks, command, parameters, sasl, xclient
from preforksmtp.smtp.body import DataReader
from preforksmtp.smtp.delivery import BodyStream
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.reply import Reject
from preforksmtp.smtp.syntax import SYNTAXES, Syntax
from preforksmtp.smtp.trace import received
from tests.fakes import FakeWire, RecordingJournal, talk
from tests.net.pacing import within

LINE, ENVELOPE = command.COMMAND_LINE_OCTETS - 2, command.ENVELOPE_LINE_OCTETS - 2
RESPONSE, BODY = command.AUTH_LINE_OCTETS - 2, 65536
Run = Callable[[], object]


class Case(NamedTuple):
    name: str
    most: int
    make: Callable[[int], Run]


def fill(unit: Any, size: int, begin: Any = None, end: Any = None) -> Any:
    """`begin`, then the unit as often as there is room for it, then `end`: so many octets, of text as UTF-8."""
    begin, end = begin or unit[:0], end or unit[:0]
    octets = [len(part.encode() if isinstance(part, str) else part) for part in (begin, unit, end)]
    return begin + unit * max(0, (size - octets[0] - octets[2]) // octets[1]) + end


def of(parse: Callable[[Any], object], unit: Any, begin: Any = None, end: Any = None) -> Callable[[int], Run]:
    return lambda size: lambda text=fill(unit, size, begin, end): parse(text)  # type: ignore[misc]


# --- commands


def lines(parse: Callable[[Any], object], name: str, texts: list[tuple[str, str, str]], most: int = LINE) -> Iterator[Case]:
    """`texts`: unit, begin, end."""
    for unit, begin, end in texts:
        yield Case(f"{name} {begin}{unit * 2}..{end}", most, of(parse, unit, begin, end))


PATHS = [
    ("a.", "<", "@b.test>"), ("a.", "<", ""), ("a", "<", "@b.test>"), ("a", "", ""), ("\\a", '<"', '"@b.test>'), ("\\", '<"', ""),
    ('"', "<", "@b>"), ("b-", "<a@", ">"), ("-", "<a@", "b>"), ("b.", "<a@", "b>"), ("@a,", "<", "@b:a@b>"), ("@a.b,", "<", ""),
    ("@", "<", ">"), ("<", "", ""), (">", "<a@b", ""), ("> ", "<a", ""), (" ", "<a@b>", ""), (":", "<a@[IPv6:", "]>"),
    ("1:", "<a@[IPv6:", "]>"), ("[", "<a@", "]>"), ("é", "<", "@b.test>"), ("例.", "<a@", "test>"), ("\t", "<", ">"), ("a b ", "<", ">"),
]  # fmt: skip
PARAMETERS = [
    ("A=b ", " ", ""), ("A ", " ", ""), ("=", " A", ""), (" ", " ", "A"), ("A-", " ", "=b"), ("é", " A=", ""),
    ("SIZE=1 ", " ", ""), ("\t", " ", "A=1"),
]  # fmt: skip
XTEXT = [("+41", "", ""), ("+", "", ""), ("a", "", "+"), ("+4", "", ""), ("+2B", "", "=")]
VALUES = [
    ("1", "", ""), ("+41", "rfc822;", ""), ("\\x{41}", "utf-8;", ""), ("-", "A", ";x"), ("NEVER,", "", ""), ("SUCCESS,", "", "DELAY"),
    ("9", "2026-01-01T00:00:00.", "Z"), (";", "", ""), ("é", "utf-8;", ""),
]  # fmt: skip
ATTRIBUTES = [("NAME=a ", "", ""), ("NAME=+41", "", ""), ("ADDR=IPV6:", "", "::1"), ("HELO=a.", "", ""), (" ", "", "A=b"), ("=", "NAME", "")]
NAMES = [("a.", "", "a"), ("-", "a", "a"), (":", "[IPv6:", "]"), ("1.", "[", "]"), ("a", "[a:", "]"), (" ", "a", "b"), ("é", "", "")]


def uncached(parse: Any) -> Callable[[str], object]:
    """What remembers its answers is measured without."""
    return getattr(parse, "__wrapped__", parse)


def of_attributes(known: Any, syntax: Syntax) -> Callable[[str], object]:
    return lambda text: xclient._parse(text, known, syntax)


def commands() -> Iterator[Case]:
    for unit in (b"a", b" ", b"\t", b"\0", b"\xff", "é".encode(), "\u200d".encode(), b"\r", b"\x7f"):
        yield Case(f"command line {unit!r}", LINE, of(command.decode, unit, b"NOOP ", b"\r\n"))
        yield Case(f"lenient command line {unit!r}", ENVELOPE, of(command.decode_lenient, unit, b"NOOP ", b"\r\n"))
    for name, syntax in SYNTAXES.items():
        yield from lines(syntax.parse_parameters, f"{name} parameters", PARAMETERS, ENVELOPE)
        yield from lines(uncached(syntax.read_sender), f"{name} sender", PATHS, ENVELOPE)
        yield from lines(uncached(syntax.read_recipient), f"{name} recipient", PATHS, ENVELOPE)
        yield from lines(syntax.is_helo, f"{name} helo name", NAMES)
        yield from lines(lambda text, find=syntax.find_path: find(text, "TO"), f"{name} path", [(" ", "", ""), ("TO ", "", "")], ENVELOPE)
    yield from lines(address.is_domain, "domain", NAMES)
    yield from lines(parameters.decode_xtext, "xtext", XTEXT)
    for name, row in (*parameters.MAIL_PARAMETERS.items(), *parameters.RCPT_PARAMETERS.items()):
        yield from lines(row.read, f"{name}=", VALUES, ENVELOPE)
        if row.lenient is not None:
            yield from lines(row.lenient, f"lenient {name}=", VALUES, ENVELOPE)
    for name, known in (("XCLIENT", xclient.XCLIENT_ATTRIBUTES), ("XFORWARD", xclient.XFORWARD_ATTRIBUTES)):
        for kind, syntax in SYNTAXES.items():
            yield from lines(of_attributes(known, syntax), f"{kind} {name}", ATTRIBUTES)
    yield from lines(chunks.parse_chunk, "BDAT", [("9", "", ""), (" ", "1", "LAST"), ("1 ", "", ""), ("LAST ", "1 ", "")])
    yield from lines(escape, "log", [("\x1b", "", ""), ("é", "", ""), ("\u2028", "", ""), ("a", "", "")])


# --- dialogues: what a client says as a whole


class Anybody(Handler):
    """Offers all that there is; SCRAM's work is not the client's input."""

    def password(self, username: str) -> str | None:
        return "secret"

    def token(self, username: str, token: str) -> bool:
        return False

    def certificate(self, certificate: Any) -> None:
        return None

    def message(self, message: Any) -> None:
        received(message)


def conversation(script: list[Any]) -> Run:
    def trust(dialogue: Any) -> None:
        dialogue.xclient = dialogue.xforward = True

    rules: dict[str, Any] = {"max_errors": 0, "max_auth_failures": 0, "max_idle_commands": 0, "allow_insecure_auth": True}
    return lambda: talk(script, Anybody, before=trust, **rules)


def response(mechanism: str, unit: bytes, begin: bytes = b"", end: bytes = b"") -> Callable[[int], Run]:
    """An AUTH exchange whose one response has so many octets of base64."""

    def make(size: int) -> Run:
        octets = fill(unit, size * 3 // 4 - 20, begin, end)
        return conversation(["EHLO c.test", f"AUTH {mechanism} {base64.b64encode(octets).decode()}"])

    return make


def second_response(mechanism: str, first: bytes, unit: bytes, begin: bytes = b"", end: bytes = b"") -> Callable[[int], Run]:
    def make(size: int) -> Run:
        octets = fill(unit, size * 3 // 4, begin, end)
        both = [base64.b64encode(part).decode() for part in (first, octets)]
        return conversation(["EHLO c.test", f"AUTH {mechanism} {both[0]}", both[1]])

    return make


def exchanges() -> Iterator[Case]:
    for unit in ("A", "=", "*", " ", "é", "+/"):
        yield Case(f"base64 {unit}", RESPONSE, of(sasl.decode_response, unit))
    for unit in (b"\0", b"a", "é".encode(), b"\xff"):
        yield Case(f"PLAIN {unit!r}", RESPONSE, response("PLAIN", unit, b"\0a\0"))
        yield Case(f"LOGIN {unit!r}", RESPONSE, response("LOGIN", unit))
    for name in ("SCRAM-SHA-256", "SCRAM-SHA-1"):
        for unit, begin in ((b"x", b"n,,n="), (b"=2C", b"n,,n="), (b",a=b", b"n,,n=u,r=x"), (b",", b"n,"), (b"x", b"n,,n=u,r=")):
            yield Case(f"{name} {begin!r} {unit!r}", RESPONSE, response(name, unit, begin))
        for unit, begin in ((b",a=b", b"c=biws,r=x"), (b"A", b"c=biws,r=x,p="), (b"A", b"c=")):
            yield Case(f"{name} proof {begin!r} {unit!r}", RESPONSE, second_response(name, b"n,,n=u,r=x", unit, begin))
    for unit, end in ((b"a=b\1", b"\1"), (b"\1", b""), (b"=", b"\1\1")):
        yield Case(f"XOAUTH2 {unit!r}", RESPONSE, response("XOAUTH2", unit, b"user=u\1auth=Bearer x\1", end))
        yield Case(f"OAUTHBEARER {unit!r}", RESPONSE, response("OAUTHBEARER", unit, b"n,a=u,\1auth=Bearer x\1", end))
    yield Case("OAUTHBEARER name", RESPONSE, response("OAUTHBEARER", b"=2C", b"n,a=", b",\1auth=Bearer x\1\1"))
    yield Case("CRAM-MD5", RESPONSE, lambda size: conversation(["EHLO c.test", "AUTH CRAM-MD5", fill("IGEg", size)]))


# --- the wire


class Octets:
    """A socket from which all of a text can be read, so many octets at a time."""

    def __init__(self, text: bytes, step: int = 65536) -> None:
        self._text, self._at, self._step = text, 0, step

    def recv(self, size: int) -> bytes:
        start, self._at = self._at, self._at + min(size, self._step)
        return self._text[start : self._at]

    def send(self, data: bytes, flags: int = 0) -> int:
        return len(data)

    def setsockopt(self, *arguments: object) -> None:
        """The kernel has no part in this."""


class NoDrain:
    requested = leaving = False
    fd = notice = -1


def read_lines(text: bytes, step: int = 65536, reply: bytes = b"") -> Run:
    def run() -> None:
        wire = Wire(Octets(text, step), NoDrain(), within(300.0))  # type: ignore[arg-type]
        with contextlib.suppress(EOFError):
            while True:
                wire.read_line(2048)
                wire.write(reply)

    return run


def read_chunks(size: int) -> Run:
    """A message in chunks of 255 octets, in one segment behind the end of another."""

    def run() -> None:
        wire = Wire(Octets(fill(b"BDAT 255\r\n" + b"x" * 255, size)), NoDrain(), within(300.0))  # type: ignore[arg-type]
        wire.push_back(wire.read_block(65536))
        with contextlib.suppress(EOFError):
            while wire.read_line(2048):
                left = 255
                while left:
                    left -= len(wire.read_block(left))

    return run


def wires() -> Iterator[Case]:
    yield Case("one endless line", BODY, lambda size: read_lines(b"x" * size))
    yield Case("long lines in small pieces", BODY, lambda size: read_lines(fill(b"x" * 2046 + b"\r\n", size), 256))
    yield Case("lines of 64 octets, long replies", BODY, lambda size: read_lines(fill(b"x" * 62 + b"\r\n", size), reply=b"y" * 500))
    yield Case("chunks behind a message", BODY, read_chunks)


# --- bodies


def drain(size: int, unit: bytes, step: int, **options: Any) -> Run:
    text = fill(unit, size)
    pieces = [text[start : start + step] for start in range(0, size, step)]

    def run() -> None:
        reader = DataReader(FakeWire([*pieces, b"\r\n.\r\n"]), 0, options.get("strict", True), options.get("line_limit", 0))
        reader.drain()

    return run


def stream(size: int, unit: bytes, read: Callable[[BodyStream], object]) -> Run:
    def run() -> None:
        reader = DataReader(FakeWire([fill(unit, size), b"\r\n.\r\n"]), 0, False)
        body = BodyStream(reader, None, RecordingJournal())
        while read(body):
            pass

    return run


UNITS = (
    b"\n", b"\r", b"\r\n", b"\r\n.", b"\r\n..", b"\0", b"\n\0", b"\n.", b".\0", b"\n\0\0\0\0.", b"\r\n\0.", b".", b"x", b"\r\r\n", b"\n" + b"\0" * 64,
    b"\n" + b"\0" * 64 + b"." + b"\0" * 64, b"\r\n.\r", b"x" * 76 + b"\r\n",
)  # fmt: skip


def bodies() -> Iterator[Case]:
    for unit in UNITS:
        name = f"{unit!a}" if len(unit) < 10 else f"{unit[:4]!a}..{len(unit)}"
        for step in (65536, 1024):
            yield Case(f"body {name} by {step}", BODY, lambda size, unit=unit, step=step: drain(size, unit, step))  # type: ignore[misc]
        yield Case(f"body {name}, newlines accepted", BODY, lambda size, unit=unit: drain(size, unit, 65536, strict=False))  # type: ignore[misc]
        yield Case(f"body {name}, lines limited", BODY, lambda size, unit=unit: drain(size, unit, 65536, line_limit=10))  # type: ignore[misc]
    yield Case("stream in small reads", BODY, lambda size: stream(size, b"x", lambda body: body.read1(64)))
    yield Case("stream in lines", BODY, lambda size: stream(size, b"x" * 62 + b"\r\n", lambda body: body.readline()))


# --- before the first word, and beside it


def hello(extensions: bytes) -> bytes:
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + struct.pack("!H", len(extensions)) + extensions
    message = b"\1" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\3\1" + struct.pack("!H", len(message)) + message


def hello_of(unit: bytes, kind: int, prefix: Callable[[bytes], bytes]) -> Callable[[int], Run]:
    def make(size: int) -> Run:
        content = prefix(fill(unit, size - 80 - (size - 80) % len(unit)))
        extension = content if kind < 0 else struct.pack("!HH", kind, len(content)) + content
        sent = hello(extension)
        return lambda: HelloReader().read(sent)

    return make


def v2(tlvs: bytes, checksum: bool) -> bytes:
    block = bytes(12)
    length = len(block) + len(tlvs) + 7 * checksum
    header = SIGNATURE + b"\x21\x11" + struct.pack("!H", length) + block + tlvs
    if checksum:
        zero = header + b"\3\0\4" + bytes(4)
        return zero[:-4] + struct.pack("!I", crc32c(zero))
    return header


class Page:
    """Of a status page, what does not matter here."""

    def answer(self, target: str) -> web.Answer:
        return web.Answer(200, "text/plain", "ok")


SITE: Any = Page()


def before() -> Iterator[Case]:
    counted: Callable[[bytes], bytes] = lambda content: struct.pack("!H", len(content)) + content  # noqa: E731
    yield Case("ClientHello, extensions", MOST_OCTETS, hello_of(b"\x12\x34\0\0", -1, lambda content: content))
    yield Case("ClientHello, protocols", MOST_OCTETS, hello_of(b"\1x", 16, counted))
    yield Case("ClientHello, empty protocols", MOST_OCTETS, hello_of(b"\0", 16, counted))
    yield Case("ClientHello, names", MOST_OCTETS, hello_of(b"\0\0\1x", 0, counted))
    yield Case("ClientHello, half", MOST_OCTETS, lambda size: lambda: HelloReader().read(hello(bytes(size))[: size - 1]))
    for words in ("TCP4 1.2.3.4 ", "TCP6 :", "UNKNOWN ", " "):
        yield Case(f"PROXY {words}", V1_OCTETS, of(parse_v1, words.encode(), b"PROXY ", b"\r\n"))
    for name, checksum in (("TLVs", False), ("TLVs and checksum", True)):
        for unit in (b"\4\0\0", b"\4\0\1x", b"\4\1\0" + bytes(256)):
            yield Case(
                f"PROXY v2, {name} of {len(unit)}", 65536 - 64,
                lambda size, unit=unit, checksum=checksum: lambda header=v2((unit * size)[: size - size % len(unit)], checksum): parse_v2(header),
            )  # type: ignore[misc]  # fmt: skip
    for unit in (b"X: y\r\n", b"x", b"\r", b" ", b":", b"\r\n "):
        request: Any = lambda octets: web._Request(octets, SITE, logging.getLogger("tests"))  # noqa: E731
        yield Case(f"HTTP {unit!r}", web.MOST_OCTETS, of(request, unit, b"GET / HTTP/1.1\r\n", b"\r\n\r\n"))


CASES = list(itertools.chain(commands(), exchanges(), wires(), bodies(), before()))


def seconds(case: Case, size: int, rounds: int = 3) -> float:
    """The CPU time of one run, the best of some."""
    run, best = case.make(size), float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        with contextlib.suppress(Reject, ConnectionError, ValueError):
            run()
        best = min(best, time.thread_time() - began)
    return best


def per_64_kib(case: Case, rounds: int = 3) -> float:
    """The CPU time of 64 KiB of the worst input."""
    return seconds(case, case.most, rounds) * 65536 / case.most
