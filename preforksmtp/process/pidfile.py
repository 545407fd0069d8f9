"""The pid file: the number of a running master, in a file that this master holds locked for as long as it lives.

Runs in the master. The lock tells whether the owner lives, never the number, which may be stale or another program's by
now. Only who may write to the file can hold the lock (OFD locks; where there are none, flock), so that no other user
keeps the server from starting. The file appears whole, under its name, by rename: a reader never meets half a number or
none. Root changes no name but in the folder it has reached itself (place.py).
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
import struct
from collections.abc import MutableMapping

from preforksmtp.process.place import Place, absolute, reach

VARIABLE = "PREFORKSMTP_PIDFILE"  # the old master's file, in the environment of the new one


class PidFileError(Exception):
    """The pid file cannot be written, or another server holds it."""


class PidFile:
    """One file. During an upgrade the new master's is `PATH.2` until it is promoted."""

    def __init__(self, path: str) -> None:
        try:
            self.path = absolute(path)  # a later chdir must not matter
        except OSError as error:
            raise PidFileError(f"pid: cannot write {path}: {error.strerror}") from None
        self._fd = -1
        self._inode = (0, 0)

    def acquire(self) -> None:
        """Write our number. PidFileError if a live server holds the file."""
        while True:
            try:
                with reach(self.path) as place:
                    if self._acquire(place):
                        return
            except OSError as error:
                self._forget()
                raise PidFileError(f"pid: cannot write {self.path}: {error.strerror}") from None

    def _acquire(self, place: Place) -> bool:
        """False: another server that starts just now was faster; look at its file. OSError, PidFileError."""
        holder = self._lock_existing(place)
        try:
            beside = self._write_beside(place)
            status = os.fstat(self._fd)
            self._inode = status.st_dev, status.st_ino
            return self._name(place, beside, new=holder < 0)
        finally:
            if holder >= 0:
                os.close(holder)

    def promote(self, path: str) -> None:
        """Take the name of a predecessor's file, which is in the same folder, at once and without a gap."""
        path = os.path.abspath(path)
        try:
            with reach(self.path) as place:
                place.rename(os.path.basename(path))
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

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lock_existing(self, place: Place) -> int:
        """Lock the file that is there, so that of two starting at once only one goes on; -1: there is none."""
        while True:
            try:
                fd = place.open(os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return -1
            except OSError as error:
                raise PidFileError(f"pid: cannot open {self.path}: {error.strerror}") from None
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise PidFileError(f"pid: {self.path} is no regular file; choose another name")
                _lock(fd)
            except (BlockingIOError, PermissionError):
                number = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise PidFileError(
                    f"pid: {self.path} is held by a running server, process {number}; stop that one first"
                ) from None
            except BaseException:
                os.close(fd)
                raise
            with contextlib.suppress(OSError):
                if place.inode() == (status.st_dev, status.st_ino):
                    return fd
            os.close(fd)  # replaced or removed between open and lock: look again

    def _name(self, place: Place, beside: str, *, new: bool) -> bool:
        """Give the file its name. False: another server that starts just now was faster."""
        if not new:
            os.replace(beside, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            return True
        try:
            os.link(beside, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder, follow_symlinks=False)
        except FileExistsError:
            self._forget()
            return False
        finally:
            os.unlink(beside, dir_fd=place.folder)
        return True

    def _write_beside(self, place: Place) -> str:
        """The new file, written and locked before it gets its name; the one it has meanwhile."""
        beside = place.beside(f"{os.path.basename(place.name)}.{os.getpid()}.new")
        with contextlib.suppress(FileNotFoundError):  # of a former process with our number
            os.unlink(beside, dir_fd=place.folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(beside, flags, 0o644, dir_fd=place.folder)
        try:
            _lock(self._fd)
            os.fchmod(self._fd, 0o644)  # whatever the umask: the service manager may be another user
            os.write(self._fd, b"%d\n" % os.getpid())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=place.folder)
            raise
        return beside


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
    with contextlib.suppress(OSError), reach(path) as place:  # removed or replaced by somebody: theirs
        place.remove(inode)


def _lock(fd: int) -> None:
    """Without waiting. BlockingIOError, PermissionError: another process has locked the file."""
    if hasattr(fcntl, "F_OFD_SETLK"):
        # struct flock: type, whence, start, length (0: all of it), process; the whole at its full alignment.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
