"""USR2: a new program takes the place of the running one, and the listening sockets stay open all the while.

The running master forks and execs its own command line (Upgrade). The new master (Succession) boots a generation of its
own on the same sockets; once all of it is READY it is promoted: in automatic mode it tells the old one to stop, in
manual mode it waits until the operator stopped it. A new program that fails leaves the old one serving.

While both live they share the sockets: neither turns away who waits in their queue when it stops, for the other one
serves it (`shares_listeners`). Everything here runs in a master; what fails is one line in the log.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING

from preforksmtp.prefork.child import describe
from preforksmtp.prefork.fork import fork_aide

if TYPE_CHECKING:
    from preforksmtp.prefork.master import Master

VARIABLE = "PREFORKSMTP_PID"  # the old master, in the environment of the new one


class Upgrade:
    """The old master's side. `execute` is root's: in a child of ours it lets the sockets through and execs."""

    def __init__(self, master: Master) -> None:
        self.execute: Callable[[], object] | None = None
        self.pid = 0  # of the new master; 0: no upgrade is under way
        self.on_failed: list[Callable[[str], None]] = []  # root's, with the fault
        self._master = master

    def begin(self) -> None:
        """USR2."""
        refusal = self._refusal()
        if refusal:
            self._master.log.error("master %d: no upgrade: %s", os.getpid(), refusal)
            return
        try:
            sockets = self._master.current.listeners.every()
            self.pid = fork_aide(self._master, self._become_new_master, self._died, keep=sockets)
        except OSError as error:
            self._master.log.error("master %d: no upgrade: cannot fork: %s", os.getpid(), error.strerror)
            return
        self._master.log.info("master %d: upgrading, the new master is %d", os.getpid(), self.pid)

    def _refusal(self) -> str:
        if os.getpid() == 1:
            return "as process 1 of a container it could not be replaced; start a new container instead"
        if self.execute is None:
            return "this program does not know how"
        if self._master.stopping:
            return "the server is stopping"
        if self.pid:
            return f"one is under way, the new master is {self.pid}"
        if self._master.succession is not None:
            return f"this is a new master itself, {self._master.succession.predecessor} still runs"
        return ""

    def _become_new_master(self) -> None:
        """Aide."""
        self._master.hook("pre_exec")
        assert self.execute is not None
        self.execute()

    def _died(self, status: int | None) -> None:
        self.pid = 0
        master = self._master
        how = "vanished" if status is None else describe(status)
        if master.stopping:
            return
        master.log.error("master %d: the upgrade failed, this program goes on: the new master %s", os.getpid(), how)
        if master.wanted == 0:  # WINCH
            master.strength.set(master.config.workers)
        for callback in self.on_failed:
            master.call(lambda callback=callback: callback(f"the new master {how}"))  # type: ignore[misc]


class Succession:
    """The new master's side, as long as it is not promoted."""

    def __init__(self, master: Master, predecessor: int, *, automatic: bool) -> None:
        self.predecessor = predecessor
        self._master = master
        self._automatic = automatic
        master.succession = self
        master.on_ready.append(self._ready)

    def advance(self) -> None:
        """Each round: the predecessor is our parent until it is gone."""
        if os.getppid() != self.predecessor:
            self._promote("the old master is gone")

    def _ready(self) -> None:
        if self._automatic and self._master.succession is self:
            if os.getppid() == self.predecessor:
                os.kill(self.predecessor, signal.SIGTERM)
            self._promote(f"the old master {self.predecessor} was told to stop")

    def _promote(self, why: str) -> None:
        self._master.log.info("master %d: has taken over: %s", os.getpid(), why)
        self._master.succession = None
        for callback in self._master.on_promoted:
            self._master.call(callback)


def predecessor_of_this_process(environ: MutableMapping[str, str]) -> int:
    """The old master that started this process; 0: it is a first start. Removes the variable."""
    text = environ.pop(VARIABLE, "")
    return os.getppid() if text == str(os.getppid()) else 0
