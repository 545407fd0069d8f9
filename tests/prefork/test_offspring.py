"""Processes that the application forks: waited for, told to end, killed; and what becomes of them without their parent."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from preforksmtp.prefork.offspring import Offspring
from tests.processes import PATIENCE, descriptors


@pytest.fixture
def offspring() -> Iterator[Offspring]:
    before = descriptors(os.getpid())
    family = Offspring()
    yield family
    family.forget()
    assert descriptors(os.getpid()) == before


def sleep() -> None:
    time.sleep(PATIENCE)


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep()


def fork(offspring: Offspring, run: Callable[[], None]) -> int:
    """A child, once it has joined."""
    offspring.prepare()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            offspring.join()
            if run is stubborn:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(write, b"\0")
            run()
        finally:
            os._exit(0)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return pid


def ended(pid: int) -> int:
    """How, as waitstatus_to_exitcode() has it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_where_nothing_was_forked_nothing_is_waited_for(offspring: Offspring) -> None:
    assert offspring.await_end(PATIENCE)
    offspring.terminate()
    offspring.kill()


def test_all_are_waited_for(offspring: Offspring) -> None:
    first, second = fork(offspring, sleep), fork(offspring, sleep)
    assert not offspring.await_end(0.0)
    os.kill(first, signal.SIGKILL)
    ended(first)
    assert not offspring.await_end(0.0)
    os.kill(second, signal.SIGKILL)
    assert offspring.await_end(PATIENCE)
    ended(second)


def test_they_are_terminated_and_then_killed(offspring: Offspring) -> None:
    willing, unwilling = fork(offspring, sleep), fork(offspring, stubborn)
    offspring.terminate()
    assert ended(willing) == -signal.SIGTERM
    assert os.waitpid(unwilling, os.WNOHANG) == (0, 0)
    offspring.kill()
    assert ended(unwilling) == -signal.SIGKILL
    assert offspring.await_end(PATIENCE)


def test_their_own_children_are_among_them(offspring: Offspring) -> None:
    child = fork(offspring, lambda: os._exit(fork(offspring, stubborn) * 0))
    assert ended(child) == 0
    assert not offspring.await_end(0.0)
    offspring.kill()
    assert offspring.await_end(PATIENCE)


def test_the_death_of_their_parent_ends_them(offspring: Offspring) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(read)
        fork(offspring, sleep)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(write)
    ended(parent)
    poll = select.poll()
    poll.register(read, select.POLLHUP)
    assert poll.poll(PATIENCE * 1000 / 2), "the child is gone, and its end of the pipe"
    os.close(read)


def test_one_that_comes_too_late_is_told_at_once(offspring: Offspring) -> None:
    offspring.prepare()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(read, 1)
            offspring.join()
            sleep()
        finally:
            os._exit(0)
    offspring.terminate()
    os.write(write, b"\0")
    assert ended(pid) == -signal.SIGTERM
    os.close(read)
    os.close(write)


def test_another_program_is_none_of_them(offspring: Offspring) -> None:
    pid = fork(offspring, lambda: os.execvp("sleep", ["sleep", str(PATIENCE)]))
    assert offspring.await_end(PATIENCE / 2)
    offspring.terminate()
    offspring.kill()
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGKILL)
    ended(pid)


def test_a_child_of_ours_has_a_family_of_its_own(offspring: Offspring) -> None:
    offspring.prepare()
    pid = os.fork()
    if pid == 0:
        try:
            offspring.forget()
            sleep()
        finally:
            os._exit(0)
    offspring.terminate()
    offspring.kill()
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    assert offspring.await_end(0.0)
