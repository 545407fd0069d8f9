"""The composition: everything that one configuration makes, open at the same time.

Runs in the master; `boot` in each worker. Made at the start, and at each reload beside the one in force. Raises
ConfigError, ListenError, TLSError, LogError or PidFileError, each one or more clear lines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from preforksmtp.config.imports import forgetting_imports
from preforksmtp.config.model import Config, ConfigError
from preforksmtp.config.settings import HOOKS
from preforksmtp.connection.journal import Books, SessionJournal, end_strays
from preforksmtp.connection.limits import make_limiter
from preforksmtp.connection.observed import KINDS, ObservedJournal, SummingJournal
from preforksmtp.connection.service import Service
from preforksmtp.connection.service import describe as describe_session
from preforksmtp.connection.terms import Terms, make_terms
from preforksmtp.logs import error as log
from preforksmtp.logs.linefile import LogError
from preforksmtp.logs.logger import take_others
from preforksmtp.logs.opened import Logs
from preforksmtp.net.certificates import CertificateWatch
from preforksmtp.net.lanes import Lanes
from preforksmtp.net.listener import Listener
from preforksmtp.net.rebind import Revision
from preforksmtp.net.tls import TLSError, server_context
from preforksmtp.prefork.atfork import Confined
from preforksmtp.prefork.hooks import Hooks, describe
from preforksmtp.prefork.master.generation import Plan
from preforksmtp.prefork.worker.contract import BOOT_FAILED, BootFailed
from preforksmtp.prefork.worker.pool import Serve
from preforksmtp.prefork.worker.scheduling import schedule_as_batch
from preforksmtp.prefork.worker.worker import Worker
from preforksmtp.process import privileges, trust
from preforksmtp.process.confine import confine_signals
from preforksmtp.process.inheritance import Inheritance
from preforksmtp.process.place import change_folder, named_descriptor
from preforksmtp.process.title import set_title
from preforksmtp.server.app import AppError, load_app, start_handler
from preforksmtp.server.check import warnings
from preforksmtp.server.provisions import provide
from preforksmtp.server.salts import CHANCE, salt_key
from preforksmtp.server.vitals import Vitals, spool_folders
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.hooks import Hooks as AppHooks

BAD_APP = 4

Load = Callable[[str], AppHooks]  # APP as it is written to what a session uses; AppError


def _current_folder() -> str:
    """With the symbolic links that led there (/srv/app/current): a deployment points them elsewhere."""
    shown = os.environ.get("PWD", "")
    try:
        if os.path.isabs(shown) and os.path.samefile(shown, "."):
            return shown
        return os.getcwd()
    except OSError:  # the folder is gone
        return shown or "/"


@dataclass
class Surroundings:
    """What of the process a configuration changes."""

    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: str = field(default_factory=_current_folder)
    path: list[str] = field(default_factory=lambda: list(sys.path))

    def restore(self) -> None:
        """Make it so again. ConfigError if the folder is gone."""
        os.environ.clear()
        os.environ.update(self.environ)
        sys.path[:] = self.path
        try:
            change_folder(self.folder)
        except OSError as error:
            raise ConfigError([f"cannot change to {self.folder}, where the server began: {error.strerror}"]) from None


class Composition:
    """One configuration at work. `surroundings`: the process as it wants it, for every worker. `load`: how a worker
    comes by APP."""

    def __init__(
        self,
        settings: Config,
        logs: Logs,
        revision: Revision,
        inheritance: Inheritance,
        load: Load = load_app,
    ) -> None:
        self.settings = settings
        self.inheritance = inheritance
        self.load = load
        self.logs = logs
        self.revision = revision
        self.listeners: Sequence[Listener] = revision.listeners
        self._lanes = Lanes(self.listeners)
        inheritance.adopt(sock.fileno() for listener in self.listeners for sock in listener.sockets())
        self.surroundings = Surroundings()
        self._folder = self.surroundings.folder
        self.identity = privileges.find(settings.user, settings.group)
        provide(settings.app, self.identity)
        self.log = logging.getLogger(log.LOGGER)
        views = [view for view in map(settings.for_bind, settings.binds()) if view.certfile]
        try:
            self._salt_key = salt_key(settings.auth_secret_file, [view.keyfile or view.certfile for view in views])
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        self.certificates = CertificateWatch(views, partial(make_contexts, settings), self.log)
        names = [hook.name for hook in HOOKS if hook.name != "ssl_context"]
        functions = {name: function for name in names if (function := getattr(settings, name)) is not None}
        self.hooks = Hooks(functions, forgetting_imports)
        self._warnings = warnings(settings)

    def plan(self) -> Plan:
        return Plan(self.settings, self._lanes, self.boot, self.hooks)

    def announce(self) -> None:
        """Master: its workers serve."""
        for line in self._warnings:
            self.log.warning("%s", line)
        for listener in self.listeners:
            self.log.info("listening on %s://%s", listener.bind.scheme, listener.address)

    def enter_status(self) -> None:
        """Status process, first thing. A fault of the log is a worker's to tell; a wrong identity ends it."""
        set_title(self.settings.name, "status")  # its file in /proc is root's once we are not
        self._drop_privileges()
        with contextlib.suppress(LogError):
            self.logs.install()

    def _drop_privileges(self) -> None:
        """Worker, before it runs any code of the application, or opens a file."""
        os.umask(self.settings.umask)
        files = filter(None, (self.settings.error_logfile, self.settings.access_logfile, self.settings.transcript))
        self.inheritance.close(keep={fd for path in files if (fd := named_descriptor(path)) is not None})
        if self.identity is not None:
            confine = self.settings.no_new_privileges and not self.identity.is_ours
            try:
                privileges.drop(self.identity, no_new_privileges=self.settings.no_new_privileges)
            except privileges.PrivilegesError as error:
                raise BootFailed(BOOT_FAILED, str(error)) from None
            if confine:
                confine_signals()
        trust.import_again()

    def complain(self, error: AppError) -> None:
        """One line, and the application's own part of the traceback."""
        detail: dict[str, Any] = {"detail": error.trace} if error.trace else {}
        self.log.error("%s", error, extra=detail)

    def boot(self, worker: Worker) -> Serve:
        """Worker, after the fork: load APP and make the service of its session threads."""
        with contextlib.suppress(ConfigError):  # a folder that is gone, but we are in it
            self.surroundings.restore()
        set_title(self.settings.name, "worker")  # its file in /proc is root's once we are not
        self._drop_privileges()
        try:
            self.logs.install()
        except LogError as error:  # the master could apply it, and who has changed that may be a worker
            self.log.error("%s; a plain error log stands in for it", error)
        self._sign(worker)
        if self.settings.scheduling == "auto":
            schedule_as_batch()
        worker.on_reopen.append(self.logs.reopen)
        worker.dump_stacks_to(self.logs.error.file.fd)
        try:
            hooks = self.load(self.settings.app)
            if hooks.handler is not None:
                start_handler(self.settings.app, hooks.handler, worker)
                worker.on_exit.append(partial(hooks.handler.stop, worker))
        except AppError as error:
            self.complain(error)
            worker.confess(error.line)
            raise BootFailed(BAD_APP, "worker cannot load the application") from None
        vitals = self._vitals(worker, hooks)
        terms = [
            make_terms(
                self.settings.for_bind(listener.bind),
                listener.bind,
                listener.name,
                self.certificates.contexts.get(listener.bind.text),
                hooks,
                partial(
                    make_limiter, clients=worker.clients, slot=worker.slot, log=self.log, poison=worker.poison
                ),
                self._salt_key or CHANCE,
                self._folder,
                vitals,
            )
            for listener in self.listeners
        ]
        if worker.slot == 0:
            self._warn_of_auth(terms)
        self._lanes.listen(worker.lane, self.settings.backlog)
        service = Service(terms, self._books(worker), self.logs.transcript, self._journal(), vitals, worker.watchlist)
        worker.turn_away, worker.describe = service.turn_away, describe_session
        worker.on_fork.append(partial(end_strays, KINDS))
        return service.serve

    def _books(self, worker: Worker) -> Books:
        access, settings = self.logs.access, self.settings
        return Books(self.log, access, worker.slot, worker.tally, refusals=settings.log_refusals)

    def _sign(self, worker: Worker) -> None:
        """Whose lines those of the logs are, and how the lost ones are counted."""
        error, access, transcript = self.logs.error, self.logs.access, self.logs.transcript
        if isinstance(error, log.ErrorLog):
            error.common = {"worker": worker.slot, "generation": worker.generation}
            error.session = worker.session_here
            take_others()
        for name, file in (
            ("error", error.file), ("access", access.file), ("transcript", transcript.file if transcript else None)
        ):  # fmt: skip
            if file is not None:
                file.on_loss = partial(worker.tally.count, "lost", name)

    def folders(self) -> list[str]:
        """Where messages are stored, and lines written, as far as that is known here."""
        files = filter(None, (self.settings.error_logfile, self.settings.access_logfile, self.settings.transcript))
        places = [os.path.join(self._folder, os.path.dirname(file)) for file in files if file != "-"]
        return list(dict.fromkeys([*self._spools(), *places]))

    def _spools(self) -> list[str]:
        folders = [self.settings.for_bind(bind).spool_dir for bind in self.settings.binds()]
        return spool_folders([folder and os.path.join(self._folder, folder) for folder in folders])

    def _vitals(self, worker: Worker, hooks: AppHooks) -> Vitals:
        """Looked after in threads of their own: the free space, an application that says how it is, what observers
        want to know."""
        healthy = None
        if hooks.handler is not None and hooks.handler.healthy.__func__ is not Handler.healthy.__func__:  # type: ignore[attr-defined]
            healthy = partial(hooks.handler.healthy, worker)
        spools, least = self._spools(), self.settings.min_free_space
        folders = [*spools, *(os.path.join(self._folder, folder) for folder in hooks.folders)]
        vitals = Vitals(worker.published, self.log, spools, healthy, folders, least)
        if healthy is not None or self._observed or least:
            vitals.start()
            worker.on_exit.append(vitals.stop)
        return vitals

    @property
    def _observed(self) -> bool:
        return bool(self.settings.status_bind or self.settings.statsd_host or self.settings.control_socket)

    def _journal(self) -> type[SessionJournal]:
        settings = self.settings
        if settings.access_log_sessions and self.logs.access.enabled:
            return SummingJournal
        return ObservedJournal if self._observed else SessionJournal

    def _warn_of_auth(self, terms: Sequence[Terms]) -> None:
        """First worker: what shows only once APP is loaded."""
        for bind in (term.bind for term in terms if term.rules.require_auth and not term.rules.mechanisms):
            self.log.warning(
                "bind %r: require_auth, but nobody can authenticate: the application has none of authenticate, "
                "password, token and certificate, or auth_mechanisms leaves none of their mechanisms",
                bind,
            )
        offers_scram = any(name.startswith("SCRAM") for term in terms for name in term.rules.mechanisms)
        if offers_scram and self._salt_key is None:
            self.log.warning(
                "auth_secret_file: not set, and this machine has neither an id nor a private key: SCRAM salts of users "
                "who are not there change with each start, which tells who is"
            )


def make_contexts(settings: Config) -> dict[str, ssl.SSLContext | None]:
    """The TLS context of each bind, by its text."""
    return {bind.text: make_context(settings.for_bind(bind)) for bind in settings.binds()}


def make_context(settings: Config) -> ssl.SSLContext | None:
    """That of one bind, as the hook ssl_context makes it if there is one. TLSError, ConfigError."""
    if not settings.certfile:
        return None
    if settings.ssl_context is None:
        return server_context(settings)
    try:
        with Confined("hook ssl_context"):
            context = settings.ssl_context(settings, partial(server_context, settings))
    except TLSError:
        raise
    except Exception as error:  # the user's code
        raise ConfigError([f"hook ssl_context raised {describe(error)}"]) from None
    if not isinstance(context, ssl.SSLContext):
        raise ConfigError([f"hook ssl_context must return an ssl.SSLContext, not {context!r}"])
    return context
