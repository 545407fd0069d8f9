"""Real processes under test: start a program, wait for a line of its output, signal it, prove that nothing is
left.

Nothing here sleeps for a fixed time: waits end with the event, and fail with the program's whole output.
Linux only (/proc).
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 15.0  # seconds until a wait is a failure; no test gets near it when all is well

P = TypeVar("P", bound="Program")
C = TypeVar("C", bound="Client")


def wait_until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """For facts without an event of their own (/proc, another process): look often, fail late."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.005)


def stat(pid: int) -> tuple[str, int, int] | None:
    """(state, parent, session) of a process; None if there is none. Z is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, _, session = text.rpartition(")")[2].split()[:4]
    return state, int(parent), int(session)


def processes() -> dict[int, tuple[str, int, int]]:
    found = ((int(name), stat(int(name))) for name in os.listdir("/proc") if name.isdigit())
    return {pid: entry for pid, entry in found if entry is not None}


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Program:
    """A program in a session of its own, its stdout and stderr collected as lines. Use it in `with`: at the
    end it must be gone with all its children, or the test fails (and they are killed)."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str] | None = None, **popen: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        self.process: subprocess.Popen[str] = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            **popen,
        )
        self.pid: int = self.process.pid
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def matches(self, pattern: str) -> list[re.Match[str]]:
        return [found for line in list(self.lines) if (found := re.search(pattern, line))]

    def wait_for(self, pattern: str, count: int = 1, timeout: float = PATIENCE) -> re.Match[str]:
        """The count-th line that matches, since the program started."""
        deadline = time.monotonic() + timeout
        with self._news:
            while len(found := self.matches(pattern)) < count:
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    raise AssertionError(f"no line {count} x {pattern!r} in:\n{self.output}")
                self._news.wait(left)
        return found[count - 1]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code, once all of its output is here (so its children are gone too)."""
        try:
            code: int = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s:\n{self.output}") from None
        self._reader.join(timeout)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    def children(self) -> set[int]:
        """Direct children that are alive."""
        return {pid for pid, (state, parent, _) in processes().items() if parent == self.pid and state != "Z"}

    def group(self) -> dict[int, str]:
        """pid -> state of every process of the session, the program itself excepted: orphans too, and
        zombies, but not those that it is for init to reap."""
        ours = {pid: entry for pid, entry in processes().items() if entry[2] == self.pid}
        return {
            pid: state
            for pid, (state, parent, _) in ours.items()
            if pid != self.pid and (state != "Z" or parent in ours)
        }

    def assert_nothing_left(self) -> None:
        assert self.process.poll() is not None, f"still running:\n{self.output}"
        left = self.group()
        assert not left, f"left behind: {left}\n{self.output}"

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.assert_nothing_left()
        finally:
            for pid in (self.pid, *self.group()):
                if stat(pid) is not None and (pid != self.pid or self.process.poll() is None):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self._reader.join(PATIENCE)
            if self.process.stdout is not None:
                self.process.stdout.close()


class Client:
    """A connection that speaks in lines."""

    def __init__(self, address: tuple[str, int], timeout: float = PATIENCE) -> None:
        self.socket = socket.create_connection(address, timeout)
        self._file = self.socket.makefile("rb")

    def ask(self, line: str) -> str:
        self.send(line)
        return self.read()

    def send(self, line: str) -> None:
        self.socket.sendall(line.encode() + b"\n")

    def read(self) -> str:
        """The next line; "" at the end of the connection."""
        return self._file.readline().decode().rstrip("\r\n")

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
