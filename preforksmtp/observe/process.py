"""The status process: a child of the master that answers questions from the scoreboard, however busy the workers are.

The master (StatusProcess) forks it, watches it, and replaces it: after a reload, for its facts have changed, and with
growing delays when it dies. The listening sockets stay the master's, so nobody is refused meanwhile. The child drops
its privileges like a worker, reads no message and has no lock in common with anybody; it dies with the master.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import socket
from typing import TYPE_CHECKING

from preforksmtp.observe.history import History
from preforksmtp.observe.snapshot import Facts, Snapshot, take
from preforksmtp.observe.statsd import Statsd
from preforksmtp.prefork import signals
from preforksmtp.prefork.master.child import describe
from preforksmtp.prefork.master.fork import fork_aide
from preforksmtp.prefork.scoreboard import Scoreboard
from preforksmtp.prefork.signals import SignalQueue

if TYPE_CHECKING:
    from preforksmtp.observe.web import StatusServer
    from preforksmtp.prefork.master.generation import Generation
    from preforksmtp.prefork.master.master import Master

SAMPLE = 1.0  # seconds between two samples
POLL = 0.1  # seconds between two looks whether to stop accepting
FAREWELL = 1.0  # seconds for the requests under way when it is told to leave
MERCY = 4.0  # seconds after that until it is killed
SILENT = 30.0  # seconds without a sample after which it is killed
DELAYS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds until the next attempt, after so many deaths in a row
SETTLED = 60.0  # seconds after which a death is the first one again


@dataclass(frozen=True)
class Surroundings:
    """What root gives the child of one configuration."""

    facts: Facts
    statsd: Statsd | None
    enter: Callable[[], None]  # first thing: logs, name, privileges
    reopen: Callable[[], None]  # USR1


class StatusProcess:
    """Master. `listeners` are open for as long as the master lives; `surroundings` are those in force, and so is
    whether there is to be such a process at all (`wanted`)."""

    def __init__(self, listeners: Sequence[socket], surroundings: Callable[[], Surroundings]) -> None:
        self.pid = 0
        self._listeners = listeners
        self.wanted: Callable[[], bool] = lambda: True
        self._surroundings = surroundings
        self._history = History()
        self._deaths = 0
        self._begun = 0.0
        self._fork_at = 0.0
        self._leaving = False  # it was told to
        self._kill_at = 0.0  # if it does not
        self._generation: Generation | None = None  # that it was forked for
        self._watched = 0  # samples seen
        self._watched_at = 0.0

    def attend(self, master: Master) -> None:
        """Before the master runs."""
        self._master = master
        master.side_listeners += self._listeners
        master.on_round.append(self._round)
        master.on_reopen.append(lambda: self._send(signal.SIGUSR1))
        master.on_end.append(self._end)

    def _round(self) -> None:
        master, now = self._master, time.monotonic()
        if master.succession is not None:
            return  # the old master's one answers on the same sockets
        if now < master.judge_after:  # all of us were stopped
            self._watched_at = now
        if self.pid and self._leaving and now >= self._kill_at:
            self._send(signal.SIGKILL)
        if master.stopping and master.shares_listeners():
            self._leave()  # an upgrade: the new master's one does
        elif not self.pid:
            if now >= self._fork_at and self.wanted():
                self._fork(now)
        elif self._generation is not master.current:
            self._leave()  # a reload or roll: its successor knows the new facts, and all of the scoreboard
        elif self._history.written != self._watched:
            self._watched, self._watched_at = self._history.written, now
        elif now - self._watched_at > SILENT:
            self._master.log.error("status process %d: hangs, killed", self.pid)
            self._watched_at = now
            self._send(signal.SIGKILL)

    def _fork(self, now: float) -> None:
        board, surroundings, lifeline = self._master.board, self._surroundings(), self._master.wakeup.lifeline
        child = _Child(board, surroundings, self._history, self._listeners, self._master.log, lifeline)
        self._begun = self._watched_at = now
        self._generation = self._master.current
        try:
            self.pid = fork_aide(self._master, child.live, self._died, self._listeners, (self._history.memory,))
        except OSError as error:
            self._fork_at = now + DELAYS[-1]
            self._master.log.error("status process: cannot fork: %s", error.strerror)
        else:
            board.watched = True

    def _died(self, status: int | None) -> None:
        pid, self.pid = self.pid, 0
        now = time.monotonic()
        if self._generation is not None:
            self._generation.board.watched = False
            self._master.board.absorb()
        if self._leaving:
            self._leaving, self._fork_at = False, now
            return
        self._deaths = 1 if now - self._begun > SETTLED else self._deaths + 1
        delay = DELAYS[min(self._deaths, len(DELAYS) - 1)]
        self._fork_at = now + delay
        if self._master.stopping and status == 0:  # it heard the same TERM, sent to the process group
            return
        how = "vanished" if status is None else describe(status)
        self._master.log.error("status process %d %s; next attempt in %.0f s", pid, how, delay)

    def _leave(self) -> None:
        if self.pid and not self._leaving:
            self._leaving, self._kill_at = True, time.monotonic() + FAREWELL + MERCY
            self._send(signal.SIGTERM)

    def _end(self) -> None:
        """The server is gone. There is nothing that could delay the end of a process that is killed."""
        if self.pid and self._master.aides.pop(self.pid, None) is not None:
            self._send(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # reaped by a hook
                os.waitpid(self.pid, 0)
        self.pid = 0

    def _send(self, number: int) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Child:
    """The status process itself."""

    def __init__(
        self,
        board: Scoreboard,
        surroundings: Surroundings,
        history: History,
        listeners: Sequence[socket],
        log: logging.Logger,
        lifeline: int,
    ) -> None:
        self._board = board
        self._surroundings = surroundings
        self._history = history
        self._listeners = listeners
        self._log = log
        self._lifeline = lifeline
        self._last: Snapshot | None = None

    def live(self) -> None:
        """Until TERM, or the master's death."""
        queue = SignalQueue()
        queue.install(signals.HANDLED - {signal.SIGCHLD, signal.SIGABRT})  # most of them are not meant for us
        # Here, where it costs neither the start of the server nor its workers' memory; and before privileges are
        # dropped, for an unprivileged user may not see Python's own modules.
        from preforksmtp.observe.web import Site, StatusServer

        self._surroundings.enter()
        site = Site(self._take, self._surroundings.facts, self._history)
        servers = [StatusServer(sock, site, self._log) for sock in self._listeners]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True).start()
        if self._surroundings.statsd is not None:
            threading.Thread(target=self._surroundings.statsd.run, args=(self._take,), daemon=True).start()
        self._watch(queue)
        self._finish(servers)
        os._exit(0)  # no thread of ours is worth waiting for

    def _take(self) -> Snapshot:
        """Any thread."""
        last = self._last
        if last is not None and self._board.superseded:  # until our successor is there, who can see the others
            return last
        self._last = snapshot = take(self._board, self._surroundings.facts)
        return snapshot

    def _watch(self, queue: SignalQueue) -> None:
        poll, next_sample = select.poll(), time.monotonic()
        poll.register(queue.fileno(), select.POLLIN)
        poll.register(self._lifeline, select.POLLIN)
        while True:
            ready = dict(poll.poll(max(0.0, next_sample - time.monotonic()) * 1000))
            if self._lifeline in ready or os.getppid() != self._surroundings.facts.master:
                os._exit(0)
            for number in queue.take():
                if number == signal.SIGTERM:
                    return
                if number == signal.SIGUSR1:
                    self._surroundings.reopen()
            if time.monotonic() >= next_sample:
                next_sample = max(next_sample + SAMPLE, time.monotonic())
                self._history.add(self._take())

    def _finish(self, servers: Sequence[StatusServer]) -> None:
        """Who has been accepted is answered; who waits in the queue is our successor's."""
        for server in servers:
            server.shutdown()
        end = time.monotonic() + FAREWELL
        while any(server.busy() for server in servers) and time.monotonic() < end:
            time.sleep(0.01)
