"""The service in this process: a listener on 127.0.0.1, a thread for each session, logs and counters to look at.

Everything below the worker is real: sockets, TLS, wire, dialogue, service; only processes are left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import struct
import termios
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from preforksmtp.config.load import load
from preforksmtp.connection.journal import Books, SessionJournal
from preforksmtp.connection.service import Service
from preforksmtp.connection.terms import make_terms
from preforksmtp.logs.access import open_access_log
from preforksmtp.net.bind import parse_bind
from preforksmtp.net.tls import server_context
from preforksmtp.prefork import scoreboard
from preforksmtp.prefork.worker.seat import Drain, Seat
from preforksmtp.server.app import load_app
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.hooks import Hooks
from tests.processes import PATIENCE, wait_until


class Sessions:
    """`app`: what load_app takes, a Handler class or a function. `arguments`: as on the command line.

    Tests may say all at once what a client must not: pipelined_body is "accept" unless a test says otherwise."""

    def __init__(
        self,
        app: Any,
        *arguments: str,
        bind: str = "smtp://127.0.0.1:0",
        folder: Path | None = None,
        journal: type[SessionJournal] = SessionJournal,
    ) -> None:
        if isinstance(app, str):
            hooks = load_app(app)
        else:
            is_class = isinstance(app, type) and issubclass(app, Handler)
            hooks = Hooks.of_class(app) if is_class else Hooks.of_function(app)
        if folder is not None:
            arguments = (*arguments, "--access-logfile", str(folder / "access.log"))
        ours = ["--hostname", "mx.test", "--pipelined-body", "accept"]
        settings = load([*ours, *arguments], environ={}, folder="/")
        self.folder = folder
        self.listener: socket.socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.records: list[logging.LogRecord] = []
        log = logging.Logger("sessions", logging.DEBUG)
        log.addHandler(_Collector(self.records))
        parsed = parse_bind(bind)
        view = settings.for_bind(parsed)
        context = server_context(view) if view.certfile else None
        terms = make_terms(view, parsed, self.address, context, hooks)
        self._access = open_access_log(settings)
        board = scoreboard.Scoreboard(1, 1)
        self.service = Service([terms], Books(log, self._access, 3, board.tallies.of(0)), journal=journal)
        self.tallies = lambda: board.tallies.read(0, 1)
        self.drain = Drain()
        self.row = board.slots[0].rows[0]
        self.seats: list[Seat] = []
        self._threads: list[threading.Thread] = []
        self._accepted: list[socket.socket] = []

    def begin(self) -> socket.socket:
        """Connect a client, and serve it in a thread of its own."""
        client = socket.create_connection(self.address, PATIENCE)
        accepted, peer = self.listener.accept()
        self._accepted.append(accepted)
        seat = Seat(self.row, self.drain)
        self.seats.append(seat)
        thread = threading.Thread(target=self.service.serve, args=(accepted, peer, 0, seat))
        self._threads.append(thread)
        thread.start()
        return client

    def consumed(self) -> None:
        """Wait until the server has read all that the last client sent."""
        wait_until(lambda: not _unread(self._accepted[-1]), "all is read")

    def over(self) -> None:
        """Wait for the end of the last session."""
        self._threads[-1].join(PATIENCE)
        assert not self._threads[-1].is_alive()

    def begin_drain(self) -> None:
        """What a worker's main thread does; a session may notice by itself, and be over before it is woken."""
        self.drain.begin(0.0)
        for seat in self.seats:
            line = seat.line
            with contextlib.suppress(OSError):
                if line is not None:
                    line.interrupt()

    def count(self, name: str) -> int:
        return self.row[scoreboard.COUNTERS.index(name)]

    def counts(self) -> dict[str, int]:
        return {name: self.row[index] for index, name in enumerate(scoreboard.COUNTERS) if self.row[index]}

    def logged(self, least: int = logging.INFO) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= least]

    def access_lines(self) -> list[str]:
        assert self.folder is not None
        return (self.folder / "access.log").read_text().splitlines()

    def __enter__(self) -> Sessions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.begin_drain()
        for thread in self._threads:
            thread.join(PATIENCE)
        self.listener.close()
        self._access.close()
        self.drain.close()
        if kind is None:
            assert not any(thread.is_alive() for thread in self._threads), "a session hangs"


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _unread(sock: socket.socket) -> int:
    """Octets in the kernel's queue of a socket that another thread reads, and may have closed."""
    try:
        count: int = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0]
    except (OSError, ValueError):
        return 0
    return count


def hear(client: socket.socket, last: str = "") -> str:
    """Until a complete last reply that begins with `last`; without one, until the end of the connection."""
    text = b""
    while True:
        lines = text.decode().splitlines()
        if last and text.endswith(b"\r\n") and lines[-1].startswith(f"{last} "):
            return text.decode()
        piece = client.recv(65536)
        if not piece:
            assert not last, f"the connection ended before {last}: {text!r}"
            return text.decode()
        text += piece


def reset(client: socket.socket) -> None:
    """Close with a RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
