"""The access log: one line for each message, from a format of %(atom)s that is compiled once.

Its facts come ready in an AccessRecord; nothing else is known here. Clients choose most of them, so every
value is escaped for where it stands: in "quotes", in <angle brackets>, or bare, where a space would shift
the fields after it. write() never raises: a line that cannot be written is lost, and the error log told so
once a minute at most.
"""

import difflib
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from preforksmtp.logs.error import (
    LOGGER,
    Syslog,
    format_json_time,
    format_time,
)
from preforksmtp.logs.escaping import bare, escape, in_brackets, in_quotes
from preforksmtp.logs.linefile import LogError, LogFile
from preforksmtp.logs.sessions import SessionRecord
from preforksmtp.logs.sessions import json_line as json_session
from preforksmtp.logs.sessions import text_line as text_session
from preforksmtp.process.privileges import Identity

Record = TypeVar("Record")


_PIECE = re.compile(r"%%|%\(([^)]*)\)s|%")


@dataclass(slots=True)
class AccessRecord:
    """The facts of one message, or of one transaction that ended without one. Empty and 0 mean "none"."""

    time: float = 0.0  # of the reply, seconds since the epoch
    session_id: str = ""
    message_id: str = ""
    peer_host: str = ""
    peer_port: int = 0
    helo: str = ""
    user: str = ""
    sender: str = ""
    recipients: Sequence[str] = ()
    size: int = 0
    command: str = ""
    code: int = 0
    enhanced: str = ""
    text: str = ""
    seconds: float = 0.0
    tls: str = ""  # the version, "TLSv1.3"
    cipher: str = ""
    pid: int = 0
    worker: int = 0
    bind: str = ""


@dataclass(frozen=True)
class Atom:
    """One %(name)s: what it means and how it is made. `plain`: the server's own, needs no escaping."""

    help: str
    value: Callable[[AccessRecord], str]
    plain: bool = False


def _time(record: AccessRecord) -> str:
    return format_time(record.time)


def _recipients(record: AccessRecord) -> str:
    return ",".join([f"<{in_brackets(recipient)}>" for recipient in record.recipients])


ATOMS = {
    "h": Atom("IP address of the client", lambda r: r.peer_host),
    "hp": Atom("port of the client", lambda r: str(r.peer_port or "-"), plain=True),
    "l": Atom("name given with HELO, EHLO or LHLO", lambda r: r.helo),
    "u": Atom("authenticated user", lambda r: r.user),
    "t": Atom("time of the reply, 2026-11-24 08:00:00 +0000", _time, plain=True),
    "r": Atom("last command", lambda r: r.command),
    "s": Atom("code of the reply", lambda r: str(r.code or "-"), plain=True),
    "e": Atom("enhanced status code of the reply (RFC 3463)", lambda r: r.enhanced),
    "m": Atom("text of the reply", lambda r: r.text),
    "f": Atom("sender, of MAIL FROM", lambda r: r.sender),
    "n": Atom("number of recipients", lambda r: str(len(r.recipients)), plain=True),
    "rcpt": Atom("recipients, of RCPT TO: <a@x>,<b@y>", _recipients),
    "b": Atom("bytes of the message", lambda r: str(r.size), plain=True),
    "T": Atom(
        "duration of the transaction, from MAIL to the reply, in whole seconds",
        lambda r: str(int(r.seconds)),
        plain=True,
    ),
    "L": Atom("duration in seconds with a fraction", lambda r: f"{r.seconds:.6f}", plain=True),
    "M": Atom("duration in milliseconds", lambda r: str(int(r.seconds * 1e3)), plain=True),
    "D": Atom("duration in microseconds", lambda r: str(int(r.seconds * 1e6)), plain=True),
    "tls": Atom("version of TLS", lambda r: r.tls),
    "c": Atom("cipher of TLS", lambda r: r.cipher),
    "i": Atom("id of the session", lambda r: r.session_id),
    "q": Atom("id of the message", lambda r: r.message_id),
    "p": Atom("process id of the worker", lambda r: str(r.pid), plain=True),
    "w": Atom("number of the worker, from 0", lambda r: str(r.worker), plain=True),
    "B": Atom("the bind that the client came to", lambda r: r.bind),
}


def compile_format(log_format: str) -> Callable[[AccessRecord], str]:
    """A format -> the function from a record to its line, working out only its own atoms; or ValueError."""
    template: list[str] = []
    values: list[Callable[[AccessRecord], str]] = []
    end = 0
    quoted = False
    for piece in _PIECE.finditer(log_format):
        text = log_format[end : piece.start()]
        template.append(escape(text))
        quoted ^= text.count('"') % 2 == 1
        end = piece.end()
        if piece[0] == "%%":
            template.append("%%")
        elif piece[1] is None:
            raise ValueError(
                f"% at character {piece.start() + 1} begins no %(atom)s; write %% for a percent sign"
            )
        else:
            template.append("%s")
            angle = text.endswith("<") and log_format.startswith(">", end)
            values.append(
                _escaped(piece[1], in_brackets if angle else in_quotes if quoted else bare)
            )
    line = "".join([*template, escape(log_format[end:]), "\n"])
    return lambda record: line % tuple([value(record) for value in values])


