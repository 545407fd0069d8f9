"""`preforksmtpctl top`: what goes on, each second anew, in a terminal; printed once where the output is none."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from preforksmtp.control.choice import Choice
from preforksmtp.control.client import Outcome
from preforksmtp.control.tables import TEXTS, duration
from preforksmtp.logs.escaping import escape

EVERY = 1.0  # seconds
_CLEAR, _HIDE, _SHOW = "\x1b[H\x1b[J", "\x1b[?25l", "\x1b[?25h"
# What is shown per second: the head, and what it counts. Refused is whatever was, at any stage.
_RATES: dict[str, Callable[[dict[str, Any]], int]] = {
    "messages/s": lambda stats: stats["totals"]["messages"],
    "refused/s": lambda stats: sum(n for name, n in stats["tallies"].items() if name.startswith("refused ")),
    "errors/s": lambda stats: stats["totals"]["errors"],
    "sessions/s": lambda stats: stats["totals"]["sessions"],
}


class Top:
    """`give` gives one order and returns its outcome."""

    def __init__(self, give: Callable[[Sequence[str]], Outcome], choice: Choice) -> None:
        self._give = give
        self._choice = choice
        self._before: dict[str, Any] | None = None

    def run(self, *, once: bool = False) -> None:
        """Until q or ^C."""
        if once or not sys.stdout.isatty():
            print("\n".join(self.screen(10_000, 10_000)))
            return
        sys.stdout.write(_HIDE)
        try:
            with _keys():
                while True:
                    columns, rows = shutil.get_terminal_size()
                    # Of a terminal that does not know its size Python 3.10 says 0.
                    sys.stdout.write(_CLEAR + "\n".join(self.screen(columns or 80, rows or 24)))
                    sys.stdout.flush()
                    if _is_enough(EVERY):
                        break
        except KeyboardInterrupt:
            pass
        finally:
            sys.stdout.write(f"\n{_SHOW}")

    def screen(self, columns: int, rows: int) -> list[str]:
        """One picture, of at most so many lines as long as that."""
        answer = self._give(["top"])
        if not answer.ok:
            return [escape(answer.error)[:columns]]
        now: dict[str, Any] = answer.result["stats"]
        handler, ready = now["handler_seconds"], sum(worker["state"] == "ready" for worker in now["workers"])
        lines = [
            f"preforksmtp {now['version']}  master {now['master']}  up {duration(now['uptime_seconds'])}  "
            f"{escape(now['state'])}{'  saturated' if now.get('saturated') else ''}",
            f"workers {ready}/{now['workers_wanted']}  sessions {now['sessions_active']}/{now['sessions_limit']}  "
            f"queued {now['queued']}  handler p95 {_latency(handler.get('p95'))}",
            "  ".join(f"{head} {rate}" for head, rate in self._rates(now)),
            "",
        ]
        shown = self._choice.sessions(answer.result["sessions"])
        lines += TEXTS["show sessions"]({"sessions": shown, "silent": answer.result["silent"]}).split("\n")
        self._before = now
        return [line[:columns] for line in lines[: max(rows - 1, 1)]]

    def _rates(self, now: dict[str, Any]) -> list[tuple[str, str]]:
        before = self._before
        if before is None or now["time"] <= before["time"]:
            return [(head, "-") for head in _RATES]
        seconds = now["time"] - before["time"]
        return [
            (head, f"{(count(now) - count(before)) / seconds:.1f}") for head, count in _RATES.items()
        ]


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys come one by one, and are not shown; ^C stays what it is. Nothing, where the input is no terminal."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _is_enough(seconds: float) -> bool:
    """Whether q was typed within that time; any other key brings the next picture."""
    terminal = [sys.stdin] if sys.stdin.isatty() else []
    ready, _, _ = select.select(terminal, [], [], seconds)
    if not ready:
        return False
    typed = os.read(sys.stdin.fileno(), 64)  # all there is: what Python has buffered, select does not see
    return not typed or b"q" in typed.lower()
