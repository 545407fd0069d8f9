"""process/confine.py: whom a confined process may still signal."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from preforksmtp.process.confine import confine_signals

NOBODY = 65534


def in_child(work) -> int:
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


UNABLE = 77


def confined(work) -> int:
    """What `work` returns in a process that is confined."""
    code = in_child(lambda: work() if confine_signals() else UNABLE)
    if code == UNABLE:
        pytest.skip("needs LANDLOCK_SCOPE_SIGNAL")
    return code


def test_nobody_else_and_not_the_parent() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:

        def work() -> int:
            for pid in (stranger.pid, os.getppid()):
                try:
                    os.kill(pid, 0)
                except PermissionError:
                    continue
                return 1
            return 0

        assert confined(work) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_itself_its_threads_and_what_it_starts() -> None:
    def work() -> int:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        os.kill(os.getpid(), signal.SIGUSR1)
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        signal.pthread_kill(thread.ident or 0, signal.SIGUSR1)
        done.set()
        thread.join()
        with subprocess.Popen(["sleep", "60"]) as ours:
            ours.kill()
            return int(ours.wait() != -signal.SIGKILL)

    assert confined(work) == 0


def test_signals_still_reach_it() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        confine_signals()
        os.write(write, b"x")
        signal.pause()
        os._exit(0)
    os.read(read, 1)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    os.close(read)
    os.close(write)
