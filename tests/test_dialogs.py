"""The dialogues of tests/dialogs, each over a fake wire (whole and byte by byte) and with a real server."""

from __future__ import annotations

import re
import shlex
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from preforksmtp.config.load import load
from preforksmtp.config.networks import Networks
from preforksmtp.connection.terms import make_terms
from preforksmtp.net.bind import parse_bind
from preforksmtp.server.app import load_app
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.session import Endpoint, Session
from tests.certificates import Certificate
from tests.dialogs import apps
from tests.fakes import FakeWire, RecordingJournal
from tests.processes import PATIENCE, ROOT, Program
from tests.program.conftest import certificate as certificate  # the fixture

FOLDER = Path(__file__).parent / "dialogs"
SCRIPTS = sorted(FOLDER.glob("*.smtp"))
LOOPBACK = Networks(["127.0.0.1"])
HANDSHAKE = None  # in place of the octets that the client sends


@dataclass
class Script:
    """One .smtp file: turns of (what the client sends, or HANDSHAKE; what the server must say)."""

    settings: tuple[str, ...] = ()
    scheme: str = "smtp"
    app: str = "collect"
    tls: bool = False
    turns: list[tuple[bytes | None, list[str]]] = field(default_factory=lambda: [(b"", [])])
    messages: list[str] = field(default_factory=list)


def read_script(path: Path) -> Script:
    script = Script()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        kind, _, text = line.partition(" ")
        if line.startswith("# settings:"):
            script.settings = tuple(shlex.split(line.partition(":")[2]))
        elif line.startswith("# bind:"):
            script.scheme = line.partition(":")[2].strip()
        elif line.startswith("# app:"):
            script.app = line.partition(":")[2].strip()
        elif line == "# tls":
            script.tls = True
        elif line == "TLS":
            script.turns.append((HANDSHAKE, []))
        elif kind in ("C:", "C>"):
            sent = text.encode() + b"\r\n" if kind == "C:" else text.encode().decode("unicode_escape").encode("latin-1")
            before, heard = script.turns[-1]
            if before is HANDSHAKE or heard:
                script.turns.append((sent, []))
            else:
                script.turns[-1] = (before + sent, [])
        elif kind == "S:":
            script.turns[-1][1].append(text)
        elif kind == "M:":
            script.messages.append(text)
        else:
            assert not line or line.startswith("#"), f"{path.name}:{number}: {line!r}"
    return script


def matches(pattern: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("..."))), line) is not None


def compare(expected: list[str], said: list[str], where: str) -> None:
    """Line by line; a pattern "..." alone eats lines up to the one that the next pattern matches."""
    rest = list(said)
    for index, pattern in enumerate(expected):
        if pattern == "...":
            following = expected[index + 1 : index + 2]
            while rest and not (following and matches(following[0], rest[0])):
                rest.pop(0)
            continue
        assert rest, f"{where}: wanted {pattern!r}, but no more was said:\n" + "\n".join(said)
        line = rest.pop(0)
        assert matches(pattern, line), f"{where}: wanted {pattern!r}, got {line!r} in:\n" + "\n".join(said)
    assert not rest, f"{where}: more was said than wanted: {rest}"


class Listener:
    """Collects what a server says until the replies wanted are complete."""

    def __init__(self, expected: list[str], where: str) -> None:
        self.expected, self.where, self.said = expected, where, list[str]()

    def hear(self, receive: Callable[[], bytes]) -> None:
        """Read until the last expected line is there: the last wanted pattern, as the last line of a reply."""
        text = b""
        while not self._complete(text):
            piece = receive()
            if not piece:
                self.said = [*text.decode().splitlines(), "EOF"]
                break
            text += piece
            self.said = text.decode().splitlines()
        compare(self.expected, self.said, self.where)

    def _complete(self, text: bytes) -> bool:
        if not text.endswith(b"\r\n") or self.expected[-1] == "EOF":
            return False
        lines = text.decode().splitlines()
        if lines[-1][3:4] == "-":
            return False
        if "..." in self.expected:
            return matches(self.expected[-1], lines[-1])
        return len(lines) >= len(self.expected)


