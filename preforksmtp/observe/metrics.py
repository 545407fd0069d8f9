"""/metrics: a snapshot as Prometheus' text format, version 0.0.4. One table of families, each with its help.

Names end in _total where they only grow; they go on over reloads, recycled workers and kill -9, and begin at 0 with a
new master (an upgrade too), which Prometheus takes for a restart.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from preforksmtp.observe.snapshot import Facts, Snapshot, hook_buckets
from preforksmtp.prefork import tallies
from preforksmtp.prefork.scoreboard import BOUNDS, STATES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "preforksmtp_"
ENDS = ("left", "reset", "timeout", "limit", "told", "tls", "error")  # how a session may end but by QUIT

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
        (_labels(worker=str(worker.slot)), float(getattr(worker, attribute)))
        for worker in snapshot.workers
    ]


def _tallied(family: str, *names: str, known: Sequence[str] = ()) -> Callable[[Snapshot, Facts], Values]:
    """Each tally of this family, its labels by these names; the `known` ones from the beginning, with 0, or nobody sees
    their first event as an increase."""
    zeros = {tallies.key(family, label): 0 for label in known}

    def values(snapshot: Snapshot, facts: Facts) -> Values:
        for key, count in sorted((zeros | snapshot.readings.tallies).items()):
            kind, labels = tallies.labels(key)
            if kind == family and len(labels) == len(names):
                yield _labels(**dict(zip(names, labels, strict=True))), count

    return values


def _accepted(snapshot: Snapshot, facts: Facts) -> Values:
    """What was accepted at each stage. MAIL and RCPT are counted when their transaction ends."""
    sessions, more = snapshot.readings.sessions, snapshot.readings.tallies
    answered = sessions["messages"] + sessions["deferred"] + sessions["rejected"]
    counts = {
        "connect": sessions["sessions"] - sessions["refused"],
        "tls": sessions["tls"],
        "helo": sessions["greeted"],
        "auth": sessions["auth_ok"],
        "mail": answered + more.get("accepted mail", 0),
        "rcpt": sessions["recipients"] + more.get("accepted rcpt", 0),
        "message": sessions["messages"],
    }
    return [(_labels(stage=stage), count) for stage, count in counts.items()]


def _ended(snapshot: Snapshot, facts: Facts) -> Values:
    yield _labels(reason="quit"), snapshot.readings.sessions["quits"]
    yield from _tallied("ended", "reason", known=ENDS)(snapshot, facts)


def _reload_time(snapshot: Snapshot, facts: Facts) -> Values:
    return [("", snapshot.reload.time if snapshot.reload is not None else 0)]


def _reload_result(snapshot: Snapshot, facts: Facts) -> Values:
    return [("", int(snapshot.reload is None or snapshot.reload.kind == "reloaded"))]


def _certificates(snapshot: Snapshot, facts: Facts) -> Values:
    return [(_labels(bind=bind, file=file), end) for bind, file, end in facts.certificates]


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
    Family("ready", "gauge", "Whether new sessions are served.",
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
    Family("accepted_total", "counter", "What was accepted, by stage; MAIL and RCPT when their transaction ends.",
           _accepted),
    Family("refused_total", "counter", "What was refused, by stage, reply code and enhanced status code.",
           _tallied("refused", "stage", "code", "enhanced")),
    Family("limits_total", "counter", "Refusals because a limit was reached, by its setting.",
           _tallied("limit", "limit")),
    Family("auth_mechanism_total", "counter", "AUTH exchanges by mechanism and result.",
           _tallied("auth", "mechanism", "result")),
    Family("tls_version_total", "counter", "TLS handshakes done, by version.", _tallied("tls", "version")),
    Family("tls_failures_total", "counter", "TLS handshakes that failed.",
           lambda snapshot, _: [("", snapshot.readings.tallies.get("ended tls", 0))]),
    Family("timeouts_by_limit_total", "counter", "Sessions ended by silence or slowness, by the setting.",
           _tallied("timeout", "limit")),
    Family("handler_errors_total", "counter", "Exceptions of the application, by hook.",
           _tallied("hook_error", "hook", known=("message", "stream", "spool"))),
    Family("handler_deferred_total", "counter", "4xx of the application that have a cause, by hook.",
           _tallied("hook_deferred", "hook", known=("message", "stream"))),
    Family("sessions_ended_total", "counter", "Sessions that are over, by how they ended.",
           _ended),
    Family("wire_bytes_total", "counter", "Octets of SMTP received and sent by sessions that are over.",
           _labelled("direction", {"in": "octets_in", "out": "octets_out"})),
    Family("log_lines_lost_total", "counter", "Lines that could not be written, by log.",
           _tallied("lost", "log", known=("error", "access", "transcript"))),
    Family("spool_files", "gauge", "Bodies that are in temporary files now.",
           lambda snapshot, _: [("", sum(worker.spooled for worker in snapshot.workers))]),
    Family("free_bytes", "gauge", "Room where messages are stored, as far as that is known.",
           lambda snapshot, _: [(_labels(folder=folder), free) for folder, free in snapshot.free]),
    Family("certificate_expires_timestamp_seconds", "gauge", "When each certificate ends, seconds since the epoch.",
           _certificates),
    Family("accept_queue_overflows_total", "counter",
           "Connections dropped from full accept queues, of all listeners of this network namespace.",
           lambda snapshot, _: [("", snapshot.overflows)]),
    Family("last_reload_successful", "gauge", "Whether the last reload succeeded; 1 where there was none.",
           _reload_result),
    Family("last_reload_timestamp_seconds", "gauge", "When the last reload ended; 0 where there was none.",
           _reload_time),
    Family("worker_restarts_total", "counter", "Workers that were replaced, by reason.",
           _tallied("restart", "reason", known=("died", "hung", "recycled", "reload"))),
    Family("saturated", "gauge", "Whether all session threads of all ready workers are busy.",
           lambda snapshot, _: [("", int(snapshot.saturated))]),
    Family("application_healthy", "gauge", "0 where Handler.healthy says no in all ready workers.",
           lambda snapshot, _: [("", int(not snapshot.unwell))]),
    Family("worker_open_fds", "gauge", "Open descriptors, by worker.", _each("descriptors")),
    Family("worker_sessions_active", "gauge", "Sessions now, by worker.", _each("active")),
    Family("worker_memory_bytes", "gauge", "Resident memory, by worker.", _each("memory")),
    Family("worker_cpu_seconds_total", "counter", "Processor time used, by worker.", _each("cpu")),
    Family("worker_age_seconds", "gauge", "Since its fork, by worker.", _each("age")),
)  # fmt: skip


HISTOGRAMS = {
    "handler_seconds": "How long the handler took with each message.",
    "hook_seconds": "How long each call of a hook took, by hook.",
}


def exposition(snapshot: Snapshot, facts: Facts) -> str:
    """The whole page."""
    lines: list[str] = []
    for family in FAMILIES:
        lines += _head(family.name, family.type, family.help)
        lines += [f"{PREFIX}{family.name}{labels} {_number(value)}" for labels, value in family.values(snapshot, facts)]
    lines += _handler_histogram(snapshot)
    lines += _hook_histograms(snapshot)
    return "\n".join(lines) + "\n"


def _handler_histogram(snapshot: Snapshot) -> list[str]:
    readings = snapshot.readings
    head = _head("handler_seconds", "histogram", HISTOGRAMS["handler_seconds"])
    return head + _histogram("handler_seconds", {}, readings.handler_buckets, readings.handler_seconds)


def _hook_histograms(snapshot: Snapshot) -> list[str]:
    """Of each hook that was called; "message" is what handler_seconds has, stream included."""
    readings = snapshot.readings
    buckets = {"message": (readings.handler_buckets, readings.handler_seconds)}
    for hook, counts in hook_buckets(readings.tallies).items():
        buckets[hook] = counts, readings.tallies.get(f"hook_ns {hook}", 0) / 1e9
    lines = _head("hook_seconds", "histogram", HISTOGRAMS["hook_seconds"])
    for hook, (counts, seconds) in sorted(buckets.items()):
        lines += _histogram("hook_seconds", {"hook": hook}, counts, seconds)
    return lines


def _histogram(name: str, labels: dict[str, str], counts: Sequence[int], seconds: float) -> list[str]:
    bounds = [*map(_number, BOUNDS), "+Inf"]
    lines = [
        f"{PREFIX}{name}_bucket{_labels(**labels, le=bound)} {count}"
        for bound, count in zip(bounds, accumulate(counts), strict=True)
    ]
    own = _labels(**labels) if labels else ""
    return [*lines, f"{PREFIX}{name}_sum{own} {_number(seconds)}", f"{PREFIX}{name}_count{own} {sum(counts)}"]


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
