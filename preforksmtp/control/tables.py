"""Answers to orders as text for people: tables, and lists of names and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preforksmtp.logs.escaping import escape

# What a table of workers, or of sessions, shows: the key in the answer, the head of the column.
WORKERS = {
    "pid": "PID",
    "generation": "GEN",
    "state": "STATE",
    "age_seconds": "AGE",
    "heartbeat_seconds": "BEAT",
    "sessions_active": "ACTIVE",
    "sessions_limit": "LIMIT",
    "sessions": "SESSIONS",
    "messages": "MESSAGES",
    "memory_bytes": "MEMORY",
    "cpu_seconds": "CPU",
    "oldest_session_seconds": "OLDEST",
    "longest_handler_seconds": "HANDLER",
    "retiring": "RETIRING",
}
SESSIONS = {
    "worker": "WORKER",
    "session": "SESSION",
    "peer": "PEER",
    "seconds": "AGE",
    "stage": "STAGE",
    "idle_seconds": "IDLE",
    "messages": "MSGS",
    "received": "IN",
    "helo": "HELO",
    "user": "USER",
    "tls": "TLS",
    "sender": "SENDER",
    "recipients": "RCPTS",
    "hook": "HANDLER",
    "hook_seconds": "FOR",
    "bind": "BIND",
}
CLIENTS = {"client": "CLIENT", "sessions": "SESSIONS", "messages": "MESSAGES", "received": "IN"}


def _workers(result: Any) -> str:
    return table(WORKERS, result) or "no workers"


def _sessions(result: Any) -> str:
    lines = [table(SESSIONS, [line for line in result["sessions"] if "session" in line]) or "no sessions"]
    left_out = sum(line.get("left_out", 0) for line in result["sessions"])
    if left_out:
        lines.append(f"and {left_out} more")
    faults = [line for line in result["sessions"] if "fault" in line]
    lines += [f"worker {line['worker']} cannot say: {escape(str(line['fault']))}" for line in faults]
    if result["silent"]:
        lines.append(f"no answer from worker {', '.join(map(str, result['silent']))}")
    return "\n".join(lines)


def _stats(result: Any) -> str:
    handler = result["handler_seconds"]
    ready = sum(worker["state"] == "ready" for worker in result["workers"])
    rows = {
        "state": result["state"] + (f" ({result['unready']})" if result["unready"] else ""),
        "version": result["version"],
        "master": result["master"],
        "uptime": duration(result["uptime_seconds"]),
        "workers": f"{ready}/{result['workers_wanted']} ready",
        "sessions active": f"{result['sessions_active']} of {result['sessions_limit']}",
        "queued": result["queued"],
        **{name.replace("_", " "): value for name, value in result["totals"].items()},
        "handler calls": handler["count"],
        **{f"handler {share}": _latency(handler[share]) for share in ("p50", "p95", "p99")},
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"


def _config(result: Any) -> str:
    width = max(len(row["name"]) for row in result)
    return "\n".join(f"{row['name']:<{width}} = {escape(row['value'])}  # {escape(row['origin'])}" for row in result)


def _clients(result: Any) -> str:
    return table(CLIENTS, result) or "no clients"


def _listeners(result: Any) -> str:
    return "\n".join(map(escape, result)) or "no listeners"


def _threads(result: Any) -> str:
    blocks = []
    for thread in result["threads"]:
        if "left_out" in thread:
            blocks.append(f"and {thread['left_out']} more threads")
            continue
        name, session, stack = (str(thread.get(key) or "") for key in ("thread", "session", "stack"))
        head = f"{name}, session {session}" if session else name
        lines = [f"  {escape(line)}" for line in stack.rstrip("\n").split("\n")]
        blocks.append("\n".join([escape(head), *lines]))
    return "\n\n".join(blocks)


TEXTS: Mapping[str, Callable[[Any], str]] = {
    "show workers": _workers,
    "show sessions": _sessions,
    "show clients": _clients,
    "show stats": _stats,
    "show config": _config,
    "show listeners": _listeners,
    "worker dump": _threads,
}


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns as wide as what is in them; "" for no rows."""
    if not rows:
        return ""
    cells = [[_cell(key, row.get(key)) for key in columns] for row in rows]
    lines = [list(columns.values()), *cells]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cell(key: str, value: Any) -> str:
    if key == "sender":  # the null reverse-path is <>, no transaction is -
        return "-" if value is None else f"<{escape(value)}>"
    if value is None or value == "":
        return "-"
    if key.endswith("seconds"):
        return duration(value) if value else "-"
    if key.endswith("bytes"):
        return f"{value / (1 << 20):.1f}M"
    if key == "received":
        if value < 10_000:
            return str(value)
        return f"{value / 1024:.0f}K" if value < 10 << 20 else f"{value / (1 << 20):.0f}M"
    return escape(str(value))


def duration(seconds: float) -> str:
    """Two units of it."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"
