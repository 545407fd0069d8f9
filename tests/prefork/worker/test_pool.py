"""Session threads in real workers: who accepts, growth and shrinking, several listeners, trouble in accept(),
draining."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import signal
import socket

import pytest

from preforksmtp.prefork.scoreboard import Scoreboard
from preforksmtp.prefork.worker.pool import SPARE, Pool
from preforksmtp.prefork.worker.seat import Drain, Seat
from tests.prefork.conftest import Start
from tests.processes import Client, wait_until


def test_a_full_worker_leaves_connections_to_the_other(start: Start) -> None:
    server = start(workers=2, threads=1).ready()
    with server.connect() as first, server.connect() as second:
        assert {int(first.ask("pid")), int(second.ask("pid"))} == server.children()
        with server.connect() as third:
            third.send("pid")  # waits in the kernel's queue: nobody has taken it
            third.socket.settimeout(0.7)  # longer than SO_RCVTIMEO
            with pytest.raises(TimeoutError):
                third.socket.recv(1)
            first_pid = first.ask("pid")
            first.close()
            third.socket.settimeout(5)
            with third.socket.makefile() as answer:
                assert answer.readline().strip() == first_pid


def test_threads_grow_to_the_limit_and_shrink_when_idle(start: Start) -> None:
    server = start(threads=10, shrink_every=0.2).ready()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        names = {client.ask("thread") for client in clients}
        assert len(names) == 10
        assert clients[0].ask("threads") == "10"
        with server.connect() as extra:
            extra.send("pid")
            clients.pop().close()
            assert extra.read() == str(*server.children())  # served after all
    # One serves the question, SPARE wait.
    wait_until(lambda: int(server.ask("threads")) <= 1 + SPARE, "shrunk")
    with contextlib.ExitStack() as stack:  # and grow again
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        assert len({client.ask("thread") for client in clients}) == 10


def test_connections_are_spread_evenly_whatever_a_worker_once_had(start: Start) -> None:
    server = start(threads=20).ready()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        assert len({client.ask("thread") for client in clients}) == 20
        server.send(signal.SIGTTIN)
        wait_until(lambda: len(server.children()) == 2, "two workers")
        with server.connect() as one_more:
            one_more.ask("pid")  # of the new worker, for the other one is full: it serves
    shares = collections.Counter(server.ask("pid") for _ in range(100))
    # Both have SPARE threads in the kernel's queue; with all idle threads there it would be about 90 to 10.
    assert max(shares.values()) <= 70, shares


def test_the_bench_is_called(start: Start) -> None:
    """All at once, again and again: whoever connects is served at once, though most threads sit on the bench."""
    server = start(threads=10).ready()
    for _ in range(5):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(10)]
            assert len({client.ask("thread") for client in clients}) == 10


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 12])
def test_every_listener_is_served(start: Start, threads: int) -> None:
    """With fewer threads than listeners, too, and after sessions moved threads from one to the other."""
    server = start(listeners=4, threads=threads).ready()
    for _ in range(3):
        for index in (0, 1, 2, 3, 3, 3, 0):
            assert server.ask("listener", index) == str(index)


def test_busy_listener_leaves_the_last_thread_to_whoever_needs_it(start: Start) -> None:
    server = start(listeners=2, threads=3).ready()
    with server.connect(0) as first, server.connect(0) as second:
        assert (first.ask("listener"), second.ask("listener")) == ("0", "0")
        for index in (1, 0, 1, 0):
            assert server.ask("listener", index) == str(index)


def test_one_listener_may_have_all_threads(start: Start) -> None:
    server = start(listeners=3, threads=6).ready()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect(1)) for _ in range(6)]
        assert len({client.ask("thread") for client in clients}) == 6


def test_exception_in_serve_is_logged_and_the_thread_lives_on(start: Start) -> None:
    server = start(threads=1).ready()
    with server.connect() as client:
        client.send("raise")
        assert client.read() == ""
    server.wait_for("ZeroDivisionError: as asked")
    assert server.ask("thread") == "session-1"
    assert server.totals()["errors"] == 1


def test_deep_recursion_in_c_is_an_exception_not_a_crash(start: Start) -> None:
    server = start().ready()
    assert server.ask("recurse") == "RecursionError"


def test_out_of_descriptors_waits_without_spinning(start: Start) -> None:
    server = start(files=6, threads=20).ready()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server.connect())
        used = float(first.ask("cpu"))
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        server.wait_for("cannot accept: .*Too many open files")
        clients[-1].socket.settimeout(1.5)
        clients[-1].send("pid")
        with pytest.raises(TimeoutError):
            clients[-1].socket.recv(1)  # 1.5 s in which the threads could spin
        assert float(first.ask("cpu")) - used < 0.3
        assert len(server.matches("cannot accept")) == 1
        for client in clients[:-1]:
            client.close()
        clients[-1].socket.settimeout(5)
        with clients[-1].socket.makefile() as answer:
            assert answer.readline().strip() == str(*server.children())


# -- draining


def test_stop_interrupts_every_idle_session(start: Start) -> None:
    server = start(workers=2, threads=20).ready()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(30)]
        for client in clients:
            client.ask("pid")
        server.send(signal.SIGTERM)
        assert {client.read() for client in clients} == {"421 leaving"}
        assert {client.read() for client in clients} == {""}
    assert server.wait() == 0


def test_stop_answers_the_queue_of_the_kernel(start: Start) -> None:
    server = start(threads=1).ready()
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(server.connect())
        served.ask("pid")
        queued = [stack.enter_context(server.connect()) for _ in range(10)]
        server.send(signal.SIGTERM)
        assert [client.read() for client in (served, *queued)] == ["421 leaving"] * 11
    assert server.wait() == 0


def test_stopping_server_refuses_once_nobody_accepts(start: Start) -> None:
    """While a last session goes on, new clients must not hang in a queue that nobody will serve."""
    server = start(workers=1, graceful_timeout=60).ready()
    with server.connect() as busy:
        busy.send("sleep")
        server.wait_for("^sleeping$")
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        wait_until(lambda: refused(server.port()), "refused")
        assert len(server.children()) == 1


def refused(port: int) -> bool:
    try:
        with Client(("127.0.0.1", port)):
            return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False


def test_session_is_cut_at_graceful_timeout(start: Start) -> None:
    server = start(graceful_timeout=0.8, mercy=5.0).ready()
    with server.connect() as client:
        client.send("sleep")
        server.wait_for("^sleeping$")
        assert server.stop(signal.SIGTERM) == 0
        assert client.read() == ""
    server.wait_for("time is up, 1 sessions cut off")
    server.wait_for(r"exited with code 0 \(stop\)")


def test_stuck_exit_callback_is_left_behind(start: Start) -> None:
    server = start(boot="stuck exit", graceful_timeout=0.8, mercy=5.0).ready()
    assert server.stop(signal.SIGTERM) == 0
    server.wait_for("an exit callback takes too long")
    server.wait_for(r"exited with code 1 \(stop\)")


def test_retired_worker_leaves_the_queue_to_the_others(start: Start) -> None:
    server = start(workers=2).ready()
    old = server.children()
    os.kill(min(old), signal.SIGTERM)
    for _ in range(50):
        gone = server.matches("exited with code 0")  # it may go between the answer and a look
        assert server.ask("pid") != "421 leaving" or not gone
    server.wait_for("exited with code 0")
    assert server.ask("pid") != str(min(old))


def test_connection_gone_before_accept_is_harmless(start: Start) -> None:
    server = start(threads=1).ready()
    with server.connect() as client:
        client.ask("pid")
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port())) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
    assert server.ask("thread") == "session-1"


def test_whoever_waits_when_the_time_is_up_is_told(start: Start) -> None:
    """Of a full stop: every thread hangs, and nobody serves the queue after us."""
    server = start(workers=2, threads=1, listeners=2, graceful_timeout=0.5, farewell=5.0, mercy=10.0).ready()
    with contextlib.ExitStack() as stack:
        stuck: set[str] = set()
        while len(stuck) < 2:
            client = stack.enter_context(server.connect())
            stuck.add(client.ask("pid"))
            client.send("sleep")
            server.wait_for("^sleeping$", count=len(stuck))
        queue = [(index, stack.enter_context(server.connect(index))) for index in (0, 1) for _ in range(40)]
        server.send(signal.SIGTERM)
        for index, client in queue:
            assert client.read() == f"421 listener {index}"
            assert client.read() == ""
        assert server.wait() == 0
    assert not server.matches("SIGABRT")


def test_the_last_thread_that_waits_is_not_dismissed() -> None:
    board, drain = Scoreboard(1, 4), Drain()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = Pool([listener], 4, board, board.slots[0], drain, logging.getLogger(__name__), lambda: None)
        first, last = (Seat(row, drain) for row in board.slots[0].rows[:2])
        pool._posts[0].idle.update((first, last))
        pool._surplus = 5  # counted while some of them were already on their way out
        assert pool._dismissed(first)
        assert not pool._dismissed(last)
        assert pool._posts[0].idle == {last}
        pool.stop_accepting()  # all are to leave
        assert pool._dismissed(last)
    drain.close()
