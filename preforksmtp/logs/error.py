"""The error log, and what both logs share: files written a line per system call, and escaping.

The logger is "preforksmtp" of the standard library, as logger.py makes it. Each record is exactly one os.write
to an O_APPEND descriptor, so that lines of many processes never mix, and nothing a client sends can begin a
line. Knows no setting but its own few. A file that cannot be opened is a LogError with one line; a line
that cannot be written (a full disk) is lost, never an exception in a session.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
import traceback
from datetime import datetime, timezone
from typing import Protocol

from preforksmtp.logs import logger
from preforksmtp.logs.escaping import escape
from preforksmtp.logs.logfile import open_log
from preforksmtp.process.privileges import Identity

LOGGER = logger.LOGGER
STREAMS = {"error_logfile": 2, "access_logfile": 1, "transcript": 1}  # what "-" means for each

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class LogError(Exception):
    """A log file cannot be opened: one line naming the setting."""


class LogFile:
    """A descriptor that takes whole lines. "-" is a standard stream, which cannot be reopened; one of our own, for an
    application may close or redirect its own."""

    def __init__(
        self, setting: str, path: str, owner: Identity | None = None, former: LogFile | None = None
    ) -> None:
        """`owner`: whom workers run as, for they must be able to reopen the file (USR1). `former`: that of this setting
        so far, which stays in use if it has the same path and cannot be opened again: a reload must not depend on what
        the workers' user has made of its own folder."""
        self.setting = setting
        self.path = path
        self._place = path if path == "-" else os.path.abspath(path)  # a later chdir must not matter
        self._owner = owner
        try:
            self.fd = fcntl.fcntl(STREAMS[setting], fcntl.F_DUPFD_CLOEXEC, 3) if path == "-" else self._open()
        except LogError as error:
            if former is None or former._place != self._place:
                raise
            self.fd = os.dup(former.fd)
            logging.getLogger(LOGGER).error("%s; the old file stays in use", error)

    def write(self, line: str) -> None:
        """One line, its newline included, in one system call."""
        # What no client can have sent as text (lone surrogates) still has to become bytes.
        os.write(self.fd, line.encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        """Open the path afresh, after logrotate renamed the file. The old file stays in use if that fails."""
        if self.path == "-":
            return
        new = self._open()
        try:
            # Onto the same number: a session that is writing just now writes to the old or to the new file,
            # and at no moment to a closed descriptor or to somebody else's.
            os.dup2(new, self.fd, inheritable=False)
        finally:
            os.close(new)

    def close(self) -> None:
        """Close the file; the standard stream itself stays open."""
        os.close(self.fd)

    def _open(self) -> int:
        try:
            return open_log(self._place, self._owner)
        except OSError as error:
            raise LogError(f"{self.setting}: cannot open {self.path}: {error.strerror}") from None


def format_time(seconds: float) -> str:
    """Wall-clock time of a line of text: 2026-11-24 08:00:00 +0000."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def format_json_time(seconds: float) -> str:
    """The same for JSON, ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


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
    they follow the record as a traceback does.
    """

    def __init__(
        self, file: LogFile, log_format: str, severity: str = "info", syslog: Syslog | None = None
    ) -> None:
        self._syslog = syslog
        self.file = file
        self._severity = severity
        self._closed = False
        self._line = json_line if log_format == "json" else text_line
        self._syslog_lines = json_line if log_format == "json" else syslog_lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. A full disk or a closed terminal costs the line and nothing else."""
        with contextlib.suppress(Exception):  # there is no better place to complain
            try:
                self.file.write(self._line(record))
            except OSError as error:
                if error.errno == errno.EBADF:  # the application has closed what it did not open
                    os.write(STREAMS["error_logfile"], self._line(record).encode("utf-8", "backslashreplace"))
        if self._syslog is not None:
            self._syslog.record(_level(record), self._syslog_lines(record))

    def reopen(self) -> None:
        """Open the file afresh (USR1). A failure is logged to the old file, which stays in use."""
        try:
            self.file.reopen()
        except (LogError, OSError) as error:
            logging.getLogger(LOGGER).error("%s; the old file stays in use", error)

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


def text_line(record: logging.LogRecord) -> str:
    """A record as text: one line, then those of its traceback, none of which can be taken for a record."""
    head = (
        f"{format_time(record.created)} [{os.getpid()}] [{_level(record)}] {escape(_message(record))}\n"
    )
    return head + _indented_details(record)


def syslog_lines(record: logging.LogRecord) -> str:
    """The same without what syslog writes in front of every line."""
    return f"[{_level(record)}] {escape(_message(record))}\n{_indented_details(record)}"


def _indented_details(record: logging.LogRecord) -> str:
    return "".join(f"  | {escape(line)}\n" for line in _details(record).splitlines())


def json_line(record: logging.LogRecord) -> str:
    """A record as one JSON object."""
    fields = {
        "time": format_json_time(record.created),
        "level": _level(record),
        "pid": os.getpid(),
        "message": _message(record),
    }
    details = _details(record)
    if details:
        fields["traceback"] = details
    return json.dumps(fields) + "\n"  # ASCII only: what is not printable comes out as \u escapes


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
