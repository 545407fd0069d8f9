"""A snapshot: what the scoreboard says at one moment, as plain values, for whoever shows it.

Any process that has the mapping may take one. It costs no lock and no system call, and nobody who works notices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preforksmtp.prefork.chronicle import Event
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
from preforksmtp.prefork.tallies import labels
from preforksmtp.process.machine import free_bytes

MASTER_SILENT = 5.0  # seconds without a round after which the master is taken for dead


@dataclass(frozen=True)
class Facts:
    """What the scoreboard does not hold. The same as long as the status process lives: a reload begins a new one."""

    version: str
    name: str
    master: int  # process id
    started: float  # seconds since the epoch, when the master began
    listeners: Sequence[str] = ()  # as the log names them
    host: str = ""  # what this machine is called
    certificates: Sequence[tuple[str, str, float]] = ()  # bind, file, end of validity in seconds since the epoch
    folders: Sequence[str] = ()  # where messages are stored, as far as that is known
    settings: Sequence[tuple[str, str, str]] = ()  # name, value and origin of those that are not the default


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
    spooled: int = 0  # bodies in temporary files now
    descriptors: int = 0  # open
    unwell: bool = False  # the application says that it cannot work


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
    leaving: bool = False  # it has been told to stop, and serves on until balancers know (drain_delay)
    events: Sequence[Event] = ()  # the last ones, the oldest first
    reload: Event | None = None  # the last one
    overflows: int = 0  # connections that the kernel has dropped from full accept queues, since this machine began
    free: Sequence[tuple[str, int]] = ()  # bytes in each of Facts.folders

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
        if self.stopping or self.leaving:
            return "stopping"
        if not self.count(STATES[READY]):
            return "starting" if self.wanted else "dismissed"  # by WINCH
        if self.unwell:
            return "unwell"
        return "busy" if self.saturated else "ready"

    @property
    def unready(self) -> str:
        """Why no new session is to be sent here, or "". However busy it is: who waits is served."""
        if self.stopping or self.leaving:
            return "stopping"
        if not self._ready():
            return "no worker is ready"
        return "the application is not healthy" if self.unwell else ""

    @property
    def saturated(self) -> bool:
        """All session threads of all ready workers are busy: new sessions wait."""
        ready = self._ready()
        return bool(ready) and all(worker.active >= worker.limit for worker in ready)

    @property
    def unwell(self) -> bool:
        """The application says in all ready workers that it cannot work."""
        ready = self._ready()
        return bool(ready) and all(worker.unwell for worker in ready)

    def _ready(self) -> list[WorkerState]:
        return [worker for worker in self.workers if worker.state == STATES[READY]]


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
        leaving=board.leaving != 0,
        events=board.chronicle.events(),
        reload=board.chronicle.reload,
        overflows=_overflows(),
        free=[(folder, free) for folder in facts.folders if (free := free_bytes(folder)) >= 0],
    )


def _overflows() -> int:
    """Linux: ListenOverflows of this network namespace, by anybody's listeners; elsewhere 0."""
    try:
        with open("/proc/net/netstat") as file:
            lines = [line.split() for line in file if line.startswith("TcpExt:")]
        return int(dict(zip(*lines, strict=True))["ListenOverflows"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


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
        spooled=slot.spooled,
        descriptors=slot.descriptors,
        unwell=bool(slot.unwell),
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


def hook_buckets(tallied: Mapping[str, int]) -> dict[str, list[int]]:
    """How long the calls of each hook took but `message` and `stream`, by the bounds of the handler's histogram."""
    found: dict[str, list[int]] = {}
    for key, count in tallied.items():
        family, names = labels(key)
        if family == "hook" and len(names) == 2 and names[1].isdecimal() and int(names[1]) <= len(BOUNDS):
            found.setdefault(names[0], [0] * (len(BOUNDS) + 1))[int(names[1])] += count
    return found


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
        "saturated": snapshot.saturated,
        "listeners": list(facts.listeners),
        "workers_wanted": snapshot.wanted,
        "workers": [workers_json(worker) for worker in snapshot.workers],
        "sessions_active": snapshot.active,
        "sessions_limit": snapshot.limit,
        "queued": snapshot.queued,
        "totals": readings.sessions | readings.master,
        "tallies": readings.tallies,
        "spooled": sum(worker.spooled for worker in snapshot.workers),
        "last_reload": None if snapshot.reload is None else _event(snapshot.reload),
        "events": [_event(event) for event in snapshot.events],
        "certificates": [
            {"bind": bind, "file": file, "expires": expires} for bind, file, expires in facts.certificates
        ],
        "free_bytes": dict(snapshot.free),
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


def _event(event: Event) -> dict[str, Any]:
    return {"time": event.time, "kind": event.kind, "text": event.text}


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
        "spooled": worker.spooled,
        "descriptors": worker.descriptors,
        "unwell": worker.unwell,
    }
