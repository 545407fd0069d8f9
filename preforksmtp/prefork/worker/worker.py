"""The worker process: boot the app, let the pool's threads serve, watch, drain, leave.

Everything here runs in the worker. Its main thread never serves: it beats the heart in the scoreboard at
least once a second, takes signals, and notices the master's death as EOF on the lifeline pipe, which stops
it as a full stop does.

TERM drains: threads stop accepting, the process ends with the last session or at graceful_timeout. While others serve
on (a roll) the sessions here hardly notice; a second TERM urges it. When the whole server stops they are told at once
or soon (seat.py). QUIT is quick: at once, and half a second for all. INT is left to the master while it lives, because
a terminal sends it to the whole group. USR1 reopens logs. USR2 dumps the stacks of all threads, from C;
ABRT does, then kills. URG: the master asks something (questions.py). HUP, WINCH, TTIN, TTOU do nothing here, so that
`pkill -HUP` cannot kill a worker.

It always ends by os._exit: sys.exit would unwind the master's frames and join stuck threads. Exit codes:
0 drained, the code of BootFailed (4 the app, 3 anything else), 1 a bug here (logged with its traceback).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from socket import socket
from typing import Any, NoReturn

from preforksmtp.prefork import atfork, scoreboard
from preforksmtp.prefork.hooks import Hooks
from preforksmtp.prefork.leaving import Leaving
from preforksmtp.prefork.reasons import STUCK
from preforksmtp.prefork.reclaim import reclaim
from preforksmtp.prefork.scoreboard import SESSIONS, Scoreboard, Slot
from preforksmtp.prefork.signals import ALARMS, SignalQueue, name
from preforksmtp.prefork.worker.affinity import CALM, Affinity
from preforksmtp.prefork.worker.answer import Describe, Respondent
from preforksmtp.prefork.worker.contract import BOOT_FAILED, BootFailed, Tampered
from preforksmtp.prefork.worker.heap import Heap
from preforksmtp.prefork.worker.lifetime import Limits, resident_memory
from preforksmtp.prefork.worker.pool import Pool, Serve, TurnAway
from preforksmtp.prefork.worker.seat import Drain, Seat
from preforksmtp.prefork.worker.stuck import StuckHandlers

BEAT = 1.0  # seconds between two looks round, at most
SHRINK_EVERY = 30.0  # seconds over which the pool's peak is taken
STUBBORN = 0.2  # seconds after which a session that no signal wakes is interrupted otherwise
QUICK_TIMEOUT = 0.5  # seconds sessions get on QUIT: time for a 421, and for a 250 under way (RFC 1047)
FAREWELL = 0.2  # seconds at the deadline of a full stop for those who wait in the queue
LAST_WORDS = 0.5  # seconds for on_exit and atexit callbacks after that; both together less than the master's slack



class Worker:
    """One worker. boot() and the config's hooks get it; on_exit, on_reopen and on_fork (in a child that the application
    forks, before it runs) are lists they may append to. boot() may
    set turn_away: what a client hears that nobody can serve any more; in the main thread, it must not block; and
    describe: what there is to say of the session on a seat."""

    def __init__(
        self,
        config: Any,
        listeners: Sequence[socket],
        log: logging.Logger,
        board: Scoreboard,
        slot: Slot,
        lifeline: int,
        bell: int,
    ) -> None:
        self.pid = os.getpid()
        self.slot = slot.index
        self.generation = slot.generation
        self.config = config
        self.log = log
        self.server: Any = None  # the master as it was at the fork, for hooks
        self.hooks = Hooks()
        self.lane = 0  # which of several queues is ours
        self.clients = board.clients
        self.poison = board.poison
        self.watchlist = board.watchlist
        self.tally = board.tallies.of(slot.index)
        self.booted_at = time.monotonic()
        self.drain = Drain()
        self.on_exit: list[Callable[[], None]] = []
        self.on_reopen: list[Callable[[], None]] = []
        self.on_fork: list[Callable[[], None]] = []
        self.turn_away: TurnAway = lambda connection, index: connection.close()
        self.describe: Describe = lambda seat: {"session": seat.name}
        self._board = board
        self.published = slot
        self._master = os.getppid()
        self._lifeline = lifeline  # read end, the master holds the only write end; -1: it died
        self._bell = bell  # write end; a byte makes the master look at the scoreboard
        self._signals = SignalQueue()
        self._listeners = listeners
        self._addresses = [listener.getsockname() for listener in listeners]
        self._stacks = -1  # where they are dumped to
        self._quick = False
        self._stopped = False  # told that the whole server stops
        self._interrupt_at = math.inf  # sessions that are still asleep
        self._asked = ""  # why request_drain() was called
        self._limits = Limits(config)
        self._heap = Heap()
        self._seats: Callable[[], Iterable[Seat]] = tuple
        self._stuck = StuckHandlers(config.handler_timeout)

    def confess(self, line: str) -> None:
        """Main thread, while it boots: why it cannot, for who waits for the outcome of a reload."""
        self._board.pages.write(self.slot, line.encode("utf-8", "backslashreplace"))

    def session_here(self) -> str:
        """Any thread: the name of the session that it serves, as logs have it; "" = none."""
        here = threading.get_ident()
        return next((seat.name for seat in self._seats() if seat.thread == here), "")

    @property
    def age(self) -> float:
        """Seconds since the fork."""
        return time.monotonic() - self.booted_at

    def request_drain(self, reason: str = "by request") -> None:
        """Any thread: leave as on TERM; the master starts a replacement as soon as it sees it."""
        self._asked = reason
        self._signals.wake()

    def dump_stacks_to(self, fd: int) -> None:
        """Where USR2 and ABRT (and a crash) write the stacks of all threads; stderr until told otherwise.

        Enabled in a thread of its own, because it gives the calling thread an alternate signal stack, a small
        one, where CPython then runs all handlers: a few signals at once overflow it and the process dies of
        SIGSEGV (seen with HUP, USR2, WINCH, TTIN in a burst, where frames hold AVX-512 or AMX registers)."""
        self._stacks = fd
        enable = threading.Thread(target=faulthandler.enable, args=(fd, True))
        enable.start()
        enable.join()
        faulthandler.register(signal.SIGUSR2, fd, True)
        if "worker_abort" in self.hooks:
            signal.signal(signal.SIGABRT, lambda *_: self._abort(fd))

    def _abort(self, fd: int) -> NoReturn:
        """ABRT where the user has a hook for it: the same from Python, which cannot be if C code holds the GIL."""
        faulthandler.dump_traceback(fd, True)
        self.hooks.in_worker("worker_abort", self)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.abort()

    # -- the process, from fork to exit

    def take_signals(self) -> None:
        """First step after the fork, all signals still blocked. Nobody takes signals out of a queue while the
        main thread imports the app, so until READY the kernel's default ends us: there is no session to
        lose."""
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._signals.install((signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
        self._signals.install((signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU, signal.SIGURG))
        atfork.protect(self._let_go)

    def _let_go(self) -> None:
        """In a child that the application has forked: of all that is the worker's alone."""
        faulthandler.unregister(signal.SIGUSR2)
        self._signals.abandon()
        atfork.drop_connections(self._addresses)
        self.drain.close()
        for fd in (self._lifeline, self._bell):
            if fd >= 0:
                os.close(fd)
        for callback in self.on_fork:
            callback()

    def run(self, boot: Callable[[Worker], Serve]) -> NoReturn:
        code = 1
        try:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no stderr: nothing to dump to
                self.dump_stacks_to(sys.stderr.fileno())
            code = self._live(boot)
        except Tampered as error:
            self.log.error("worker %d: %s", self.pid, error)
        except BaseException:
            self.log.exception("worker %d: unexpected end", self.pid)
        finally:
            try:
                self._say_last_words()
            finally:
                os._exit(code)  # this must never return into the master's frames

    def _live(self, boot: Callable[[Worker], Serve]) -> int:
        threading.Thread(target=self._guard_boot, name="lifeline", daemon=True).start()
        # The app's code runs here for the first time: whatever it raises becomes a line and an exit code.
        try:
            self._boot_hook("post_fork", self.server, self)
            serve = boot(self)
            self._boot_hook("post_worker_init", self)
        except BootFailed as error:
            self.log.error("%s", error)
            return error.exit_code
        except SystemExit as error:
            self.log.error("cannot boot: the app called sys.exit(%r)", error.code)
            return BOOT_FAILED
        except BaseException:
            self.log.exception("cannot boot")
            return BOOT_FAILED
        if self._stacks >= 0:  # the application may have told faulthandler to write elsewhere
            self.dump_stacks_to(self._stacks)
        self._reclaim(self._signals.install((signal.SIGTERM, signal.SIGQUIT)))
        self._signals.install(number for number in ALARMS if signal.getsignal(number) == signal.SIG_DFL)
        wake = self._signals.wake
        pool = Pool(self._listeners, self.config.threads, self._board, self.published, self.drain, self.log, wake)
        self._seats = pool.seats
        pool.start(serve, self._limits.sessions)
        self.published.rss = resident_memory()
        self.published.limit = min(self.config.threads, len(self.published.rows))
        self.published.ready = time.monotonic_ns()
        self._enter(scoreboard.READY)
        self._watch(pool)
        return 0

    def _boot_hook(self, name: str, *arguments: object) -> None:
        if not self.hooks.in_worker(name, *arguments):
            raise BootFailed(BOOT_FAILED, f"worker {self.pid}: cannot boot because hook {name} failed")

    def _reclaim(self, taken: Sequence[str] = ()) -> None:
        """Main thread, after code of the application's has run here: what it has taken of what makes a worker."""
        taken = [*taken, *self._signals.take_back()]
        if (taken or not faulthandler.is_enabled()) and self._stacks >= 0:
            self.dump_stacks_to(self._stacks)
        reclaim(self.log, taken)

    def _guard_boot(self) -> None:
        """Own thread: a worker whose master dies while the app is being imported must not stay behind."""
        poll = select.poll()
        poll.register(self._lifeline, select.POLLIN)
        while self.published.state == scoreboard.BOOTING:
            if poll.poll(BEAT * 500) and self.published.state == scoreboard.BOOTING:
                os._exit(BOOT_FAILED)

    def _enter(self, state: int) -> None:
        """Publish the new state and have the master look."""
        self.published.heartbeat = time.monotonic_ns()
        self.published.state = state
        self._ring()

    def _ring(self) -> None:
        """Have the master look at the scoreboard."""
        with contextlib.suppress(OSError):  # full: it will look anyway; broken: the lifeline tells
            os.write(self._bell, b"\0")

    # -- the main thread while serving

    def _watch(self, pool: Pool) -> None:
        """Beat, take signals, notice the master's death; return when it is time to leave."""
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        poll.register(self._lifeline, select.POLLIN)
        respondent = Respondent(self.published, self._board.pages, self.describe)
        affinity = Affinity(self.published, self._board.slots, wanted=self.config.scheduling == "auto")
        configured, level, beat = self.log.level, 0, CALM
        next_shrink = time.monotonic() + SHRINK_EVERY
        while not self._finished(pool):
            due = min(self.drain.deadline, self.drain.urge_at, self._interrupt_at)
            events = poll.poll(max(0.0, min(beat, due - time.monotonic())) * 1000)
            now = time.monotonic()
            self.published.heartbeat = time.monotonic_ns()
            # First: where handlers burn the processor, each system call below waits for the interpreter's lock again.
            if respondent.respond(pool.seats):
                self._ring()
            # getppid is the second line: a child of a hook in the master may hold the lifeline open
            if self._lifeline >= 0 and (self._lifeline in dict(events) or os.getppid() != self._master):
                if dict(events).get(self._lifeline, select.POLLHUP) & select.POLLHUP == 0:  # no end of file: no pipe
                    raise Tampered("the application has closed or replaced descriptors of the server's; leaving")
                poll.unregister(self._lifeline)
                self._lifeline = -1
                self._stop(pool, "the master died")
            for number in self._signals.take():
                self._handle(number, pool)
            self._reclaim()
            if self._asked and not self.drain.leaving:
                self._leave(pool, self._asked)
            if now >= self.drain.urge_at:
                self._urge(pool)
            if now >= self._interrupt_at:
                self._interrupt_at = math.inf
                pool.interrupt_sessions()
            self._examine(pool, now)
            if affinity.possible:
                beat = affinity.look(pool.seats(), now)
            if level != self._board.level:
                level = self._board.level
                self.log.setLevel(level or configured)
            if now >= next_shrink:
                pool.tick()
                next_shrink = now + SHRINK_EVERY

    def _examine(self, pool: Pool, now: float) -> None:
        """Are we still fit to serve? If not, ask the master for a replacement; it sends TERM once that one serves."""
        slot = self.published
        slot.rss = resident_memory()
        if self._heap.look(slot.rss, now, pool.busy()):
            slot.rss = resident_memory()
        slot.cpu = time.process_time_ns()
        seats = pool.seats()
        longest = min((since for seat in seats if (since := seat.since)), default=0.0)
        slot.longest = int(longest * 1e9)
        for stuck in self._stuck.look(seats, now):
            self.log.error(
                "session %s: the handler's %s runs for %.1f s, over handler_timeout %.4g s; worker %d is replaced",
                *(stuck.session, stuck.hook, stuck.seconds, self.config.handler_timeout, self.pid),
                extra={"detail": stuck.stack},
            )
            pool.stop_accepting()
            self.clients.tables[self.slot].open(0)
            self._ask_to_retire(STUCK)
        if not slot.retire:
            self._ask_to_retire(self._limits.reached(slot.count(SESSIONS), slot.rss, self.age))

    def _ask_to_retire(self, reason: int) -> None:
        if reason and self.published.retire != reason:
            self.published.retire = reason
            self._ring()

    def _finished(self, pool: Pool) -> bool:
        if not self.drain.leaving:
            return False
        pool.close_if_deserted()
        over = not pool.busy() if self._quick else pool.alive() == 0
        if not over and time.monotonic() >= self.drain.deadline:
            self.log.warning("worker %d: time is up, %d sessions cut off", self.pid, self.published.active())
            pool.turn_away(self.turn_away, FAREWELL)
            return True
        return over

    def _handle(self, number: int, pool: Pool) -> None:
        if number == signal.SIGTERM:
            if self._board.stopping:
                self._stop(pool, "SIGTERM")
            elif not self.drain.leaving:
                self._leave(pool, "SIGTERM")
            elif not self.drain.requested:
                self._urge(pool)
        elif number == signal.SIGQUIT or (number == signal.SIGINT and self._lifeline < 0):
            self._quick = True
            self.hooks.in_worker("worker_int", self)
            self.drain.begin(time.monotonic() + QUICK_TIMEOUT)
            self._begin_drain(pool, signal.Signals(number).name)
        elif number == signal.SIGUSR1:
            for reopen in self.on_reopen:
                self._call(reopen)
        elif number in ALARMS:
            self.log.warning("%s came: no alarm reaches a handler, which runs in a thread of its own", name(number))

    def _leave(self, pool: Pool, reason: str) -> None:
        """Others serve on: a roll."""
        self.drain.leave(self.config.graceful_timeout)
        self._begin_drain(pool, reason)

    def _urge(self, pool: Pool) -> None:
        """The roll has lasted long enough."""
        self.drain.urge()
        self._begin_drain(pool, "urged")

    def _stop(self, pool: Pool, reason: str) -> None:
        """Nobody serves on."""
        if not self._quick and not self._stopped:
            self._stopped = True
            self.drain.stop(self.config.graceful_timeout)
            self._begin_drain(pool, reason)

    def _begin_drain(self, pool: Pool, reason: str) -> None:
        """Or the next stage of it. The drain knows already."""
        if self.published.state != scoreboard.DRAINING:
            self.clients.tables[self.slot].open(0)
            active = self.published.active()
            self.log.info("worker %d: draining (%s), %d sessions", self.pid, reason, active)
            self._enter(scoreboard.DRAINING)
        pool.wake_sessions()
        self._interrupt_at = time.monotonic() + STUBBORN if self.drain.requested else math.inf

    # -- leaving

    def _say_last_words(self) -> None:
        """Exit callbacks; none may hold us past the deadline."""
        seconds = LAST_WORDS
        if self.drain.leaving and not self._quick:
            seconds = max(LAST_WORDS, self.drain.deadline - time.monotonic())
        leaving = Leaving(f"worker {self.pid}", self.log, seconds)
        leaving.finish((lambda: self.hooks.in_worker("worker_exit", self.server, self), *self.on_exit))

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            with atfork.Confined(callback):
                callback()
        except BaseException:
            self.log.exception("worker %d: %r failed", self.pid, callback)
