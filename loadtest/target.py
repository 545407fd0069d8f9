"""The server under load: `preforksmtp` with an application that takes everything, on free ports of 127.0.0.1.

Used by run.py and bench.py; standard library only. Fails with SystemExit and the server's own output where it does not
start.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
USER, PASSWORD = "load", "test"

APP = f"""
from preforksmtp import Handler


class Sink(Handler):
    def authenticate(self, username, password):
        return (username, password) == ({USER!r}, {PASSWORD!r})

    def message(self, message):
        pass
"""


class Target:
    """A running server; `ports` is by scheme: smtp (with STARTTLS and AUTH where tls is asked for), smtps.

    `source`: of another application than the one that takes everything; `binds`: other binds, one of a scheme;
    `expected`: exceptions that the error log may have."""

    def __init__(
        self,
        *arguments: str,
        app: str = "preforksmtp.handlers:Discard()",
        tls: bool = False,
        source: str = APP,
        binds: Sequence[str] = (),
        expected: Sequence[str] = (),
    ) -> None:
        self.ports: dict[str, int] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="preforksmtp-load")
        binds = binds or ["smtp://127.0.0.1:0", "smtps://127.0.0.1:0"][: 1 + tls]
        command = [sys.executable, "-m", "preforksmtp", *arguments, *(part for bind in binds for part in ("-b", bind))]
        if tls:
            (Path(self._folder.name) / "sink.py").write_text(source)
            command += self._make_certificate()
            app = "sink:Sink"
        self._process = subprocess.Popen(
            [*command, app],
            cwd=self._folder.name,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: deque[str] = deque(maxlen=10_000)
        self._faults = 0  # lines that tell of an error
        self._expected = expected
        self._read_ports(len(binds))
        self._reader = threading.Thread(target=self._read_log, daemon=True)  # or a full pipe would stop the server
        self._reader.start()

    def _make_certificate(self) -> list[str]:
        cert, key = (os.path.join(self._folder.name, name) for name in ("cert.pem", "key.pem"))
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert,
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        return ["--certfile", cert, "--keyfile", key]

    def _read_ports(self, count: int) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            found = re.search(r"listening on (\w+)://127\.0\.0\.1:(\d+)", line)
            if found:
                self.ports[found[1]] = int(found[2])
            if len(self.ports) == count:
                return
        sys.exit(f"the server does not start:\n{''.join(self._said)}")

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            expected = any(name in line for name in self._expected)
            self._faults += line.startswith("Traceback") or ("[ERROR]" in line and not expected)

    def cpu_seconds(self) -> float:
        """User and system time that the master and its workers have used."""
        pids = [self._process.pid, *self.workers()]
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in pids) / os.sysconf("SC_CLK_TCK")

    def workers(self) -> list[int]:
        """Their process ids, in order."""
        names = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return sorted(pid for pid in names if _parent(pid) == self._process.pid)

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        code = self._process.wait(timeout=40)
        self._reader.join()
        self._folder.cleanup()
        said = "".join(self._said)
        if code or self._faults:
            sys.exit(f"the server ended with {code}:\n{said}")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
