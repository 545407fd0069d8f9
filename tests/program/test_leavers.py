"""Old workers that stay for their sessions while one reload follows the other."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from preforksmtp.prefork.worker.seat import GRACE
from tests.processes import wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk
from tests.program.load import write_app
from tests.program.test_rolls import finish, told

# Nobody is told for being silent.
FEW = """\
from preforksmtp.prefork.master import generation, leavers; from preforksmtp.prefork.worker import seat; generation.SPARE_SLOTS = {slots}; \
leavers.URGED = 0.5; seat.SILENCE = 60.0"""


def test_many_rolls_hurry_the_oldest(serve: Serve, tmp_path: Path) -> None:
    """Before there is no place left: kept connections are told earlier, and nothing is cut off."""
    write_app(tmp_path)
    server = serve("-b", LOOPBACK, "--graceful-timeout", "3600", "app:handler", patch=FEW.format(slots=11)).ready()
    with contextlib.ExitStack() as stack:
        kept: list[Talk] = []
        for number in range(1, 7):
            kept.append(stack.enter_context(Talk(server.port())))
            assert kept[-1].ask("EHLO x").startswith("250")
            reload_done(server, number)
        # 2 workers and 11 places: three old workers stay in peace.
        wait_until(lambda: len(server.children()) == 7, "nobody has gone")
        for talk in kept[:3]:
            assert talk.ask("MAIL FROM:<a@example.com>").startswith("421 4.3.2")
        for talk in kept[3:]:
            assert talk.ask("MAIL FROM:<a@example.com>").startswith("250")
            finish(talk)
    wait_until(lambda: len(server.children()) == 1, "the old workers gone")
    assert not server.matches("no place|cut off")


def test_rolls_come_to_an_end_though_every_place_is_taken(serve: Serve, tmp_path: Path) -> None:
    write_app(tmp_path)
    server = serve("-b", LOOPBACK, "--graceful-timeout", "3600", "app:handler", patch=FEW.format(slots=8)).ready()
    with contextlib.ExitStack() as stack:
        for number in range(1, 12):
            talk = stack.enter_context(Talk(server.port()))
            assert talk.ask("EHLO x").startswith("250")
            assert talk.ask("MAIL FROM:<a@example.com>").startswith("250")
            reload_done(server, number)
        server.wait_for(r"no place for a new worker: \d+ old ones are still leaving")
        server.wait_for("ended, its place is needed for a new worker")
        finish(talk)
    assert not server.matches("reload failed")


def reload_done(server: Server, number: int) -> None:
    server.send(signal.SIGHUP)
    server.wait_for("reload done", count=number)


def test_the_old_masters_sessions_hear_of_a_stop_of_the_new_one(serve: Serve, tmp_path: Path) -> None:
    write_app(tmp_path)
    server = serve("-b", LOOPBACK, "app:handler").ready()
    with Talk(server.port()) as talk:
        assert talk.ask("EHLO x").startswith("250")
        assert talk.ask("MAIL FROM:<a@example.com>").startswith("250")
        server.send(signal.SIGUSR2)
        new = int(server.wait_for(r"master (\d+): has taken over")[1])
        assert talk.ask("RSET").startswith("250")
        began = time.monotonic()
        os.kill(new, signal.SIGTERM)
        assert told(talk) < began + GRACE
    assert server.wait() == 0
    wait_until(lambda: not server.group(), "all gone")
