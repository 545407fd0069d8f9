"""Clients that keep a running server waiting, in every way there is: each is let go in time, and none delays a stop.

They trickle: octet by octet, each of them long before any timeout. All of them at once, against one server.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server
from tests.tlsclient import Sealer

STEP = 0.1  # seconds between two octets
SOON = 1.0  # what clients have under stress
HOURS = "3600"  # what they have otherwise; no test waits so long
APP = """
from preforksmtp import Handler


class Mail(Handler):
    def authenticate(self, username, password):
        return False

    def message(self, message):
        pass


class Streaming(Mail):
    def stream(self, message, body):
        for block in body:
            pass
"""
NOTHING: Iterator[int] = iter(())


class Client:
    """One connection: what it has said, and what it trickles."""

    def __init__(self, server: Server, bind: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port(bind)), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sealer: Sealer | None = None
        self.rest: Iterator[int] = NOTHING
        self.heard = b""

    def ask(self, *lines: str | bytes) -> None:
        """Each line gets a reply, the first one is the greeting's; octets get none."""
        for line in lines:
            if isinstance(line, bytes):
                self._send(line)
                continue
            self._send(f"{line}\r\n".encode() if line else b"")
            reply = b""
            while not (reply.endswith(b"\r\n") and reply.splitlines()[-1][3:4] == b" "):
                reply += self._receive()

    def shake(self) -> None:
        self.sealer = Sealer()
        self.sealer.shake(self.socket)

    def _send(self, octets: bytes) -> None:
        self.socket.sendall(self.sealer.seal(octets) if self.sealer and octets else octets)

    def _receive(self) -> bytes:
        data = self.socket.recv(65536)
        assert data, "the connection ended too early"
        return self.sealer.open(data) if self.sealer else data

    def trickle(self, octets: bytes) -> None:
        """Its records, where there is TLS, and after them nothing more."""
        self.rest = iter(self.sealer.seal(octets) if self.sealer else octets)

    def over(self) -> bool:
        """Whether the server has ended it; otherwise one octet more."""
        self.socket.setblocking(False)
        try:
            while data := self.socket.recv(65536):
                self.heard += self.sealer.open(data) if self.sealer else data
            return True
        except BlockingIOError:
            pass
        except ConnectionError:
            return True
        for octet in self.rest:
            with contextlib.suppress(OSError):
                self.socket.send(bytes([octet]))
            break
        return False


