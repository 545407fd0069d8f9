"""Scaling: how many workers are wanted, and which lane each of them serves.

Lanes are the queues of the listeners: one without reuse_port, one for each wanted worker with it. A lane must never be
without a worker for long, for its clients wait: a new worker goes where nobody is, or where nobody of its generation is
yet; where the number shrinks those of the lanes that close are the ones to leave, and empty their queue before.

All of it runs in the master; nothing here fails or blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from preforksmtp.prefork.master.generation import Generation, MasterConfig
from preforksmtp.prefork.master.workforce import Workforce


class Scaling:
    """One a master. TTIN, TTOU and WINCH change it, and a reload whose configuration says otherwise."""

    def __init__(self, master: Workforce, dismiss: Callable[[], None]) -> None:
        """`dismiss`: gives up a reload that is under way."""
        self._master = master
        self._dismiss_reload = dismiss
        self._lanes = _lanes(master.config, master.wanted)

    def lane(self, generation: Generation) -> int:
        """For a worker about to be forked."""
        lanes = self._lanes
        if generation is not self._master.current:  # a canary: it stays where both generations have a lane
            lanes = min(lanes, _lanes(generation.config, generation.config.workers))
        there = [worker for worker in self._master.serving() if not worker.replacing]
        own = [worker.lane for worker in there if worker.generation is generation]
        every = [worker.lane for worker in there]
        return min(range(lanes), key=lambda lane: (own.count(lane), every.count(lane)))

    def add(self) -> None:
        """TTIN."""
        self.scale(self._master.wanted + 1)

    def remove(self) -> None:
        """TTOU."""
        self.scale(self._master.wanted - 1)

    def dismiss(self) -> None:
        """WINCH: all workers drain, this master stays, for HUP or TTIN to begin again. A terminal sends it whenever its
        window changes, and then nothing is meant."""
        master = self._master
        if os.isatty(0) or master.stopping:
            return
        master.log.info("master %d: no workers wanted any more (SIGWINCH), was %d", os.getpid(), self._master.wanted)
        master.board.chronicle.note("scaled", "no workers wanted any more (SIGWINCH)")
        self.set(0)
        self._dismiss_reload()
        for worker in master.members():
            worker.retire("SIGWINCH")

    def set(self, wanted: int) -> None:
        """Without sending anybody away."""
        before, self._master.wanted = self._master.wanted, wanted
        if wanted:  # none at all is for a while: the queues wait, those too that TTIN then finds too many
            self.fit_lanes()
        if before != wanted:
            self._master.hook("nworkers_changed", wanted, before)

    def fit_lanes(self) -> None:
        """Close the lanes that are too many: for us at once, for the workers there when they leave."""
        self._lanes = _lanes(self._master.config, self._master.wanted)
        for worker in self._master.children.values():
            if worker.lane >= self._lanes:
                worker.slot.closing = 1
        self._master.current.listeners.cut(self._lanes)

    def scale(self, wanted: int) -> str:
        """So many, from now on. Returns why not, "" where it is done."""
        master = self._master
        most = len(master.board.slots) - master.config.workers
        if master.stopping or not 1 <= wanted <= most:
            refusal = f"staying at {self._master.wanted} workers (1 to {most})"
            master.log.warning("master %d: %s", os.getpid(), refusal)
            return refusal
        master.log.info("master %d: %d workers wanted, was %d", os.getpid(), wanted, self._master.wanted)
        master.board.chronicle.note("scaled", f"{wanted} workers wanted, was {master.wanted}")
        self.set(wanted)
        surplus = master.members()
        # Those whose lane closes, one missing elsewhere or not. Those still booting cost nobody a session; then the
        # oldest generation, then the least busy.
        surplus.sort(
            key=lambda worker: (
                *(worker.lane < self._lanes, worker.ready_at is not None),
                *(worker.generation.number, worker.slot.active()),
            )
        )
        for number, worker in enumerate(surplus):
            if number < len(surplus) - wanted or worker.lane >= self._lanes:
                worker.retire("one worker fewer")
        return ""


def _lanes(config: MasterConfig, workers: int) -> int:
    return workers if config.reuse_port else 1
