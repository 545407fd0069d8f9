"""A load that knows what became of each message: acknowledged, refused for now, or unclear; and what was stored.

The application `counting` appends the id of each message it gets to a file, in one write. When all is well the ids
acknowledged are the ids stored, each once, and nothing was unclear.
"""

from __future__ import annotations

import collections
import itertools
import socket
import threading
from pathlib import Path
from types import TracebackType

from tests.processes import wait_until

APP = """\
import os

VERSION = "{version}"
STORE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stored")


def handler(message):
    fd = os.open(STORE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (message.headers["Message-ID"] + "\\n").encode())
    os.close(fd)
    return f"Ok: version {{VERSION}}"
"""


STEPS = ("MAIL", "RCPT", "DATA", "body")  # before which a client waits for a moment, once a message
THINKING = 0.01


def write_app(folder: Path, version: str = "1", name: str = "app.py") -> None:
    # Never the same size as before: a .pyc counts as fresh if size and second agree.
    padding = "#" * next(_sizes)
    (folder / name).write_text(APP.format(version=version) + padding + "\n")


_sizes = itertools.count(1)


def send(sock: socket.socket, data: bytes) -> None:
    """A server that has said goodbye and closed is noticed here: what it said is still to be read."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


class Load:
    """`clients` threads that deliver one message after the other, several a session, until the end of `with`."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        folder: Path,
        clients: int = 8,
        per_session: int = 3,
        *,
        brutal: bool = False,
    ) -> None:
        """`brutal`: somebody kills workers, so sessions break off; go on all the same."""
        self.acked: list[str] = []
        self.versions: collections.Counter[str] = collections.Counter()
        self.trouble: list[str] = []  # anything but an acknowledgement or a polite 421
        self.unclear: set[str] = set()  # sent, and never answered
        self.turned_away = 0
        self._address = address
        self._store = folder / "stored"
        self._per_session = per_session
        self._brutal = brutal
        self._over = threading.Event()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.progress()
        return self

    def progress(self, messages: int = 20) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.acked) + messages
        wait_until(
            lambda: len(self.acked) >= wanted or (self.trouble and not self._brutal), f"{messages} more messages"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def assert_sound(self) -> None:
        assert not self.trouble, self.trouble[:5]
        stored = self._store.read_text().split()
        assert len(stored) == len(set(stored)), "stored twice"
        assert set(stored) == set(self.acked), "lost, or stored and not acknowledged"

    def assert_nothing_lost(self) -> None:
        """After a brutal load: what was acknowledged is stored, once; what was not may be."""
        stored = self._store.read_text().split()
        assert len(stored) == len(set(stored)), "stored twice"
        assert set(self.acked) <= set(stored), "acknowledged, and lost"
        assert set(stored) - set(self.acked) <= self.unclear

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._session()
            except OSError as error:
                self.trouble.append(f"{type(error).__name__}: {error}")
                if not self._brutal:
                    return

    def _session(self) -> None:
        """421 between transactions is what a drain does; anything else is trouble."""
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(20)
            sock.connect(self._address)
            with sock.makefile("rb") as file:
                if not self._expect(file.readline(), b"220"):
                    return
                send(sock, b"HELO client.example.com\r\n")
                if not self._expect(file.readline(), b"250"):
                    return
                for _ in range(self._per_session):
                    if self._over.is_set() or not self._message(sock, file):
                        break
                else:
                    send(sock, b"QUIT\r\n")

    def _message(self, sock: socket.socket, file: object) -> bool:
        readline = file.readline  # type: ignore[attr-defined]
        count = next(self._numbers)
        number, thinks_at = f"<{count}@load>", STEPS[count % len(STEPS)]
        self._think(thinks_at == "MAIL")
        send(sock, b"MAIL FROM:<a@example.com>\r\n")
        if not self._expect(readline(), b"250"):
            return False
        for command, code in ((b"RCPT TO:<b@example.com>\r\n", b"250"), (b"DATA\r\n", b"354")):
            self._think(command.startswith(thinks_at.encode()))
            send(sock, command)
            answer = readline()
            if not answer.startswith(code):
                self.trouble.append(f"{command!r} in an open transaction: {answer!r}")
                return False
        self._think(thinks_at == "body")
        self.unclear.add(number)
        send(sock, f"Message-ID: {number}\r\n\r\nhello\r\n.\r\n".encode())
        answer = readline()
        self.unclear.discard(number)
        if not answer.startswith(b"250"):
            self.unclear.add(number)
            self.trouble.append(f"after the final dot: {answer!r}")
            return False
        self.acked.append(number)
        self.versions[answer.decode().split()[-1]] += 1
        return True

    def _think(self, here: bool) -> None:
        """So that most clients are somewhere in a session, and the machine is not at its limit."""
        if here:
            self._over.wait(THINKING)

    def _expect(self, answer: bytes, code: bytes) -> bool:
        if answer.startswith(b"421") or (not answer and code == b"250"):
            self.turned_away += 1
            return False
        if not answer.startswith(code):
            self.trouble.append(f"expected {code!r}: {answer!r}")
            return False
        return True
