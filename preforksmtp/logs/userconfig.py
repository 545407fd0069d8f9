"""The error log as the user's own logging configuration has it, in place of log.ErrorLog.

The file is read once, in the master: what a worker applies later is what was tested, whatever became of the file. It
is applied to the logging of the whole process, for that is what logging.config does. Whatever is wrong with it is a
LogError with one line. The error log's own file stays open beside it: stacks of a worker that hangs are written there.

It is code (it names classes, and arguments that are evaluated), so root takes it from root only. What its FileHandlers
open is opened as our own logs are (logfile.py), at the start as at a rollover.
"""

from __future__ import annotations

import configparser
import contextlib
import copy
import json
import logging
import logging.config
import logging.handlers
import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from preforksmtp.logs.error import ErrorLog, ErrorLogSettings
from preforksmtp.logs.linefile import LogError, LogFile
from preforksmtp.logs.logfile import open_log
from preforksmtp.logs.logger import LOGGER, install
from preforksmtp.process.place import Here, reach
from preforksmtp.process.privileges import Identity, acting_as
from preforksmtp.process.trust import read_code


def read_log_config(path: str, owner: Identity | None = None) -> Callable[[], None]:
    """A file -> the function that applies it. JSON is for dictConfig, all else for fileConfig. LogError."""
    try:
        text = read_code(path, owner.uid if owner is not None else None).decode("utf-8")
        if path.endswith(".json"):
            data = json.loads(text)
            if not isinstance(data, dict):
                raise ValueError("must hold one JSON object")
            settings: dict[str, Any] = {"version": 1, "disable_existing_loggers": False, **data}
            # A copy, for dictConfig may change what it is given.
            return lambda: logging.config.dictConfig(copy.deepcopy(settings))
        parser = configparser.ConfigParser()
        parser.read_string(text, path)
    except OSError as error:
        raise LogError(f"log_config: cannot read {path}: {error.strerror}") from None
    except (ValueError, configparser.Error) as error:
        raise LogError(explain(path, error)) from None
    return lambda: logging.config.fileConfig(parser, disable_existing_loggers=False)


def explain(path: str, error: BaseException) -> str:
    """One line: what logging.config says, and why where it knows."""
    line = f"log_config: {path}: {type(error).__name__}: {error}"
    if error.__cause__ is not None:
        line += f" ({error.__cause__})"
    return " ".join(line.split())


class LogConfigSettings(ErrorLogSettings, Protocol):
    """The settings that make_configured_log() reads."""

    log_config: str


def make_configured_log(
    config: LogConfigSettings, owner: Identity | None = None, former: LogFile | None = None
) -> ConfiguredLog:
    """The error log of log_config, read but not installed. LogError."""
    apply = read_log_config(config.log_config, owner)
    return ConfiguredLog(LogFile("error_logfile", config.error_logfile, owner, former), config, apply, owner)


