"""The composition: everything that one configuration makes, open at the same time, and how the next one takes its place.

Runs in the master; `boot` in each worker. Made at the start, and once more at each reload (`Composer.prepare`), beside
the one in force: nothing of that is touched before `_commit`, and `_abandon` leaves no trace. Raises ConfigError,
ListenError, TLSError, LogError or PidFileError, each one or more clear lines.
"""

from __future__ import annotations

import logging
import os
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import access, config, log
from .access import AccessLog
from .app import AppError, load_app, start_handler
from .check import ConfigError, check, warnings
from .imports import forgetting_imports
from .limits import make_limiter
from .net.listener import Listener
from .net.revision import Revision
from .net.tls import server_context
from .prefork.generation import Plan
from .prefork.hooks import MASTER_HOOKS, WORKER_HOOKS, Hooks, describe
from .prefork.pool import Serve
from .prefork.worker import BootFailed, Worker
from .service import Service, make_terms

BAD_APP = 4


@dataclass
class Surroundings:
    """What of the process a configuration changes."""

    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: str = field(default_factory=os.getcwd)
    path: list[str] = field(default_factory=lambda: list(sys.path))

    def restore(self) -> None:
        os.environ.clear()
        os.environ.update(self.environ)
        os.chdir(self.folder)
        sys.path[:] = self.path


class Logs:
    """The error log and the access log."""

    def __init__(self, settings: config.Config) -> None:
        self.error = log.make_error_log(settings)
        try:
            self.access: AccessLog = access.open_access_log(settings)
        except BaseException:
            self.error.close()
            raise

    def install(self) -> None:
        self.error.install()

    def reopen(self) -> None:
        self.error.reopen()
        self.access.reopen()

    def close(self) -> None:
        self.error.close()
        self.access.close()


class Composition:
    """One configuration at work. `surroundings`: the process as it wants it, for every worker."""

    def __init__(self, settings: config.Config, logs: Logs, revision: Revision) -> None:
        self.settings = settings
        self.logs = logs
        self.revision = revision
        self.listeners: Sequence[Listener] = revision.listeners
        self.surroundings = Surroundings()
        self.contexts = make_contexts(settings)
        self.log = logging.getLogger(log.LOGGER)
        names = (*MASTER_HOOKS, *WORKER_HOOKS)
        functions = {name: function for name in names if (function := getattr(settings, name)) is not None}
        self.hooks = Hooks(functions, forgetting_imports)

    def plan(self) -> Plan:
        return Plan(self.settings, [listener.socket for listener in self.listeners], self.boot, self.hooks)

    def announce(self) -> None:
        """Master: its workers serve."""
        for line in warnings(self.settings):
            self.log.warning("%s", line)
        for listener in self.listeners:
            self.log.info("listening on %s://%s", listener.bind.scheme, listener.address)

    def renew_contexts(self) -> None:
        """Master: read the certificates again, for the workers to come. TLSError: the former stay."""
        self.contexts = make_contexts(self.settings)

    def boot(self, worker: Worker) -> Serve:
        """Worker, after the fork: load APP and make the service of its session threads."""
        self.surroundings.restore()
        self.logs.install()
        worker.on_reopen.append(self.logs.reopen)
        worker.dump_stacks_to(self.logs.error.file.fd)
        try:
            hooks = load_app(self.settings.app)
            if hooks.handler is not None:
                start_handler(self.settings.app, hooks.handler, worker)
                worker.on_exit.append(partial(hooks.handler.stop, worker))
        except AppError as error:
            detail: dict[str, Any] = {"detail": error.trace} if error.trace else {}
            self.log.error("%s", error, extra=detail)
            raise BootFailed(BAD_APP, "worker cannot load the application") from None
        terms = [
            make_terms(
                self.settings.for_bind(listener.bind),
                listener.bind,
                listener.socket.getsockname(),
                self.contexts.get(listener.bind.text),
                hooks,
                partial(make_limiter, clients=worker.clients, slot=worker.slot, log=self.log),
            )
            for listener in self.listeners
        ]
        return Service(terms, self.log, self.logs.access, worker.slot).serve


def make_contexts(settings: config.Config) -> dict[str, ssl.SSLContext | None]:
    """The TLS context of each bind, by its text."""
    return {bind.text: make_context(settings.for_bind(bind)) for bind in settings.binds()}


def make_context(settings: config.Config) -> ssl.SSLContext | None:
    """That of one bind, as the hook ssl_context makes it if there is one. TLSError, ConfigError."""
    if not settings.certfile:
        return None
    if settings.ssl_context is None:
        return server_context(settings)
    made: list[ssl.SSLContext] = []

    def default_factory() -> ssl.SSLContext:
        made.append(server_context(settings))
        return made[-1]

    try:
        context = settings.ssl_context(settings, default_factory)
    except BaseException as error:  # the user's code
        raise ConfigError([f"hook ssl_context raised {describe(error)}"]) from None
    if context not in made:
        raise ConfigError(["hook ssl_context must return what default_factory() gave it, changed as it likes"])
    return context
