"""WINCH: no worker is left, and none is started, until HUP or TTIN."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.prefork.conftest import Server, Start
from tests.processes import wait_until


def dismissed(server: Server) -> None:
    server.send(signal.SIGWINCH)
    server.wait_for("no workers wanted any more")
    wait_until(lambda: not server.children(), "all gone")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTTIN])
def test_a_roll_starts_nobody(start: Start, number: int) -> None:
    server = start(roll=True).ready()
    dismissed(server)
    server.totals()  # and a roll
    server.wait_for(r"no workers to replace \(as asked\)")
    server.totals()
    server.wait_for("no workers to replace", count=2)
    assert len(server.matches("ready after")) == 1
    server.send(number)
    server.wait_for("ready after", count=2)
    server.totals()
    server.wait_for(r"replacing all workers \(as asked\) done")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_it_undoes_a_reload_under_way(start: Start, tmp_path: Path, number: int) -> None:
    gate = tmp_path / "gate"
    server = start(workers=2, roll=True, gate=str(gate)).ready()
    gate.touch()  # the first new worker is not ready before WINCH
    server.send(number)
    server.wait_for("forked, slot", count=3)
    dismissed(server)
    server.wait_for("failed, former configuration and workers go on: no workers are wanted any more")
    gate.unlink()
    server.send(signal.SIGTTIN)
    wait_until(lambda: len(server.children()) == 1, "one worker")
