"""--reload: whoever works on the application sees each change at once.

Each worker tells the master, through a pipe, the source files of the modules it has imported, also those it imports
later. The master watches them, the config file and reload_extra_file. A change is what HUP is: broken code leaves the
former one serving; code that does not even compile is one line in the log, and no worker is begun for it.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import select
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from preforksmtp.config.model import Config
from preforksmtp.process.place import reading
from preforksmtp.process.watch import FileWatch, mark
from preforksmtp.server.app import AppError, load_app

if TYPE_CHECKING:
    from preforksmtp.prefork.master.master import Master
    from preforksmtp.smtp.hooks import Hooks

INTERVAL = 0.5  # seconds between two looks
LONGEST = 1 << 20  # bytes of reports that are taken in at a time; the rest waits in the pipe
LARGEST = 16 << 20  # bytes of a source file that is looked into
MOST = 20_000  # files that are watched
_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Development:
    """Made in the master before it forks."""

    def __init__(self, settings: Config, log: logging.Logger) -> None:
        self._log = log
        self._settings: Callable[[], Config] = lambda: settings
        self._watch = FileWatch()
        self._broken: list[str] = []  # files that do not compile
        self._text = b""  # a report that has come in part
        self._look_at = 0.0
        self._reports, self._report = os.pipe()
        os.set_blocking(self._reports, False)

    # -- worker

    def load(self, text: str) -> Hooks:
        """Worker: load APP, and report, now and from now on, the files that its code came from."""
        sys.dont_write_bytecode = True  # of two versions within a second the first one's bytecode would pass for both
        done = set(sys.modules)  # the master's own, which no reload changes
        try:
            return load_app(text)
        except AppError as error:
            for path in _files_of(error.__context__):  # their modules are not in sys.modules
                self._write(path)
            raise
        finally:
            self._report_modules(done)
            threading.Thread(target=self._report_later, args=(done,), name="reload", daemon=True).start()

    def _report_later(self, done: set[str]) -> None:
        """Own thread."""
        while True:
            time.sleep(INTERVAL)
            self._report_modules(done)

    def _report_modules(self, done: set[str]) -> None:
        for name, module in list(sys.modules.items()):
            if name not in done:
                done.add(name)
                path = getattr(module, "__file__", None)
                if isinstance(path, str):
                    self._write(os.path.abspath(path))

    def _write(self, path: str) -> None:
        """The file as it is now, in one piece; the master may look later."""
        line = json.dumps([path, mark(path)]).encode() + b"\n"
        if len(line) <= select.PIPE_BUF:
            with contextlib.suppress(OSError):  # the master is gone
                os.write(self._report, line)

    # -- master

    def attend(self, master: Master, settings: Callable[[], Config]) -> None:
        """Before the master runs. `settings`: those in force."""
        self._master = master
        self._settings = settings
        self._add_from(settings())
        master.round_every = min(master.round_every, INTERVAL)
        master.on_child.append(self._close_in_child)
        master.on_round.append(self._look)
        master.on_reloaded.append(self._reloaded)

    def _close_in_child(self) -> None:
        os.close(self._reports)

    def _add_from(self, settings: Config) -> None:
        if settings.file is not None:
            self._watch.add(settings.file, mark(settings.file))
        self._watch.add_patterns(settings.reload_extra_file)

    def _look(self) -> None:
        """Each round."""
        self._take_reports()
        now = time.monotonic()
        if now < self._look_at or self._master.stopping:
            return
        self._look_at = now + INTERVAL
        changed = self._watch.changed()
        if not changed or not self._settings().reload:
            return
        faults = {path: fault for path in dict.fromkeys(self._broken + changed) if (fault := _syntax_error(path))}
        self._broken = list(faults)
        for path, fault in faults.items():
            self._log.error("reload: %s%s; nothing is reloaded", _short(path), fault)
        if not faults:
            self._log.info("reload: changed: %s", ", ".join(map(_short, changed)))
            self._master.reload.request()

    def _take_reports(self) -> None:
        """A worker may write anything into the pipe, and its application too: what is no report is passed over."""
        with contextlib.suppress(BlockingIOError):
            while len(self._text) < LONGEST and (block := os.read(self._reports, 65536)):
                self._text += block
        *lines, self._text = self._text.split(b"\n")
        if len(self._text) > select.PIPE_BUF:  # no report is that long
            self._text = b""
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                path, known = json.loads(line)
                if not isinstance(path, str) or not all(isinstance(mark, int) for mark in known):
                    continue
                if len(self._watch) >= MOST:
                    continue
                self._log.debug("reload: watching %s", path)
                self._watch.add(path, tuple(known))

    def _reloaded(self, fault: str) -> None:
        """A reload is over. After a failure what is missing may be a module that nobody has imported yet."""
        self._take_reports()
        self._add_from(self._settings())
        if fault:
            folders = {os.path.dirname(path) for path in self._watch if _is_own(path)}
            self._watch.add_patterns(os.path.join(glob.escape(folder), "*.py") for folder in sorted(folders))


def _files_of(error: BaseException | None) -> Iterator[str]:
    """The files on the way to an error."""
    if error is None:
        return
    if isinstance(error, SyntaxError) and error.filename:
        yield os.path.abspath(error.filename)
    for frame in traceback.extract_tb(error.__traceback__):
        if os.path.isfile(frame.filename) and not frame.filename.startswith(os.path.dirname(os.path.dirname(__file__))):
            yield os.path.abspath(frame.filename)


def _is_own(path: str) -> bool:
    """Somebody's who works on it: neither Python's nor an installed package."""
    return path.endswith(".py") and not path.startswith(_LIBRARY) and not any(part in path for part in _PACKAGES)


def _syntax_error(path: str) -> str:
    """What keeps a source file from being compiled, to stand behind its name; "" for nothing."""
    if not path.endswith(".py"):
        return ""
    try:
        # As root what it may read of a worker's; no FIFO, and nothing without an end, which a worker may have named.
        with reading(path) as fd, open(fd, "rb", closefd=False) as file:
            source = file.read(LARGEST)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except OSError:
        return ""  # it is gone: importing it will tell
    except SyntaxError as error:
        return f", line {error.lineno or 1}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL byte, or nesting no person writes
        return f": {error}"
    return ""


def _short(path: str) -> str:
    """As seen from the current folder, where that is shorter."""
    return min(path, os.path.relpath(path), key=len)
