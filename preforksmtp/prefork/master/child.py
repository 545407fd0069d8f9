"""The master's record of one worker: who it is, how far the clock of its end has run, how it ended.

Escalation is data: steps of (seconds from the beginning, signal), run by the master's loop and never by
waiting. Signals go only to children not yet reaped, so a pid cannot have been reused. Nothing here fails: a
child that is already dead takes a signal silently, and one that is gone altogether raises ESRCH, which
reaping settles.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time

from preforksmtp.prefork import signals
from preforksmtp.prefork.master.generation import Generation
from preforksmtp.prefork.scoreboard import DRAINING, READY, Slot

Steps = tuple[tuple[float, int], ...]

SLACK = 1.0  # a worker ends itself at graceful_timeout, its exit callbacks included; then ABRT writes its stacks
LIMIT = 2.0  # seconds after graceful_timeout at which it is killed
HEARING = 2.0  # seconds in which a worker that was told to leave begins to, if it does not hang
MERCY = 2.0  # seconds between ABRT and KILL for one that is silent

ABORT: Steps = ((0.0, signal.SIGABRT), (MERCY, signal.SIGKILL))
QUICK: Steps = ((0.0, signal.SIGQUIT), (2.0, signal.SIGKILL))
# QUIT's default, which a worker still booting has, would dump core; TERM's just ends it.
QUICK_BOOTING: Steps = ((0.0, signal.SIGTERM), (2.0, signal.SIGKILL))
KILL: Steps = ((0.0, signal.SIGKILL),)


def graceful(timeout: float) -> Steps:
    """TERM once; after graceful_timeout dump the stacks, then kill."""
    return ((0.0, signal.SIGTERM), *overdue(timeout))


def overdue(timeout: float) -> Steps:
    """The same for a worker that drains of its own accord."""
    return ((timeout + SLACK, signal.SIGABRT), (timeout + LIMIT, signal.SIGKILL))


class Child:
    """One worker as its master sees it, from before the fork (`pid` is 0) to after reaping (`status` is set). What a
    hook gets as `worker` in the master."""

    def __init__(self, slot: Slot, generation: Generation, lane: int = 0) -> None:
        self.pid = 0
        self.slot = slot
        self.generation = generation
        self.lane = lane  # which of several queues it serves; see scaling.py
        self.status: int | None = None  # as from waitpid
        self.forked = time.monotonic()
        self.ready_at: float | None = None  # when the master noticed
        self.reason = ""  # why it is being ended; "" = it is wanted
        self.replacing = ""  # why it will be ended as soon as its replacement serves; see recycling.py
        self.asked = False  # its end is nobody's fault: stop, retirement
        self.ended_at = 0.0  # when the escalation under way began; monotonic
        self.urged_at = 0.0  # when it was told to hurry, 0.0 = not (leavers.py)
        self._steps: list[tuple[float, int]] = []  # (monotonic time, signal), still to come

    def end(self, steps: Steps, reason: str, *, asked: bool) -> None:
        """Begin a new escalation in place of the one under way, if any."""
        now = time.monotonic()
        self.reason = reason
        self.asked = asked
        self.ended_at = now
        self._steps = [(now + delay, number) for delay, number in steps]
        self.escalate(now)

    def escalate(self, now: float) -> list[int]:
        """Send what is due; the signals sent."""
        sent = []
        while self._steps and self._steps[0][0] <= now:
            due, number = self._steps.pop(0)
            self.send(number)
            sent.append(number)
            self.postpone(now - due)  # we are late: it is to have its time all the same
        return sent

    def postpone(self, seconds: float) -> None:
        """The steps to come. All of us were stopped so long, and it could not do what it was told to."""
        self._steps = [(due + seconds, number) for due, number in self._steps]

    def silence(self, now: float) -> tuple[str, str]:
        """("boot_timeout" or "timeout", the line to log) once it has been silent for too long; ("", "") if not."""
        config = self.generation.config
        if self.ready_at is None:
            if config.boot_timeout and now - self.forked >= config.boot_timeout:
                return "boot_timeout", f"not ready after boot_timeout {config.boot_timeout:.4g} s"
        elif config.timeout and time.monotonic_ns() - self.slot.heartbeat >= config.timeout * 1e9:
            return "timeout", f"no heartbeat for timeout {config.timeout:.4g} s"
        return "", ""

    def retire(self, reason: str) -> None:
        """Let it drain: TERM, and what follows by the clock."""
        self.end(graceful(self.generation.config.graceful_timeout), reason, asked=True)

    def urge(self, now: float) -> None:
        """It drains already: its clients may begin nothing more."""
        if not self.urged_at:
            self.urged_at = now
            self.send(signal.SIGTERM)

    def next_deadline(self) -> float:
        """When the master must look at it again."""
        if self._steps:
            return self._steps[0][0]
        waiting = self.ready_at is None and not self.reason and self.generation.config.boot_timeout
        return self.forked + self.generation.config.boot_timeout if waiting else math.inf

    def accepting(self) -> bool:
        """Does it take new sessions? A drain may take half a second until no thread waits in accept() any more."""
        if self.slot.state == DRAINING:
            return self.slot.threads > self.slot.active()
        return self.slot.state == READY

    def deaf(self, now: float) -> bool:
        """Was it told to leave, and has not begun to? It will, unless it hangs: then nobody waits for it."""
        return bool(self.reason) and self.slot.state == READY and now - self.ended_at < HEARING

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # reaped by a hook's own wait(): we notice at ours
            os.kill(self.pid, number)


def describe(status: int) -> str:
    """How a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        dumped = ", core dumped" if os.WCOREDUMP(status) else ""
        return f"was killed by {signals.name(os.WTERMSIG(status))}{dumped}"
    return f"exited with code {os.WEXITSTATUS(status)}"
