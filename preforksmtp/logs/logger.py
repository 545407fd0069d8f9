"""The logger "preforksmtp" as long as an error log is installed: what else an application does to logging, it goes on.

Applications configure logging for themselves: logging.config disables every logger that was there before, and closes
all handlers; logging.disable() silences all of them; a filter, a record factory or a handler may fail. So the error log
is no handler of that machinery: the logger itself writes each record to it (`sink`), and hands it on afterwards to the
handlers that an application has added to this logger on purpose. Records of child loggers come through `_Door`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Protocol

LOGGER = "preforksmtp"


class Sink(Protocol):
    """What writes a record, and never raises."""

    def emit(self, record: logging.LogRecord) -> None: ...


class ErrorLogger(logging.Logger):
    """What the logger is made, in its place; without a sink it only cannot be disabled."""

    sink: Sink | None

    def isEnabledFor(self, level: int) -> bool:
        return level >= self.getEffectiveLevel()

    def makeRecord(
        self, name: str, level: int, fn: str, lno: int, msg: object, args: Any, exc_info: Any,
        func: str | None = None, extra: Mapping[str, object] | None = None, sinfo: str | None = None,
    ) -> logging.LogRecord:  # fmt: skip
        try:
            return super().makeRecord(name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        except Exception:  # the application's record factory
            record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
            record.__dict__.update(extra or {})
            return record

    def handle(self, record: logging.LogRecord) -> None:
        if self.sink is None:
            self.disabled = False
            super().handle(record)
            return
        self.sink.emit(record)
        if _door not in self.handlers:
            self.addHandler(_door)
        with contextlib.suppress(Exception):  # the application's filters and handlers
            super().handle(record)


class _LastResort(logging.Handler):
    """For the records of an application that has configured no logging: Python prints them to standard error, where a
    daemon has none."""

    def emit(self, record: logging.LogRecord) -> None:
        sink = installed()
        if sink is not None:
            sink.emit(record)


def take_others() -> None:
    """Worker: have what the application logs, and configures no handler for, written to the error log too."""
    logging.lastResort = _LastResort(logging.WARNING)


class _Door(logging.Handler):
    """For the records of child loggers, which do not pass the logger itself. It also keeps logging from believing that
    nobody takes a record, and from printing it."""

    def emit(self, record: logging.LogRecord) -> None:
        sink = logger.sink if isinstance(logger, ErrorLogger) else None
        if record.name != LOGGER and sink is not None:
            sink.emit(record)


logger = logging.getLogger(LOGGER)
_door = _Door()
_ordinary = type(logger)


def install(sink: Sink | None) -> None:
    """Have the logger write to it."""
    logger.sink = sink  # type: ignore[attr-defined]
    logger.__class__ = ErrorLogger
    logger.removeHandler(_door)
    if sink is not None:
        logger.addHandler(_door)
    logger.propagate = sink is None
    logger.disabled = False


def installed() -> Sink | None:
    """Where it writes to."""
    return logger.sink if isinstance(logger, ErrorLogger) else None


def uninstall() -> None:
    """Make it the logger that it was."""
    logger.__class__ = _ordinary
    logger.removeHandler(_door)
    logger.propagate, logger.disabled = True, False
    logger.setLevel(logging.NOTSET)
