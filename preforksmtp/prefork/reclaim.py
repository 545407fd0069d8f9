"""What an application may have taken of its process, and what is put back, each with one line in the error log.

An application may do what it likes with what is its own; this is about the few things that keep the server from working
at all. Runs in the main thread, in a worker after its boot and at each beat, in the master after a preload and in each
round. Nothing here fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

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
            with contextlib.suppress(OSError):  # the lowest free number is this one
                os.open(os.devnull, os.O_RDWR)
            log.warning("the application has closed descriptor %d, which the next client would get: now /dev/null", fd)
