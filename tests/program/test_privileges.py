"""--user on the running program: low port, key that only root can read, logs that a worker reopens. Needs root."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import wait_until
from tests.program.conftest import Server, Talk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that `nobody` may write to; pytest's own are closed to it."""
    path = Path(tempfile.mkdtemp())
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def low_port() -> int:
    """A port that only root may bind, free now."""
    for port in range(1023, 600, -1):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no low port is free")


def status(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def deliver(port: int) -> None:
    with Talk(port) as talk:
        talk.begin_data()
        assert talk.ask("Subject: x\r\n\r\n.").startswith("250")


def test_low_port_and_key_of_root(folder: Path, certificate: Certificate) -> None:
    port = low_port()
    key = folder / "key.pem"
    shutil.copy(certificate.keyfile, key)
    key.chmod(0o600)  # root's
    arguments = ["-b", f"127.0.0.1:{port}", "--certfile", str(certificate.certfile), "--keyfile", str(key)]
    with Server(folder, *arguments, "-u", "nobody", "-m", "027") as server:
        old = server.ready().worker()
        facts = status(old)
        assert facts["Uid"].split() == facts["Gid"].split() == [str(NOBODY)] * 4
        assert facts["Groups"].split() == [str(NOBODY)]
        assert facts["Name"] == "preforksmtp w"  # what 15 bytes hold of it
        assert (int(facts["CapEff"], 16), facts["NoNewPrivs"], facts["Umask"]) == (0, "1", "0027")
        assert status(server.pid)["Uid"].split() == ["0"] * 4
        deliver(port)
        (message,) = (folder / "Maildir" / "new").iterdir()
        assert (message.stat().st_uid, message.stat().st_gid) == (NOBODY, NOBODY)
        server.send(signal.SIGHUP)  # reads the key again, keeps the port
        server.wait_for("reload done")
        wait_until(lambda: old not in server.children(), "the old worker gone")
        assert status(server.worker())["Uid"].split() == [str(NOBODY)] * 4
        deliver(port)
        assert server.stop() == 0


def test_reopened_logs_lose_no_line(folder: Path) -> None:
    """USR1 with rename, again and again, under load: each message has its line, whole, in one of the files."""
    arguments = ["-b", "127.0.0.1:0", "-w", "2", "-u", "nobody", "preforksmtp.handlers:Discard()"]
    arguments += ["--error-logfile", "error.log", "--access-logfile", "access.log", "--access-logformat", "<%(q)s>"]
    with Server(folder, *arguments) as server:
        error_log, access_log = folder / "error.log", folder / "access.log"
        wait_until(lambda: error_log.exists() and "listening on" in error_log.read_text(), "the server ready")
        port = int(error_log.read_text().rpartition(":")[2])
        sent = 0
        lock = threading.Lock()
        enough = threading.Event()

        def load() -> None:
            nonlocal sent
            with Talk(port) as talk:
                assert talk.ask("EHLO x").startswith("250")
                while not enough.is_set():
                    for line in ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA", "Subject: x\r\n\r\n."):
                        assert talk.ask(line)[0] in "23"
                    with lock:
                        sent += 1

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(20):
            before = sent
            access_log.rename(folder / f"access.{number}")
            server.send(signal.SIGUSR1)
            wait_until(lambda: access_log.exists() and access_log.stat().st_size, "written by a worker")
            wait_until(lambda: sent > before, "load")  # noqa: B023
        enough.set()
        for thread in threads:
            thread.join()
        assert server.stop() == 0
        lines = [line for file in folder.glob("access.*") for line in file.read_text().splitlines()]
        assert len(lines) == len(set(lines)) == sent
        assert all(line.startswith("<") and line.endswith(">") for line in lines)
        # A worker may find the new file before the master has given it away; it writes to the old one until then.
        errors = [line for line in error_log.read_text().splitlines() if "[ERROR]" in line]
        assert not [line for line in errors if "the old file stays in use" not in line]
        assert access_log.stat().st_uid == NOBODY


def test_refusals(folder: Path) -> None:
    with Server(folder, "-u", "no-such-user-here") as server:
        assert server.wait() == 1
        assert server.output == "preforksmtp: error: user: there is no user 'no-such-user-here'"
    with Server(folder, "--check-config", "-g", "no-such-group-here") as server:
        assert server.wait() == 1
        assert "group: there is no group 'no-such-group-here'" in server.output
