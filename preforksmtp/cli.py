"""The composition root: argv -> Config -> listeners and TLS contexts -> Master, which forks workers that load APP.

main() returns the exit code: 0 stopped, 1 configuration, 2 argparse, 3 workers cannot boot, 4 APP cannot be loaded.
"""

from __future__ import annotations

import logging
import os
import ssl
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from . import access, config, log, reference
from .access import AccessLog
from .app import AppError, load_app, start_handler
from .check import ConfigError, check, warnings
from .limits import make_limiter
from .net.listener import Listener, ListenError, open_listeners
from .net.tls import TLSError, server_context
from .prefork.master import Master
from .prefork.pool import Serve
from .prefork.worker import BootFailed, Worker
from .service import Service, make_terms

OK, BAD_CONFIG, BOOT_FAILED, BAD_APP = 0, 1, 3, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server as the command line asks."""
    try:
        settings = config.load(argv)
        if settings.action == "print-config":
            print(reference.describe(settings), end="")
            return OK
        settings.apply()
        if settings.action == "check-config":
            return check_config(settings)
        return serve(settings)
    except ConfigError as error:
        return _complain(error.errors)
    except (ListenError, TLSError, log.LogError) as error:
        return _complain([str(error)])


def check_config(settings: config.Config) -> int:
    """Validate everything without binding: one line for each error."""
    errors = check(settings)
    try:
        load_app(settings.app)
    except AppError as error:
        errors.append(str(error))
    for line in warnings(settings):
        print(f"preforksmtp: warning: {line}", file=sys.stderr)
    if errors:
        return _complain(errors)
    print("preforksmtp: configuration is ok")
    return OK


def serve(settings: config.Config) -> int:
    """Bind, fork, serve until told to stop."""
    error_log = log.open_error_log(settings)
    access_log = access.open_access_log(settings)
    logger = logging.getLogger(log.LOGGER)
    for line in warnings(settings):
        logger.warning("%s", line)
    contexts = [_context(settings.for_bind(bind)) for bind in settings.binds()]
    listeners = open_listeners(settings.binds(), backlog=settings.backlog, environ=os.environ)
    try:
        composition = Composition(settings, listeners, contexts, error_log, access_log)
        master = Master(settings, [listener.socket for listener in listeners], composition.boot, logger)
        master.on_ready.append(composition.announce)
        master.on_reopen += [error_log.reopen, access_log.reopen]
        return master.run()
    finally:
        for listener in listeners:
            listener.close()


class Composition:
    """What the master has made before the fork, and how a worker makes its service of it."""

    def __init__(
        self,
        settings: config.Config,
        listeners: Sequence[Listener],
        contexts: Sequence[ssl.SSLContext | None],
        error_log: log.ErrorLog,
        access_log: AccessLog,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._contexts = dict(zip((bind.text for bind in settings.binds()), contexts, strict=True))
        self._error_log = error_log
        self._access_log = access_log
        self._log = logging.getLogger(log.LOGGER)

    def announce(self) -> None:
        """Master: the first generation serves."""
        for listener in self._listeners:
            self._log.info("listening on %s://%s", listener.bind.scheme, listener.address)

    def boot(self, worker: Worker) -> Serve:
        """Worker, after the fork: load APP and make the service of its session threads."""
        worker.on_reopen += [self._error_log.reopen, self._access_log.reopen]
        worker.dump_stacks_to(self._error_log.file.fd)
        try:
            hooks = load_app(self._settings.app)
            if hooks.handler is not None:
                start_handler(self._settings.app, hooks.handler, worker)
                worker.on_exit.append(partial(hooks.handler.stop, worker))
        except AppError as error:
            detail: dict[str, Any] = {"detail": error.trace} if error.trace else {}
            self._log.error("%s", error, extra=detail)
            raise BootFailed(BAD_APP, "worker cannot load the application") from None
        terms = [
            make_terms(
                self._settings.for_bind(listener.bind),
                listener.bind,
                listener.socket.getsockname(),
                self._contexts.get(listener.bind.text),
                hooks,
                partial(make_limiter, clients=worker.clients, slot=worker.slot, log=self._log),
            )
            for listener in self._listeners
        ]
        return Service(terms, self._log, self._access_log, worker.slot).serve


def _context(settings: config.Config) -> ssl.SSLContext | None:
    return server_context(settings) if settings.certfile else None


def _complain(errors: Sequence[str]) -> int:
    for line in errors:
        print(f"preforksmtp: error: {line}", file=sys.stderr)
    return BAD_CONFIG
