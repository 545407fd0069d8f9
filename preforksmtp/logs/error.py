"""The error log, and what both logs share: files written a line per system call, and escaping.

The logger is "preforksmtp" of the standard library, as logger.py makes it. Each record is exactly one os.write
to an O_APPEND descriptor, so that lines of many processes never mix, and nothing a client sends can begin a
line. Knows no setting but its own few. A file that cannot be opened is a LogError with one line; a line
that cannot be written (a full disk) is lost, never an exception in a session.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Protocol

from preforksmtp.logs import logger
from preforksmtp.logs.escaping import escape
from preforksmtp.logs.linefile import STREAMS, LogError, LogFile
from preforksmtp.process.privileges import Identity

LOGGER = logger.LOGGER

PRIORITIES = ((50, 2), (40, 3), (30, 4), (20, 6))  # of syslog, from each level on; below: 7
LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def format_time(seconds: float) -> str:
    """Wall-clock time of a line of text: 2026-11-24 08:00:00 +0000."""
    return _format_second(int(seconds))


@lru_cache(4)
def _format_second(second: int) -> str:
    """A busy server has many lines a second: 2 us each."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(second))


def format_json_time(seconds: float) -> str:
    """The same for JSON, ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


NOTHING: Mapping[str, Any] = {}


class ErrorLogSettings(Protocol):
    """The settings that open_error_log() reads."""

    error_logfile: str
    log_format: str
    log_level: str


class Syslog(Protocol):
    """What takes a copy of each record: see syslog.py."""

    def record(self, level: str, text: str) -> None:
        """Send each line of `text`, and never raise."""


class ErrorLog:
    """Where the logger "preforksmtp" writes to.

    A record's `detail` (extra={"detail": text}) is more lines for people, such as another thread's stack:
    they follow the record as a traceback does. Its `fields` (extra={"fields": {...}}) are more of what a line in JSON
    says, beside what `common` says in each. `session` names the session that the calling thread serves, "" = none.
    """

    def __init__(
        self, file: LogFile, log_format: str, severity: str = "info", syslog: Syslog | None = None
    ) -> None:
        self._syslog = syslog
        self.file = file
        self._severity = severity
        self._closed = False
        self.common: dict[str, Any] = {}
        self.session: Callable[[], str] = str
        self._line: Callable[[logging.LogRecord], str] = self._json_line if log_format == "json" else text_line
        self._syslog_lines = self._json_line if log_format == "json" else syslog_lines
        if _is_the_journal(file):
            self._line = journal_lines(self._line)

    def _json_line(self, record: logging.LogRecord) -> str:
        return json_line(record, self.common)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. A full disk or a closed terminal costs the line and nothing else."""
        _attribute(record, self.session)
        with contextlib.suppress(Exception):  # there is no better place to complain
            try:
                self.file.write(self._line(record))
            except OSError as error:
                if error.errno == errno.EBADF:  # the application has closed what it did not open
                    os.write(STREAMS["error_logfile"], self._line(record).encode("utf-8", "backslashreplace"))
        if self._syslog is not None:
            self._syslog.record(_level(record), self._syslog_lines(record))

    def reopen(self) -> list[str]:
        """Open the file afresh (USR1). A failure is logged to the old file, which stays in use. Returns what
        failed, a line each."""
        try:
            self.file.reopen()
        except (LogError, OSError) as error:
            logging.getLogger(LOGGER).error("%s; the old file stays in use", error)
            return [str(error)]
        return []

    def install(self) -> None:
        """Point the logger at this log instead of an earlier one, which stays open.

        While it is installed its records do not propagate: an application that calls logging.basicConfig() would
        have each of them twice on its terminal.
        """
        logger.install(self)
        logger.logger.setLevel(self._severity.upper())

    def close(self) -> None:
        """Close the file; if the log is installed, give the logger back as it was found."""
        if logger.installed() is self:
            logger.uninstall()
        if not self._closed:
            self._closed = True
            self.file.close()


