"""Forking: a worker, or an aide, which is any other child of the master: the rehearsal of a reload, a new master.

`fork_worker` and `fork_aide` run in the master and return at once. Signals are blocked from before the fork until the
child has handlers of its own and the master has the child in its table, so none is lost and none hits the wrong one.
A child keeps no descriptor that is the master's alone, and of the memory that they share it can write to nothing but
what it is given. OSError: cannot fork, or open the sockets of a lane.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from socket import socket
from typing import NoReturn

from preforksmtp.prefork import signals
from preforksmtp.prefork.atfork import own_fork, protect
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.workforce import OnDeath, Workforce
from preforksmtp.prefork.memory import Memory, restrict
from preforksmtp.prefork.worker.worker import Worker


def fork_worker(master: Workforce, record: Child) -> None:
    """Master: the worker of this record, which gets its process id."""
    sockets = record.generation.listeners.lane(record.lane)
    _flush()
    with signals.blocked() as mask, own_fork():
        pid = os.fork()
        if pid == 0:
            _become_worker(master, record, mask, sockets)
        record.pid = record.slot.pid = pid
        master.children[pid] = record


def fork_aide(
    master: Workforce,
    run: Callable[[], object],
    on_death: OnDeath,
    keep: Sequence[socket] = (),
    writes: Sequence[Memory] = (),
) -> int:
    """Master: run() in a child with default signals; of the listeners it has `keep`, and it writes to section 0 of
    `writes`."""
    _flush()
    with signals.blocked() as mask, own_fork():
        pid = os.fork()
        if pid == 0:
            _become_aide(master, run, mask, keep, writes)
        master.aides[pid] = on_death
    return pid


def _flush() -> None:
    """Before a fork: or the child would write our buffers again."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # None, closed, or something of the application's
            stream.flush()


def _become_worker(master: Workforce, record: Child, mask: set[int], sockets: Sequence[socket]) -> NoReturn:
    """Worker, all signals blocked. Our own handlers and descriptors first, then let signals in."""
    try:
        generation, wakeup = record.generation, master.wakeup
        wakeup.close_in_child()
        wakeup.part()
        worker = Worker(
            generation.config,
            sockets,
            master.log,
            generation.board,
            record.slot,
            wakeup.lifeline,
            wakeup.bell,
        )
        worker.server, worker.hooks, worker.lane = master, generation.hooks, record.lane
        worker.take_signals()
        _close_what_is_not_ours(master, sockets)
        generation.board.restrict(record.slot)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        worker.run(generation.plan.boot)
    except BaseException:
        master.log.exception("worker %d: cannot begin", os.getpid())
    finally:
        os._exit(1)


def _become_aide(
    master: Workforce, run: Callable[[], object], mask: set[int], keep: Sequence[socket], writes: Sequence[Memory]
) -> NoReturn:
    """Aide. It must never return into the master's frames."""
    code = 1
    try:
        master.wakeup.close_in_child()
        for number in signals.HANDLED:
            signal.signal(number, signal.SIG_DFL)
        _close_what_is_not_ours(master, keep)
        restrict(writes)
        protect()  # what it forks ends with it
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        run()
        code = 0
    except BaseException:
        master.log.exception("process %d: unexpected end", os.getpid())
    finally:
        try:
            _flush()
        finally:
            os._exit(code)


def let_go(master: Workforce) -> None:
    """In a child that the application has forked from the master: it keeps nothing."""
    master.wakeup.close_in_child()
    os.close(master.wakeup.lifeline)
    os.close(master.wakeup.bell)
    _close_what_is_not_ours(master, ())


def _close_what_is_not_ours(master: Workforce, keep: Sequence[socket]) -> None:
    """Any child. Or a port, or a lock, would still be held when its owner lets go of it."""
    candidate = master.candidate
    for listener in {*master.listeners(), *(candidate.listeners.every() if candidate else ())}:
        if listener not in keep:
            listener.close()
    for callback in master.on_child:
        master.call(callback)
