"""prefork/master/reaper.py under the real Master: how a dead worker is named, what it counted, and what follows."""

from __future__ import annotations

import os
import signal

import pytest

from tests.prefork.conftest import Start
from tests.processes import descriptors, stat, wait_until


def test_killed_worker_is_replaced_at_once_and_named(start: Start) -> None:
    server = start(workers=2).ready()
    files = descriptors(server.pid)
    (victim, _) = old = sorted(server.children())
    os.kill(victim, signal.SIGKILL)
    server.wait_for(f"^ERROR worker {victim} was killed by SIGKILL$")  # and no "next attempt"
    server.wait_for("ready after", count=3)
    new = server.children()
    assert len(new) == 2
    assert new & set(old) == {old[1]}
    assert stat(victim) is None  # reaped
    assert descriptors(server.pid) == files


@pytest.mark.parametrize(
    ("boot", "code", "line"),
    [
        ("code 3", 3, "ERROR the app is broken"),
        ("code 4", 4, "ERROR the app is broken"),
        ("raise", 3, "ERROR cannot boot"),
        ("sys.exit", 3, r"ERROR cannot boot: the app called sys.exit\(9\)"),
    ],
)
def test_boot_failure_halts_a_master_that_never_served(start: Start, boot: str, code: int, line: str) -> None:
    server = start(workers=2, boot=boot)
    assert server.wait() == code
    server.wait_for(line)
    server.wait_for("no worker could boot, giving up")
    assert not server.matches("serving")


def test_boot_timeout_halts_a_master_that_never_served(start: Start) -> None:
    server = start(boot="hang", boot_timeout=2)
    assert server.wait() == 3
    server.wait_for("not ready after boot_timeout 2 s")
    server.wait_for("in fail$")  # ABRT wrote the stack: where the import hangs


def test_death_at_boot_backs_off(start: Start) -> None:
    server = start(boot="die")
    server.wait_for(r"was killed by SIGKILL while booting; next attempt in 1 s")
    server.wait_for(r"was killed by SIGKILL while booting; next attempt in 2 s")
    assert len(server.matches("^INFO booting")) == 2
    assert server.stop(signal.SIGTERM) == 0  # at once, not after the pause


def test_deaths_at_boot_halt_a_master_that_never_served(start: Start) -> None:
    server = start(workers=2, boot="die")
    assert server.wait() == 3
    server.wait_for("was killed by SIGKILL while booting; no worker could boot, giving up")
    # Three attempts of two workers; the master may be faster than the last one of them.
    assert len(server.matches("^INFO booting")) in (5, 6)


def test_foreign_children_are_reaped_and_ignored(start: Start) -> None:
    server = start(before_fork="foreign").ready()
    wait_until(lambda: set(server.group()) == server.children(), "foreign child reaped")
    assert len(server.children()) == 1


def test_counters_survive_kill_9(start: Start) -> None:
    server = start().ready()
    for round_ in range(1, 3):
        assert server.ask("count") == "1"
        with server.connect() as client:
            pid = int(client.ask("pid"))
            os.kill(pid, signal.SIGKILL)
            assert client.read() == ""
        server.wait_for("was killed by SIGKILL", count=round_)
        server.wait_for("ready after", count=round_ + 1)
        totals = server.totals()
        assert (totals["messages"], totals["sessions"]) == (round_, 2 * round_)