def make_error_log(
    config: ErrorLogSettings,
    syslog: Syslog | None = None,
    owner: Identity | None = None,
    former: LogFile | None = None,
) -> ErrorLog:
    """The error log that the settings ask for, open but not installed. Raises LogError."""
    file = LogFile("error_logfile", config.error_logfile, owner, former)
    return ErrorLog(file, config.log_format, config.log_level, syslog)


def open_error_log(config: ErrorLogSettings) -> ErrorLog:
    """The same, installed in place of an earlier one, which is closed. LogError: no change."""
    handler = make_error_log(config)
    earlier = logger.installed()
    handler.install()
    if isinstance(earlier, ErrorLog):
        earlier.close()
    return handler


def _attribute(record: logging.LogRecord, session: Callable[[], str]) -> None:
    """Of the application's own records: by which logger, and in which session."""
    if record.name == LOGGER or hasattr(record, "fields"):
        return
    with contextlib.suppress(Exception):
        record.fields = {"logger": record.name} | ({"session": name} if (name := session()) else {})


def _is_the_journal(file: LogFile) -> bool:
    """Whether standard error is systemd's journal, which takes a priority in front of each line (sd-daemon(3))."""
    there = os.environ.get("JOURNAL_STREAM", "")
    if file.path != "-":
        return False
    try:
        status = os.fstat(file.fd)
    except OSError:
        return False
    return there == f"{status.st_dev}:{status.st_ino}"


def journal_lines(line: Callable[[logging.LogRecord], str]) -> Callable[[logging.LogRecord], str]:
    """The same lines, each with the priority of its record."""

    def lines(record: logging.LogRecord) -> str:
        priority = next((number for level, number in PRIORITIES if record.levelno >= level), 7)
        return "".join(f"<{priority}>{each}\n" for each in line(record).splitlines())

    return lines


def text_line(record: logging.LogRecord) -> str:
    """A record as text: one line, then those of its traceback, none of which can be taken for a record."""
    head = f"{format_time(record.created)} [{os.getpid()}] [{_level(record)}]"
    return f"{head} {_origin(record)}{escape(_message(record))}\n" + _indented_details(record)


def syslog_lines(record: logging.LogRecord) -> str:
    """The same without what syslog writes in front of every line."""
    return f"[{_level(record)}] {_origin(record)}{escape(_message(record))}\n{_indented_details(record)}"


def _origin(record: logging.LogRecord) -> str:
    """Of the application's own records: "session ID: " and "name of the logger: "."""
    fields = getattr(record, "fields", NOTHING)
    if "logger" not in fields:
        return ""
    session = f"session {fields['session']}: " if "session" in fields else ""
    name = str(fields["logger"])
    return session if name.startswith(f"{LOGGER}.") else f"{session}{escape(name)}: "


def _indented_details(record: logging.LogRecord) -> str:
    return "".join(f"  | {escape(line)}\n" for line in _details(record).splitlines())


def json_line(record: logging.LogRecord, common: Mapping[str, Any] = NOTHING) -> str:
    """A record as one JSON object."""
    fields = {
        "time": format_json_time(record.created),
        "level": _level(record),
        "pid": os.getpid(),
        "message": _message(record),
    }
    fields = fields | {**common, **getattr(record, "fields", NOTHING)} | fields  # time first, and nobody's but ours
    details = _details(record)
    if details:
        fields["traceback"] = details
    return json.dumps(fields, default=str) + "\n"  # ASCII only: what is not printable comes out as \u escapes


def _level(record: logging.LogRecord) -> str:
    """Its name, whatever the application has the levels called (logging.addLevelName)."""
    return LEVELS.get(record.levelno) or record.levelname


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        return f"{record.msg!r} with arguments {record.args!r} cannot be logged: {error!r}"


def _details(record: logging.LogRecord) -> str:
    """The lines that belong under a record: traceback, stack, detail."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    detail = getattr(record, "detail", None)
    if detail:
        parts.append(str(detail))
    return "\n".join(parts)
