"""The old master's patience with a new one: what it hears moves the deadline; then TERM, and then KILL."""

from __future__ import annotations

import math
import os
import selectors
import subprocess
import time
from collections.abc import Iterator

import pytest

from preforksmtp.prefork.master.progress import LEEWAY, MERCY, Patience, Progress


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for the new program: it ignores TERM."""
    with subprocess.Popen(["sh", "-c", "trap '' TERM; echo; exec sleep 3600"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


def begin(selector: selectors.BaseSelector, pid: int) -> tuple[Patience, Progress]:
    patience = Patience(selector, 5)
    progress = Progress(os.dup(patience.write))
    patience.begin(pid)
    return patience, progress


def left(patience: Patience) -> float:
    return patience.deadline - time.monotonic() - LEEWAY


def test_each_step_has_its_time_and_then_there_is_no_deadline(selector: selectors.BaseSelector) -> None:
    files = os.listdir("/proc/self/fd")
    patience, progress = begin(selector, os.getpid())
    assert left(patience) == pytest.approx(5, abs=1)
    progress.expect(60)
    assert selector.select(0)
    patience.advance(time.monotonic(), pytest.fail)
    assert left(patience) == pytest.approx(60, abs=1)
    progress.expect(7)
    progress.done()
    progress.expect(8)  # to nobody
    patience.advance(time.monotonic(), pytest.fail)
    assert patience.deadline == math.inf
    assert not selector.get_map()
    assert len(os.listdir("/proc/self/fd")) == len(files)
    assert not patience.why


def test_it_runs_out(selector: selectors.BaseSelector, child: subprocess.Popen[bytes]) -> None:
    said: list[str] = []
    patience, progress = begin(selector, child.pid)
    patience.advance(patience.deadline, said.append)
    assert said == [f"the new master {child.pid} is not ready to begin after boot_timeout 5 s, sent SIGTERM"]
    later = patience.deadline
    patience.advance(later - MERCY / 2, said.append)
    assert len(said) == 1
    assert child.poll() is None
    patience.advance(later, said.append)
    assert said[1].endswith("sent SIGKILL")
    assert child.wait(10) == -9
    patience.end()
    assert patience.why == "not ready to begin after boot_timeout 5 s"
    progress.done()  # nobody listens: no fault


def test_a_closed_pipe_is_no_news(selector: selectors.BaseSelector) -> None:
    """Nothing to look at any more, so that the loop does not spin; but the deadline holds."""
    patience, progress = begin(selector, os.getpid())
    progress.close()
    patience.advance(time.monotonic(), pytest.fail)
    assert not selector.get_map()
    assert left(patience) == pytest.approx(5, abs=1)


def test_what_is_not_from_us_is_no_news(selector: selectors.BaseSelector) -> None:
    patience = Patience(selector, 5)
    writer = os.dup(patience.write)
    patience.begin(os.getpid())
    for text in (b"\n", b"hello\n"):
        os.write(writer, text)
        patience.advance(time.monotonic(), pytest.fail)
    assert left(patience) == pytest.approx(5, abs=1)
    os.close(writer)
    patience.end()


def test_a_fork_that_failed_leaves_nothing_open(selector: selectors.BaseSelector) -> None:
    files = os.listdir("/proc/self/fd")
    Patience(selector, 5).end()
    assert len(os.listdir("/proc/self/fd")) == len(files)


def test_the_descriptor_must_be_a_pipe_and_outlives_no_further_exec() -> None:
    Progress(100_000).done()
    with open("/dev/null", "wb") as file:
        Progress(file.fileno()).done()
        os.fstat(file.fileno())  # not ours, so still open
    read, write = os.pipe()
    os.set_inheritable(write, True)
    progress = Progress(write)
    assert not os.get_inheritable(write)
    progress.done()
    assert os.read(read, 100) == b"0.000\n"
    os.close(read)