# --- over a fake wire


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
def test_fake(path: Path, pieces: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    script = read_script(path)
    monkeypatch.setattr(apps, "got", [])
    arguments = [*script.settings, *(certificate.options if script.tls else ()), "--hostname", "mx.example.com"]
    settings = load(arguments, environ={}, folder="/")
    bind = parse_bind(f"{script.scheme}://127.0.0.1:0")
    hooks = load_app(f"tests.dialogs.apps:{script.app}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if script.tls else None
    terms = make_terms(settings.for_bind(bind), bind, ("127.0.0.1", 25), context, hooks)
    wire = ScriptedWire(script, path.name, pieces == "bytes")
    local = Endpoint("127.0.0.1", 25)
    session = Session("s1", Endpoint("127.0.0.1", 4000), lambda: local, "", "mx.example.com", bind.lmtp)
    if bind.implicit_tls:
        assert wire.turns.pop(0) == (b"", []) and wire.turns[0][0] is HANDSHAKE, "a script of this bind begins with TLS"
        session.tls = wire.start_tls()
    dialogue = Dialogue(wire, session, terms.rules, RecordingJournal())
    dialogue.xclient, dialogue.xforward = "127.0.0.1" in terms.xclient, "127.0.0.1" in terms.xforward
    try:
        dialogue.run()
        wire.closed()
    except EOFError:
        pass
    assert not wire.turns, f"{path.name}: the session ended before {wire.turns[0]}"
    assert apps.got == script.messages


class ScriptedWire(FakeWire):
    """Says the client's next turn when the server waits, and compares what the server has said until then."""

    def __init__(self, script: Script, name: str, cut: bool) -> None:
        super().__init__([])
        self.turns = list(script.turns)
        self._name, self._piece, self._heard, self._asked = name, 1 if cut else 65536, 0, False

    def _receive(self) -> None:
        if not self._script:
            self._judge()
            if not self.turns:
                raise EOFError
            octets = self.turns[0][0]
            assert octets is not HANDSHAKE, f"{self._name}: the server reads on in place of the handshake"
            self._asked = True
            self._script = [octets[i : i + self._piece] for i in range(0, len(octets), self._piece)]
        super()._receive()

    def start_tls(self) -> Any:
        self._judge()
        assert self.turns and self.turns[0][0] is HANDSHAKE, f"{self._name}: the server begins TLS unasked"
        if self.turns[0][1]:
            self.turns[0] = (b"", self.turns[0][1])  # the greeting of a bind that is TLS from the start
        else:
            self.turns.pop(0)
        return super().start_tls()

    def _judge(self) -> None:
        """The server waits: so all that it has to say to this turn is said."""
        self.flush()
        if self.turns and (self._asked or self.turns[0][0] == b""):
            _, expected = self.turns.pop(0)
            compare([line for line in expected if line != "EOF"], self._news(), self._name)
            assert "EOF" not in expected, f"{self._name}: the server waits, but should have closed"
            self._asked = False

    def closed(self) -> None:
        self.flush()
        _, expected = self.turns.pop(0)
        compare(expected, [*self._news(), "EOF"], self._name)

    def _news(self) -> list[str]:
        news, self._heard = self.output[self._heard :], len(self.output)
        return news.decode().splitlines()


# --- with a real server


@pytest.fixture(scope="module")
def servers(certificate: Certificate) -> Iterator[Callable[[Script], tuple[Program, int]]]:
    """One server for each kind of settings; all stopped at the end, nothing left."""
    running: dict[Any, Program] = {}

    def server(script: Script) -> tuple[Program, int]:
        key = (script.settings, script.scheme, script.app, script.tls)
        if key not in running:
            command = [sys.executable, "-m", "preforksmtp", "-b", f"{script.scheme}://127.0.0.1:0"]
            command += ["--hostname", "mx.example.com", *script.settings, *(certificate.options if script.tls else ())]
            command += [f"tests.dialogs.apps:{script.app}"]
            running[key] = Program(command, cwd=ROOT)
        program = running[key]
        port = int(program.wait_for(r"listening on \S+:(\d+)")[1])
        return program, port

    yield server
    for program in running.values():
        assert program.stop() == 0
        program.assert_nothing_left()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_real(path: Path, servers: Callable[[Script], tuple[Program, int]], certificate: Certificate) -> None:
    script = read_script(path)
    program, port = servers(script)
    before = len(program.matches("^GOT "))
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    try:
        for sent, expected in script.turns:
            if sent is HANDSHAKE:
                context = ssl.create_default_context(cafile=str(certificate.certfile))
                client = context.wrap_socket(client, server_hostname="localhost")
            else:
                client.sendall(sent)
            if expected:
                Listener(expected, path.name).hear(partial(receive, client))
    finally:
        client.close()
    for number, message in enumerate(script.messages, before + 1):
        assert program.wait_for("^GOT (.*)", count=number)[1] == message
    assert len(program.matches("^GOT ")) == before + len(script.messages)


def receive(client: socket.socket) -> bytes:
    try:
        return client.recv(65536)
    except ConnectionResetError:
        return b""
