"""The workforce: what the master knows of its workers, and of the server that they make.

Facts, and what follows from them; what happens to workers is in the other files of this room, each of which takes a
Workforce, and in the loop (master.py), which is one. Lives in the master; children have a copy of it, as it was at
their fork. Nothing here fails or blocks, but for the user's hooks, which have a time limit.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from socket import socket
from typing import Any

from preforksmtp.prefork.alarm import TICK
from preforksmtp.prefork.hooks import Hooks
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.generation import Boot, Generation, Listeners, MasterConfig, Plan, new_board
from preforksmtp.prefork.master.throttle import Throttle
from preforksmtp.prefork.master.wakeup import Wakeup
from preforksmtp.prefork.scoreboard import Scoreboard

PATIENCE = 2.0  # seconds for the hooks during a stop, all calls together
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

OnDeath = Callable[[int | None], None]  # of an aide: the wait status; None: somebody else reaped it
Aides = dict[int, OnDeath]  # by process id


class Workforce:
    """What root may set before the master runs: `hooks`, and its callbacks:

    on_ready      once, when all workers of the first generation serve
    on_reopen     USR1
    on_reloading  a reload or roll begins
    on_reloaded   it is over, with the fault, "" for success
    on_promoted   this master has taken over from another one (an upgrade)
    on_round      each round, once a second at least; it must be quick
    on_end        the last worker is gone, the hook on_exit has run
    on_child      in every child, first thing: close what is the master's alone
    """

    wakeup: Wakeup  # from the moment on at which the loop begins

    def __init__(self, config: MasterConfig, listeners: Listeners, boot: Boot, log: logging.Logger) -> None:
        self.log = log
        self.current = Generation(Plan(config, listeners, boot), 1, new_board(config))
        self.candidate: Generation | None = None  # of a reload: it has yet to prove itself
        self.wanted = config.workers  # so many workers
        self.children: dict[int, Child] = {}
        self.aides: Aides = {}  # children that are no workers
        # Listening sockets that no worker serves: an aide does, and an upgrade hands them over. Root closes them.
        self.side_listeners: list[socket] = []
        self.throttle = Throttle()
        self.stopping = False
        self.ever_ready = False
        self.judge_after = 0.0  # no verdict on silent workers before
        self.predecessor = 0  # the old master that started this one; 0 = none did
        self.succession: Any = None  # on the way to take over from it (upgrade.py); None: that is over
        self.on_ready: list[Callable[[], None]] = []
        self.on_reopen: list[Callable[[], None]] = []
        self.on_reloading: list[Callable[[], None]] = []
        self.on_reloaded: list[Callable[[str], None]] = []
        self.on_promoted: list[Callable[[], None]] = []
        self.on_round: list[Callable[[], None]] = []
        self.on_end: list[Callable[[], None]] = []
        self.on_child: list[Callable[[], None]] = []
        self._patience = PATIENCE

    @property
    def config(self) -> MasterConfig:
        return self.current.config

    @property
    def board(self) -> Scoreboard:
        return self.current.board

    def listeners(self) -> list[socket]:
        """Those of the workers, and those that are not."""
        return [*self.current.listeners.every(), *self.side_listeners]

    @property
    def hooks(self) -> Hooks:
        return self.current.hooks

    @hooks.setter
    def hooks(self, hooks: Hooks) -> None:
        self.current.hooks = hooks

    def serving(self) -> list[Child]:
        """Workers that serve or will: those nobody is ending."""
        return [worker for worker in self.children.values() if not worker.reason]

    def members(self) -> list[Child]:
        """Workers that count as wanted ones: not the canary of a reload, nor one that waits for its replacement."""
        candidate = self.candidate
        return [worker for worker in self.serving() if worker.generation is not candidate and not worker.replacing]

    def may_fork(self) -> bool:
        """Unless recent ones died early."""
        return not self.stopping and time.monotonic() >= self.throttle.open_at

    def notice_ready(self, worker: Child) -> None:
        """READY may be news when its owner is dead already: the slot keeps it until released."""
        if worker.ready_at is None and worker.slot.ready:
            worker.ready_at = min(max(worker.slot.ready / 1e9, worker.forked), time.monotonic())  # a claim of its own
            self.ever_ready = True
            if worker.generation is self.current:
                self.throttle.booted(worker.forked)
            self.log.debug("worker %d: ready after %.2f s", worker.pid, worker.ready_at - worker.forked)

    # -- code that is not ours

    def call(self, callback: Callable[[], None]) -> None:
        """Root's: its failure is logged and never ours."""
        try:
            callback()
        except BaseException:
            self.log.exception("master %d: %r failed", os.getpid(), callback)

    def hook(self, name: str, *arguments: object, hooks: Hooks | None = None) -> bool:
        """The user's. False: it failed, which is logged."""
        hooks, began, limit = hooks or self.hooks, time.monotonic(), self.config.boot_timeout
        hurried = self.stopping and name != "on_exit"  # its last chance, and only one
        if hurried:
            limit = min(limit or PATIENCE, max(TICK, self._patience))
        done = hooks.in_master(name, self, *arguments, limit=limit, must_stop=self.must_stop)
        if hurried:
            self._patience -= time.monotonic() - began
        return done

    def must_stop(self) -> str:
        """A reason not to wait any longer for such code, or ""."""
        waiting = self.wakeup.signals.waiting(STOP_SIGNALS)
        return f"{waiting} waits" if waiting else ""
