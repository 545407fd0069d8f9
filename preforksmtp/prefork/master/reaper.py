"""The reaper: collects the dead children of the master, keeps what they counted, says how each ended and what follows.

Runs in the master's loop. A worker whose end somebody asked for is one line. One that died by itself is one more for
each call of the handler that it died in, with client and envelope, so that the message that killed it is found; while
booting it slows down the next fork (throttle.py), and where none was ever READY it ends the master with the worker's
code. Nothing here fails.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence

from preforksmtp.prefork import scoreboard
from preforksmtp.prefork.calls import Call
from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.workforce import Workforce
from preforksmtp.prefork.worker.contract import BOOT_FAILED

OWN_ACCORD = "left of its own accord"
HALTING_CODES = (BOOT_FAILED, 4)
SHOWN = 10  # calls of the handler, of one dead worker
ATTEMPTS = 3  # at a first worker that dies while booting in some other way: it may have been killed by mistake


class Reaper:
    """One a master."""

    def __init__(
        self,
        master: Workforce,
        audit: Callable[[Child], None],
        died: Callable[[Child, str], None],
        halt: Callable[[int], None],
    ) -> None:
        """`audit` looks at the memory of a dead worker, `died` tells the reload of it, `halt` ends the server."""
        self._master = master
        self._audit = audit
        self._died = died
        self._halt = halt

    def reap(self) -> None:
        """Collect every dead child: ours, and those a hook or PID 1's duties brought us."""
        master = self._master
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # none at all: whoever is still in the table was reaped by a hook
                for gone in list(master.children.values()):
                    self._bury(gone, None)
                for pid in list(master.aides):
                    master.aides.pop(pid)(None)
                return
            if pid == 0:
                return
            worker = master.children.get(pid)
            if worker is not None:
                self._bury(worker, status)
            elif pid in master.aides:
                master.aides.pop(pid)(status)

    def _bury(self, worker: Child, status: int | None) -> None:
        """One dead worker: keep its counters, say how it ended, decide what follows."""
        master = self._master
        del master.children[worker.pid]
        master.notice_ready(worker)
        worker.status = status
        left = worker.slot.state == scoreboard.DRAINING
        calls, active = worker.slot.calls(), worker.slot.active()
        words = "" if worker.ready_at else worker.generation.board.pages.last_words(worker.slot.index)
        self._audit(worker)
        worker.generation.board.release(worker.slot)
        master.board.absorb()
        if not worker.reason and left:
            worker.asked, worker.reason = True, OWN_ACCORD
            master.throttle.crashed(master.wanted)
        how = "vanished" if status is None else child.describe(status)
        if worker.asked:
            level = logging.INFO if status == 0 else logging.WARNING
            master.log.log(level, "worker %d %s (%s)", worker.pid, how, worker.reason)
            if worker.reason == "reload" or worker.replacing:
                master.board.tallies.retired.count("restart", "recycled" if worker.replacing else "reload")
            if worker.generation is master.candidate and not worker.ready_at:  # somebody's order
                self._died(worker, how)
        else:
            self._mourn(worker, status, how, words)
            self._testify(worker, calls, active)
        master.hook("child_exit", worker, hooks=worker.generation.hooks)

    def _mourn(self, worker: Child, status: int | None, how: str, words: str) -> None:
        """One that nobody asked to go; `words` are its last ones, if it died while booting."""
        master = self._master
        code = BOOT_FAILED if worker.reason else 0  # a boot we gave up on
        if status is not None and os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
        master.board.count("workers_died")
        candidate = worker.generation is master.candidate
        delay = 0.0
        if not candidate and worker.ready_at:
            master.throttle.crashed(master.wanted)
        elif not candidate:
            delay = master.throttle.failed(worker.forked, time.monotonic())
        when = "" if worker.ready_at else " while booting"
        why = f" ({worker.reason})" if worker.reason else ""
        then = f"; next attempt in {delay:.0f} s" if delay and not master.stopping else ""
        # Where an old master serves, better no upgrade than one in suspense.
        if code not in HALTING_CODES and (master.succession is not None or master.throttle.failures >= ATTEMPTS):
            code = BOOT_FAILED
        if not master.ever_ready and not candidate and code in HALTING_CODES:
            master.log.error("worker %d %s%s%s; no worker could boot, giving up", worker.pid, how, when, why)
            self._halt(code)
            return
        master.log.error("worker %d %s%s%s%s", worker.pid, how, when, why, then)
        kind = "worker hung" if worker.reason else "worker died"
        master.board.chronicle.note(kind, f"worker {worker.pid} {how}{when}{why}")
        master.board.tallies.retired.count("restart", kind.removeprefix("worker "))
        if candidate or not worker.ready_at:
            self._died(worker, f"{how} ({words})" if words else how)

    def _testify(self, worker: Child, calls: Sequence[Call], active: int) -> None:
        """What its sessions were doing, for who looks for the message that killed it."""
        master = self._master
        for call in calls[:SHOWN]:
            master.log.error("worker %d died in the handler's %s", worker.pid, call)
        if active:
            numbers = worker.pid, active, len(calls)
            master.log.error("worker %d had %d sessions, %d of them in the handler", *numbers)
        interrupted = [call for call in calls if call.has_message]
        master.board.count("messages_interrupted", len(interrupted))
        for call in interrupted:
            if call.key:
                master.board.poison.record(call.key)
