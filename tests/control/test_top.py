"""`preforksmtpctl top`: one picture after the other."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from typing import Any

import pytest

from preforksmtp.control.choice import Choice
from preforksmtp.control.client import Outcome
from preforksmtp.control.top import Top
from tests.processes import PATIENCE, ROOT

COUNTERS = ("messages", "errors", "sessions")


class Server:
    """Its clock goes on by two seconds, and each counter by ten, with each look."""

    def __init__(self) -> None:
        self.looks = 0

    def give(self, words: Sequence[str]) -> Outcome:
        assert list(words) == ["top"]
        self.looks += 1
        line = {"session": "s1", "peer": "192.0.2.1:25", "worker": 7, "seconds": 3.0, "helo": "a\x1b[31m"}
        stats: dict[str, Any] = {
            "version": "1.0", "master": 1, "uptime_seconds": 100.0, "state": "ready", "saturated": True, "workers": [],
            "workers_wanted": 2, "sessions_active": 1, "sessions_limit": 10, "queued": 0, "time": 2.0 * self.looks,
            "handler_seconds": {"p95": 0.012}, "totals": dict.fromkeys(COUNTERS, 10 * self.looks),
            "tallies": {"refused rcpt 550 5.1.1": 6 * self.looks, "refused mail 550 ": self.looks, "limit x": 99},
        }  # fmt: skip
        return Outcome(True, {"sessions": [line, {"worker": 8, "left_out": 4}], "silent": [9], "stats": stats}, "")


def test_rates_are_those_since_the_picture_before() -> None:
    top = Top(Server().give, Choice())
    assert "messages/s -" in "\n".join(top.screen(200, 50))
    screen = "\n".join(top.screen(200, 50))
    assert "messages/s 5.0" in screen
    assert "refused/s 3.5" in screen
    assert "saturated" in screen
    assert "and 4 more" in screen
    assert "no answer from worker 9" in screen
    assert "p95 12 ms" in screen
    assert "192.0.2.1:25" in screen
    assert "\x1b" not in screen  # what a client says cannot steer the terminal


def test_it_fits_the_terminal() -> None:
    screen = Top(Server().give, Choice()).screen(20, 5)
    assert len(screen) == 4
    assert max(map(len, screen)) <= 20


def test_a_server_that_refuses() -> None:
    top = Top(lambda words: Outcome(False, None, "no\nway"), Choice())
    assert top.screen(100, 10) == [r"no\x0away"]


def until(terminal: io.FileIO, words: bytes) -> bytes:
    """All that comes there, as far as these words."""
    text, end = b"", time.monotonic() + PATIENCE
    while words not in text:
        assert select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0], text
        text += terminal.read(4096)
    return text


@pytest.mark.parametrize("keys", ["q", "xq", "\x03"])
def test_a_key_ends_it_and_the_terminal_is_as_before(keys: str) -> None:
    """In a terminal of its own."""
    program = (
        "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from tests.control.test_top import Choice, Server, Top\n"
        "print('begins', flush=True); Top(Server().give, Choice()).run(); print('has ended')"
    )
    master, terminal = pty.openpty()
    with open(master, "rb", buffering=0) as seen, open(terminal, "rb", buffering=0) as stdin:
        before = termios.tcgetattr(terminal)
        done = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdin=stdin, stdout=stdin, stderr=stdin,
            start_new_session=True,
        )  # fmt: skip
        try:
            screen = until(seen, b"192.0.2.1:25")
            os.write(master, keys.encode())
            screen += until(seen, b"has ended")
            assert done.wait(PATIENCE) == 0
        finally:
            done.kill()
            done.wait()
        assert termios.tcgetattr(terminal) == before
    assert b"\x1b[?25h" in screen
