"""What a session came to, as one line of the access log when it is over (access_log_sessions)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from preforksmtp.logs.error import format_json_time, format_time
from preforksmtp.logs.escaping import bare


@dataclass
class SessionRecord:
    """The facts of one session. Empty and 0 mean "none"."""

    time: float = 0.0  # of its end, seconds since the epoch
    session_id: str = ""
    peer_host: str = ""
    peer_port: int = 0
    bind: str = ""
    helo: str = ""
    tls: str = ""  # the version
    user: str = ""
    commands: Mapping[str, int] = field(default_factory=dict)  # how often each was given
    refusals: Mapping[str, int] = field(default_factory=dict)  # and refused; "DATA" is the message too
    messages: int = 0  # accepted
    received: int = 0  # octets
    sent: int = 0
    seconds: float = 0.0
    end: str = ""  # quit, left, reset, timeout, limit, told, tls, error
    worker: int = 0


def text_line(record: SessionRecord) -> str:
    """The record as text: `rcpt=1/2` is one accepted of two, as Postfix has it."""
    given = sum(record.commands.values())
    refused = min(sum(record.refusals.get(verb, 0) for verb in record.commands), given)
    counts = [_counted(verb.lower(), n, record.refusals.get(verb, 0)) for verb, n in record.commands.items()]
    fields = [
        f"session={record.session_id}",
        f"peer=[{record.peer_host}]:{record.peer_port or '-'}",
        f"bind={bare(record.bind)}",
        f"helo={bare(record.helo)}",
        f"tls={bare(record.tls)}",
        f"user={bare(record.user)}",
        *counts,
        _counted("commands", given, refused),
        f"messages={record.messages}",
        f"in={record.received}",
        f"out={record.sent}",
        f"time={record.seconds:.3f}",
        f"end={record.end}",
    ]
    return f"{format_time(record.time)} {' '.join(fields)}\n"


def _counted(name: str, given: int, refused: int) -> str:
    return f"{name}={given - min(refused, given)}/{given}" if refused else f"{name}={given}"


def json_line(record: SessionRecord) -> str:
    """The record as one JSON object."""
    fields = {
        "time": format_json_time(record.time),
        "session": record.session_id,
        "peer": record.peer_host,
        "port": record.peer_port,
        "bind": record.bind,
        "helo": record.helo,
        "tls": record.tls,
        "user": record.user,
        "commands": {verb.lower(): count for verb, count in record.commands.items()},
        "refused": {verb.lower(): count for verb, count in record.refusals.items()},
        "messages": record.messages,
        "in": record.received,
        "out": record.sent,
        "seconds": round(record.seconds, 6),
        "end": record.end,
        "worker": record.worker,
    }
    return json.dumps(fields) + "\n"
