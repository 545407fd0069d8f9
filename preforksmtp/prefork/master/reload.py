"""HUP as a transaction, and the roll: the workers of one generation give way to those of the next, without a gap.

All of it runs in the master's loop, one step each round; nothing here waits.

    rehearsing   a throw-away child evaluates the configuration (rehearsal.py)
    canary       the master has the new plan open beside the former one; one worker of the candidate boots
    rolling      it serves: the candidate is the current generation now; one new worker READY, one old one drained;
                 it is done when no old one takes new sessions

What fails before the first new worker serves is undone: the candidate's workers are killed, its plan abandoned, and the
former generation never noticed. Later there is nothing to undo: a worker that dies is replaced as always, and an old
one stays until its successor serves. Requests that come meanwhile are one more reload afterwards.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable

from preforksmtp.prefork.alarm import Overdue, alarm
from preforksmtp.prefork.hooks import explain
from preforksmtp.prefork.master import audit, child
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.generation import Generation, Plan, nothing
from preforksmtp.prefork.master.rehearsal import Rehearsal
from preforksmtp.prefork.master.workforce import Workforce

KILLS = 2  # canaries that may be killed by somebody before the reload is given up
REMEMBERED = 16  # outcomes
RETRY = 0.1  # seconds until another look at what nobody tells us of


class Reload:
    """The state machine; one a master. The candidate is the generation that has yet to prove itself."""

    def __init__(
        self,
        master: Workforce,
        spawn: Callable[[Generation], Child | None],
        promote: Callable[[Generation, bool], None],
        hurrying: Callable[[], bool],
    ) -> None:
        """`spawn` forks a worker of a generation, `promote` makes one the current one, and says whether its
        configuration decides how many workers are wanted. `hurrying`: are old workers being hurried, for the place
        of a new one?"""
        self.rehearse: Callable[[], None] | None = None  # root's, run in a throw-away child
        self.prepare: Callable[[], Plan] | None = None  # root's, run in the master
        self._master = master
        self._spawn = spawn
        self._promote_to = promote
        self._hurrying = hurrying
        self._rehearsal: Rehearsal | None = None
        self._canary: Child | None = None
        self._kills = 0
        self._give_up_at = 0.0  # the canary could not even be forked by then
        self._rolling = False
        self._trouble = False  # a new worker died while booting, in this roll
        self._reason = ""  # of a roll; "" = a reload, with a new configuration
        self._pending: str | None = None
        self.number = 0  # of the one under way, or of the last one
        self._outcomes: dict[int, str] = {}  # of the last few

    @property
    def awaited(self) -> int:
        """The number of the one that began, or will begin, at a request made just now."""
        return self.number + (self._pending is not None)

    def outcome(self, number: int) -> str | None:
        """The fault of one that is over, "" for success; None: it is not over, or was given up for another."""
        return self._outcomes.get(number)

    @property
    def busy(self) -> bool:
        return self._rehearsal is not None or self._master.candidate is not None or self._rolling

    def request(self, reason: str = "") -> None:
        """Begin a reload; with a reason: a roll, the same configuration with new workers. Later, if one is under
        way."""
        if self._master.stopping:
            return
        if self.busy:
            self._pending = reason if self._pending in (None, reason) else ""  # a reload is a roll as well
            self._master.log.info("master %d: a reload is under way, another will follow", os.getpid())
            return
        if reason and not self._master.wanted:  # WINCH dismissed them; who comes after that is new anyway
            self._master.log.info("master %d: no workers to replace (%s)", os.getpid(), reason)
            return
        self._reason = reason
        self.number += 1
        self._kills = 0
        for callback in self._master.on_reloading:
            self._master.call(callback)
        if reason:
            self._master.log.info("master %d: replacing all workers (%s)", os.getpid(), reason)
            plan = dataclasses.replace(self._master.current.plan, commit=nothing, abandon=nothing)
            self._begin_canary(self._master.current.successor(plan))
            return
        self._master.log.info("master %d: reloading", os.getpid())
        if self.rehearse is None:
            self._prepare()
            return
        try:
            self._rehearsal = Rehearsal(self._master, self.rehearse, self._master.config.boot_timeout)
        except OSError as error:
            self._fail(f"cannot fork: {error.strerror}")

    def advance(self, now: float) -> None:
        """Each round. Whatever goes wrong in here costs the reload, and not the server."""
        try:
            self._advance(now)
        except Exception:
            self._master.log.exception("master %d: reload given up", os.getpid())
            self.cancel()
            self._end("given up, for a fault of the server itself")

    def _advance(self, now: float) -> None:
        if self._rehearsal is not None:
            self._rehearsal.advance(now)
            if self._rehearsal.over:
                fault, self._rehearsal = self._rehearsal.fault, None
                if fault:
                    self._fail(fault)
                else:
                    self._prepare()
        if self._master.candidate is not None:
            self._watch_canary(now)
        if self._rolling:
            self._roll(now)
        if self._pending is not None and (not self.busy or (self._rolling and self._trouble)):
            self._rolling = False
            reason, self._pending = self._pending, None
            self.request(reason)

    def next_deadline(self) -> float:
        if self._rehearsal is not None:
            return self._rehearsal.deadline
        if self._rolling or (self._master.candidate is not None and self._canary is None):
            return time.monotonic() + RETRY
        return float("inf")

    def cancel(self) -> None:
        """The master stops."""
        self._pending = None
        self._rolling = False
        if self._rehearsal is not None:
            self._rehearsal.kill()
            self._rehearsal = None
        if self._master.candidate is not None:
            self._master.candidate.board.stop()
            self._master.call(self._master.candidate.plan.abandon)
            self._master.candidate = None

    def dismiss(self) -> None:
        """No worker is wanted any more: nor a first one of another generation."""
        self._pending = None
        under_way = self._rehearsal is not None or self._master.candidate is not None
        if self._rehearsal is not None:
            self._rehearsal.kill()
            self._rehearsal = None
        if under_way:
            self._fail("no workers are wanted any more")

    def died(self, worker: Child, how: str) -> None:
        """An unasked death of a worker that was booting, or of a canary at any time."""
        if worker.generation is not self._master.candidate:
            self._trouble = self._rolling
            return
        self._canary = None
        self._kills += 1
        # By somebody; or by us, for somebody took it over as soon as it served, before we knew that it did.
        killed = worker.status is not None and os.WIFSIGNALED(worker.status) and worker.reason in ("", audit.REASON)
        if not killed or self._kills > KILLS:
            why = f"{how} ({worker.reason})" if worker.reason else how
            self._fail(f"the first new worker, {worker.pid}, {why} before it was ready")

    # -- steps

    def _prepare(self) -> None:
        """Make the new plan in the master. The rehearsal has shown that it can be done, and did not take for ever."""
        master = self._master
        try:
            with alarm(master.config.boot_timeout, master.must_stop, nothing):
                if self.prepare is not None:
                    plan = self.prepare()
                else:
                    plan = dataclasses.replace(master.current.plan, commit=nothing, abandon=nothing)
        except Overdue as overdue:
            self._fail(f"interrupted: {overdue}")
            return
        except BaseException as error:  # the user's code
            self._fail(explain(error))
            return
        try:
            generation = master.current.successor(plan)
        except OSError as error:  # the memory of a bigger scoreboard
            master.call(plan.abandon)
            self._fail(f"no memory for {plan.config.workers} workers: {error.strerror}")
            return
        self._begin_canary(generation)
        master.hook("on_reload", hooks=generation.hooks)

    def _begin_canary(self, generation: Generation) -> None:
        self._master.candidate = generation
        self._canary = None
        self._give_up_at = time.monotonic() + (generation.config.boot_timeout or 60.0)

    def _watch_canary(self, now: float) -> None:
        assert self._master.candidate is not None
        if self._canary is None:
            self._canary = self._spawn(self._master.candidate)
            if self._canary is None and now >= self._give_up_at and not self._hurrying():
                self._fail("no worker can be forked")
        elif self._canary.ready_at is not None:
            self._promote(self._master.candidate)

    def _promote(self, generation: Generation) -> None:
        self._master.candidate, self._canary = None, None
        self._rolling, self._trouble = True, False
        self._master.call(generation.plan.commit)
        self._promote_to(generation, not self._reason)

    def _roll(self, now: float) -> None:
        """One more new worker if the last one is READY and the one before it has begun to drain, so that there is one
        more than wanted, and not two, on a busy machine too; as many old ones away as have a successor."""
        master = self._master
        new = [worker for worker in master.serving() if worker.generation is master.current]
        old = [worker for worker in master.serving() if worker.generation is not master.current]
        ready = [worker for worker in new if worker.ready_at is not None]
        served = {worker.lane for worker in ready}
        old.sort(
            key=lambda worker: (
                *(worker.lane not in served, worker.generation.number),
                *(worker.ready_at is not None, worker.slot.active()),
            )
        )
        surplus = len(ready) + len(old) - master.wanted
        for worker in old[: max(0, surplus)]:
            worker.retire("reload")
        left = [worker for worker in master.children.values() if worker.generation is not master.current]
        leaving = any(worker.deaf(now) for worker in left)
        if len(ready) == len(new) < master.wanted and not leaving and master.may_fork():
            self._spawn(master.current)
        # Without old ones it is over, though new ones may crash faster than they are replaced.
        if (len(ready) >= master.wanted or not old) and not any(worker.accepting() for worker in left):
            self._rolling = False
            self._succeed(len(ready))

    # -- outcomes

    def _succeed(self, workers: int) -> None:
        self._master.log.info("master %d: %s, %d workers", os.getpid(), self._what("done"), workers)
        self._end("")

    def _fail(self, fault: str) -> None:
        """The former generation goes on as if nothing had been."""
        generation, self._master.candidate, self._canary = self._master.candidate, None, None
        if generation is not None:
            for worker in self._master.children.values():
                if worker.generation is generation:
                    worker.end(child.KILL, "reload failed", asked=True)
            self._master.call(generation.plan.abandon)
        self._master.log.error(
            "master %d: %s, former configuration and workers go on: %s", os.getpid(), self._what("failed"), fault
        )
        self._end(fault)

    def _what(self, end: str) -> str:
        return f"replacing all workers ({self._reason}) {end}" if self._reason else f"reload {end}"

    def _end(self, fault: str) -> None:
        if not self._reason:
            self.count(fault)
        elif not fault:
            self._master.board.chronicle.note("rolled", self._reason)
        self._outcomes[self.number] = fault
        self._outcomes.pop(self.number - REMEMBERED, None)
        for callback in self._master.on_reloaded:
            self._master.call(lambda callback=callback: callback(fault))  # type: ignore[misc]

    def count(self, fault: str) -> None:
        """One more that has come to an end; preload's own kind too."""
        board = self._master.board
        board.count("reloads")
        if fault:
            board.count("reloads_failed")
        board.chronicle.note("reload failed" if fault else "reloaded", fault)
