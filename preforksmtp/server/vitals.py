"""The vitals of a worker: what is looked at now and then, beside its sessions, and published for who observes it.

Two threads of each worker, neither of which its heartbeat waits for: one looks at descriptors and temporary files, and
at the free space of the folders where messages are stored; the other asks the application whether it can work
(Handler.healthy), and may hang in it. Nothing here fails.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

from preforksmtp.connection.service import Health
from preforksmtp.prefork.scoreboard import Slot
from preforksmtp.process.machine import free_bytes
from preforksmtp.smtp.rules import Room

EVERY = 5.0  # seconds between two looks
ANSWER = 10.0  # seconds for the application to say how it is

_DELETED = " (deleted)"  # what /proc says of a file that has no name


def spool_folders(configured: Sequence[str | None]) -> list[str]:
    """Where bodies are kept that are too large for memory."""
    return sorted({folder or tempfile.gettempdir() for folder in configured})


class Vitals(Health, Room):
    """`unwell` becomes true where the application cannot work, and false again; `short` where less than `least` bytes
    are free in one of `folders`. `healthy`: what asks the application, if it can be asked; True is the answer hoped
    for, anything else, an exception too, says that it cannot."""

    def __init__(
        self,
        published: Slot,
        log: logging.Logger,
        spools: Sequence[str],
        healthy: Callable[[], object] | None = None,
        folders: Sequence[str] = (),
        least: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unwell = self.short = False
        self._folders = folders
        self._least = least
        self._published = published
        self._log = log
        self._spools = tuple(os.path.join(os.path.realpath(folder), "") for folder in spools)
        self._healthy = healthy
        self._clock = clock
        self._asked = 0.0  # when the application was asked, where it has not answered; 0 = it has
        self._stop = threading.Event()

    def start(self) -> None:
        """Ask and look once, then begin to do so in threads of their own."""
        if self._healthy is not None:
            threading.Thread(target=self._repeat, args=(self.ask,), name="healthy", daemon=True).start()
        threading.Thread(target=self._repeat, args=(self.look,), name="vitals", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _repeat(self, once: Callable[[], None]) -> None:
        once()
        while not self._stop.wait(EVERY):
            once()

    def look(self) -> None:
        """Publish what is open; and where the application takes too long to say how it is, take that for a no."""
        self._published.descriptors, self._published.spooled = self._count()
        if self._asked and self._clock() - self._asked > ANSWER:
            self._say(f"Handler.healthy has not answered for {ANSWER:g} s")
        if self._least:
            self._look_for_room()

    def _look_for_room(self) -> None:
        """Said once for each change."""
        free = {folder: room for folder in self._folders if (room := free_bytes(folder)) >= 0}
        full = [folder for folder, room in free.items() if room < self._least]
        if bool(full) != self.short:
            self.short = bool(full)
            if full:
                text = "min_free_space: less than %d bytes are free in %s; MAIL is answered 452"
                self._log.error(text, self._least, ", ".join(full))
            else:
                self._log.info("min_free_space: there is room for messages again")

    def _count(self) -> tuple[int, int]:
        """Descriptors, and those of temporary files."""
        names = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
        spooled = 0
        for name in names:
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:  # closed meanwhile
                continue
            spooled += target.startswith(self._spools) and target.endswith(_DELETED)
        return len(names), spooled

    def ask(self) -> None:
        """Ask the application, however long it takes."""
        assert self._healthy is not None
        self._asked = self._clock()
        try:
            answer = self._healthy()
            fault = "" if answer is True or answer is None else f"Handler.healthy returned {answer!r}"
        except BaseException as error:  # of the application: it must not end this thread
            text = " ".join(str(error).split())
            fault = f"Handler.healthy raised {type(error).__name__}{f': {text}' if text else ''}"
        self._asked = 0.0
        self._say(fault)

    def _say(self, fault: str) -> None:
        """Once for each change."""
        if bool(fault) == self.unwell:
            return
        self.unwell = bool(fault)
        self._published.unwell = int(self.unwell)
        if fault:
            self._log.error("the application is not healthy: %s; new sessions are answered 421", fault)
        else:
            self._log.info("the application is healthy again")
