"""/metrics: a snapshot as Prometheus' text format, version 0.0.4. One table of families, each with its help.

Names end in _total where they only grow; they go on over reloads, recycled workers and kill -9, and begin at 0 with a
new master (an upgrade too), which Prometheus takes for a restart.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from preforksmtp.observe.snapshot import Facts, Snapshot
from preforksmtp.prefork.scoreboard import BOUNDS, STATES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "preforksmtp_"

Values = Iterable[tuple[str, float]]  # ('{label="value"}' or "", value)


@dataclass(frozen=True)
class Family:
    name: str
    type: str
    help: str
    values: Callable[[Snapshot, Facts], Values]


def _total(counter: str) -> Callable[[Snapshot, Facts], Values]:
    return lambda snapshot, facts: [("", snapshot.readings.sessions[counter])]


def _master(counter: str) -> Callable[[Snapshot, Facts], Values]:
    return lambda snapshot, facts: [("", snapshot.readings.master[counter])]


def _labelled(label: str, counters: dict[str, str]) -> Callable[[Snapshot, Facts], Values]:
    """`counters`: value of the label -> counter."""
    return lambda snapshot, facts: [
        (_labels(**{label: value}), snapshot.readings.sessions[counter]) for value, counter in counters.items()
    ]


def _each(attribute: str) -> Callable[[Snapshot, Facts], Values]:
    return lambda snapshot, facts: [
        (_labels(worker=str(worker.slot), pid=str(worker.pid)), getattr(worker, attribute))
        for worker in snapshot.workers
    ]


def _most(attribute: str) -> Callable[[Snapshot, Facts], Values]:
    return lambda snapshot, facts: [
        ("", max((getattr(worker, attribute) for worker in snapshot.workers), default=0.0))
    ]


def _labels(**labels: str) -> str:
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _reloads(snapshot: Snapshot, facts: Facts) -> Values:
    reloads, failed = (snapshot.readings.master[name] for name in ("reloads", "reloads_failed"))
    return [(_labels(result="done"), reloads - failed), (_labels(result="failed"), failed)]


FAMILIES = (
    Family("build_info", "gauge", "Always 1; the versions are in the labels.",
           lambda _, facts: [(_labels(version=facts.version, python=platform.python_version()), 1)]),
    Family("start_time_seconds", "gauge", "When the master began, seconds since the epoch.",
           lambda _, facts: [("", facts.started)]),
    Family("master_silent_seconds", "gauge", "Since the master's last round; it makes one each second.",
           lambda snapshot, _: [("", snapshot.silent)]),
    Family("ready", "gauge", "Whether new sessions are served at once.",
           lambda snapshot, _: [("", int(not snapshot.unready))]),
    Family("workers_wanted", "gauge", "Workers that there should be.",
           lambda snapshot, _: [("", snapshot.wanted)]),
    Family("workers", "gauge", "Workers by state.",
           lambda snapshot, _: [(_labels(state=state), snapshot.count(state)) for state in STATES[1:]]),
    Family("workers_forked_total", "counter", "Workers that were started.", _master("workers_forked")),
    Family("workers_died_total", "counter", "Workers that nobody asked to go: crashed, killed, or could not boot.",
           _master("workers_died")),
    Family("workers_hung_total", "counter", "Workers killed after boot_timeout, timeout or graceful_timeout.",
           _master("workers_hung")),
    Family("workers_recycled_total", "counter", "Workers replaced because they reached a limit, or by a stuck handler.",
           _master("workers_recycled")),
    Family("messages_interrupted_total", "counter", "Messages that were in the handler when their worker died.",
           _master("messages_interrupted")),
    Family("reloads_total", "counter", "Reloads by result.", _reloads),
    Family("sessions_active", "gauge", "Sessions now.", lambda snapshot, _: [("", snapshot.active)]),
    Family("sessions_limit", "gauge", "Sessions that ready workers may serve at once.",
           lambda snapshot, _: [("", snapshot.limit)]),
    Family("session_threads", "gauge", "Session threads alive.",
           lambda snapshot, _: [("", sum(worker.threads for worker in snapshot.workers))]),
    Family("queued_connections", "gauge", "Connections that wait in the kernel to be accepted.",
           lambda snapshot, _: [("", snapshot.queued)]),
    Family("oldest_session_seconds", "gauge", "Age of the oldest session.", _most("oldest")),
    Family("longest_handler_seconds", "gauge", "The longest call of the handler that still runs.", _most("longest")),
    Family("sessions_total", "counter", "Connections accepted.", _total("sessions")),
    Family("sessions_refused_total", "counter", "Connections turned away by a limit.", _total("refused")),
    Family("tls_sessions_total", "counter", "TLS handshakes done.", _total("tls")),
    Family("messages_total", "counter", "Messages by result: answered with 2xx, 4xx or 5xx.",
           _labelled("result", {"accepted": "messages", "deferred": "deferred", "rejected": "rejected"})),
    Family("recipients_total", "counter", "Recipients of the messages accepted.", _total("recipients")),
    Family("received_bytes_total", "counter", "Size of the messages accepted.", _total("bytes")),
    Family("auth_total", "counter", "AUTH exchanges by result.",
           _labelled("result", {"ok": "auth_ok", "failed": "auth_failed"})),
    Family("timeouts_total", "counter", "Sessions ended because the client was silent or slow.", _total("timeouts")),
    Family("errors_total", "counter", "Exceptions in the handler or in the server.", _total("errors")),
    Family("worker_sessions_active", "gauge", "Sessions now, by worker.", _each("active")),
    Family("worker_memory_bytes", "gauge", "Resident memory, by worker.", _each("memory")),
    Family("worker_cpu_seconds_total", "counter", "Processor time used, by worker.", _each("cpu")),
    Family("worker_age_seconds", "gauge", "Since its fork, by worker.", _each("age")),
)  # fmt: skip


def exposition(snapshot: Snapshot, facts: Facts) -> str:
    """The whole page."""
    lines: list[str] = []
    for family in FAMILIES:
        lines += _head(family.name, family.type, family.help)
        lines += [f"{PREFIX}{family.name}{labels} {_number(value)}" for labels, value in family.values(snapshot, facts)]
    lines += _histogram(snapshot)
    return "\n".join(lines) + "\n"


def _histogram(snapshot: Snapshot) -> list[str]:
    name, readings = f"{PREFIX}handler_seconds", snapshot.readings
    lines = _head("handler_seconds", "histogram", "How long the handler took with each message.")
    bounds = [*map(_number, BOUNDS), "+Inf"]
    for bound, count in zip(bounds, accumulate(readings.handler_buckets), strict=True):
        lines.append(f'{name}_bucket{{le="{bound}"}} {count}')
    lines.append(f"{name}_sum {_number(readings.handler_seconds)}")
    lines.append(f"{name}_count {sum(readings.handler_buckets)}")
    return lines


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
