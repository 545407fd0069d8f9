"""Recycling: a worker that has served enough, or hangs in a handler, is replaced without a gap in capacity.

The worker finds that it is due (`Limits`) and says so in its slot of the scoreboard. The master (`Recycling`) grants
one at a time: it leaves the worker out of its count, so that a replacement is forked, waits until that one serves,
and only then sends TERM. If the replacement cannot boot the old worker serves on. A worker with a stuck handler is
not made to wait for its turn: it has stopped accepting already. Nothing here fails or blocks.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from preforksmtp.prefork.master.child import Child
    from preforksmtp.prefork.master.master import Master

# What `retire` of a slot says; the names are the settings that were reached.
REASONS = ("", "max_sessions", "max_worker_memory", "max_worker_age", "handler_timeout")
SESSIONS, MEMORY, AGE, STUCK = range(1, 5)

_PAGE = os.sysconf("SC_PAGE_SIZE")


class RecyclingConfig(Protocol):
    """The settings that say when a worker has served enough; 0 = never."""

    @property
    def max_sessions(self) -> int: ...
    @property
    def max_sessions_jitter(self) -> int: ...
    @property
    def max_worker_memory(self) -> int: ...
    @property
    def max_worker_age(self) -> float: ...


class Limits:
    """Worker: when it is due. The jitter is drawn here, after the fork: workers born together do not leave together."""

    def __init__(self, config: RecyclingConfig) -> None:
        self.sessions = config.max_sessions
        if self.sessions and config.max_sessions_jitter:
            self.sessions += random.randint(0, config.max_sessions_jitter)
        self._memory = config.max_worker_memory
        self._age = config.max_worker_age

    def reached(self, sessions: int, memory: int, age: float) -> int:
        """The reason to retire, 0 for none."""
        if self.sessions and sessions >= self.sessions:
            return SESSIONS
        if self._memory and memory >= self._memory:
            return MEMORY
        return AGE if self._age and age >= self._age else 0


def resident_memory() -> int:
    """Any process: its bytes in memory; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


class Recycling:
    """Master: who is being replaced. `Child.replacing` marks a worker from the grant until its TERM."""

    def __init__(self, master: Master) -> None:
        self._master = master
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
        if self._leaving is None and not master.reload.busy:
            due = [worker for worker in serving if worker.slot.retire and not worker.replacing]
            if due:
                self._leaving = due[0]
                self.replace(due[0], REASONS[due[0].slot.retire])
        self._dismiss([worker for worker in serving if worker.replacing])

    def replace(self, worker: Child, reason: str) -> None:
        """Grant it: the replacement first."""
        worker.replacing = reason
        self._master.board.count("workers_recycled")
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
