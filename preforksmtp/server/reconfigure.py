"""What HUP does outside of prefork/ (see prefork/master/reload.py): the configuration is read again, and composed anew.

`rehearse` runs in a throw-away child, `prepare` in the master. Both raise one exception with every error found, and
leave the process as they found it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from preforksmtp.config.load import load
from preforksmtp.config.model import Config, ConfigError
from preforksmtp.config.settings import SETTINGS
from preforksmtp.logs.linefile import LogError
from preforksmtp.logs.opened import Logs
from preforksmtp.net import handover
from preforksmtp.net.certificates import INTERVAL
from preforksmtp.net.listener import Listener
from preforksmtp.net.rebind import revise_listeners
from preforksmtp.prefork.master.generation import Plan
from preforksmtp.prefork.master.master import Master
from preforksmtp.prefork.master.notify import ServiceManager
from preforksmtp.prefork.master.progress import Progress
from preforksmtp.prefork.master.upgrade import find_predecessor
from preforksmtp.process import pidfile
from preforksmtp.process.inheritance import Inheritance
from preforksmtp.process.place import note_folder
from preforksmtp.server import observation
from preforksmtp.server.check import check
from preforksmtp.server.composition import Composition, Surroundings, make_contexts


@dataclass(frozen=True)
class Invocation:
    """How the program was started, before any configuration changed the process."""

    argv: Sequence[str]
    surroundings: Surroundings
    service_manager: ServiceManager
    predecessor: int = 0  # the old master, if this is an upgrade
    progress: Progress = field(default_factory=Progress)  # and the way to tell it how far we are
    sockets: str = ""  # what it handed over
    pid_file: str = ""
    statuses: str = ""
    inheritance: Inheritance = field(default_factory=lambda: Inheritance({}))

    @classmethod
    def of_this_process(cls, argv: Sequence[str] | None, inheritance: Inheritance) -> Invocation:
        """Call it first: what it takes out of the environment is for this process only."""
        predecessor, progress = find_predecessor(os.environ)
        # Meant for another process they are removed all the same: our own new master would believe them.
        variables = (handover.VARIABLE, pidfile.VARIABLE, observation.VARIABLE)
        heritage = [os.environ.pop(name, "") for name in variables]
        sockets, pid_file, statuses = heritage if predecessor else ("", "", "")
        manager = ServiceManager(os.environ)
        argv = sys.argv[1:] if argv is None else argv
        surroundings = Surroundings()
        note_folder(surroundings.folder)
        return cls(argv, surroundings, manager, predecessor, progress, sockets, pid_file, statuses, inheritance)

    def load(self) -> Config:
        """The configuration as it is now, applied to this process."""
        self.surroundings.restore()
        settings = load(self.argv)
        settings.apply()
        return settings


class Reloader:
    """What HUP does outside of prefork/. `current` is the composition in force."""

    def __init__(self, invocation: Invocation, current: Composition, master: Master) -> None:
        self.current = current
        self._started_with = current.settings
        self._invocation = invocation
        self._master = master
        master.reload.rehearse = self.rehearse
        master.reload.prepare = self.prepare
        master.on_ready.append(self.announce)
        master.on_reopen.append(self.reopen)
        master.on_round.append(self._watch_certificates)
        self._look_at = 0.0
        # Let go of, but the old master of an upgrade still listens there: their files stay until we have taken over.
        self._left: list[Listener] = []
        if invocation.predecessor:
            self._left += current.revision.removed
            master.on_promoted.append(self._remove_files)

    def announce(self) -> None:
        self.current.announce()

    def reopen(self) -> None:
        self.current.logs.reopen()

    def _watch_certificates(self) -> None:
        """Master, each round: new files, new contexts, new workers."""
        now = time.monotonic()
        if now >= self._look_at and not self._master.stopping:
            self._look_at = now + INTERVAL
            if self.current.certificates.changed():
                self._master.roll("certificates")

    def rehearse(self) -> None:
        """Throw-away child: everything short of binding and of loading the application, which the first new worker
        does."""
        settings = self._invocation.load()
        errors = check(settings, former=self.current.settings)
        if errors:
            raise ConfigError(errors)
        make_contexts(settings)

    def prepare(self) -> Plan:
        """Master: the new composition beside the one in force."""
        surroundings = Surroundings()
        try:
            settings = self._invocation.load()
            revision = revise_listeners(self.current.listeners, settings.binds(), backlog=settings.backlog)
            try:
                logs = Logs(settings, self.current.logs)
                try:
                    new = Composition(settings, logs, revision, self.current.inheritance, self.current.load)
                except BaseException:
                    logs.close()
                    raise
            except BaseException:
                revision.abandon()
                raise
        except BaseException:
            surroundings.restore()
            raise
        old = self.current
        return replace(new.plan(), commit=lambda: self._commit(old, new), abandon=lambda: self._abandon(old, new))

    def _commit(self, old: Composition, new: Composition) -> None:
        """Master: the first new worker serves."""
        self.current = new
        try:
            new.logs.install()
        except LogError as error:  # though it could be applied in the rehearsal and in the first worker
            new.log.error("%s; a plain error log stands in for it", error)
        old.logs.close()
        self.settle_files(old.listeners)
        new.revision.commit()
        if self._master.succession is not None:
            self._left += [listener for listener in new.revision.removed if listener.shared]
        new.announce()
        for setting in SETTINGS:
            name, held = setting.name, not setting.reloaded
            if held and getattr(new.settings, name) != getattr(self._started_with, name):
                new.log.warning("%s has changed, but holds from the next start or upgrade only", name)

    def settle_files(self, listeners: Sequence[Listener]) -> None:
        """Master, before it closes some of them: which another master has as well, so that their files stay."""
        if self._master.succession is None:  # else those that it handed over, as we know from the beginning
            handover.share(listeners, self._master.shares_listeners())

    def _remove_files(self) -> None:
        """Master, when it has taken over."""
        left, self._left = self._left, []
        handover.share(left, False)
        for listener in left:
            listener.close()

    def _abandon(self, old: Composition, new: Composition) -> None:
        """Master: it does not, or never will."""
        new.logs.close()
        new.revision.abandon()
        old.surroundings.restore()
