"""Which lane a worker serves, and what becomes of the clients in its queue: real workers, one thread each."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.prefork.conftest import Server, Start
from tests.processes import Client, wait_until

CROWD = 24  # clients, enough that the kernel's hash leaves no lane empty


def crowd(server: Server, stack: contextlib.ExitStack) -> list[Client]:
    """Each has asked; one of each lane is served, the others wait there."""
    clients = [stack.enter_context(server.connect()) for _ in range(CROWD)]
    for client in clients:
        client.send("pid")
    return clients


def answers(clients: list[Client]) -> set[int]:
    """Who served them: each leaves as soon as it has its answer, and so lets in the next one of its lane."""
    found = set()
    for client in clients:
        found.add(int(client.read()))
        client.close()
    return found


def stopped(pid: int) -> bool:
    """Every thread of it."""
    states = [file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_each_worker_has_a_lane(start: Start) -> None:
    server = start(workers=3, threads=CROWD, reuse_port=True).ready()
    with contextlib.ExitStack() as stack:
        assert answers(crowd(server, stack)) == server.children()


def test_the_lanes_go_on_in_the_next_generation(start: Start) -> None:
    server = start(workers=3, threads=CROWD, reuse_port=True).ready()
    for count in range(1, 4):
        old = server.children()
        server.send(signal.SIGHUP)
        server.wait_for("reload done", count=count)
        wait_until(lambda: not old & server.children(), "old workers gone")  # noqa: B023
        with contextlib.ExitStack() as stack:
            assert answers(crowd(server, stack)) == server.children()


def test_who_replaces_a_killed_worker_serves_its_queue(start: Start) -> None:
    server = start(workers=2, threads=CROWD, reuse_port=True).ready()
    victim, other = server.children()
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: stopped(victim), "stopped")  # or it would take clients with it
    with contextlib.ExitStack() as stack:
        clients = crowd(server, stack)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(server.children()) == 2 and victim not in server.children(), "replaced")
        assert answers(clients) == server.children()
        assert other in server.children()


def test_one_worker_fewer_empties_its_queue_first(start: Start) -> None:
    server = start(workers=2, threads=1, reuse_port=True).ready()
    workers = server.children()
    with contextlib.ExitStack() as stack:
        holders: dict[int, Client] = {}
        while len(holders) < 2:  # both threads are busy
            client = stack.enter_context(server.connect())
            client.socket.settimeout(1)
            try:
                holders[int(client.ask("pid"))] = client
            except TimeoutError:  # behind the other one
                client.close()
        clients = crowd(server, stack)
        server.send(signal.SIGTTOU)
        server.wait_for("draining")
        for holder in holders.values():
            holder.close()
        stays = server.children()
        found = set()
        for client in clients:
            found.add(client.read())
            client.close()
    assert {int(pid) for pid in found} == workers, "none was reset"
    assert stays <= workers
    wait_until(lambda: len(server.children()) == 1, "one worker")
    assert {int(server.ask("pid")) for _ in range(10)} == server.children()


def test_a_lane_comes_back(start: Start) -> None:
    server = start(workers=2, threads=CROWD, reuse_port=True).ready()
    server.send(signal.SIGTTOU)
    wait_until(lambda: len(server.children()) == 1, "one worker")
    server.send(signal.SIGTTIN)
    wait_until(lambda: len(server.children()) == 2, "two workers")
    wait_until(lambda: len({server.ask("pid") for _ in range(10)}) == 2, "both serve")
