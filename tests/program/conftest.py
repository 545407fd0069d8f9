"""`python3 -m preforksmtp` under test: the program a user starts, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificate, make_certificate
from tests.processes import PATIENCE, Program

LOOPBACK = "127.0.0.1:0"  # the kernel chooses the port, the log tells it
TRACE = re.compile(rb"Return-Path: <[^\r]*>\r\nReceived: [^\r]*(?:\r\n\t[^\r]*)*\r\n")


def need(command: str) -> str:
    """The path of a client; where it is missing the test is skipped, but in CI it fails."""
    found = shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{command} is not installed, and CI skips no client")
        pytest.skip(f"needs {command}")
    return found


class Server(Program):
    """The server with these command line arguments, in the folder `folder`.

    `patch`: one line of Python that runs first, to change a constant of the program: a limit of time that is not what
    is tested, and would be over before its time on a busy machine."""

    def __init__(self, folder: Path, *arguments: str, patch: str = "", **popen: Any) -> None:
        self.folder = folder
        main = f"{patch}; import sys; from preforksmtp.cli import main; sys.exit(main())"
        program = ["-c", main] if patch else ["-m", "preforksmtp"]
        super().__init__([sys.executable, *program, *arguments], cwd=folder, **popen)

    def ready(self) -> Server:
        self.wait_for(r"master \d+: ready")
        return self

    def port(self, scheme: str = "smtp", index: int = 0) -> int:
        """The port of the index-th listener of a scheme."""
        return int(self.wait_for(rf"listening on {scheme}://\S+:(\d+)", count=index + 1)[1])

    def worker(self) -> int:
        """The process id of the only worker."""
        (pid,) = self.children()
        return pid

    def stored(self) -> list[bytes]:
        """The content of each message in ./Maildir: what stands under the trace fields that the server put on top."""
        return [read_message(file) for file in sorted((self.folder / "Maildir" / "new").glob("*"))]


def read_message(file: Path) -> bytes:
    text = file.read_bytes()
    trace = TRACE.match(text)
    assert trace is not None, f"no trace fields on top of {text[:400]!r}"
    return text[trace.end() :]


class Talk:
    """An SMTP client that says exactly what it is told."""

    def __init__(self, port: int, timeout: float = PATIENCE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")
        self.greeting = self.read()

    @classmethod
    def over(cls, sock: socket.socket, first: bytes = b"", *, greeted: bool = False) -> Talk:
        """On a connection that is there; with `first` to say before the greeting, or one that was greeted already."""
        talk = cls.__new__(cls)
        talk.socket, talk.file, talk.greeting = sock, sock.makefile("rb"), ""
        talk.send(first)
        if not greeted:
            talk.greeting = talk.read()
        return talk

    def read(self) -> str:
        """One reply, its lines joined by newlines; "" at the end of the connection."""
        lines = [self.file.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(self.file.readline())
        return b"".join(lines).decode().replace("\r\n", "\n").rstrip("\n")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return self.read()

    def begin_data(self, sender: str = "a@example.com", recipient: str = "b@example.com") -> None:
        """Everything up to the 354."""
        for line in ("EHLO client.example.com", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>"):
            answer = self.ask(line)
            assert answer.startswith("250"), answer
        answer = self.ask("DATA")
        assert answer.startswith("354"), answer

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(*arguments)`: a server in tmp_path, stopped at the end and proven gone."""
    with contextlib.ExitStack() as stack:
        started: list[Server] = []

        def begin(*arguments: str, **popen: Any) -> Server:
            server = stack.enter_context(Server(tmp_path, *arguments, **popen))
            started.append(server)
            return server

        yield begin
        for server in started:
            if server.process.poll() is None:
                server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    need("openssl")
    return make_certificate(tmp_path_factory.mktemp("certificate"))
