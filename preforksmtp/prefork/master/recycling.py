"""Recycling: a worker that has served enough, or hangs in a handler, is replaced without a gap in capacity.

The worker finds that it is due (`Limits`) and says so in its slot of the scoreboard. The master (`Recycling`) grants
one at a time: it leaves the worker out of its count, so that a replacement is forked, waits until that one serves,
and only then sends TERM. If the replacement cannot boot the old worker serves on. A worker with a stuck handler is
not made to wait for its turn: it has stopped accepting already. Nothing here fails or blocks.
"""

from __future__ import annotations

from collections.abc import Callable

from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.workforce import Workforce
from preforksmtp.prefork.reasons import REASONS, STUCK


class Recycling:
    """Master: who is being replaced. `Child.replacing` marks a worker from the grant until its TERM."""

    def __init__(self, master: Workforce, reloading: Callable[[], bool]) -> None:
        """`reloading`: is a reload or roll under way? It replaces workers itself."""
        self._master = master
        self._reloading = reloading
        self._leaving: Child | None = None  # granted, and not gone yet

    def advance(self) -> None:
        """Each round."""
        master = self._master
        if master.stopping:
            return
        serving = master.serving()
        for worker in serving:
            if worker.slot.retire == STUCK and not worker.replacing:
                self.replace(worker, REASONS[STUCK])
        if self._leaving is not None and self._leaving.pid not in master.children:
            self._leaving = None
        if self._leaving is None and not self._reloading():
            due = [worker for worker in serving if worker.slot.retire and not worker.replacing]
            if due:
                self._leaving = due[0]
                self.replace(due[0], REASONS[due[0].slot.retire])
        self._dismiss([worker for worker in serving if worker.replacing])

    def replace(self, worker: Child, reason: str) -> None:
        """Grant it: the replacement first."""
        worker.replacing = reason
        self._master.board.count("workers_recycled")
        self._master.board.chronicle.note("worker recycled", f"worker {worker.pid}: {reason}")
        reached = " reached" if reason in REASONS else ""
        self._master.log.info("worker %d: %s%s, starting its replacement", worker.pid, reason, reached)

    def _dismiss(self, replacing: list[Child]) -> None:
        """As many as have a successor that serves; first those that no longer accept."""
        if not replacing:
            return
        ready = [worker for worker in self._master.members() if worker.ready_at is not None]
        replacing.sort(key=lambda worker: worker.slot.retire != STUCK)
        for worker in replacing[: max(0, len(ready) + len(replacing) - self._master.wanted)]:
            worker.retire(worker.replacing)
