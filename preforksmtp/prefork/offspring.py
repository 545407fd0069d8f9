"""The processes that the application forks from this one, and theirs: how it waits for them, and how they end with it.

Three pipes, opened at the first such fork, do without a list of process ids, which would have to be right:

    life    this process holds the only write end: when it dies, however it dies, the kernel sends TERM to each child
    presence  each child holds the write end: its end of file says that the last one is gone
    death   an octet in it, and the kernel sends KILL to each child that is still there

The kernel's part is F_SETSIG (fcntl(2)): Linux only, elsewhere a child is waited for, and not more. A child that closes
all its descriptors, or becomes another program (exec), is none any more. Nothing here fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal

F_SETSIG = getattr(fcntl, "F_SETSIG", 0)


class Offspring:
    """One a process."""

    def __init__(self) -> None:
        self._life, self._presence, self._death = [-1, -1], [-1, -1], [-1, -1]  # read end, write end

    def prepare(self) -> None:
        """Before the application forks."""
        with contextlib.suppress(OSError):  # no descriptors: its children are on their own
            for pipe in (self._life, self._presence, self._death):
                if pipe == [-1, -1]:
                    pipe[:] = os.pipe()

    def join(self) -> None:
        """In the child: be one of them."""
        _close(self._life, 1)
        _close(self._presence, 0)
        # The write end of `death` stays open: the end of the last other one must not be taken for an octet in it.
        _arm(self._life, signal.SIGTERM)
        _arm(self._death, signal.SIGKILL)

    def forget(self) -> None:
        """In a child that is not the application's: its own will be others."""
        for pipe in (self._life, self._presence, self._death):
            _close(pipe, 0)
            _close(pipe, 1)

    def await_end(self, seconds: float) -> bool:
        """Wait until all are gone, at most so long. From the first call on new ones are not waited for."""
        _close(self._presence, 1)
        if self._presence[0] < 0:
            return True
        poll = select.poll()
        poll.register(self._presence[0], select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def terminate(self) -> None:
        """TERM to all."""
        _close(self._life, 1)

    def kill(self) -> None:
        """KILL to all that are left."""
        if self._death[1] >= 0:
            with contextlib.suppress(OSError):
                os.write(self._death[1], b"\0")


def _close(pipe: list[int], end: int) -> None:
    fd, pipe[end] = pipe[end], -1
    if fd >= 0:
        with contextlib.suppress(OSError):  # the application was faster
            os.close(fd)


def _arm(pipe: list[int], number: int) -> None:
    """Have the kernel send this signal at the next event of the pipe's read end. To whom it is sent belongs to the open
    file, which the parent has as well: it is opened once more."""
    if pipe[0] < 0 or not F_SETSIG:
        return
    try:
        fd = os.open(f"/proc/self/fd/{pipe[0]}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # no /proc
    _close(pipe, 0)
    pipe[0] = fd
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, F_SETSIG, number)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        # What happened before that told nobody.
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if poll.poll(0):
            os.kill(os.getpid(), number)
