"""preforksmtpctl: an operator's orders to a running server, over its control socket, and their outcome.

    preforksmtpctl show workers          same as: python3 -m preforksmtp.ctl show workers
    preforksmtpctl reload

Exit codes: 0 carried out; 1 it was refused, or it failed; 2 usage; 3 no server answers; 4 no outcome in time.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preforksmtp import __version__
from preforksmtp.config.model import ConfigError
from preforksmtp.config.settings import BY_NAME
from preforksmtp.control.client import Outcome, Overdue, Unreachable, give
from preforksmtp.control.orders import ORDERS
from preforksmtp.control.whereabouts import find_socket
from preforksmtp.logs.escaping import escape

OK, FAILED, USAGE, UNREACHABLE, OVERDUE = range(5)

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
    "helo": "HELO",
    "user": "USER",
    "tls": "TLS",
    "sender": "SENDER",
    "recipients": "RCPTS",
    "hook": "HANDLER",
    "hook_seconds": "FOR",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Give one order; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        path = arguments.socket or find_socket(arguments.config, os.environ)
        outcome = give(path, arguments.order, arguments.timeout, _trusted(arguments.user))
    except ConfigError as error:
        return _complain(str(error), USAGE)
    except Unreachable as error:
        return _complain(str(error), UNREACHABLE)
    except Overdue:
        return _complain(f"no outcome within {arguments.timeout:g} s; the order goes on", OVERDUE)
    except KeyboardInterrupt:
        return _complain("not waiting for the outcome any longer; the order goes on", OVERDUE)
    return _show(arguments.order, outcome, arguments.json)


def _parser() -> argparse.ArgumentParser:
    says = {order: f"{order.words} {order.argument}".strip() for order in ORDERS}
    width = max(map(len, says.values()))
    orders = "\n".join(f"  {text:<{width}}  {order.help}" for order, text in says.items())
    parser = argparse.ArgumentParser(
        prog="preforksmtpctl",
        description="Orders to a running preforksmtp, over its control socket. Waits for the outcome.",
        epilog=f"orders:\n{orders}\n\nexit codes: 0 carried out, 1 refused or failed, 2 usage, 3 no server answers, "
        "4 no outcome in time.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("order", nargs="+", metavar="ORDER", help="what to do, see below")
    parser.add_argument("-s", "--socket", metavar="PATH", help="the control socket; default: that of the configuration")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="config file of the server; without it the environment and ./preforksmtp.conf.py are looked at as the "
        "server does. It is not run: the socket must stand there as plain text",
    )
    parser.add_argument(
        "-u", "--user", metavar="USER", help="whose server it is, if neither root's nor your own: a name or a number"
    )
    parser.add_argument("-j", "--json", action="store_true", help="print the answer as JSON")
    parser.add_argument(
        "-t", "--timeout", metavar="SECONDS", type=_seconds, default=0.0, help="wait no longer; default: for ever"
    )
    parser.add_argument("--version", action="version", version=f"preforksmtpctl {__version__}")
    return parser


def _seconds(text: str) -> float:
    try:
        return float(BY_NAME["graceful_timeout"].type.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _trusted(user: str | None) -> set[int]:
    """Who may answer."""
    trusted = {0, os.geteuid()}
    if user is not None:
        try:
            trusted.add(int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise ConfigError([f"--user: there is no user {user!r}"]) from None
    return trusted


def _complain(line: str, code: int) -> int:
    print(f"preforksmtpctl: error: {line}", file=sys.stderr)
    return code


def _show(order: Sequence[str], outcome: Outcome, as_json: bool) -> int:
    """Print the outcome; the exit code."""
    if as_json:
        answer = {"ok": outcome.ok, **({"result": outcome.result} if outcome.ok else {"error": outcome.error})}
        print(json.dumps(answer, indent=1))
        return OK if outcome.ok else FAILED
    if not outcome.ok:
        return _complain(escape(outcome.error), FAILED)
    text = _TEXTS.get(" ".join(order[:2]), str)(outcome.result)
    print(text)
    return OK


def _workers(result: Any) -> str:
    return _table(WORKERS, result) or "no workers"


def _sessions(result: Any) -> str:
    lines = [_table(SESSIONS, [line for line in result["sessions"] if "session" in line]) or "no sessions"]
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
        "uptime": _duration(result["uptime_seconds"]),
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


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "show workers": _workers,
    "show sessions": _sessions,
    "show stats": _stats,
    "show config": _config,
    "show listeners": _listeners,
    "worker dump": _threads,
}


def _table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
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
        return _duration(value) if value else "-"
    if key.endswith("bytes"):
        return f"{value / (1 << 20):.1f}M"
    return escape(str(value))


def _duration(seconds: float) -> str:
    """Two units of it."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


if __name__ == "__main__":
    sys.exit(main())
