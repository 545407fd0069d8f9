"""A next hop that says what it is told: an SMTP or LMTP server in threads, with a script of replies and faults."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType

from tests.processes import PATIENCE, wait_until

CLOSE = object()  # instead of a reply: close the connection
SILENCE = object()  # say nothing

Step = object  # a str (a reply without its CRLF), bytes as they are, or one of the above

KEYWORDS = ("PIPELINING", "SIZE 10000000", "8BITMIME", "ENHANCEDSTATUSCODES")
_DEFAULTS = {
    "GREETING": "220 hop.test ESMTP",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "RSET": "250 2.0.0 Ok",
    "DATA": "354 Go ahead",
    ".": "250 2.0.0 Ok: stored",
    "BDAT": "250 2.0.0 Ok: stored in a chunk",
    "QUIT": "221 2.0.0 Bye",
}


class FakeHop:
    """`script`: a verb, GREETING or "." (the final dot), and what to do each time it comes; then the defaults."""

    def __init__(
        self, script: dict[str, list[Step]] | None = None, keywords: tuple[str, ...] = KEYWORDS,
        lmtp: bool = False, path: Path | None = None, tls: tuple[ssl.SSLContext, tuple[str, ...]] | None = None,
    ) -> None:  # fmt: skip
        self.script: dict[str, list[Step]] = defaultdict(list, script or {})
        self.keywords = keywords
        self.lmtp = lmtp
        self.tls = tls  # the context for STARTTLS, and the keywords behind it
        self.commands: list[str] = []
        self.messages: list[bytes] = []  # complete, as they were on the wire, without the final dot
        self.partial: list[bytes] = []  # whose connection ended before the final dot
        self.connections = 0
        self.ended = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.port: int = self.listener.getsockname()[1]
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> FakeHop:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *self._threads):
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def verbs(self) -> list[str]:
        return [command.split()[0] for command in self.commands]

    def idle(self) -> None:
        """Wait until every connection has ended."""
        wait_until(lambda: self.ended == self.connections, "the next hop's connections have ended")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.connections += 1
                self._open.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as file, contextlib.suppress(OSError, _Over):
                _Conversation(self, sock, file).run()
        finally:
            self.ended += 1

    def step(self, verb: str) -> Step:
        return self.script[verb].pop(0) if self.script[verb] else _DEFAULTS.get(verb, "500 5.5.1 What?")


class _Over(Exception):
    pass


class _Conversation:
    def __init__(self, hop: FakeHop, sock: socket.socket, file: object) -> None:
        self.hop = hop
        self.keywords = hop.keywords
        self.sock = sock
        self.file = file
        self.recipients = 0

    def run(self) -> None:
        self.act("GREETING")
        self.converse()

    def converse(self) -> None:
        while line := self.file.readline():  # type: ignore[attr-defined]
            assert line.endswith(b"\r\n"), line
            command = line[:-2].decode()
            self.hop.commands.append(command)
            verb = command.split()[0] if command else ""
            if verb in ("EHLO", "LHLO") and not self.hop.script[verb]:
                lines = ["hop.test", *self.keywords]
                self.say("\r\n".join(f"250{' ' if i == len(lines) - 1 else '-'}{x}" for i, x in enumerate(lines)))
            elif verb == "STARTTLS" and self.hop.tls is not None:
                self.say("220 2.0.0 Go ahead")
                context, self.keywords = self.hop.tls
                with context.wrap_socket(self.sock, server_side=True) as self.sock, self.sock.makefile("rb") as self.file:
                    self.converse()
                return
            elif verb == "BDAT":
                self.chunk(int(command.split()[1]))
            else:
                self.command(verb)

    def command(self, verb: str) -> None:
        step = self.act(verb)
        accepted = isinstance(step, str) and step[0] == "2"
        if verb in ("MAIL", "RSET"):
            self.recipients = 0
        elif verb == "RCPT":
            self.recipients += accepted
        elif verb == "DATA" and isinstance(step, (str, bytes)) and step[:3] in ("354", b"354"):
            self.data()
        elif verb == "QUIT" and accepted:
            raise _Over

    def act(self, verb: str) -> Step:
        step = self.hop.step(verb)
        if step is CLOSE:
            raise _Over
        if isinstance(step, bytes):
            self.sock.sendall(step)
        elif isinstance(step, str):
            self.say(step)
        return step

    def say(self, text: str) -> None:
        self.sock.sendall(text.encode() + b"\r\n")

    def data(self) -> None:
        if self.hop.script["CONTENT"]:  # in the middle of it
            step = self.hop.script["CONTENT"].pop(0)
            if isinstance(step, str):
                self.say(step)
            raise _Over
        content = b""
        while (line := self.file.readline()) != b".\r\n":  # type: ignore[attr-defined]
            if not line:
                self.hop.partial.append(content)
                raise _Over
            content += line
        self.finished(content, ".")

    def chunk(self, size: int) -> None:
        content = self.file.read(size)  # type: ignore[attr-defined]
        if len(content) < size:
            self.hop.partial.append(content)
            raise _Over
        self.finished(content, "BDAT")

    def finished(self, content: bytes, verb: str) -> None:
        self.hop.messages.append(content)
        for _ in range(self.recipients if self.hop.lmtp else 1):
            self.act(verb)
