"""The pid file: who holds the lock lives, whatever number the file shows."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from preforksmtp.process.pidfile import VARIABLE, Former, PidFile, PidFileError

HOLDER = """
import sys
from preforksmtp.process.pidfile import PidFile
file = PidFile(sys.argv[1])
file.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.pid"


def test_written_and_removed(path: Path) -> None:
    file = PidFile(str(path))
    file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["run.pid"]
    file.release()
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "no number", "999999999\n", f"{os.getppid()}\n"])
def test_a_stale_file_does_not_matter_even_if_its_number_lives(path: Path, text: str) -> None:
    path.write_text(text)
    file = PidFile(str(path))
    file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    file.release()


def test_a_running_server_is_respected_and_its_file_untouched(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        before = path.stat().st_ino, path.stat().st_mtime_ns, path.read_text()
        with pytest.raises(PidFileError, match=f"held by a running server, process {holder.pid}"):
            PidFile(str(path)).acquire()
        assert (path.stat().st_ino, path.stat().st_mtime_ns, path.read_text()) == before
        holder.kill()
    file = PidFile(str(path))
    file.acquire()  # it died without a word: the lock went with it
    file.release()


def test_promotion_replaces_the_old_file_and_the_old_owner_leaves_it(path: Path) -> None:
    old, new = PidFile(str(path)), PidFile(f"{path}.2")
    old.acquire()
    new.acquire()
    inode = os.stat(f"{path}.2").st_ino
    new.promote(str(path))
    old.release()
    assert path.stat().st_ino == inode
    assert not os.path.exists(f"{path}.2")
    new.release()
    assert os.listdir(path.parent) == []


def test_a_file_of_somebody_else_stays(path: Path) -> None:
    file = PidFile(str(path))
    file.acquire()
    path.unlink()
    path.write_text("1\n")
    file.release()
    assert path.read_text() == "1\n"


def test_a_child_that_outlives_us_does_not_hold_the_lock(path: Path) -> None:
    file = PidFile(str(path))
    file.acquire()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        file.close_in_child()
        os.write(write, b"x")
        os.close(write)
        signal.pause()
    os.read(read, 1)
    other = PidFile(str(path))
    with pytest.raises(PidFileError, match="held by a running server"):
        other.acquire()
    file._forget()  # as if we had died
    other.acquire()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    other.release()
    for end in (read, write):
        os.close(end)


def test_who_may_only_read_it_cannot_lock_it(path: Path) -> None:
    """Any user could keep the server from starting."""
    path.write_text("1\n")
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(OSError):
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file = PidFile(str(path))
    file.acquire()
    file.release()
    os.close(fd)


@pytest.mark.parametrize("kind", ["folder", "link", "no folder"])
def test_what_cannot_be_a_pid_file_is_one_clear_line(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/null")
    else:
        path = path / "absent" / "x"
    with pytest.raises(PidFileError, match="^pid: .*run.pid") as error:
        PidFile(str(path)).acquire()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("now", ["there", "another one's", "gone", "none ever"])
def test_the_file_of_the_old_master(path: Path, now: str) -> None:
    """Its successor removes it, if it is still the same one."""
    old, environ = PidFile(str(path)), dict[str, str]()
    if now != "none ever":
        old.acquire()
        old.hand_over(environ)
    if now == "another one's":
        new = PidFile(f"{path}.2")
        new.acquire()
        new.promote(str(path))
    elif now == "gone":
        path.unlink()
    Former(environ.get(VARIABLE, "")).remove()
    assert path.exists() == (now == "another one's")
    old.release(leave=True)
    if now == "another one's":
        new.release()
