"""What an application may have taken of its process, and what is put back, each with one line in the error log.

An application may do what it likes with what is its own; this is about the few things that keep the server from working
at all. Runs in the main thread, in a worker after its boot and at each beat, in the master after a preload and in each
round. Nothing here fails.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence

PATCHERS = ("gevent", "eventlet")
SWITCH_INTERVAL = 0.1  # seconds: with more, one thread keeps all others of the process waiting
ORDINARY_INTERVAL = 0.005


def reclaim(log: logging.Logger, taken: Sequence[str] = ()) -> None:
    """`taken`: the names of signals that are ours again already."""
    if taken:
        line = "the application has changed what %s does; the server needs it, and has taken it back: see Handler.stop"
        log.warning(line, ", ".join(taken))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        if signal.getsignal(number) == signal.SIG_DFL:  # any client that leaves would end this process
            signal.signal(number, signal.SIG_IGN)
            log.warning("the application has set the default of %s; ignored again", signal.Signals(number).name)
    if sys.getswitchinterval() > SWITCH_INTERVAL:
        line = "the application has called sys.setswitchinterval(%g): sessions would wait for each other; %g again"
        log.warning(line, sys.getswitchinterval(), ORDINARY_INTERVAL)
        sys.setswitchinterval(ORDINARY_INTERVAL)
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            with contextlib.suppress(OSError):  # an accept() that is waiting has taken the number: see lift()
                occupy(fd)
                log.warning("the application has closed descriptor %d: /dev/null again, and no client's", fd)


def occupy(fd: int) -> None:
    """/dev/null in this place. OSError."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if null == fd:  # the lowest number that is free
        os.set_inheritable(fd, True)
        return
    try:
        os.dup2(null, fd)
    finally:
        os.close(null)


def lift(fd: int) -> int:
    """Any thread: a client has the number of a standard stream, which the application has closed, and must not get what
    is printed. Another number for it. OSError."""
    higher = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    occupy(fd)
    return higher


def replaced() -> str:
    """Any process: what nobody can work with in place of Python's own, to stand behind its author; "" for nothing."""
    patcher = (getattr(_thread.start_new_thread, "__module__", None) or "").partition(".")[0]
    if patcher in PATCHERS:
        return (
            f"{patcher} has replaced Python's threads, and sessions run in these; leave them alone "
            "(gevent: monkey.patch_all(thread=False)), or do without patching: handlers may block"
        )
    if not hasattr(select, "poll"):
        return "select.poll was removed (by eventlet?), and the server waits with it; leave select alone"
    return ""
