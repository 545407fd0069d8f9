"""`preforksmtpctl top`: what goes on, each second anew, in a terminal; printed once where the output is none."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from preforksmtp.control.choice import Choice
from preforksmtp.control.client import Outcome
from preforksmtp.control.tables import SESSIONS, duration, table
from preforksmtp.logs.escaping import escape

EVERY = 1.0  # seconds
_CLEAR, _HIDE, _SHOW = "\x1b[H\x1b[J", "\x1b[?25l", "\x1b[?25h"
# What is shown per second: the head, and the counters that it adds up.
_RATES = {
    "messages/s": ("messages",),
    "rejected/s": ("rejected",),
    "deferred/s": ("deferred",),
    "errors/s": ("errors",),
    "sessions/s": ("sessions",),
}


class Top:
    """`give` gives one order and returns its outcome."""

    def __init__(self, give: Callable[[Sequence[str]], Outcome], choice: Choice) -> None:
        self._give = give
        self._choice = choice
        self._before: dict[str, Any] | None = None

    def run(self, *, once: bool = False) -> None:
        """Until ^C."""
        if once or not sys.stdout.isatty():
            print("\n".join(self.screen(10_000, 10_000)))
            return
        sys.stdout.write(_HIDE)
        try:
            while True:
                columns, rows = shutil.get_terminal_size()
                sys.stdout.write(_CLEAR + "\n".join(self.screen(columns, rows)))
                sys.stdout.flush()
                time.sleep(EVERY)
        except KeyboardInterrupt:
            sys.stdout.write("\n")
        finally:
            sys.stdout.write(_SHOW)

    def screen(self, columns: int, rows: int) -> list[str]:
        """One picture, of at most so many lines as long as that."""
        stats = self._give(["show", "stats"])
        if not stats.ok:
            return [escape(stats.error)[:columns]]
        now: dict[str, Any] = stats.result
        handler, ready = now["handler_seconds"], sum(worker["state"] == "ready" for worker in now["workers"])
        lines = [
            f"preforksmtp {now['version']}  master {now['master']}  up {duration(now['uptime_seconds'])}  "
            f"{escape(now['state'])}{'  saturated' if now.get('saturated') else ''}",
            f"workers {ready}/{now['workers_wanted']}  sessions {now['sessions_active']}/{now['sessions_limit']}  "
            f"queued {now['queued']}  handler p95 {_latency(handler.get('p95'))}",
            "  ".join(f"{head} {rate}" for head, rate in self._rates(now)),
            "",
        ]
        sessions = self._give(["show", "sessions"])
        if sessions.ok:
            shown = self._choice.sessions(sessions.result["sessions"])
            text = table(SESSIONS, [line for line in shown if "session" in line])
            lines += text.split("\n") if text else ["no sessions"]
        self._before = now
        return [line[:columns] for line in lines[: max(rows - 1, 1)]]

    def _rates(self, now: dict[str, Any]) -> list[tuple[str, str]]:
        before = self._before
        if before is None or now["time"] <= before["time"]:
            return [(head, "-") for head in _RATES]
        seconds = now["time"] - before["time"]
        return [
            (head, f"{sum(now['totals'][name] - before['totals'][name] for name in names) / seconds:.1f}")
            for head, names in _RATES.items()
        ]


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"
