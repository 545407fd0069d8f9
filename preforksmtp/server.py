"""The server, from settings to the exit code: daemon, pid file, logs, listeners, master, upgrade.

Runs in the master. Whatever keeps it from starting is one or more lines on standard error and exit code 1; a daemon
has them printed by the process the user started.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from . import config, log
from .app import AppError
from .check import ConfigError
from .composition import BAD_APP, Composition
from .development import Development
from .logs import Logs
from .net.activation import VARIABLES
from .net.handover import hand_over, share, take_over
from .net.listener import ListenError, open_listeners
from .net.revision import Revision, revise_listeners
from .net.tls import TLSError
from .prefork import signals, upgrade
from .prefork.daemon import Report, daemonize
from .prefork.master import Master
from .prefork.pidfile import PidFile, PidFileError
from .prefork.privileges import PrivilegesError
from .prefork.title import set_title
from .preload import Preload
from .reload import Invocation, Reloader

BAD_CONFIG = 1
ERRORS = (ConfigError, ListenError, TLSError, log.LogError, PidFileError, PrivilegesError)


def serve(invocation: Invocation, settings: config.Config) -> int:
    """Bind, fork, serve until told to stop. The exit code."""
    report = None
    if settings.daemon and not invocation.predecessor:  # a new master is in the background already
        report = daemonize(_LogTail(settings).lines)
    try:
        code = Server(invocation, settings, report).run()
    except ERRORS as error:
        lines = [f"preforksmtp: error: {line}" for line in str(error).splitlines()]
        code = BAD_CONFIG
        if report is None:
            print("\n".join(lines), file=sys.stderr)
    else:
        lines = [f"preforksmtp: error: the server did not start, exit code {code}; from its error log:"]
    if report is not None:
        report.failed(code, lines)  # unless it was ready long ago
    return code


class Server:
    """One run."""

    def __init__(self, invocation: Invocation, settings: config.Config, report: Report | None) -> None:
        self._invocation = invocation
        self._settings = settings
        self._report = report
        self._pid_file = self._make_pid_file()
        self._preload: Preload | None = None
        self._development: Development | None = None
        self._succeeded = False  # a new master is there when we leave
        self._master = os.getpid()
        self._revision: Revision | None = None

    def run(self) -> int:
        settings = self._settings
        set_title(settings.name, "master")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._leave)
        if self._pid_file is not None:
            self._pid_file.acquire()
        try:
            logs = Logs(settings)
            logs.install()
            self._revision = revision = self._open_listeners()
            try:
                composition = Composition(settings, logs, revision)
                self._load(composition)
            except AppError as error:
                self._close(revision)
                composition.complain(error)
                return BAD_APP
            except BaseException:
                self._close(revision)
                raise
            return self._run(composition)
        finally:
            if self._pid_file is not None:
                self._pid_file.release(leave=self._succeeded)

    def _load(self, composition: Composition) -> None:
        """How the workers come by APP, where that is not each on its own. AppError."""
        if self._settings.preload:
            self._preload = Preload(self._settings, composition.log)
            composition.load = self._preload.load
        if self._settings.reload:
            self._development = Development(self._settings, composition.log)
            composition.load = self._development.load

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """A signal, before the master handles them: stop with nothing left behind. APP may be loading, and swallow any
        exception."""
        if os.getpid() == self._master:
            print(f"preforksmtp: stopped by {signals.name(number)} before it was ready", file=sys.stderr)
            if self._revision is not None:
                self._close(self._revision)
            if self._pid_file is not None:
                self._pid_file.release()
        os._exit(0)

    def _run(self, composition: Composition) -> int:
        plan = composition.plan()
        master = Master(self._settings, plan.listeners, plan.boot, composition.log)
        master.hooks = plan.hooks
        reloader = Reloader(self._invocation, composition, master)
        self._invocation.service_manager.attend(master)
        master.upgrade.execute = lambda: self._execute(reloader.current)
        if self._preload is not None:
            self._preload.attend(master)
        if self._development is not None:
            self._development.attend(master, lambda: reloader.current.settings)
        if self._pid_file is not None:
            master.on_child.append(self._pid_file.close_in_child)
            master.on_promoted.append(self._promote_pid_file)
        if self._report is not None:
            master.on_child.append(self._report.close_in_child)
            master.on_ready.append(self._report.ready)
        if self._invocation.predecessor:
            automatic = self._settings.upgrade == "auto"
            upgrade.Succession(master, self._invocation.predecessor, automatic=automatic)
        composition.revision.commit()
        try:
            return master.run()
        finally:
            self._succeeded = master.upgrade.pid != 0
            share(reloader.current.listeners, master.shares_listeners())
            for listener in reloader.current.listeners:
                listener.close()

    def _open_listeners(self) -> Revision:
        """What the old master or systemd gives us, and the rest anew."""
        settings = self._settings
        inherited = take_over(self._invocation.sockets)
        if inherited:
            try:
                return revise_listeners(inherited, settings.binds(), backlog=settings.backlog)
            except BaseException:
                for listener in inherited:
                    listener.close()
                raise
        listeners = open_listeners(settings.binds(), backlog=settings.backlog, environ=os.environ)
        for name in VARIABLES:  # ours alone: no worker, and no reload, takes them for its own
            self._invocation.surroundings.environ.pop(name, None)
        return Revision(listeners, listeners, [])

    def _close(self, revision: Revision) -> None:
        for listener in revision.listeners:
            listener.close()

    # -- pid file

    def _make_pid_file(self) -> PidFile | None:
        path = self._settings.pid
        if path is None:
            return None
        return PidFile(f"{path}.2" if self._invocation.predecessor else path)

    def _promote_pid_file(self) -> None:
        """The old master's file becomes ours, without a moment in which there is none."""
        if self._pid_file is not None and self._settings.pid is not None:
            self._pid_file.promote(self._pid_file.path.removesuffix(".2"))

    # -- upgrade

    def _execute(self, current: Composition) -> None:
        """Aide of the old master: become the new program, started as the old one was."""
        invocation = self._invocation
        environ = invocation.surroundings.environ | invocation.service_manager.inheritance
        hand_over(current.listeners, environ)
        environ[upgrade.VARIABLE] = str(os.getppid())
        program = sys.orig_argv[0]
        try:
            os.chdir(invocation.surroundings.folder)
            os.execvpe(program, sys.orig_argv, environ)
        except OSError as error:
            current.log.error("cannot execute %s: %s", program, error.strerror)
            os._exit(BAD_CONFIG)


class _LogTail:
    """The first process of a daemon: what its error log says of a start that failed."""

    def __init__(self, settings: config.Config) -> None:
        self._path = settings.error_logfile
        self._start = os.path.getsize(self._path) if os.path.exists(self._path) else 0

    def lines(self) -> Sequence[str]:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                file.seek(self._start)
                return [line for line in file.read().splitlines() if "ERROR" in line]
        except OSError:
            return []
