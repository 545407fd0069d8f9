"""The master process: one thread, one loop over one selector; it forks workers, watches, replaces and stops
them.

Everything here runs in the master. Nothing blocks: whatever takes time is a deadline
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

from preforksmtp.prefork import atfork, scoreboard, signals
from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.audit import Audit
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.fork import fork_worker, let_go
from preforksmtp.prefork.master.generation import Boot, Generation, Listeners, MasterConfig
from preforksmtp.prefork.master.leavers import Leavers
from preforksmtp.prefork.master.reaper import OWN_ACCORD, Reaper
from preforksmtp.prefork.master.recycling import Recycling
from preforksmtp.prefork.master.reload import Reload
from preforksmtp.prefork.master.scaling import Scaling
from preforksmtp.prefork.master.throttle import Throttle
from preforksmtp.prefork.master.upgrade import Upgrade
from preforksmtp.prefork.master.wakeup import ASLEEP, Wakeup
from preforksmtp.prefork.master.workforce import Workforce
from preforksmtp.prefork.reclaim import reclaim

ROUND = 1.0  # seconds between two looks round, at most
HOOK_FAILED = FAILED = 1
STUMBLE = 0.2  # seconds until the next round after one that failed


class Master(Workforce):
    """The loop. Root may also set `early`, the signals that came before it runs."""

    def __init__(self, config: MasterConfig, listeners: Listeners, boot: Boot, log: logging.Logger) -> None:
        super().__init__(config, listeners, boot, log)
        self.audit = Audit(self)
        self.leavers = Leavers(self)
        self.reload = Reload(self, self.spawn, self.promote, lambda: self.leavers.waiting)
        self.scaling = Scaling(self, self.reload.dismiss)
        self.reaper = Reaper(self, self.audit.bury, self.reload.died, self.halt)
        self.recycling = Recycling(self, lambda: self.reload.busy)
        self.upgrade = Upgrade(self, self.scaling.set)
        self.early: Sequence[int] = ()
        self.round_every = ROUND
        self.actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop_quickly,
            signal.SIGQUIT: self.stop_quickly,
            signal.SIGHUP: self.reload.request,
            signal.SIGUSR1: self.reopen,
            signal.SIGUSR2: self.upgrade.begin,
            signal.SIGWINCH: self.scaling.dismiss,
            signal.SIGTTIN: self.scaling.add,
            signal.SIGTTOU: self.scaling.remove,
        }
        self._exit_code = 0
        self._quick = False
        self._announced = False
        self._stop_at = 0.0  # when a stop that was announced is to begin; 0 = none was

    def run(self) -> int:
        self.wakeup = Wakeup(but=signal.SIGABRT)
        atfork.protect(lambda: let_go(self))
        self.wakeup.signals.remember(self.early)  # from here on nothing is added to it
        try:
            if not self.hook("on_starting"):
                return HOOK_FAILED
            self.log.info("master %d: starting %d workers", os.getpid(), self.wanted)
            self.board.chronicle.note("started", f"{self.wanted} workers")
            self.hook("nworkers_changed", self.wanted, None)
            self.scaling.fit_lanes()  # an old master may have had more
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
        if self._stop_at:
            times.append(self._stop_at)
        return min(times)

    # -- forking

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
        worker = Child(slot, generation, self.scaling.lane(generation))
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

    def _supervise(self) -> None:
        """Every round, each worker: news from the scoreboard, then the deadlines."""
        now = time.monotonic()
        if self._stop_at and now >= self._stop_at:
            self.stop()
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
            self.board.chronicle.note("ready", f"{len(ready)} workers")
            for callback in self.on_ready:
                self.call(callback)
            self.hook("when_ready")

    # -- what signals ask for

    def stop(self) -> None:
        """Graceful: every worker drains; unnoticed, if another master serves on. The second time none does any more.

        With drain_delay it is only announced at first: /readyz says no, and all else goes on until then."""
        delay = self.config.drain_delay
        if delay and not (self.stopping or self._stop_at or self.shares_listeners()) and self.ever_ready:
            self._stop_at = time.monotonic() + delay
            self.board.leaving = 1
            self.log.info("master %d: stopping in %.4g s (drain_delay)", os.getpid(), delay)
            return
        self._stop_at = 0.0
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
        self._stop_at = 0.0
        self._begin_stop("stopping at once" if again else "stopping quickly")
        for worker in self.children.values():
            steps = child.QUICK if worker.ready_at is not None else child.QUICK_BOOTING
            if again:
                steps = child.KILL
            worker.end(steps, "stop", asked=True)

    def _begin_stop(self, what: str) -> None:
        self.log.info("master %d: %s, %d workers", os.getpid(), what, len(self.children))
        self.board.chronicle.note("stopping", what)
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

    def promote(self, generation: Generation, reset: bool) -> None:
        """This generation is the current one from now on. `reset`: its configuration says how many workers."""
        if generation.board is not self.board:
            self.board.superseded = 1
        self.current = generation
        self.throttle = Throttle()
        if reset:
            self.board.level = 0
            self.scaling.set(generation.config.workers)


def _ignore() -> None:
    """CHLD is only a reason to look; WINCH must not kill us."""
