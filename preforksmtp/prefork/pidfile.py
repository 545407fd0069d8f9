"""The pid file: the number of a running master, in a file that this master holds locked for as long as it lives.

Runs in the master. The lock (flock) tells whether the owner lives, never the number, which may be stale or another
program's by now. The file appears whole, under its name, by rename: a reader never meets half a number or none.
Children must close their copy (`close_in_child`), or the lock would outlive the master. Fails with PidFileError, one
line.

In an upgrade the new master has the last word on the old one's file (`hand_over`, `Former`): it takes its name, or
removes it, where the new configuration has another name or none. The old one only lets go of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import MutableMapping

VARIABLE = "PREFORKSMTP_PIDFILE"  # the old master's file, in the environment of the new one


class PidFileError(Exception):
    """The pid file cannot be written, or another server holds it."""


class PidFile:
    """One file. During an upgrade the new master's is `PATH.2` until it is promoted."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # a later chdir must not matter
        self._fd = -1
        self._inode = (0, 0)

    def acquire(self) -> None:
        """Write our number. PidFileError if a live server holds the file."""
        while True:
            holder = self._lock_existing()
            try:
                self._fd = self._write_beside()
                status = os.fstat(self._fd)
                self._inode = status.st_dev, status.st_ino
                if self._name(new=holder < 0):
                    return
            except OSError as error:
                self._forget()
                raise PidFileError(f"pid: cannot write {self.path}: {error.strerror}") from None
            finally:
                if holder >= 0:
                    os.close(holder)

    def promote(self, path: str) -> None:
        """Take the name of a predecessor's file, at once and without a gap."""
        path = os.path.abspath(path)
        try:
            os.replace(self.path, path)
        except OSError as error:
            raise PidFileError(f"pid: cannot rename {self.path} to {path}: {error.strerror}") from None
        self.path = path

    def release(self, *, leave: bool = False) -> None:
        """Remove the file, if it is still ours, and let go of the lock. `leave` it to a successor that replaces it."""
        if leave or self._fd < 0:
            self._forget()
            return
        _remove(self.path, self._inode)
        self._forget()

    def hand_over(self, environ: MutableMapping[str, str]) -> None:
        """Aide, before it execs a new master with this environment."""
        environ[VARIABLE] = json.dumps([self.path, *self._inode])

    def close_in_child(self) -> None:
        """Any child, after the fork: the lock is the master's alone."""
        self._forget()

    @property
    def _beside(self) -> str:
        return f"{self.path}.{os.getpid()}.new"

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lock_existing(self) -> int:
        """Lock the file that is there, so that of two starting at once only one goes on; -1: there is none."""
        while True:
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return -1
            except OSError as error:
                raise PidFileError(f"pid: cannot open {self.path}: {error.strerror}") from None
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise PidFileError(f"pid: {self.path} is no regular file; choose another name")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                number = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise PidFileError(
                    f"pid: {self.path} is held by a running server, process {number}; stop that one first"
                ) from None
            except BaseException:
                os.close(fd)
                raise
            with contextlib.suppress(OSError):
                mine, there = os.fstat(fd), os.lstat(self.path)
                if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                    return fd
            os.close(fd)  # replaced or removed between open and lock: look again

    def _name(self, *, new: bool) -> bool:
        """Give the file its name. False: another server that starts just now was faster; look at its file."""
        if new:
            try:
                os.link(self._beside, self.path)
            except FileExistsError:
                os.unlink(self._beside)
                self._forget()
                return False
            os.unlink(self._beside)
        else:
            os.replace(self._beside, self.path)
        return True

    def _write_beside(self) -> int:
        """The new file, written and locked before it gets its name."""
        fd = os.open(self._beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(fd, 0o644)  # whatever the umask: the service manager may be another user
            os.write(fd, b"%d\n" % os.getpid())
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(self._beside)
            raise
        return fd


class Former:
    """New master: the pid file of the old one."""

    def __init__(self, text: str) -> None:
        """As the variable has it; "": there is none."""
        self._path, device, number = json.loads(text or '["", 0, 0]')
        self._inode = (int(device), int(number))

    def remove(self) -> None:
        """When we have taken over, and have given our own file its name: so only one that was left under another."""
        _remove(self._path, self._inode)


def _remove(path: str, inode: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):  # removed or replaced by somebody: theirs
        there = os.lstat(path)
        if (there.st_dev, there.st_ino) == inode:
            os.unlink(path)
