"""An aide: a child of the master that is no worker, such as the rehearsal of a reload or a new master.

`fork` runs in the master and returns at once; what becomes of the child is told to `on_death` when it is reaped.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from preforksmtp.prefork import signals

if TYPE_CHECKING:
    from preforksmtp.prefork.master import Master

OnDeath = Callable[[int | None], None]  # the wait status; None: somebody else reaped it


def fork(master: Master, run: Callable[[], object], on_death: OnDeath) -> int:
    """Master: run() in a child with default signals and none of the master's descriptors. OSError: cannot fork."""
    flush()
    with signals.blocked() as mask:
        pid = os.fork()
        if pid == 0:
            _become(master, run, mask)
        master.aides[pid] = on_death  # before its CHLD can be taken
    return pid


def flush() -> None:
    """Before a fork: or the child would write our buffers again."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _become(master: Master, run: Callable[[], object], mask: set[int]) -> None:
    """Aide. It must never return into the master's frames."""
    code = 1
    try:
        master.wakeup.close_in_child()
        for number in signals.HANDLED:
            signal.signal(number, signal.SIG_DFL)
        master.close_in_child()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        run()
        code = 0
    except BaseException:
        master.log.exception("process %d: unexpected end", os.getpid())
    finally:
        flush()
        os._exit(code)
