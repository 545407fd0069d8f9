"""`preforksmtpctl top`: one picture after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from preforksmtp.control.choice import Choice
from preforksmtp.control.client import Outcome
from preforksmtp.control.top import Top

COUNTERS = ("messages", "rejected", "deferred", "errors", "sessions")


class Server:
    """Its clock goes on by two seconds, and each counter by ten, with each look."""

    def __init__(self) -> None:
        self.looks = 0

    def give(self, words: Sequence[str]) -> Outcome:
        if list(words) == ["show", "sessions"]:
            line = {"session": "s1", "peer": "192.0.2.1:25", "worker": 7, "seconds": 3.0, "helo": "a\x1b[31m"}
            return Outcome(True, {"sessions": [line], "silent": []}, "")
        self.looks += 1
        stats: dict[str, Any] = {
            "version": "1.0", "master": 1, "uptime_seconds": 100.0, "state": "ready", "saturated": True, "workers": [],
            "workers_wanted": 2, "sessions_active": 1, "sessions_limit": 10, "queued": 0, "time": 2.0 * self.looks,
            "handler_seconds": {"p95": 0.012}, "totals": dict.fromkeys(COUNTERS, 10 * self.looks),
        }  # fmt: skip
        return Outcome(True, stats, "")


def test_rates_are_those_since_the_picture_before() -> None:
    top = Top(Server().give, Choice())
    assert "messages/s -" in "\n".join(top.screen(200, 50))
    screen = "\n".join(top.screen(200, 50))
    assert "messages/s 5.0" in screen
    assert "saturated" in screen
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
