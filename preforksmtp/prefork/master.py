"""The master process: one thread, one loop over one selector; it forks workers, watches, replaces and stops
them.

Everything here runs in the master, except `_become_worker`. Nothing blocks: whatever takes time is a deadline
that the loop looks at (`_next_deadline`). It reads no byte from the network. It keeps one end of two pipes
that all workers share: the lifeline, whose EOF tells them that the master is gone, and the bell, by which
they say "look at the scoreboard".

Signals: TERM graceful stop, INT and QUIT quick stop (a second one: at once), USR1 reopen logs, TTIN and TTOU
one worker more or less, CHLD reap. The table is `actions`; what is not in it is queued and dropped. run()
returns the exit code: 0 after a stop; 3 or 4 if workers failed to boot and none was ever READY.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from socket import socket
from typing import NoReturn, Protocol

from preforksmtp.prefork import child, scoreboard, signals
from preforksmtp.prefork.child import Child
from preforksmtp.prefork.pool import Serve
from preforksmtp.prefork.scoreboard import Scoreboard
from preforksmtp.prefork.throttle import Throttle
from preforksmtp.prefork.worker import BOOT_FAILED, Worker, WorkerConfig

Boot = Callable[[Worker], Serve]

ROUND = 1.0  # seconds between two looks round, at most
ASLEEP = 2.0  # a round this late: we were stopped or suspended, and so were the workers
SPARE_SLOTS = 32  # beyond two generations: TTIN, and workers slow to leave
OWN_ACCORD = "left of its own accord"
HALTING_CODES = (BOOT_FAILED, 4)


class MasterConfig(WorkerConfig, Protocol):
    """The settings a master reads."""

    @property
    def workers(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def boot_timeout(self) -> float: ...


class Master:
    """`on_ready` is called once, when all workers of the first generation serve; `on_reopen` on USR1."""

    def __init__(self, config: MasterConfig, listeners: Sequence[socket], boot: Boot, log: logging.Logger) -> None:
        self.config = config
        self.listeners = listeners
        self.boot = boot
        self.log = log
        self.on_ready: list[Callable[[], None]] = []
        self.on_reopen: list[Callable[[], None]] = []
        self.board = Scoreboard(2 * config.workers + SPARE_SLOTS, config.threads)
        self.wanted = config.workers
        self.generation = 1
        self.children: dict[int, Child] = {}
        self.stopping = False
        self.actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop_quickly,
            signal.SIGQUIT: self.stop_quickly,
            signal.SIGUSR1: self.reopen,
            signal.SIGTTIN: self.add_worker,
            signal.SIGTTOU: self.remove_worker,
        }
        self._throttle = Throttle()
        self._exit_code = 0
        self._quick = False
        self._ever_ready = False
        self._announced = False
        self._judge_after = 0.0  # no verdict on silent workers before

    def run(self) -> int:
        self._open()
        try:
            self.log.info("master %d: starting %d workers", os.getpid(), self.wanted)
            while True:
                self._fill()
                if self.stopping and not self.children:
                    return self._exit_code
                self._wait()
                for number in self.signals.take():
                    self.actions.get(number, _ignore)()
                self._reap()
                self._supervise()
        finally:
            self._close()

    def _open(self) -> None:
        self.signals = signals.SignalQueue()
        self.signals.install(signals.HANDLED - {signal.SIGABRT})
        self._lifeline = os.pipe()
        self._bell = os.pipe()
        for end in self._bell:
            os.set_blocking(end, False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.signals, selectors.EVENT_READ)
        self.selector.register(self._bell[0], selectors.EVENT_READ)

    def _close(self) -> None:
        self.selector.close()
        self.signals.close()
        for end in (*self._lifeline, *self._bell):
            os.close(end)

    def _wait(self) -> None:
        """Until a signal, the bell, or the next deadline."""
        before = time.monotonic()
        seconds = min(ROUND, max(0.0, self._next_deadline() - before))
        for key, _ in self.selector.select(seconds):
            if key.fd == self._bell[0]:
                _drain(key.fd)
        now = time.monotonic()
        if now - before > seconds + ASLEEP:
            self.log.warning("the master was stopped for %.0f s", now - before)
            self._judge_after = now + ASLEEP

    def _next_deadline(self) -> float:
        times = [step for worker in self.children.values() if (step := worker.next_step()) is not None]
        if not self.stopping and len(self._serving()) < self.wanted:
            times.append(self._throttle.open_at)
        if self.config.boot_timeout:
            waiting = [worker for worker in self._serving() if worker.ready_at is None]
            times += [worker.forked + self.config.boot_timeout for worker in waiting]
        return min(times, default=float("inf"))

    def _serving(self) -> list[Child]:
        """Workers that serve or will: those nobody is ending."""
        return [worker for worker in self.children.values() if not worker.reason]

    # -- forking

    def _fill(self) -> None:
        """Fork what is missing, unless recent ones died early."""
        while (
            not self.stopping
            and len(self._serving()) < self.wanted
            and time.monotonic() >= self._throttle.open_at
            and self.spawn() is not None
        ):
            pass

    def spawn(self) -> Child | None:
        """Fork one worker. None: not now (logged)."""
        slot = self.board.claim(self.generation)
        if slot is None:
            self.log.error("no slot left for a worker: too many old ones are still leaving")
            self._throttle.open_at = time.monotonic() + ROUND
            return None
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # or the child would write our buffer again
        with signals.blocked() as mask:
            try:
                pid = os.fork()
            except OSError as error:
                self.board.release(slot)
                now = time.monotonic()
                delay = self._throttle.died(now, None, now)
                self.log.error("cannot fork a worker: %s; trying again in %.0f s", error.strerror, delay)
                return None
            if pid == 0:
                self._become_worker(slot, mask)
            # In the table before signals are let in: its CHLD must find it there.
            slot.pid = pid
            self.children[pid] = Child(pid, slot, self.generation)
        self.log.debug("worker %d: forked, slot %d", pid, slot.index)
        return self.children[pid]

    def _become_worker(self, slot: scoreboard.Slot, mask: set[int]) -> NoReturn:
        """Runs in the worker, all signals blocked. Our own handlers and descriptors first, then let signals
        in."""
        try:
            self.signals.abandon()
            worker = Worker(self.config, self.listeners, self.log, self.board, slot, self._lifeline[0], self._bell[1])
            worker.take_signals()
            os.close(self._lifeline[1])  # or no sibling would ever see its EOF
            os.close(self._bell[0])
            self.selector.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            worker.run(self.boot)
        except BaseException:
            self.log.exception("worker %d: cannot begin", os.getpid())
        finally:
            os._exit(1)

    # -- watching

    def _reap(self) -> None:
        """Collect every dead child: ours, and those a hook or PID 1's duties brought us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # none at all: whoever is still in the table was reaped by a hook
                for worker in list(self.children.values()):
                    self._bury(worker, None)
                return
            if pid == 0:
                return
            worker_or_none = self.children.get(pid)
            if worker_or_none is not None:
                self._bury(worker_or_none, status)

    def _bury(self, worker: Child, status: int | None) -> None:
        """One dead worker: keep its counters, say how it ended, decide what follows."""
        del self.children[worker.pid]
        self._notice_ready(worker)
        left = worker.slot.state == scoreboard.DRAINING
        self.board.release(worker.slot)
        if not worker.reason and left:
            worker.asked, worker.reason = True, OWN_ACCORD
        how = "vanished" if status is None else child.describe(status)
        if worker.asked:
            level = logging.INFO if status == 0 else logging.WARNING
            self.log.log(level, "worker %d %s (%s)", worker.pid, how, worker.reason)
            return
        code = BOOT_FAILED if worker.reason else 0  # a boot we gave up on
        if status is not None and os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
        delay = self._throttle.died(worker.forked, worker.ready_at, time.monotonic())
        when = "" if worker.ready_at else " while booting"
        why = f" ({worker.reason})" if worker.reason else ""
        then = f"; next attempt in {delay:.0f} s" if delay and not self.stopping else ""
        if not self._ever_ready and code in HALTING_CODES:
            self.log.error("worker %d %s%s%s; no worker could boot, giving up", worker.pid, how, when, why)
            self._halt(code)
        else:
            self.log.error("worker %d %s%s%s%s", worker.pid, how, when, why, then)

    def _notice_ready(self, worker: Child) -> None:
        """READY may be news when its owner is dead already: the slot keeps it until released."""
        if worker.ready_at is None and worker.slot.ready:
            worker.ready_at = worker.slot.ready / 1e9
            self._ever_ready = True
            self.log.debug("worker %d: ready after %.2f s", worker.pid, worker.ready_at - worker.forked)

    def _supervise(self) -> None:
        """Every round, each worker: news from the scoreboard, then the deadlines."""
        now = time.monotonic()
        for worker in self.children.values():
            self._notice_ready(worker)
            for number in worker.escalate(now):
                self.log.warning("worker %d: still there, sent %s", worker.pid, signals.name(number))
            if worker.reason:
                continue
            if worker.slot.state == scoreboard.DRAINING:  # somebody else's TERM, or its own request
                steps = child.overdue(self.config.graceful_timeout)
                worker.end(steps, OWN_ACCORD, asked=True)
            elif now >= self._judge_after:
                self._judge(worker, now)
            if worker.ready_at is not None:
                self._throttle.settled(worker.forked, worker.ready_at, now)
        self._announce()

    def _judge(self, worker: Child, now: float) -> None:
        """Is it silent for too long? Then ABRT (its stacks in the log say where it hangs), and KILL."""
        boot_timeout, timeout = self.config.boot_timeout, self.config.timeout
        if worker.ready_at is None:
            if boot_timeout and now - worker.forked >= boot_timeout:
                self.log.error("worker %d: not ready after boot_timeout %.4g s", worker.pid, boot_timeout)
                worker.end(child.ABORT, "boot_timeout", asked=False)
        elif timeout and time.monotonic_ns() - worker.slot.heartbeat >= timeout * 1e9:
            self.log.error("worker %d: no heartbeat for timeout %.4g s", worker.pid, timeout)
            worker.end(child.ABORT, "timeout", asked=False)

    def _announce(self) -> None:
        """Once: the first generation is complete."""
        if self._announced or self.stopping:
            return
        ready = [worker for worker in self._serving() if worker.ready_at is not None]
        if len(ready) >= self.wanted:
            self._announced = True
            self.log.info("master %d: ready, %d workers", os.getpid(), len(ready))
            for callback in self.on_ready:
                self._call(callback)

    def _call(self, callback: Callable[[], None]) -> None:
        """Somebody's code: its failure is logged and never ours."""
        try:
            callback()
        except BaseException:
            self.log.exception("master %d: %r failed", os.getpid(), callback)

    # -- what signals ask for

    def stop(self) -> None:
        """Graceful: every worker drains."""
        if not self.stopping:
            self._begin_stop("stopping")
            for worker in self._serving():
                worker.end(child.graceful(self.config.graceful_timeout), "stop", asked=True)

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
        self.board.stop()  # before the first TERM: workers now empty the listeners' queue
        for listener in self.listeners:
            listener.close()  # workers hold their own copies until they have done so

    def _halt(self, code: int) -> None:
        if not self._exit_code:
            self._exit_code = code
            self.stop_quickly()

    def reopen(self) -> None:
        for callback in self.on_reopen:
            self._call(callback)
        for worker in self.children.values():
            worker.send(signal.SIGUSR1)

    def add_worker(self) -> None:
        self._scale(self.wanted + 1)

    def remove_worker(self) -> None:
        self._scale(self.wanted - 1)

    def _scale(self, wanted: int) -> None:
        most = len(self.board.slots) - self.config.workers
        if self.stopping or not 1 <= wanted <= most:
            self.log.warning("master %d: staying at %d workers (1 to %d)", os.getpid(), self.wanted, most)
            return
        self.log.info("master %d: %d workers wanted, was %d", os.getpid(), wanted, self.wanted)
        self.wanted = wanted
        surplus = self._serving()[:]
        # Those still booting cost nobody a session; then the least busy.
        surplus.sort(key=lambda worker: (worker.ready_at is not None, worker.slot.active()))
        for worker in surplus[: max(0, len(surplus) - wanted)]:
            worker.end(child.graceful(self.config.graceful_timeout), "one worker fewer", asked=True)


def _ignore() -> None:
    """CHLD is only a reason to look; HUP, USR2 and WINCH must not kill us."""


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass
