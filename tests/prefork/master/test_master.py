"""The real Master in a process of its own: deaths, signals, stops. `start` proves after each that
nothing is left."""

from __future__ import annotations

import os
import signal
import time

import pytest

from preforksmtp.prefork.master.throttle import LEAST, RATE
from tests.prefork.conftest import Start
from tests.processes import stat, wait_until

# -- stopping


def test_term_when_idle(start: Start) -> None:
    server = start(workers=3, graceful_timeout=60).ready()  # stop() waits for less
    assert len(server.children()) == 3
    assert server.stop(signal.SIGTERM) == 0
    assert len(server.matches("exit callback of")) == 3
    assert len(server.matches(r"exited with code 0 \(stop\)")) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop_does_not_wait_for_a_handler(start: Start, number: int) -> None:
    server = start(workers=2, graceful_timeout=60, last_words=60).ready()  # stop() waits for less
    with server.connect() as client:
        client.send("sleep")
        server.wait_for("^sleeping$")
        assert server.stop(number) == 0
    assert server.matches("time is up, 1 sessions cut off")
    assert len(server.matches(r"exited with code 0 \(stop\)")) == 2


def test_quick_stop_tells_an_idle_session(start: Start) -> None:
    server = start().ready()
    with server.connect() as client:
        client.ask("pid")
        server.send(signal.SIGINT)
        assert client.read() == "421 leaving"
    assert server.wait() == 0


def test_int_hurries_a_graceful_stop(start: Start) -> None:
    server = start(graceful_timeout=60, last_words=60).ready()  # stop() waits for less
    with server.connect() as client:
        client.send("sleep")
        server.wait_for("^sleeping$")
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        assert server.stop(signal.SIGINT) == 0
    assert server.matches("time is up, 1 sessions cut off")
    assert server.matches(r"exited with code 0 \(stop\)")


def test_second_int_kills_at_once(start: Start) -> None:
    server = start(boot="stuck exit", last_words=60).ready()  # wait() waits for less: it is not the clock
    server.send(signal.SIGINT)
    server.wait_for("exit callback of")
    server.send(signal.SIGINT)
    assert server.wait() == 0
    server.wait_for(r"was killed by SIGKILL \(stop\)")


def test_int_to_the_whole_group_is_the_masters_business(start: Start) -> None:
    server = start(workers=2).ready()
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait() == 0
    assert len(server.matches(r"exited with code 0 \(stop\)")) == 2


def test_int_to_a_worker_is_ignored(start: Start) -> None:
    server = start().ready()
    (pid,) = server.children()
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGTTIN,
        signal.SIGTTOU,
    ):
        os.kill(pid, number)
    os.kill(pid, signal.SIGUSR1)
    server.wait_for(f"reopened in {pid}")  # so it has seen all the others
    assert server.ask("pid") == str(pid)


def test_hup_and_usr2_do_not_kill_the_master(start: Start) -> None:
    server = start().ready()
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH):
        server.send(number)
    assert server.totals()["sessions"] == 0


def test_graceful_timeout_escalates_to_kill_for_a_frozen_worker(start: Start) -> None:
    server = start(graceful_timeout=0.2, mercy=0.2).ready()
    (pid,) = server.children()
    os.kill(pid, signal.SIGSTOP)
    assert server.stop(signal.SIGTERM) == 0
    assert [found[1] for found in server.matches(r"still there, sent (\w+)")] == ["SIGABRT", "SIGKILL"]


def test_a_frozen_worker_delays_a_stop_by_two_seconds(start: Start) -> None:
    server = start(graceful_timeout=0.2).ready()
    (pid,) = server.children()
    os.kill(pid, signal.SIGSTOP)
    before = time.monotonic()
    assert server.stop(signal.SIGTERM) == 0
    assert 2.2 <= time.monotonic() - before < 2.2 + 5.0  # the rest is for a busy machine


@pytest.mark.parametrize("hook", ["child_exit", "when_ready"])
def test_a_hanging_hook_does_not_delay_a_stop(start: Start, hook: str) -> None:
    server = start(workers=3, hanging_hook=hook, boot_timeout=60)
    server.wait_for("ready after", count=3)
    assert server.stop(signal.SIGTERM) == 0
    reasons = [found[1] for found in server.matches(rf"hook {hook} was interrupted after [\d.]+ s: (.*)")]
    # During a stop it has 2 s in all, then a look each.
    limits = [f"it took more than {seconds} s" for seconds in ("2", "0.25", "0.25")]
    assert reasons == (["SIGTERM waits"] if hook == "when_ready" else limits)


# -- deaths


@pytest.mark.parametrize("boot", ["ok", "hang"])
def test_workers_leave_when_the_master_is_killed(start: Start, boot: str) -> None:
    server = start(workers=2, boot=boot, graceful_timeout=60)  # wait_until() waits for less
    server.wait_for("booting", count=2) if boot == "hang" else server.ready()
    server.send(signal.SIGKILL)
    server.wait()
    wait_until(lambda: not server.group(), "workers gone")
    assert bool(server.matches("draining \\(the master died\\)")) == (boot == "ok")


def test_open_session_outlives_the_master(start: Start) -> None:
    server = start().ready()
    with server.connect() as client:
        client.ask("pid")
        server.send(signal.SIGKILL)
        server.process.wait()
        assert client.read() == "421 leaving"
    wait_until(lambda: not server.group(), "worker gone")


