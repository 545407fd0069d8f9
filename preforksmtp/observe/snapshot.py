"""A snapshot: what the scoreboard says at one moment, as plain values, for whoever shows it.

Any process that has the mapping may take one. It costs no lock and no system call, and nobody who works notices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from preforksmtp.prefork.reasons import REASONS
from preforksmtp.prefork.scoreboard import (
    BOUNDS,
    DRAINING,
    FREE,
    MESSAGES,
    READY,
    SESSIONS,
    STATES,
    Readings,
    Scoreboard,
    Slot,
)

MASTER_SILENT = 5.0  # seconds without a round after which the master is taken for dead


@dataclass(frozen=True)
class Facts:
    """What the scoreboard does not hold. The same as long as the status process lives: a reload begins a new one."""

    version: str
    name: str
    master: int  # process id
    started: float  # seconds since the epoch, when the master began
    listeners: Sequence[str] = ()  # as the log names them


@dataclass(frozen=True)
class WorkerState:
    """One worker. Times in seconds."""

    slot: int
    pid: int
    generation: int
    state: str
    age: float
    silent: float  # since its heartbeat
    active: int  # sessions now
    limit: int  # sessions at most
    threads: int
    sessions: int  # in its life
    messages: int
    memory: int  # bytes
    cpu: float
    oldest: float  # session, 0 = none
    longest: float  # call of the handler that still runs, 0 = none
    retiring: str  # the setting it has reached, or ""


@dataclass(frozen=True)
class Snapshot:
    """`time` is the clock's, the rest is measured with the monotonic one."""

    time: float
    uptime: float
    wanted: int
    silent: float  # since the master's last round
    stopping: bool
    queued: int
    readings: Readings
    workers: Sequence[WorkerState]

    def count(self, state: str) -> int:
        return sum(1 for worker in self.workers if worker.state == state)

    @property
    def active(self) -> int:
        return sum(worker.active for worker in self.workers)

    @property
    def limit(self) -> int:
        """Sessions that may be served at once, by workers that take new ones."""
        return sum(worker.limit for worker in self.workers if worker.state == STATES[READY])

    @property
    def alive(self) -> bool:
        """The master makes its rounds."""
        return self.silent < MASTER_SILENT

    @property
    def condition(self) -> str:
        """In one word."""
        if self.stopping:
            return "stopping"
        if not self.count(STATES[READY]):
            return "starting" if self.wanted else "dismissed"  # by WINCH
        return "busy" if self.unready else "ready"

    @property
    def unready(self) -> str:
        """Why no new session would be served at once, or ""."""
        if self.stopping:
            return "stopping"
        ready = [worker for worker in self.workers if worker.state == STATES[READY]]
        if not ready:
            return "no worker is ready"
        if all(worker.active >= worker.limit for worker in ready):
            return "all session threads are busy"
        return ""


def take(board: Scoreboard, facts: Facts) -> Snapshot:
    """Now, over this board and its predecessors."""
    now, clock = time.monotonic_ns(), time.time()
    workers = [_worker(slot, now) for slot in _slots(board)]
    workers.sort(key=lambda worker: (worker.generation, worker.slot))
    return Snapshot(
        time=clock,
        uptime=max(0.0, clock - facts.started),
        wanted=board.wanted,
        silent=_since(board.beat, now),
        stopping=board.stopping,
        queued=board.queued,
        readings=board.readings(),
        workers=workers,
    )


def _slots(board: Scoreboard) -> Iterator[Slot]:
    for each in board.chain():
        yield from (slot for slot in each.slots if slot.state != FREE)


def _worker(slot: Slot, now: int) -> WorkerState:
    state = slot.state
    return WorkerState(
        slot=slot.index,
        pid=slot.pid,
        generation=slot.generation,
        state=STATES[state],
        age=_since(slot.forked, now),
        silent=_since(slot.heartbeat, now),
        active=slot.active(),
        limit=slot.limit if state in (READY, DRAINING) else 0,
        threads=slot.threads,
        sessions=slot.count(SESSIONS),
        messages=slot.count(MESSAGES),
        memory=slot.rss,
        cpu=slot.cpu / 1e9,
        oldest=_since(slot.oldest(), now),
        longest=_since(slot.longest, now),
        retiring=REASONS[slot.retire],
    )


def _since(moment: int, now: int) -> float:
    """Seconds; 0 where there is no such moment."""
    return max(0, now - moment) / 1e9 if moment else 0.0


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Of the handler's histogram, in seconds, with the values of a bucket taken as spread evenly; None: it is empty.
    What is longer than the last bound counts as that bound."""
    total = sum(buckets)
    if not total:
        return None
    rank, below = share * total, 0
    for bound, lower, count in zip(BOUNDS, (0.0, *BOUNDS), buckets, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below += count
    return BOUNDS[-1]


def as_json(snapshot: Snapshot, facts: Facts) -> dict[str, Any]:
    """What /stats and `preforksmtpctl show stats` say."""
    readings = snapshot.readings
    return {
        "version": facts.version,
        "master": facts.master,
        "time": round(snapshot.time, 3),
        "uptime_seconds": round(snapshot.uptime, 3),
        "state": snapshot.condition,
        "unready": snapshot.unready,
        "listeners": list(facts.listeners),
        "workers_wanted": snapshot.wanted,
        "workers": [workers_json(worker) for worker in snapshot.workers],
        "sessions_active": snapshot.active,
        "sessions_limit": snapshot.limit,
        "queued": snapshot.queued,
        "totals": readings.sessions | readings.master,
        "handler_seconds": {
            "sum": round(readings.handler_seconds, 6),
            "count": sum(readings.handler_buckets),
            "buckets": [
                {"le": bound, "count": count}
                for bound, count in zip([*BOUNDS, None], readings.handler_buckets, strict=True)
            ],
            **{f"p{share}": quantile(readings.handler_buckets, share / 100) for share in (50, 95, 99)},
        },
    }


def workers_json(worker: WorkerState) -> dict[str, Any]:
    return {
        "pid": worker.pid,
        "slot": worker.slot,
        "generation": worker.generation,
        "state": worker.state,
        "retiring": worker.retiring,
        "age_seconds": round(worker.age, 3),
        "heartbeat_seconds": round(worker.silent, 3),
        "sessions_active": worker.active,
        "sessions_limit": worker.limit,
        "threads": worker.threads,
        "sessions": worker.sessions,
        "messages": worker.messages,
        "memory_bytes": worker.memory,
        "cpu_seconds": round(worker.cpu, 3),
        "oldest_session_seconds": round(worker.oldest, 3),
        "longest_handler_seconds": round(worker.longest, 3),
    }