def _escaped(name: str, escape_text: Callable[[str], str]) -> Callable[[AccessRecord], str]:
    """The function that gives an atom's text, fit for the place where it stands."""
    if name not in ATOMS:
        near = difflib.get_close_matches(name, ATOMS, n=1) or difflib.get_close_matches(
            name.lower(), ATOMS, n=1
        )
        raise ValueError(f"unknown atom %({name})s" + (f"; did you mean %({near[0]})s?" if near else ""))
    value = ATOMS[name].value
    if ATOMS[name].plain:
        return value
    if value is _recipients:  # each address is escaped in its own brackets already
        return lambda record: value(record) or "-"
    if escape_text is in_brackets:  # the null reverse-path is <>, not <->
        return lambda record: in_brackets(value(record))
    return lambda record: escape_text(value(record)) or "-"


def json_record(record: AccessRecord) -> str:
    """A record as one JSON object, whatever the format's atoms."""
    fields = {
        "time": format_json_time(record.time),
        "session": record.session_id,
        "message": record.message_id,
        "peer": record.peer_host,
        "port": record.peer_port,
        "helo": record.helo,
        "user": record.user,
        "sender": record.sender,
        "recipients": list(record.recipients),
        "size": record.size,
        "command": record.command,
        "code": record.code,
        "enhanced": record.enhanced,
        "text": record.text,
        "seconds": round(record.seconds, 6),
        "tls": record.tls,
        "cipher": record.cipher,
        "pid": record.pid,
        "worker": record.worker,
        "bind": record.bind,
    }
    return json.dumps(fields) + "\n"


# What the error log says of a refused client, sender or recipient (log_refusals).
_REFUSAL = compile_format(
    "refused session=%(i)s peer=[%(h)s]:%(hp)s helo=%(l)s user=%(u)s stage=%(r)s "
    'reply="%(s)s %(e)s %(m)s" from=<%(f)s> to=%(rcpt)s'
)


def refusal_line(record: AccessRecord) -> str:
    """One refusal; `command` is the stage."""
    return _REFUSAL(record).rstrip("\n")


class AccessLogSettings(Protocol):
    """The settings that open_access_log() reads."""

    access_logfile: str | None
    access_logformat: str
    log_format: str


class AccessLog:
    """The file and the format. Ask `enabled` before gathering the facts: a disabled log writes nothing."""

    def __init__(
        self, file: LogFile | None, line: Callable[[AccessRecord], str], syslog: Syslog | None = None
    ) -> None:
        self.enabled = file is not None or syslog is not None
        self._syslog = syslog
        self.file = file
        self._line = line

    def write(self, record: AccessRecord) -> None:
        """Write the line of one message, in one system call. Never raises."""
        self._write(self._line, record)

    def write_session(self, record: SessionRecord) -> None:
        """Write the line of one session. Never raises."""
        self._write(json_session if self._line is json_record else text_session, record)

    def _write(self, make: Callable[[Record], str], record: Record) -> None:
        if not self.enabled:
            return
        try:
            line = make(record)
            if self._syslog is not None:
                self._syslog.record("INFO", line)
            if self.file is not None:
                self.file.write(line)
        except OSError:
            pass  # counted and told of where it happened
        except Exception:  # a fact of the wrong type
            logging.getLogger(LOGGER).exception("access_logfile: a line cannot be made")

    def reopen(self) -> list[str]:
        """Open the file afresh (USR1). A failure goes to the error log, and the old file stays in use. Returns what
        failed, a line each."""
        try:
            if self.file is not None:
                self.file.reopen()
        except (LogError, OSError) as error:
            logging.getLogger(LOGGER).error("%s; the old file stays in use", error)
            return [str(error)]
        return []

    def close(self) -> None:
        """Close the file; the log is disabled then."""
        if self.file is not None:
            self.file.close()
        self.file = self._syslog = None
        self.enabled = False


def open_access_log(
    config: AccessLogSettings,
    syslog: Syslog | None = None,
    owner: Identity | None = None,
    former: LogFile | None = None,
) -> AccessLog:
    """The access log that the settings ask for; disabled without access_logfile and syslog. Raises LogError."""
    line = json_record if config.log_format == "json" else compile_format(config.access_logformat)
    path = config.access_logfile
    file = None if path is None else LogFile("access_logfile", path, owner, former)
    return AccessLog(file, line, syslog)
