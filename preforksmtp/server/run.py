"""The server, from settings to the exit code: daemon, pid file, logs, listeners, master, upgrade.

Runs in the master. Whatever keeps it from starting is one or more lines on standard error and exit code 1; a daemon
has them printed by the process the user started.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from preforksmtp.config.model import Config, ConfigError
from preforksmtp.logs import error as log
from preforksmtp.logs.escaping import escape
from preforksmtp.logs.linefile import LogError
from preforksmtp.logs.opened import Logs
from preforksmtp.net.activation import VARIABLES
from preforksmtp.net.handover import hand_over, take_over
from preforksmtp.net.listener import ListenError, open_listeners
from preforksmtp.net.rebind import Revision, revise_listeners
from preforksmtp.net.tls import TLSError
from preforksmtp.net.upkeep import Upkeep
from preforksmtp.prefork import signals
from preforksmtp.prefork.atfork import protect
from preforksmtp.prefork.leaving import Leaving
from preforksmtp.prefork.master import upgrade
from preforksmtp.prefork.master.master import Master
from preforksmtp.prefork.master.workforce import PATIENCE, STOP_SIGNALS
from preforksmtp.prefork.reclaim import reclaim
from preforksmtp.process import trust
from preforksmtp.process.daemon import Report, daemonize
from preforksmtp.process.pidfile import Former, PidFile, PidFileError
from preforksmtp.process.place import reading
from preforksmtp.process.privileges import PrivilegesError
from preforksmtp.process.title import set_title
from preforksmtp.server.app import AppError
from preforksmtp.server.autoreload import Development
from preforksmtp.server.composition import BAD_APP, Composition, Surroundings
from preforksmtp.server.observation import Observation
from preforksmtp.server.preload import Preload
from preforksmtp.server.reconfigure import Invocation, Reloader

BAD_CONFIG = 1
LATER_SIGNALS = (
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU),
)
ERRORS = (ConfigError, ListenError, TLSError, LogError, PidFileError, PrivilegesError)


def serve(invocation: Invocation, settings: Config) -> int:
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
    except Exception:
        if report is None:
            raise
        logging.getLogger(log.LOGGER).exception("the server has ended for a fault of its own")  # nobody sees its stderr
        code, lines = BAD_CONFIG, ["preforksmtp: error: the server did not start, for a fault of its own:"]
    else:
        lines = [f"preforksmtp: error: the server did not start, exit code {code}; from its error log:"]
        if not code:
            lines = ["preforksmtp: error: the server was stopped before it was ready"]
    if report is not None:
        report.failed(code or BAD_CONFIG, lines)  # unless it was ready long ago
    # What preload or the config file has left in this process; its threads the interpreter waits for, as long.
    Leaving(f"master {os.getpid()}", logging.getLogger(log.LOGGER), PATIENCE, code).finish(())
    return code


class Server:
    """One run."""

    def __init__(self, invocation: Invocation, settings: Config, report: Report | None) -> None:
        self._invocation = invocation
        self._settings = settings
        self._report = report
        self._pid_file = self._make_pid_file()
        self._preload: Preload | None = None
        self._development: Development | None = None
        self._succeeded = False  # a new master is there when we leave
        self._pid = os.getpid()
        self._early: list[int] = []  # signals that came before the master's loop
        self._handing_over = False  # the master treats signals from now on
        self._opening = False  # listeners
        self._revision: Revision | None = None
        self._observation: Observation | None = None

    def run(self) -> int:
        settings = self._settings
        set_title(settings.name, "master")
        self._take_signals()
        if self._pid_file is not None:
            self._pid_file.acquire()
        try:
            logs = Logs(settings)
            logs.install()
            self._opening = True
            self._revision = revision = self._open_listeners()
            self._observation = self._open_observation(revision)
            self._opening = False
            protect(self._let_go)
            try:
                composition = Composition(settings, logs, revision, self._invocation.inheritance)
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

    def _take_signals(self) -> list[str]:
        """Ours until the master's loop runs; the names of those that somebody else had taken."""
        numbers = (*STOP_SIGNALS, *LATER_SIGNALS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        before = {number: signal.signal(number, self._signal) for number in numbers}
        return [signals.name(number) for number, handler in before.items() if handler != self._signal]

    def _let_go(self) -> None:
        """In a child that APP forks while it is loaded here (preload)."""
        assert self._revision is not None
        self._close(self._revision)
        for owner in (self._pid_file, self._report):
            if owner is not None:
                owner.close_in_child()
        self._invocation.progress.close()

    def _load(self, composition: Composition) -> None:
        """How the workers come by APP, where that is not each on its own. AppError."""
        if self._settings.preload:
            self._invocation.progress.expect(self._settings.boot_timeout)
            before, umask = Surroundings(), os.umask(0o077)
            os.umask(umask)
            self._preload = Preload(self._settings, composition.log)
            composition.load = self._preload.load
            composition.surroundings = Surroundings()  # workers begin as APP has left the process, and this one goes on
            before.restore()
            os.umask(umask)
            reclaim(composition.log, self._take_signals())
        if self._settings.reload:
            self._development = Development(self._settings, composition.log)
            composition.load = self._development.load

    def _signal(self, number: int, frame: FrameType | None) -> None:
        """One that comes before the master's loop, which acts on it; but what stops us does so at once."""
        if number in LATER_SIGNALS or self._handing_over:
            self._early.append(number)
        else:
            self._leave(number)

    def _leave(self, number: int) -> None:
        """Stop with nothing left behind. APP may be loading, and swallow any exception."""
        if os.getpid() == self._pid:
            print(f"preforksmtp: stopped by {signals.name(number)} before it was ready", file=sys.stderr)
            if self._opening:
                raise SystemExit(0)  # no code of the user's is running, and only that function knows what is open
            if self._revision is not None:
                self._close(self._revision)
            if self._pid_file is not None:
                self._pid_file.release()
        os._exit(0)

    def _run(self, composition: Composition) -> int:
        plan = composition.plan()
        master = Master(self._settings, plan.listeners, plan.boot, composition.log)
        master.hooks = plan.hooks
        master.early = self._early
        reloader = Reloader(self._invocation, composition, master)
        observation = self._observation
        assert observation is not None
        observation.attend(master, lambda: reloader.current)
        master.upgrade.automatic = self._settings.upgrade == "auto"
        self._invocation.service_manager.attend(master)
        master.upgrade.execute = lambda: self._execute(master, reloader.current, observation)
        upkeep = Upkeep(lambda: reloader.current.settings.backlog, master.log)
        master.on_round.append(lambda: upkeep.look(() if master.stopping else master.current.listeners.every()))
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
            self._succeed(master)
        composition.revision.commit()
        self._handing_over = True
        try:
            return master.run()
        finally:
            self._succeeded = master.upgrade.pid != 0
            reloader.settle_files(reloader.current.listeners)
            observation.settle_files(master.shares_listeners())
            for listener in reloader.current.listeners:
                listener.close()
            observation.close()

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

    def _open_observation(self, revision: Revision) -> Observation:
        try:
            observation = Observation(self._settings, self._invocation.statuses, bool(self._invocation.predecessor))
            self._invocation.inheritance.adopt(listener.socket.fileno() for listener in observation.statuses)
            return observation
        except BaseException:
            self._close(revision)
            raise

    def _close(self, revision: Revision) -> None:
        for listener in revision.listeners:
            listener.close()
        if self._observation is not None:
            self._observation.close()

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

    def _succeed(self, master: Master) -> None:
        """A new master: what it does besides as long as there is an old one."""
        invocation = self._invocation
        master.on_promoted.append(Former(invocation.pid_file).remove)  # after that of our own file
        invocation.progress.expect(self._settings.boot_timeout)  # hook on_starting
        automatic = self._settings.upgrade == "auto"
        upgrade.Succession(master, invocation.predecessor, invocation.progress, automatic=automatic)

    def _execute(self, master: Master, current: Composition, observation: Observation) -> None:
        """Aide of the old master: become the new program, started as the old one was."""
        invocation = self._invocation
        environ = invocation.surroundings.environ | invocation.service_manager.inheritance
        hand_over(current.listeners, environ)
        observation.hand_over(environ)
        if self._pid_file is not None:
            self._pid_file.hand_over(environ)
        master.upgrade.introduce(environ)
        invocation.inheritance.pass_on()
        folder = invocation.surroundings.folder
        try:
            workers = current.identity.uid if current.identity is not None else None
            command_line = trust.command_line(folder, environ.get("PATH"), workers)
            os.chdir(folder)
            os.execvpe(command_line[0], command_line, environ)
        except OSError as error:
            current.log.error("cannot execute %s: %s", sys.orig_argv[0], error.strerror)
            os._exit(BAD_CONFIG)


class _LogTail:
    """The first process of a daemon: what its error log says of a start that failed. Workers write there as well, and
    what they like; root's terminal gets a few lines of it, and no control characters."""

    MOST = 65536  # octets that are read
    LINES, WIDTH = 20, 1000  # that are shown; characters

    def __init__(self, settings: Config) -> None:
        self._path = settings.error_logfile
        self._start = os.path.getsize(self._path) if os.path.exists(self._path) else 0

    def lines(self) -> Sequence[str]:
        try:
            with reading(self._path) as fd, open(fd, encoding="utf-8", errors="replace", closefd=False) as file:
                file.seek(max(self._start, os.fstat(fd).st_size - self.MOST))
                lines = [line for line in file.read(self.MOST).splitlines() if "ERROR" in line]
                return [escape(line[: self.WIDTH]) for line in lines[-self.LINES :]]
        except OSError:
            return []