class ConfiguredLog:
    """Stands where an ErrorLog does. `file` is for stack dumps only."""

    def __init__(
        self, file: LogFile, config: LogConfigSettings, apply: Callable[[], None], owner: Identity | None
    ) -> None:
        self.file = file
        self._config = config
        self._apply = apply
        self._handlers: list[logging.Handler] = []
        self._owner = owner
        self._fallback: ErrorLog | None = None
        self._closed = False

    def install(self) -> None:
        """Apply the configuration to this process. LogError: a plain error log is installed in its place."""
        logger = logging.getLogger(LOGGER)
        install(None)
        logger.setLevel(self._config.log_level.upper())  # unless the configuration has another
        try:
            apply_guarded(self._apply, self._owner)
        except Exception as error:  # it runs classes of the user's choice
            # What was there is closed already. With a descriptor of its own: ours is for the stacks.
            for old in logger.handlers[:]:
                logger.removeHandler(old)
            file = LogFile("error_logfile", self._config.error_logfile, self._owner, self.file)
            fallback = ErrorLog(file, self._config.log_format, self._config.log_level)
            fallback.install()
            self._fallback = fallback
            raise LogError(explain(self._config.log_config, error)) from None
        self._handlers = [*logger.handlers, *logging.getLogger().handlers]

    def reopen(self) -> list[str]:
        """Open the files afresh (USR1): those of our logger and of all others. What failed, a line each."""
        logger, faults = logging.getLogger(LOGGER), []
        try:
            self.file.reopen()
        except (LogError, OSError) as error:
            logger.error("%s; the old file stays in use", error)
            faults.append(str(error))
        for handler in _file_handlers(_all_handlers()):
            try:
                _reopen(handler)
            except OSError as error:
                fault = f"log_config: cannot open {handler.baseFilename}: {error.strerror or error}"
                logger.error("%s; the old file stays in use", fault)
                faults.append(fault)
        return faults

    def close(self) -> None:
        """Take our handlers off their loggers. One that came after us has done so already."""
        if self._closed:
            return
        self._closed = True
        for handler in self._handlers:
            for logger in (logging.getLogger(LOGGER), logging.getLogger()):
                logger.removeHandler(handler)
            with contextlib.suppress(Exception):  # a class of the user's choice
                handler.close()
        if self._fallback is not None:
            self._fallback.close()
        self.file.close()


# -- files that root opens


def apply_guarded(apply: Callable[[], None], owner: Identity | None) -> None:
    """Apply a configuration, its files opened as our own logs are, now and later. What apply() raises, OSError."""
    plain, former = logging.FileHandler._open, set(_living_files())

    def guarded(handler: logging.FileHandler) -> Any:
        def opener(path: str, flags: int) -> int:
            return open_log(_as_seen_from_here(path), owner, flags, 0o666)

        return open(handler.baseFilename, handler.mode, encoding=handler.encoding, errors=handler.errors, opener=opener)

    logging.FileHandler._open = guarded  # type: ignore[method-assign, assignment]
    try:
        apply()
    finally:
        logging.FileHandler._open = plain  # type: ignore[method-assign]
    for handler in _living_files():
        if handler not in former:
            handler._open = guarded.__get__(handler)  # type: ignore[method-assign]
            if isinstance(handler, logging.handlers.BaseRotatingHandler) and os.geteuid() == 0:
                _guard_rollover(handler, owner)


def _guard_rollover(handler: logging.handlers.BaseRotatingHandler, owner: Identity | None) -> None:
    """It renames and removes files by their names: where others may write to the folder, with their rights only."""
    try:
        with reach(_as_seen_from_here(handler.baseFilename), follow=True) as place:
            others = place.others
    except OSError as error:
        others = error.strerror or str(error)
    if not others:
        return
    if owner is None or owner.uid == 0:
        raise OSError(f"root renames no files where others may write, and {others}")
    plain, user = handler.handle, owner

    def handle(record: logging.LogRecord) -> Any:
        with acting_as(user) if os.geteuid() == 0 else contextlib.nullcontext():  # in a worker it is that user
            return plain(record)

    handler.handle = handle  # type: ignore[method-assign]


def _as_seen_from_here(path: str) -> str:
    """FileHandler makes names absolute, and so hides how the current folder was chosen."""
    here = os.getcwd() + os.sep
    return path[len(here) :] if (Here.shaky or Here.refused) and path.startswith(here) else path


def _living_files() -> list[logging.FileHandler]:
    """Also those that are no logger's, but another handler's target."""
    handlers = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    return _file_handlers(handler for handler in handlers if handler is not None)


def _all_handlers() -> list[logging.Handler]:
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    found = [handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers]
    return list(dict.fromkeys(found))


def _file_handlers(handlers: Iterable[logging.Handler]) -> list[logging.FileHandler]:
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


def _reopen(handler: logging.FileHandler) -> None:
    """Open the new file before the old one is closed."""
    handler.acquire()
    try:
        old = handler.stream
        if old is not None:  # not opened yet (delay)
            handler.stream = handler._open()
            old.close()
    finally:
        handler.release()
