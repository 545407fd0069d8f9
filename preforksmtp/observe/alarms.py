"""Alarms: what an operator must see first. Each has a severity, a sentence that names the reason, and, where it is
known, the time at which it began. Knows what was counted; how it is shown is page.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from preforksmtp.observe.plot import size, span
from preforksmtp.observe.snapshot import Facts, Snapshot
from preforksmtp.observe.trend import Change

BAD, WARN = "bad", "warn"
SILENT, LONG = 5.0, 10.0  # seconds without a heartbeat, and in one call of the handler, that deserve attention
LATELY = 300.0  # seconds in which deaths of workers are counted
MANY = 3  # of them
DAY = 86400.0
SOON, VERY_SOON = 14 * DAY, 3 * DAY  # that a certificate ends
LITTLE, VERY_LITTLE = 1 << 30, 100 << 20  # bytes free
FAILING = 0.1  # share of messages at which the application fails, not a message


@dataclass(frozen=True)
class Alarm:
    severity: str
    text: str
    time: float = 0.0  # seconds since the epoch; 0 = now


def alarms(snapshot: Snapshot, facts: Facts, minute: Change) -> list[Alarm]:
    """The bad ones first. `minute`: what was counted in the last one."""
    found = [*_master(snapshot), *_application(snapshot, minute), *_workers(snapshot), *_resources(snapshot, facts)]
    return sorted(found, key=lambda alarm: alarm.severity != BAD)


def _master(snapshot: Snapshot) -> Iterator[Alarm]:
    if not snapshot.alive:
        yield Alarm(BAD, f"the master has been silent for {span(snapshot.silent)}")
    reload = snapshot.reload
    if reload is not None and reload.kind == "reload failed":
        yield Alarm(BAD, f"the last reload failed, the former configuration goes on: {reload.text}", reload.time)
    last = next((event for event in reversed(snapshot.events) if event.kind.startswith("upgrade")), None)
    if last is not None and last.kind == "upgrade failed":
        yield Alarm(WARN, f"the last upgrade failed, this program goes on: {last.text}", last.time)


def _application(snapshot: Snapshot, minute: Change) -> Iterator[Alarm]:
    if snapshot.unwell:
        yield Alarm(BAD, "the application says that it cannot work; new sessions are answered 421")
    counted = minute.totals
    answered = counted["messages"] + counted["deferred"] + counted["rejected"]
    errors, deferred = counted["errors"], counted["deferred"]
    lately = "in the last minute" if minute.seconds > 55 else f"in the last {span(minute.seconds)}"
    if errors:
        severity = BAD if errors >= FAILING * max(answered, 1) else WARN
        times = "once" if errors == 1 else f"{errors:,} times"
        yield Alarm(severity, f"the application failed {times} {lately}; see the error log")
    if deferred >= MANY and deferred >= FAILING * answered:
        severity = BAD if deferred >= answered / 2 else WARN
        yield Alarm(severity, f"{deferred:,} of {answered:,} messages were put off (4xx) {lately}")


def _workers(snapshot: Snapshot) -> Iterator[Alarm]:
    ready = snapshot.count("ready")
    if ready < snapshot.wanted and not snapshot.stopping:
        yield Alarm(WARN if ready else BAD, f"{ready} of {snapshot.wanted} workers are ready")
    dead = [
        event for event in snapshot.events
        if event.kind in ("worker died", "worker hung") and snapshot.time - event.time < LATELY
    ]  # fmt: skip
    if dead:
        severity = BAD if len(dead) >= MANY else WARN
        yield Alarm(severity, f"workers died, {len(dead)} in {span(LATELY)}; the last: {dead[-1].text}", dead[-1].time)
    silent = [str(worker.pid) for worker in snapshot.workers if worker.silent > SILENT]
    if silent:
        yield Alarm(BAD, f"no heartbeat for more than {SILENT:g} s: {', '.join(silent)}")
    stuck = [str(worker.pid) for worker in snapshot.workers if worker.longest > LONG]
    if stuck:
        yield Alarm(WARN, f"in one call of the handler for more than {LONG:g} s: {', '.join(stuck)}")
    if snapshot.saturated:
        yield Alarm(WARN, f"all session threads are busy, {snapshot.queued} connections wait in the kernel")


def _resources(snapshot: Snapshot, facts: Facts) -> Iterator[Alarm]:
    for bind, file, end in facts.certificates:
        left = end - snapshot.time
        if left < SOON:
            ends = f"ends in {left / DAY:.1f} days" if left > 0 else "has ended"
            yield Alarm(BAD if left < VERY_SOON else WARN, f"the certificate {file} of {bind} {ends}")
    for folder, free in snapshot.free:
        if free < LITTLE:
            yield Alarm(BAD if free < VERY_LITTLE else WARN, f"{size(free)} are free in {folder}")
    tallies = snapshot.readings.tallies
    for log in ("error", "access", "transcript"):
        if lost := tallies.get(f"lost {log}", 0):
            yield Alarm(WARN, f"{lost:,} lines of the {log} log could not be written since the master began")
    if failed := tallies.get("hook_error spool", 0):
        yield Alarm(WARN, f"{failed:,} bodies could not be stored since the master began")
