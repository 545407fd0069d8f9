"""prefork/master/rehearsal.py: the verdict of a child on a configuration, whatever that does to the child."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from preforksmtp.prefork.master.rehearsal import Rehearsal
from preforksmtp.prefork.master.workforce import Workforce


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(3600,)).start()


def judged(workforce: Workforce, run: Callable[[], None]) -> Rehearsal:
    """A rehearsal that has ended by itself, as the master's loop sees it: a line in the pipe, then a dead child."""
    rehearsal = Rehearsal(workforce, run, 30.0)
    _, status = os.waitpid(rehearsal.pid, 0)
    workforce.aides.pop(rehearsal.pid)(status)
    assert rehearsal.over
    return rehearsal


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (lambda: None, ""),
        (leave_a_thread, ""),
        (lambda: sys.exit("no"), "SystemExit: no"),
        (lambda: int("x"), "ValueError: invalid literal for int() with base 10: 'x'"),
        (die, "the process that evaluated the configuration was killed by SIGKILL"),
        (lambda: os._exit(7), "the process that evaluated the configuration exited with code 7"),
    ],
    ids=["fine", "a thread", "exit", "raises", "killed", "ends"],
)
def test_the_verdict(workforce: Workforce, run: Callable[[], None], fault: str) -> None:
    assert judged(workforce, run).fault == fault


def test_a_fault_of_any_length_is_read(workforce: Workforce) -> None:
    def run() -> None:
        raise ValueError(200_000 * "x")

    assert judged(workforce, run).fault.startswith("ValueError: xxx")


def test_the_loop_wakes_for_the_verdict(workforce: Workforce) -> None:
    rehearsal = Rehearsal(workforce, lambda: None, 30.0)
    for _ in range(10):  # wake-ups; a child's end is one as well
        workforce.wakeup.wait(15.0)
        rehearsal.advance(time.monotonic())
        if rehearsal.over:
            break
    assert rehearsal.over
    os.waitpid(rehearsal.pid, 0)


def test_one_that_takes_too_long_is_killed(workforce: Workforce) -> None:
    rehearsal = Rehearsal(workforce, lambda: time.sleep(3600), 30.0)
    rehearsal.advance(rehearsal.deadline - 1)
    assert not rehearsal.over
    rehearsal.advance(rehearsal.deadline)
    assert rehearsal.fault == "evaluating the configuration takes longer than boot_timeout 30 s"
    assert rehearsal.pid not in workforce.aides
    with pytest.raises(ChildProcessError):  # reaped
        os.waitpid(rehearsal.pid, os.WNOHANG)
