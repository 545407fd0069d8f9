"""Workers killed at random while the server reloads, scales and upgrades: what was acknowledged is stored, once."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
from pathlib import Path

import pytest

from tests.processes import processes, stat, wait_until
from tests.program.conftest import LOOPBACK, Serve
from tests.program.load import Load, write_app

ROUNDS = 8


def children(master: int) -> list[int]:
    return [pid for pid, (state, parent, _) in processes().items() if parent == master and state != "Z"]


@pytest.mark.parametrize("reuse_port", [False, True])
def test_nothing_is_lost(serve: Serve, tmp_path: Path, reuse_port: bool) -> None:
    write_app(tmp_path)
    (tmp_path / "preforksmtp.conf.py").write_text(
        f"bind = {LOOPBACK!r}\nworkers = 3\ngraceful_timeout = 5\nreuse_port = {reuse_port}\n"
    )
    server = serve("app:handler").ready()
    master, upgrades = server.pid, itertools.count(1)
    chance = random.Random(4)
    with Load(("127.0.0.1", server.port()), tmp_path, clients=20, brutal=True) as load:
        for number in range(ROUNDS):
            if workers := children(master):
                with contextlib.suppress(ProcessLookupError):  # one that was leaving, and is gone
                    os.kill(chance.choice(workers), signal.SIGKILL)
            os.kill(master, chance.choice([signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1]))
            if number % 4 == 3:
                os.kill(master, signal.SIGUSR2)
                new = int(server.wait_for(r"upgrading, the new master is (\d+)", count=next(upgrades))[1])
                server.wait_for(rf"master {new}: has taken over")
                wait_until(lambda old=master: (stat(old) or "Z")[0] == "Z", "the old master gone")  # type: ignore[misc]
                master = new
            else:
                write_app(tmp_path, str(number))
                before = len(server.matches(r"reload (done|failed)"))
                os.kill(master, signal.SIGHUP)
                server.wait_for(r"reload (done|failed)", count=before + 1)
            load.progress()
    load.assert_nothing_lost()
    os.kill(master, signal.SIGHUP)
    server.wait_for(rf"master {master}: reload done")
    wait_until(lambda: len(children(master)) == 3, "as many workers as configured")
    os.kill(master, signal.SIGTERM)
    wait_until(lambda: not server.group(), "nobody left")
    assert "Traceback" not in server.output
