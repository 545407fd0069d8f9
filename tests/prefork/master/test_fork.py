"""prefork/master/fork.py: no signal is lost while a worker begins, and an aide has nothing of the master's."""

from __future__ import annotations

import os
import signal
import socket

from preforksmtp.prefork.master.fork import fork_aide
from preforksmtp.prefork.master.workforce import Workforce
from tests.prefork.conftest import Start


def test_signals_in_the_fork_window_are_not_lost(start: Start) -> None:
    """A worker stays between fork() and its handlers until TERM is there; one to the master must count as well."""
    server = start(before_fork="slow fork")
    server.wait_for("forked, slot 0")
    (worker,) = server.children()
    os.kill(worker, signal.SIGTERM)
    server.wait_for(f"worker {worker} was killed by SIGTERM while booting")
    server.wait_for("forked, slot 0", count=2)
    assert server.stop(signal.SIGTERM) == 0
    assert not server.matches("^INFO booting")


def test_an_aide_keeps_of_the_listeners_what_it_is_given(workforce: Workforce) -> None:
    kept, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    with kept, other:
        workforce.side_listeners += [kept, other]
        closed: list[str] = []
        workforce.on_child.append(lambda: closed.append("on_child"))

        def run() -> None:
            assert (kept.fileno() >= 0, other.fileno(), closed) == (True, -1, ["on_child"])
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

        statuses: list[int | None] = []
        pid = fork_aide(workforce, run, statuses.append, keep=[kept])
        workforce.aides.pop(pid)(os.waitpid(pid, 0)[1])
        assert statuses == [0]
        assert other.fileno() >= 0
        assert closed == []


def test_a_fault_of_an_aide_is_the_aides_end(workforce: Workforce) -> None:
    pid = fork_aide(workforce, lambda: 1 / 0, lambda status: None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
