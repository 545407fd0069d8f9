"""The certificates of all listeners: built together, and watched for files that change.

Runs in the master, which alone may be able to read the keys: a change is answered by a new generation of workers that
inherit the new contexts, with ticket keys they share. So a watch only reports; it never touches what is being served.
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from .tls import TLSError, TLSSettings, server_context

INTERVAL = 10.0  # seconds between two looks at the files; a change is believed when two looks agree

# ssl_context(config, default_factory): the config file's own function to make a context.
ContextHook = Callable[[Any, Callable[[], ssl.SSLContext]], ssl.SSLContext]

_Marks = dict[str, tuple[int, ...]]  # file -> what stat() says of it; () if there is none


def build_contexts(settings: Sequence[TLSSettings], hook: ContextHook | None = None) -> list[ssl.SSLContext | None]:
    """The context of each listener, None where it has no certificate. TLSError with one clear line."""
    return [_build(one, hook) if one.certfile else None for one in settings]


def _build(settings: TLSSettings, hook: ContextHook | None) -> ssl.SSLContext:
    if hook is None:
        return server_context(settings)
    try:
        context = hook(settings, partial(server_context, settings))
    except TLSError:
        raise
    except BaseException as error:  # the user's code, SystemExit too
        raise TLSError(f"ssl_context of the config file raised {type(error).__name__}: {error}") from error
    if not isinstance(context, ssl.SSLContext):
        raise TLSError(f"ssl_context of the config file returned {type(context).__name__}, not an ssl.SSLContext")
    return context


class CertificateWatch:
    """`contexts` as first built (TLSError if that fails), and anew each time that changed() says so.

    changed() is to be called every INTERVAL seconds. It is True once for each change of the files' contents, when they
    have rested since the last look and load. Files that do not load are one error in the log, and change nothing.
    """

    def __init__(self, settings: Sequence[TLSSettings], log: logging.Logger, hook: ContextHook | None = None) -> None:
        self._settings = settings
        self._log = log
        self._hook = hook
        self._served = self._seen = self._look()  # before they are read: a change meanwhile is then noticed
        self._digest = _digest(self._served)
        self._refused: _Marks | None = None  # does not load, and has been complained about
        self._complaint = ""
        self.contexts = build_contexts(settings, hook)

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
            contexts = build_contexts(self._settings, self._hook)
        except TLSError as error:
            self._refuse(marks, str(error))
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
        if path and os.path.isdir(path):  # ca_certs may be one
            yield from (os.path.join(path, name) for name in sorted(os.listdir(path)))
        elif path:
            yield path


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
            with open(path, "rb") as file:
                content = file.read()
        except (OSError, ValueError):
            content = b""
        digest.update(b"%d:%s=%d:%s" % (len(path), os.fsencode(path), len(content), content))
    return digest.digest()
