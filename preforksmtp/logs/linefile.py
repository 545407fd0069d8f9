"""A log file: a descriptor that takes whole lines, each in one write, so that lines of many processes never mix.

Where a line cannot be written, on a full disk, it is lost: never an exception in a session, but never silently either.
Losses are counted one by one, told of once a minute while they go on, and summed up when the next line gets through. A
line that only went in part is ended before the next one; and a disk is left alone while it is nearly full, so that this
hardly ever happens.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Callable

from preforksmtp.logs import logger
from preforksmtp.logs.logfile import open_log
from preforksmtp.process.privileges import Identity

STREAMS = {"error_logfile": 2, "access_logfile": 1, "transcript": 1}  # what "-" means for each
EVERY = 60.0  # seconds between two lines about losses that go on
RESERVE = 64 << 10  # bytes that we leave free on a disk, or the last line would be torn
_MOST_AT_ONCE = 256 << 10  # bytes written between two looks at the free space
_SHARERS = 16  # processes that may write at once


class LogError(Exception):
    """A log file cannot be opened: one line naming the setting."""


class LogFile:
    """A descriptor that takes whole lines. "-" is a standard stream, which cannot be reopened; one of our own, for an
    application may close or redirect its own. `on_loss` is called for each line that is lost."""

    def __init__(
        self, setting: str, path: str, owner: Identity | None = None, former: LogFile | None = None
    ) -> None:
        """`owner`: whom workers run as, for they must be able to reopen the file (USR1). `former`: that of this setting
        so far, which stays in use if it has the same path and cannot be opened again: a reload must not depend on what
        the workers' user has made of its own folder."""
        self.setting = setting
        self.path = path
        self.on_loss: Callable[[], None] = _nothing
        self._place = path if path == "-" else os.path.abspath(path)  # a later chdir must not matter
        self._owner = owner
        self._lock = threading.Lock()  # of the three below
        self._lost = 0  # lines since the last one that was written
        self._torn = False  # the last line was written in part
        self._told_at = 0.0
        self._room = 0  # bytes until the next look at the free space
        try:
            self.fd = fcntl.fcntl(STREAMS[setting], fcntl.F_DUPFD_CLOEXEC, 3) if path == "-" else self._open()
        except LogError as error:
            if former is None or former._place != self._place:
                raise
            self.fd = os.dup(former.fd)
            logging.getLogger(logger.LOGGER).error("%s; the old file stays in use", error)

    def write(self, line: str) -> None:
        """One line, its newline included, in one system call. Raises OSError where it is lost; that is counted."""
        # What no client can have sent as text (lone surrogates) still has to become bytes.
        octets = line.encode("utf-8", "backslashreplace")
        if self._torn:
            octets = b"\n" + octets
        self._room -= len(octets)
        try:
            if self._room < 0:
                self._look_at_room(len(octets))
            written = os.write(self.fd, octets)
            if written < len(octets):
                self._torn = True
                raise OSError(28, "the last line was written in part")
        except OSError as error:
            self._lose(error)
            raise
        if self._torn or self._lost:
            self._recover()

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
        self._torn, self._room = False, 0

    def close(self) -> None:
        """Close the file; the standard stream itself stays open."""
        os.close(self.fd)

    def _open(self) -> int:
        try:
            return open_log(self._place, self._owner)
        except OSError as error:
            raise LogError(f"{self.setting}: cannot open {self.path}: {error.strerror}") from None

    def _look_at_room(self, wanted: int) -> None:
        """OSError: the disk is as good as full. A torn line would be no line, and spoil the next one."""
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            self._room = _MOST_AT_ONCE
            return
        disk = os.fstatvfs(self.fd)
        free = (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize
        if disk.f_blocks and free < RESERVE + wanted:
            raise OSError(28, "No space left on device")
        self._room = min(_MOST_AT_ONCE, (free - RESERVE) // _SHARERS) if disk.f_blocks else _MOST_AT_ONCE

    def _lose(self, error: OSError) -> None:
        """A line is lost."""
        self._room = 0
        with self._lock:
            self._lost += 1
            now = time.monotonic()
            tell = now >= self._told_at
            if tell:
                self._told_at = now + EVERY
            lost = self._lost
        self.on_loss()
        if tell and self.setting != "error_logfile":  # which could not be read there
            text = "%s: cannot be written: %s; lines lost: %d"
            logging.getLogger(logger.LOGGER).error(text, self.setting, error.strerror or error, lost)

    def _recover(self) -> None:
        """A line got through again."""
        with self._lock:
            lost, self._lost = self._lost, 0
            self._torn, self._told_at = False, 0.0
        if lost:
            logging.getLogger(logger.LOGGER).error(
                "%s: %d lines were lost while it could not be written; it can be again", self.setting, lost
            )


def _nothing() -> None:
    pass
