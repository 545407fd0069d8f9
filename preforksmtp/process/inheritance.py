"""What the process that starts us leaves us: standard streams that are closed, descriptors, a mask of signals.

`begin` runs in the master, before anything is opened. Descriptors that nobody has named stay open there (a lock that
whoever started us holds through one lives on, and so it does through an upgrade) but in no other process: no program
that a hook starts has them, and no worker. Fails with OSError only where /dev/null cannot be opened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection, Iterable

_Inode = tuple[int, int]


class Inheritance:
    """The descriptors beyond the standard streams, as they were found."""

    def __init__(self, found: dict[int, _Inode]) -> None:
        self._found = found

    def adopt(self, fds: Iterable[int]) -> None:
        """Master: these are ours (a listener, a pipe of the old master), and treated as such from now on."""
        for fd in fds:
            self._found.pop(fd, None)

    def pass_on(self) -> None:
        """Aide, just before it execs a new master: as they came."""
        for fd in self._left():
            os.set_inheritable(fd, True)

    def close(self, keep: Collection[int] = ()) -> None:
        """Any other child: all that are nobody's."""
        for fd in self._left():
            if fd not in keep:
                os.close(fd)

    def _left(self) -> list[int]:
        """A number may have been closed since, and be another file's by now."""
        return [fd for fd, inode in self._found.items() if _inode(fd) == inode]


def begin() -> Inheritance:
    """First thing in the program."""
    fill_standard_streams()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a signal that is blocked would never stop us
    found = {fd: inode for fd in _open_descriptors() if (inode := _inode(fd)) is not None and os.get_inheritable(fd)}
    for fd in found:  # what this program opens itself is not inheritable
        os.set_inheritable(fd, False)
    return Inheritance(found)


def fill_standard_streams() -> None:
    """Those that are closed become /dev/null: or the next file would be standard output, and what an application prints
    would go into a listener's queue or to a client."""
    for fd in (0, 1, 2):
        if _inode(fd) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(null, True)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(fd, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - for life
            setattr(sys, name, stream)


def _open_descriptors() -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir("/dev/fd") if int(name) > 2)
    except (OSError, ValueError):
        return list(range(3, min(os.sysconf("SC_OPEN_MAX"), 4096)))  # no /dev/fd here


def _inode(fd: int) -> _Inode | None:
    with contextlib.suppress(OSError):
        status = os.fstat(fd)
        return status.st_dev, status.st_ino
    return None