ENDLESS = b"x" * 5000
GREETED = ("", "EHLO c.example.com")
BEGUN = (*GREETED, "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>")
# The bind, what is said before, what is trickled then.
PLAIN = {
    "says nothing": ("smtp", ("",), b""),
    "a command": ("smtp", GREETED, b"NOOP " + ENDLESS),
    "a command of a transaction": ("smtp", BEGUN, b"NOOP " + ENDLESS),
    "no command of a transaction": ("smtp", BEGUN, b""),
    "an endless line": ("smtp", GREETED, ENDLESS * 3),
    "no response": ("smtp", (*GREETED, "AUTH LOGIN"), b""),
    "a response": ("smtp", (*GREETED, "AUTH LOGIN"), ENDLESS),
    "no chunk": ("smtp", (*BEGUN, "BDAT 0"), b""),
    "a command between chunks": ("smtp", (*BEGUN, "BDAT 0"), ENDLESS),
    "a chunk": ("smtp", (*BEGUN, b"BDAT 9999\r\n"), ENDLESS),
    "a refused chunk": ("smtp", (*GREETED, b"BDAT 99999\r\n"), ENDLESS),
    "a body": ("smtp", (*BEGUN, "DATA"), ENDLESS),
    "no body": ("smtp", (*BEGUN, "DATA"), b""),
    "a refused body": ("smtp", (*BEGUN, "DATA"), b"bare\nnewline" + ENDLESS),
    "no hello": ("smtps", (), b""),
    "a hello": ("smtps", (), Sealer().first),
    "garbage": ("smtps", (), b"\x16\x03\x01\x20\x00\x01\x00\x10\x00" + bytes(1000)),
    "no header": ("lmtp", (), b""),
    "a header": ("lmtp", (), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2" + ENDLESS),
    "a binary header": ("lmtp", (), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + ENDLESS),
}
IDLE = frozenset({"says nothing", "a command", "an endless line", "no response", "a response", "a refused chunk", "no hello",
                  "a hello", "garbage", "no header", "a header", "a binary header"})  # fmt: skip


def begin(server: Server, names: Iterator[str]) -> dict[str, Client]:
    """All of these clients; those that speak to a plain bind a second time inside TLS."""
    clients = {}
    for name in names:
        bind, before, trickled = PLAIN[name]
        for secure in (False, True) if bind == "smtp" else (False,):
            client = clients[f"{name}{' in TLS' * secure}"] = Client(server, bind)
            if secure:
                client.ask("", "EHLO c.example.com", "STARTTLS")
                client.shake()
                before = before[1:]
            client.ask(*before)
            client.trickle(trickled)
    client = clients["nothing behind STARTTLS"] = Client(server, "smtp")
    client.ask(*GREETED, "STARTTLS")
    client = clients["the end of a handshake"] = Client(server, "smtps")
    sealer = Sealer()
    client.socket.sendall(sealer.first)
    answer = b""
    while not answer:
        answer = sealer.hear(client.socket.recv(65536))
    client.rest = chain(answer[:-1], repeat(0, 0))
    return clients


def trickle_on(clients: dict[str, Client], seconds: float) -> dict[str, float]:
    """Until all are over; when each of them was."""
    started, ends = time.monotonic(), {}
    while len(ends) < len(clients):
        now = time.monotonic() - started
        assert now < seconds, f"not let go: {sorted(set(clients) - set(ends))}"
        for name in set(clients) - set(ends):
            if clients[name].over():
                ends[name] = now
        time.sleep(STEP)  # what is tested is that they do not hurry
    return ends


def start(serve: Serve, folder: Path, certificate: Certificate, app: str, *arguments: str) -> Server:
    (folder / "app.py").write_text(APP)
    binds = [f"smtp://{LOOPBACK}?allow_insecure_auth", f"smtps://{LOOPBACK}", f"lmtp://{LOOPBACK}?proxy_protocol=127.0.0.1"]
    patience = ["--command-timeout", HOURS, "--data-timeout", HOURS, "--handshake-timeout", HOURS]
    options = [part for bind in binds for part in ("-b", bind)]
    return serve(*options, "-w", "1", *patience, *certificate.options, *arguments, f"app:{app}").ready()


@pytest.mark.parametrize("app", ["Mail", "Streaming"])
def test_under_stress_everybody_is_let_go(serve: Serve, tmp_path: Path, certificate: Certificate, app: str) -> None:
    stress = ("--stress-threshold", "0.001", "--stress-command-timeout", str(SOON), "--stress-data-timeout", str(SOON))
    server = start(serve, tmp_path, certificate, app, *stress)
    with contextlib.ExitStack() as stack:
        clients = begin(server, iter(PLAIN))
        for client in clients.values():
            stack.enter_context(client.socket)
        trickle_on(clients, PATIENCE)
        for name, client in clients.items():
            if "smtp" in PLAIN.get(name.removesuffix(" in TLS"), ("",))[0] and not {"hello", "garbage"} & {*name.split()}:
                assert client.heard.endswith(b"421 4.4.2 Timeout, closing the connection\r\n"), (name, client.heard)
        deaf = stack.enter_context(Client(server, "smtp").socket)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                deaf.sendall(b"HELP\r\n" * 900 + b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nBDAT 0 LAST\r\n")
        server.wait_for(r"timed out \(stress_command_timeout\)", count=2)
    assert "Traceback" not in server.output


def test_a_stop_waits_for_nobody_who_has_no_transaction(serve: Serve, tmp_path: Path, certificate: Certificate) -> None:
    server = start(serve, tmp_path, certificate, "Mail", "--graceful-timeout", HOURS)
    with contextlib.ExitStack() as stack:
        clients = begin(server, iter(name for name in PLAIN if name in IDLE))
        for client in clients.values():
            stack.enter_context(client.socket)
            client.over()  # an octet of what it owes is there
        server.send(signal.SIGTERM)
        trickle_on(clients, PATIENCE)
        assert server.wait() == 0
        for name, client in clients.items():
            if PLAIN.get(name.removesuffix(" in TLS"), ("",))[0] == "smtp":
                assert client.heard.endswith(b"421 4.3.2 Service shutting down, try again later\r\n"), (name, client.heard)


@pytest.mark.parametrize("app", ["Mail", "Streaming"])
def test_chunks_must_come_in_time_too(serve: Serve, tmp_path: Path, certificate: Certificate, app: str) -> None:
    server = start(serve, tmp_path, certificate, app, "--min-data-rate", "100000", "--min-data-rate-grace", str(SOON))
    with contextlib.ExitStack() as stack:
        clients = begin(server, iter(("no chunk", "a command between chunks", "a chunk", "a refused chunk", "a body")))
        for handshake in ("nothing behind STARTTLS", "the end of a handshake"):
            clients.pop(handshake).socket.close()
        for client in clients.values():
            stack.enter_context(client.socket)
        trickle_on(clients, PATIENCE)
        for name, client in clients.items():
            assert client.heard.endswith(b"421 4.4.2 Data comes too slowly, closing the connection\r\n"), name


def test_a_handshake_has_a_deadline_of_its_own(serve: Serve, tmp_path: Path, certificate: Certificate) -> None:
    server = start(serve, tmp_path, certificate, "Mail", "--handshake-timeout", str(SOON))
    with contextlib.ExitStack() as stack:
        clients = begin(server, iter(("no hello", "a hello", "garbage")))
        for client in clients.values():
            stack.enter_context(client.socket)
        trickle_on(clients, PATIENCE)
    assert server.matches("TLS handshake not begun within 1 s: does the client speak in clear?")
    assert server.matches("TLS handshake failed: the client stopped in the middle of it")


def test_a_message_before_354_is_told_so(serve: Serve, tmp_path: Path, certificate: Certificate) -> None:
    """In the same segment. Clients that pipeline what they may are served."""
    server = start(serve, tmp_path, certificate, "Mail")
    group = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
    for secure in (False, True):
        client = Client(server, "smtp")
        with client.socket:
            client.ask(*GREETED)
            if secure:
                client.ask("STARTTLS")
                client.shake()
                client.ask("EHLO c.example.com")
            client._send(group + b"BDAT 4 LAST\r\na\r\n\n" + group + b"DATA\r\n")
            heard = b""
            while b"354" not in heard:
                heard += client._receive()
            client._send(b"text\r\n.\r\n" + group + b"DATA\r\ntext\r\n.\r\nQUIT\r\n")
            while b"554" not in heard:
                heard += client._receive()
            codes = [line[:3] for line in heard.splitlines()]
            assert codes == [b"250"] * 5 + [b"354"] + [b"250"] * 3 + [b"554"]
            assert heard.endswith(b"554 5.5.0 You sent a message before the reply to DATA, closing the connection\r\n")
            wait_until(client.over, "the connection is closed")
    server.wait_for(r"sent a message before the reply to DATA \(pipelined_body\)", count=2)
