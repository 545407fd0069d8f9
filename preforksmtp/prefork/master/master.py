"""The master process: one thread, one loop over one selector; it forks workers, watches, replaces and stops
them.

Everything here runs in the master, except `_become_worker`. Nothing blocks: whatever takes time is a deadline
that the loop looks at (`_next_deadline`). It reads no byte from the network.

Signals: TERM graceful stop, INT and QUIT quick stop (a second one: at once), HUP reload, USR1 reopen logs, USR2
upgrade, WINCH no workers, TTIN and TTOU one worker more or less, CHLD reap. The table is `actions`; what is not in it
is queued and dropped. run() returns the exit code: 0 after a stop; 3 or 4 if no worker could boot; 1 after a fault of
ours that ended the loop. One that ends a round is logged with its traceback, and the next round comes all the same.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from socket import socket

from preforksmtp.prefork import atfork, scoreboard, signals
from preforksmtp.prefork.alarm import TICK
from preforksmtp.prefork.hooks import Hooks
from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.audit import Audit
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.fork import Aides, fork_worker, let_go
from preforksmtp.prefork.master.generation import Boot, Generation, Listeners, MasterConfig, Plan, new_board
from preforksmtp.prefork.master.leavers import Leavers
from preforksmtp.prefork.master.reaper import OWN_ACCORD, Reaper
from preforksmtp.prefork.master.recycling import Recycling
from preforksmtp.prefork.master.reload import Reload
from preforksmtp.prefork.master.scaling import Strength
from preforksmtp.prefork.master.throttle import Throttle
from preforksmtp.prefork.master.upgrade import Succession, Upgrade
from preforksmtp.prefork.master.wakeup import ASLEEP, Wakeup
from preforksmtp.prefork.reclaim import reclaim
from preforksmtp.prefork.scoreboard import Scoreboard

ROUND = 1.0  # seconds between two looks round, at most
PATIENCE = 2.0  # seconds for the hooks during a stop, all calls together
HOOK_FAILED = FAILED = 1
STUMBLE = 0.2  # seconds until the next round after one that failed
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Master:
    """What root may set before run(): `hooks`; `early`, the signals that came so far; `rehearse`, run in a throw-away
    child, and `prepare`, run in the master, for HUP; and its callbacks:

    on_ready      once, when all workers of the first generation serve
    on_reopen     USR1
    on_reloading  a reload or roll begins
    on_reloaded   it is over, with the fault, "" for success
    on_promoted   this master has taken over from another one (an upgrade)
    on_round      each round, once a second at least; it must be quick
    on_end        the last worker is gone, the hook on_exit has run
    on_child      in every child, first thing: close what is the master's alone
    """

    def __init__(self, config: MasterConfig, listeners: Listeners, boot: Boot, log: logging.Logger) -> None:
        self.log = log
        self.current = Generation(Plan(config, listeners, boot), 1, new_board(config))
        self.rehearse: Callable[[], None] | None = None
        self.prepare: Callable[[], Plan] | None = None
        self.on_ready: list[Callable[[], None]] = []
        self.on_reopen: list[Callable[[], None]] = []
        self.on_reloading: list[Callable[[], None]] = []
        self.on_reloaded: list[Callable[[str], None]] = []
        self.on_promoted: list[Callable[[], None]] = []
        self.on_round: list[Callable[[], None]] = []
        self.on_end: list[Callable[[], None]] = []
        self.on_child: list[Callable[[], None]] = []
        # Listening sockets that no worker serves: an aide does, and an upgrade hands them over. Root closes them.
        self.side_listeners: list[socket] = []
        self.children: dict[int, Child] = {}
        self.strength = Strength(self)
        self.aides: Aides = {}
        self.reload = Reload(self)
        self.reaper = Reaper(self)
        self.recycling = Recycling(self)
        self.audit = Audit(self)
        self.leavers = Leavers(self)
        self.upgrade = Upgrade(self)
        self.succession: Succession | None = None
        self.predecessor = 0  # the old master that started this one; 0 = none did
        self.early: Sequence[int] = ()
        self.stopping = False
        self.round_every = ROUND
        self.actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop_quickly,
            signal.SIGQUIT: self.stop_quickly,
            signal.SIGHUP: self.reload.request,
            signal.SIGUSR1: self.reopen,
            signal.SIGUSR2: self.upgrade.begin,
            signal.SIGWINCH: self.strength.dismiss,
            signal.SIGTTIN: self.strength.add,
            signal.SIGTTOU: self.strength.remove,
        }
        self.throttle = Throttle()
        self._exit_code = 0
        self._quick = False
        self.ever_ready = False
        self._announced = False
        self.judge_after = 0.0  # no verdict on silent workers before
        self._patience = PATIENCE

    @property
    def config(self) -> MasterConfig:
        return self.current.config

    @property
    def board(self) -> Scoreboard:
        return self.current.board

    @property
    def wanted(self) -> int:
        """So many workers."""
        return self.strength.wanted

    def listeners(self) -> list[socket]:
        """Those of the workers, and those that are not."""
        return [*self.current.listeners.every(), *self.side_listeners]

    @property
    def hooks(self) -> Hooks:
        return self.current.hooks

    @hooks.setter
    def hooks(self, hooks: Hooks) -> None:
        self.current.hooks = hooks

    def run(self) -> int:
        self.wakeup = Wakeup(but=signal.SIGABRT)
        atfork.protect(lambda: let_go(self))
        self.wakeup.signals.remember(self.early)  # from here on nothing is added to it
        try:
            if not self.hook("on_starting"):
                return HOOK_FAILED
            self.log.info("master %d: starting %d workers", os.getpid(), self.wanted)
            self.hook("nworkers_changed", self.wanted, None)
            self.strength.fit_lanes()  # an old master may have had more
            self._fill()
            while not self._over():
                try:
                    self._round()
                except Exception:
                    self.log.exception("master %d: a round failed, the next one follows", os.getpid())
                    time.sleep(STUMBLE)
            self.hook("on_exit")
            return self._exit_code
        except BaseException:  # nobody reads the standard error of a daemon
            self.log.exception("master %d: unexpected end", os.getpid())
            return FAILED
        finally:
            for callback in self.on_end:
                self.call(callback)
            self.wakeup.close()

    def _over(self) -> bool:
        return self.stopping and not self.children

    def _round(self) -> None:
        self._wait()
        reclaim(self.log, self.wakeup.signals.take_back())  # a hook, or what preload has loaded
        for number in self.wakeup.signals.take():
            self.call(self.actions.get(number, _ignore))
        self.reaper.reap()
        self._supervise()
        self._fill()

    def _wait(self) -> None:
        """Until a signal, the bell, or the next deadline."""
        stopped = self.wakeup.wait(min(self.round_every, max(0.0, self._next_deadline() - time.monotonic())))
        if stopped:
            self.log.warning("the master was stopped for %.0f s", stopped)
            self.judge_after = time.monotonic() + ASLEEP
            for worker in self.children.values():
                worker.postpone(stopped)

    def _next_deadline(self) -> float:
        times = [worker.next_deadline() for worker in self.children.values()]
        if not self.stopping and len(self.members()) < self.wanted:
            times.append(self.throttle.open_at)
        times += [self.reload.next_deadline(), self.upgrade.next_deadline()]
        return min(times)

    def serving(self) -> list[Child]:
        """Workers that serve or will: those nobody is ending."""
        return [worker for worker in self.children.values() if not worker.reason]

    def members(self) -> list[Child]:
        """Those of them that count: not the canary of a reload, nor one that waits for its replacement."""
        candidate = self.reload.candidate
        return [worker for worker in self.serving() if worker.generation is not candidate and not worker.replacing]

    # -- forking

    def may_fork(self) -> bool:
        """Unless recent ones died early."""
        return not self.stopping and time.monotonic() >= self.throttle.open_at

    def _fill(self) -> None:
        """Fork what is missing."""
        while len(self.members()) < self.wanted:
            if not self.may_fork() or self.spawn(self.current) is None:
                return
        self.throttle.complete()

    def spawn(self, generation: Generation) -> Child | None:
        """Fork one worker. None: not now (logged)."""
        slot = generation.board.claim(generation.number)
        if slot is None:
            self.leavers.no_slot()
            self.throttle.pause(time.monotonic() + ROUND)
            return None
        worker = Child(slot, generation, self.strength.lane(generation))
        self.hook("pre_fork", worker, hooks=generation.hooks)
        try:
            fork_worker(self, worker)
        except OSError as error:
            generation.board.release(slot)
            now = time.monotonic()
            delay = self.throttle.failed(now, now)
            self.log.error("cannot fork a worker: %s; trying again in %.0f s", error.strerror, delay)
            return None
        if generation is self.current:
            self.throttle.forked(worker.forked)
        self.board.count("workers_forked")
        self.log.debug("worker %d: forked, slot %d", worker.pid, slot.index)
        return worker

    # -- watching

    def notice_ready(self, worker: Child) -> None:
        """READY may be news when its owner is dead already: the slot keeps it until released."""
        if worker.ready_at is None and worker.slot.ready:
            worker.ready_at = min(max(worker.slot.ready / 1e9, worker.forked), time.monotonic())  # a claim of its own
            self.ever_ready = True
            if worker.generation is self.current:
                self.throttle.booted(worker.forked)
            self.log.debug("worker %d: ready after %.2f s", worker.pid, worker.ready_at - worker.forked)

    def _supervise(self) -> None:
        """Every round, each worker: news from the scoreboard, then the deadlines."""
        now = time.monotonic()
        self.audit.advance(now)
        for worker in self.children.values():
            self.notice_ready(worker)
            for number in worker.escalate(now):
                self.log.warning("worker %d: still there, sent %s", worker.pid, signals.name(number))
                if number == signal.SIGABRT:
                    self.board.count("workers_hung")
            if worker.reason:
                continue
            if worker.slot.state == scoreboard.DRAINING:  # somebody else's TERM, or its own request
                steps = child.overdue(worker.generation.config.graceful_timeout)
                worker.end(steps, OWN_ACCORD, asked=True)
                self.throttle.crashed(self.wanted)  # one that does so all the time is no better
            elif now >= self.judge_after:
                reason, line = worker.silence(now)
                if reason:  # ABRT: its stacks in the log say where it hangs
                    self.log.error("worker %d: %s", worker.pid, line)
                    worker.end(child.ABORT, reason, asked=False)
                    self.board.count("workers_hung")
        self._announce()
        self.reload.advance(now)
        self.recycling.advance()
        self.leavers.advance(now)
        self.upgrade.advance(now)
        if self.succession is not None:
            self.succession.advance()
        self.board.wanted, self.board.beat = self.wanted, time.monotonic_ns()
        for callback in self.on_round:
            self.call(callback)

    def _announce(self) -> None:
        """Once: the first generation is complete."""
        if self._announced or self.stopping:
            return
        ready = [worker for worker in self.members() if worker.ready_at is not None]
        if len(ready) >= self.wanted:
            self._announced = True
            self.log.info("master %d: ready, %d workers", os.getpid(), len(ready))
            for callback in self.on_ready:
                self.call(callback)
            self.hook("when_ready")

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

    # -- what signals ask for

    def stop(self) -> None:
        """Graceful: every worker drains; unnoticed, if another master serves on. The second time none does any more."""
        if self.stopping:
            self.board.stop()
        else:
            self._begin_stop("stopping")
            if self.board.stopping and self.predecessor and os.getppid() == self.predecessor:
                os.kill(self.predecessor, signal.SIGTERM)  # it still drains, after an upgrade
        if self.board.stopping:
            self.leavers.stop()
        for worker in self.serving():
            worker.retire("stop")

    def stop_quickly(self) -> None:
        """Quick; the second time at once. Also hurries a graceful stop."""
        again, self._quick = self._quick, True
        self._begin_stop("stopping at once" if again else "stopping quickly")
        for worker in self.children.values():
            steps = child.QUICK if worker.ready_at is not None else child.QUICK_BOOTING
            if again:
                steps = child.KILL
            worker.end(steps, "stop", asked=True)

    def _begin_stop(self, what: str) -> None:
        self.log.info("master %d: %s, %d workers", os.getpid(), what, len(self.children))
        self.stopping = True
        if not self.shares_listeners():
            self.board.stop()  # before the first TERM: workers now empty the listeners' queue
        self.reload.cancel()
        for listener in self.current.listeners.every():
            listener.close()  # workers hold their own copies until they have done so

    def shares_listeners(self) -> bool:
        """Another master serves the same queues: an upgrade is under way, of us or to us."""
        return self.upgrade.pid != 0 or self.succession is not None

    def halt(self, code: int) -> None:
        if not self._exit_code:
            self._exit_code = code
            self.stop_quickly()

    def reopen(self) -> None:
        for callback in self.on_reopen:
            self.call(callback)
        for worker in self.children.values():
            worker.send(signal.SIGUSR1)

    def roll(self, reason: str) -> None:
        """New workers for all, one after the other, of the same configuration; the reason is for the log."""
        self.reload.request(reason)

    def promote(self, generation: Generation, *, reset: bool) -> None:
        """This generation is the current one from now on. `reset`: its configuration says how many workers."""
        if generation.board is not self.board:
            self.board.superseded = 1
        self.current = generation
        self.throttle = Throttle()
        if reset:
            self.board.level = 0
            self.strength.set(generation.config.workers)


def _ignore() -> None:
    """CHLD is only a reason to look; WINCH must not kill us."""