def test_crashes_after_ready_are_replaced_at_a_bounded_rate(start: Start) -> None:
    began = time.monotonic()
    server = start(boot="crash")
    server.wait_for(r"was killed by SIGSEGV", count=3 * LEAST)
    forks = len(server.matches("^INFO booting"))
    assert forks <= LEAST + RATE * (time.monotonic() - began) + 1
    assert not server.matches("next attempt")


@pytest.mark.parametrize("workers", [1, 4])
def test_all_workers_killed_at_once_are_replaced_at_once(start: Start, workers: int) -> None:
    server = start(workers=workers).ready()
    old = server.children()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    server.wait_for("ready after", count=2 * workers)
    assert not server.matches("next attempt")
    assert server.ask("pid") not in {str(pid) for pid in old}


def test_a_boot_that_fails_delays_nobody_who_has_served(start: Start) -> None:
    """The gate of those that do not boot is not that of those that crash."""
    server = start(boot="the first only").ready()
    (serving,) = server.children()
    server.send(signal.SIGTTIN)
    server.wait_for("next attempt in 2 s")
    server.wait_for("next attempt in 4 s")
    os.kill(serving, signal.SIGKILL)
    server.wait_for("ready after", count=2)
    assert len(server.matches("next attempt")) == 3


def test_a_round_that_fails_is_logged_and_followed_by_the_next(start: Start) -> None:
    server = start(workers=2, before_fork="failing rounds").ready()
    server.wait_for("a round failed, the next one follows", count=3)
    server.wait_for("ZeroDivisionError: as asked", count=3)
    assert server.totals()["sessions"] == 0
    (victim, _) = server.children()
    os.kill(victim, signal.SIGKILL)
    server.wait_for("ready after", count=3)


def test_what_ends_the_master_is_in_the_log(start: Start) -> None:
    server = start(workers=2, before_fork="fatal round")
    assert server.wait() == 1
    server.wait_for(r"^ERROR master \d+: unexpected end")
    server.wait_for("KeyboardInterrupt: as asked")
    wait_until(lambda: not server.group(), "workers gone")


def test_frozen_worker_is_killed_and_replaced(start: Start) -> None:
    server = start(timeout=3, mercy=0.2).ready()
    (frozen,) = server.children()
    os.kill(frozen, signal.SIGSTOP)
    server.wait_for(f"worker {frozen}: no heartbeat for timeout 3 s")
    server.wait_for("ready after", count=2)  # the replacement does not wait for its end
    server.wait_for(f"worker {frozen}: still there, sent SIGKILL")
    server.wait_for(rf"worker {frozen} was killed by SIGKILL \(timeout\)")
    assert frozen not in server.children()


def test_a_master_that_slept_does_not_blame_its_workers(start: Start) -> None:
    server = start(timeout=3).ready()
    (worker,) = server.children()
    os.killpg(server.pid, signal.SIGSTOP)
    wait_until(lambda: (stat(server.pid) or "?")[0] == "T", "stopped")
    time.sleep(4)  # the time asleep is what is tested
    os.killpg(server.pid, signal.SIGCONT)
    server.wait_for("the master was stopped for [4-9] s")
    assert server.ask("pid") == str(worker)
    assert not server.matches("no heartbeat")


# -- many signals


def test_storm_of_signals_ends_in_the_right_state(start: Start) -> None:
    server = start(workers=2).ready()
    for _ in range(50):
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCHLD):
            server.send(number)
    assert server.totals()["sessions"] == 0
    # No order is certain of signals that come together. This one is new: after its line all others are in the queue.
    server.send(signal.SIGTTIN)
    server.wait_for(r"\d workers wanted, was \d")
    old = server.children()
    server.send(signal.SIGHUP)  # whatever was last, a WINCH or a reload
    wait_until(lambda: len(server.children()) == 2 and not old & server.children(), "two new workers")
    assert server.stop(signal.SIGTERM) == 0


# -- scaling and logs


def test_ttin_and_ttou(start: Start) -> None:
    server = start().ready()
    for wanted in (2, 3):
        server.send(signal.SIGTTIN)
        server.wait_for("ready after", count=wanted)
    assert len(server.children()) == 3
    for left in (2, 1):
        server.send(signal.SIGTTOU)
        server.wait_for(f"{left} workers wanted")
        server.wait_for(r"exited with code 0 \(one worker fewer\)", count=3 - left)
    assert len(server.children()) == 1
    server.send(signal.SIGTTOU)
    server.wait_for("staying at 1 workers")
    server.wait_for("draining", count=2)


def test_ttou_takes_the_idle_worker(start: Start) -> None:
    server = start(workers=2).ready()
    with server.connect() as client:
        busy = int(client.ask("pid"))
        server.send(signal.SIGTTOU)
        server.wait_for(r"exited with code 0 \(one worker fewer\)")
        assert server.children() == {busy}
        assert client.ask("pid") == str(busy)


def test_term_to_a_worker_drains_and_replaces_it(start: Start) -> None:
    server = start().ready()
    (old,) = server.children()
    with server.connect() as client:
        client.ask("pid")
        os.kill(old, signal.SIGTERM)
        server.wait_for("ready after", count=2)
        assert client.read() == "421 leaving"
    server.wait_for(rf"^INFO worker {old} exited with code 0 \(left of its own accord\)")
    (new,) = server.children()
    assert server.ask("pid") == str(new)


def test_usr1_reopens_logs_in_master_and_workers(start: Start) -> None:
    server = start(workers=2).ready()
    server.totals()
    for pid in server.children():
        server.wait_for(f"reopened in {pid}")
