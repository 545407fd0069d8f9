"""The leavers: old workers that others have replaced, and that stay for the sessions they still have.

Most are gone after two or three seconds (seat.py); one with a busy client may take up to graceful_timeout. Where
reloads follow each other faster than that they become many, and each has a slot of the scoreboard and its memory. So
there is a rule: beyond `room` the oldest are urged, by a second TERM: their clients are told 421 at the next MAIL. If a
new worker finds no slot all the same, the oldest of those urged long ago is ended as by QUIT.

Runs in the master's loop; nothing here fails or blocks.
"""

from __future__ import annotations

import os
import signal

from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.child import Child
from preforksmtp.prefork.master.generation import FEW_SLOTS
from preforksmtp.prefork.master.workforce import Workforce
from preforksmtp.prefork.scoreboard import DRAINING, FREE, Scoreboard

URGED = 10.0  # seconds that a worker has after it was urged, if its slot is needed


class Leavers:
    """One a master."""

    def __init__(self, master: Workforce) -> None:
        self._master = master
        self.waiting = False  # a new worker, for a slot

    def advance(self, now: float) -> None:
        """Each round."""
        master = self._master
        if master.stopping:
            return
        candidate = master.candidate
        board = candidate.board if candidate is not None else master.board
        old = self._oldest_first(board)
        for worker in old[: max(0, len(old) - self._room(board))]:
            worker.urge(now)
        if self.waiting and any(slot.state == FREE for slot in board.slots):
            self.waiting = False
        due = [worker for worker in old if worker.urged_at and now - worker.urged_at >= URGED]
        if self.waiting and due:
            master.log.warning("worker %d: ended, its place is needed for a new worker", due[0].pid)
            due[0].end(child.QUICK, due[0].reason, asked=True)
            due[0].urged_at = 0.0  # it has been dealt with

    def no_slot(self) -> None:
        """A new worker could not be forked for want of one."""
        if not self.waiting:
            self.waiting = True
            self._master.log.warning(
                "master %d: no place for a new worker: %d old ones are still leaving; the oldest are hurried",
                *(os.getpid(), sum(bool(worker.reason) for worker in self._master.children.values())),
            )

    def stop(self) -> None:
        """Nobody serves on after them: their sessions are to hear of it."""
        for worker in self._master.children.values():
            if worker.reason:
                worker.send(signal.SIGTERM)

    def _oldest_first(self, board: Scoreboard) -> list[Child]:
        old = [
            worker
            for worker in self._master.children.values()
            if worker.reason and worker.slot.state == DRAINING and worker.generation.board is board
        ]
        return sorted(old, key=lambda worker: worker.ended_at)

    def _room(self, board: Scoreboard) -> int:
        """So many may leave in peace: there remain slots for two generations and a few more."""
        return max(0, len(board.slots) - 2 * self._master.wanted - FEW_SLOTS)
