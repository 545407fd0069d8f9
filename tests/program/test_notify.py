"""What a service manager hears of a server with sessions, and of one that hangs: sd_notify over a socket of ours."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, stat, wait_until
from tests.program.conftest import Serve, Server, Talk

APP = "preforksmtp.handlers:Discard()"


class Manager:
    """The other end of NOTIFY_SOCKET, an abstract one."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("")  # the kernel chooses an abstract name
        self.socket.settimeout(PATIENCE)
        self.address = "@" + self.socket.getsockname()[1:].decode()
        self.heard: list[str] = []

    def wait_for(self, pattern: str) -> str:
        """The next message that matches; all others are kept in `heard`."""
        while True:
            message = self.socket.recv(65536).decode()
            self.heard.append(message)
            if re.search(pattern, message):
                return message

    def pending(self) -> list[str]:
        """What has come by now."""
        messages = []
        self.socket.setblocking(False)
        try:
            while True:
                messages.append(self.socket.recv(65536).decode())
        except BlockingIOError:
            return messages
        finally:
            self.socket.settimeout(PATIENCE)


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    yield manager
    manager.socket.close()


@pytest.fixture
def notified(serve: Serve, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    def begin(*arguments: str, **environ: str) -> Server:
        for name, value in {"NOTIFY_SOCKET": manager.address, **environ}.items():
            monkeypatch.setenv(name, value)
        return serve("-b", "127.0.0.1:0", *arguments)

    return begin


def test_start_and_stop(notified: Callable[..., Server], manager: Manager, tmp_path: Path) -> None:
    """READY only once the application is loaded; then the state; STOPPING, and more time while a session drains."""
    (tmp_path / "app.py").write_text(
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\ndef handler(message): pass\n"
    )
    server = notified("-w", "2", "app")
    server.wait_for("starting 2 workers")
    manager.wait_for("^STATUS=0/2 workers, 0 sessions$")
    assert not [message for message in manager.heard if "READY" in message]
    (tmp_path / "go").touch()
    manager.wait_for("^READY=1$")
    manager.wait_for("^STATUS=2/2 workers, 0 sessions$")
    with Talk(server.port()) as talk:
        manager.wait_for("^STATUS=2/2 workers, 1 sessions$")
        talk.begin_data()
        server.send(signal.SIGTERM)
        manager.wait_for("^STOPPING=1$")
        for _ in range(2):  # as long as it takes
            assert int(manager.wait_for("^EXTEND_TIMEOUT_USEC=").partition("=")[2]) >= 2_000_000
        assert talk.ask("Subject: x\r\n\r\n.").startswith("250")
        assert talk.read().startswith("421")
    assert server.wait() == 0


def test_workers_do_not_see_it(notified: Callable[..., Server], manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os\n"
        "print('seen', sorted(name for name in os.environ if name.startswith(('NOTIFY', 'WATCHDOG'))), flush=True)\n"
        "def handler(message): pass\n"
    )
    server = notified("app", WATCHDOG_USEC="60000000").ready()
    server.wait_for(r"^seen \[\]$")
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    server.wait_for(r"^seen \[\]$", count=2)


def test_watchdog(notified: Callable[..., Server], manager: Manager) -> None:
    """A ping at half the time, from a loop that passes: not from one that is stopped."""
    server = notified(APP, WATCHDOG_USEC="1000000").ready()
    manager.wait_for("^WATCHDOG=1$")
    before = time.monotonic()
    manager.pending()  # those of the time until READY
    for _ in range(4):
        manager.wait_for("^WATCHDOG=1$")
    assert time.monotonic() - before > 1.4  # three times half a second: no more often than asked
    server.send(signal.SIGSTOP)
    wait_until(lambda: (entry := stat(server.pid)) is not None and entry[0] == "T", "stopped")
    manager.pending()
    manager.socket.settimeout(1.5)
    with pytest.raises(TimeoutError):
        manager.socket.recv(65536)
    server.send(signal.SIGCONT)
    manager.socket.settimeout(PATIENCE)
    manager.wait_for("^WATCHDOG=1$")
