"""Recycling, its arithmetic and on real processes: the replacement serves first, one at a time, nobody loses."""

from __future__ import annotations

import re
import signal
import threading
from types import SimpleNamespace

import pytest

from preforksmtp.prefork import reasons
from preforksmtp.prefork.worker.lifetime import Limits, resident_memory
from tests.prefork.conftest import Server, Start
from tests.processes import wait_until

NO_LIMITS = {"max_sessions": 0, "max_sessions_jitter": 0, "max_worker_memory": 0, "max_worker_age": 0.0}


@pytest.mark.parametrize(
    ("settings", "sessions", "memory", "age", "reason"),
    [
        ({}, 10**9, 10**12, 1e9, 0),
        ({"max_sessions_jitter": 5}, 10**9, 0, 0.0, 0),
        ({"max_sessions": 10}, 9, 0, 0.0, 0),
        ({"max_sessions": 10}, 10, 0, 0.0, reasons.SESSIONS),
        ({"max_worker_memory": 100}, 0, 99, 0.0, 0),
        ({"max_worker_memory": 100}, 0, 100, 0.0, reasons.MEMORY),
        ({"max_worker_age": 60.0}, 0, 0, 59.9, 0),
        ({"max_worker_age": 60.0}, 0, 0, 60.0, reasons.AGE),
    ],
)
def test_limits(settings: dict[str, float], sessions: int, memory: int, age: float, reason: int) -> None:
    config = SimpleNamespace(**(NO_LIMITS | settings))
    assert Limits(config).reached(sessions, memory, age) == reason


def test_jitter_spreads_workers() -> None:
    config = SimpleNamespace(**(NO_LIMITS | {"max_sessions": 100, "max_sessions_jitter": 10}))
    drawn = {Limits(config).sessions for _ in range(500)}
    assert drawn == set(range(100, 111))


def test_resident_memory_is_plausible() -> None:
    assert 1 << 20 < resident_memory() < 1 << 36


def order_of_events(server: Server) -> list[tuple[str, str]]:
    """(what, pid) of workers, as the log has it."""
    found = re.finditer(
        r"worker (\d+): (max_\w+ reached|ready after|draining)|worker (\d+) (exited)", "\n".join(server.lines)
    )
    return [((m[2] or m[4]).split()[-1], m[1] or m[3]) for m in found]


def test_max_sessions_under_load(start: Start) -> None:
    """Every session is served, capacity never drops, and one worker at a time is replaced."""
    server = start(workers=3, threads=8, max_sessions=40, max_sessions_jitter=10).ready()
    failures: list[str] = []
    enough = threading.Event()

    def load() -> None:
        while not enough.is_set():
            answer = server.ask("pid")
            if not answer.isdecimal() and answer != "421 leaving":
                failures.append(answer)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_until(
            lambda: len(server.matches(r"^INFO worker \d+ exited with code 0 \(max_sessions\)")) >= 6, "recycled"
        )
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert failures == []
    serving = set()
    leaving = ""
    for event, pid in order_of_events(server):
        if event == "after":
            serving.add(pid)
        elif event == "reached":
            assert not leaving, f"{pid} while {leaving} was leaving"
            assert len(serving) == 3
            leaving = pid
        elif event == "exited":
            assert pid == leaving
            serving.discard(pid)
            assert len(serving) == 3, "the replacement was there before"
            leaving = ""


def test_max_worker_age(start: Start) -> None:
    server = start(max_worker_age=0.5).ready()
    server.wait_for(r"worker \d+ exited with code 0 \(max_worker_age\)", count=2)


def test_max_worker_memory(start: Start) -> None:
    server = start(max_worker_memory=1 << 20).ready()  # any interpreter has more
    server.wait_for(r"worker \d+: max_worker_memory reached")
    server.wait_for(r"worker \d+ exited with code 0 \(max_worker_memory\)")


def test_old_worker_serves_on_while_no_replacement_boots(start: Start) -> None:
    server = start(max_sessions=2, boot="the first only").ready()
    (old,) = server.children()
    for _ in range(2):
        assert server.ask("pid") == str(old)
    server.wait_for(rf"worker {old}: max_sessions reached")
    server.wait_for(r"exited with code 4 while booting; next attempt in \d+ s")
    assert server.ask("pid") == str(old)
    server.send(signal.SIGTERM)
    assert server.wait() == 0
