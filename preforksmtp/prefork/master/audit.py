"""The audit: what stands in the shared memory of a worker is looked at as what anybody may have written there.

A worker of ours never writes what `Slot.fault` and `Scoreboard.fault` name, so one that has is out of our hands: taken
over, or scribbled over by code in C. It is killed, and its slot is given away again only if there is no other one.
Until then such a value harms nobody, see scoreboard.py. Runs in the master, each round; nothing here fails.
"""

from __future__ import annotations

import itertools

from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.workforce import Workforce

REASON = "what it wrote into the shared memory"
EVERY = 0.2  # seconds between two workers whose counters and clients are looked at; the gauges are, each round


class Audit:
    """One a master."""

    def __init__(self, master: Workforce) -> None:
        self._master = master
        self._turn = itertools.count()
        self._next = 0.0

    def condemn(self, worker: Child, fault: str) -> None:
        """It is not ours any more."""
        if worker.reason != REASON:
            worker.slot.tainted = True
            line = "worker %d: what it wrote into the shared memory no worker writes, it is killed: %s"
            self._master.log.error(line, worker.pid, fault)
            worker.end(child.KILL, REASON, asked=False)

    def advance(self, now: float) -> None:
        """Each round."""
        workers = list(self._master.children.values())
        for worker in workers:
            if fault := worker.slot.fault():
                self.condemn(worker, fault)
        if workers and now >= self._next:
            self._next = now + EVERY
            worker = workers[next(self._turn) % len(workers)]
            if fault := worker.generation.board.fault(worker.slot):
                self.condemn(worker, fault)

    def bury(self, worker: Child) -> None:
        """Before its slot is released: may the next one have it?"""
        slot = worker.slot
        slot.tainted = slot.tainted or bool(slot.fault() or worker.generation.board.fault(slot))

