"""What is put back of what an application has taken, and said once."""

from __future__ import annotations

import _thread
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from preforksmtp.prefork.reclaim import lift, reclaim, replaced
from preforksmtp.prefork.signals import SignalQueue
from tests.processes import ROOT

log = logging.getLogger("preforksmtp")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    interval, handlers = sys.getswitchinterval(), {n: signal.getsignal(n) for n in (signal.SIGPIPE, signal.SIGXFSZ)}
    yield
    sys.setswitchinterval(interval)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Once; the second time there is nothing to say."""
    reclaim(log)
    lines = caplog.messages
    caplog.clear()
    reclaim(log)
    assert caplog.messages == []
    return lines


def test_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    assert said(caplog) == []


def test_signals_that_would_end_the_process(caplog: pytest.LogCaptureFixture) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    (line,) = said(caplog)
    assert "SIGPIPE" in line
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    signal.signal(signal.SIGPIPE, lambda *_: None)  # does no harm
    assert said(caplog) == []


def test_the_switch_interval(caplog: pytest.LogCaptureFixture) -> None:
    sys.setswitchinterval(0.05)
    assert said(caplog) == []
    sys.setswitchinterval(7)
    (line,) = said(caplog)
    assert "sys.setswitchinterval(7)" in line
    assert sys.getswitchinterval() < 0.1


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_closed_standard_stream(fd: int) -> None:
    program = (
        "import logging, os; from preforksmtp.prefork.reclaim import reclaim; log = logging.getLogger();"
        f"os.close({fd}); reclaim(log); print(os.readlink('/proc/self/fd/{fd}'), os.get_inheritable({fd}),"
        f" len(os.listdir('/proc/self/fd')), file=open('/proc/self/fd/' + ('1' if {fd} != 1 else '2'), 'w'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "/dev/null True" in done.stdout + done.stderr


def test_a_client_in_the_place_of_a_standard_stream() -> None:
    program = """
import os, socket
from preforksmtp.prefork.reclaim import lift
ours, theirs = socket.socketpair()
os.close(1)
fd = os.dup(ours.fileno())
ours.close()
assert fd == 1
fd = lift(fd)
print("not for the client", flush=True)
socket.socket(fileno=fd).sendall(b"for the client")
theirs.shutdown(socket.SHUT_WR)
os.write(2, theirs.recv(100))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == "for the client"


def test_lifted_above_all_standard_streams() -> None:
    one, two = socket.socketpair()
    fd = lift(one.fileno())
    assert fd > 2
    assert not os.get_inheritable(fd)
    assert os.readlink(f"/proc/self/fd/{one.fileno()}") == os.devnull
    with socket.socket(fileno=fd) as higher:
        higher.sendall(b"x")
    assert two.recv(1) == b"x"
    for sock in (one, two):
        sock.close()


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_threads_that_are_none(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert replaced() == ""

    def start_new_thread() -> None: ...

    start_new_thread.__module__ = f"{library}.thread"
    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    assert replaced().startswith(f"{library} has replaced Python's threads")


def test_a_debugger_may_put_itself_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: None)
    assert replaced() == ""


def test_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    assert "select.poll" in replaced()


def test_a_queue_takes_its_signals_back() -> None:
    queue = SignalQueue()
    try:
        assert queue.install((signal.SIGUSR1, signal.SIGUSR2)) == []
        assert queue.take_back() == []
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2,))
        assert queue.take_back() == ["SIGUSR1"]
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert select.select([queue], [], [], 0)[0]
        assert queue.take() == [signal.SIGUSR1, signal.SIGUSR2]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        queue.close()


def test_a_queue_says_whose_signals_it_has_taken() -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    queue = SignalQueue()
    try:
        assert queue.install((signal.SIGUSR1, signal.SIGUSR2)) == ["SIGUSR1"]
    finally:
        queue.close()
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
