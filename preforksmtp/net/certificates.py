"""A watch over the files that TLS contexts are made of.

Runs in the master, which alone may be able to read the keys: a change is answered by a new generation of workers that
inherit the new contexts, with ticket keys they share. So a watch only reports; it never touches what is being served.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from preforksmtp.net.tls import TLSSettings
from preforksmtp.process.place import reading

INTERVAL = 10.0  # seconds between two looks at the files; a change is believed when two looks agree

Contexts = TypeVar("Contexts")
_Marks = dict[str, tuple[int, ...]]  # file -> what stat() says of it; () if there is none


class CertificateWatch(Generic[Contexts]):
    """`contexts` is what `build()` made of the files of `settings` at first, and anew each time that changed() is True.

    changed() is to be called every INTERVAL seconds. It is True once for each change of the files' contents, when they
    have rested since the last look and `build` succeeds. Where it raises, that is one error in the log, and nothing
    changes; the very first time its exception is the caller's.
    """

    def __init__(self, settings: Sequence[TLSSettings], build: Callable[[], Contexts], log: logging.Logger) -> None:
        self._settings = settings
        self._build = build
        self._log = log
        self._served = self._seen = self._look()  # before they are read: a change meanwhile is then noticed
        self._digest = _digest(self._served)
        self._refused: _Marks | None = None  # does not load, and has been complained about
        self._complaint = ""
        self.contexts = build()

    def changed(self) -> bool:
        """Are there new certificates that load?"""
        marks = self._look()
        rested = marks == self._seen
        self._seen = marks
        if marks == self._served:
            self._refused, self._complaint = None, ""
            return False
        if not rested or marks == self._refused:
            return False
        digest = _digest(marks)
        if digest == self._digest:  # only touched, or written again as they were
            self._served = marks
            return False
        try:
            contexts = self._build()
        except Exception as error:  # TLSError, and what a user's own function raises
            self._refuse(marks, " ".join(str(error).split()) or type(error).__name__)
            return False
        if self._look() != marks:
            return False  # written to while they were read: the next looks will see
        self._served, self._digest, self.contexts = marks, digest, contexts
        self._refused, self._complaint = None, ""
        self._log.info("TLS certificates have changed")
        return True

    def _refuse(self, marks: _Marks, complaint: str) -> None:
        self._refused = marks
        if complaint != self._complaint:
            self._complaint = complaint
            self._log.error("TLS certificates have changed, but do not load; the old ones stay in use: %s", complaint)

    def _look(self) -> _Marks:
        return {path: _mark(path) for one in self._settings for path in files(one)}


def files(settings: TLSSettings) -> Iterator[str]:
    """The files a context is made of."""
    if not settings.certfile:
        return
    pairs = [(settings.certfile, settings.keyfile), *settings.sni.values()]
    for path in [path for pair in pairs for path in pair] + [settings.keyfile_password_file, settings.ca_certs]:
        if path:
            yield path
            yield from _entries(path)


def _entries(path: str) -> list[str]:
    """The files of a folder, which ca_certs may be."""
    try:
        return [os.path.join(path, name) for name in sorted(os.listdir(path))]
    except (OSError, ValueError):
        return []  # no folder


def _mark(path: str) -> tuple[int, ...]:
    """Follows symbolic links: certbot and Kubernetes change only those."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _digest(marks: _Marks) -> bytes:
    digest = hashlib.sha256()
    for path in marks:
        try:
            with reading(path) as fd, open(fd, "rb", closefd=False) as file:
                content = file.read()
        except (OSError, ValueError):
            content = b""
        digest.update(b"%d:%s=%d:%s" % (len(path), os.fsencode(path), len(content), content))
    return digest.digest()
