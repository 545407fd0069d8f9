"""A generation: everything that its workers are forked from. A reload, and a roll, make the next one.

Lives in the master; a worker gets it through the fork. Root makes the Plan: it knows config files, logs and TLS, the
master only that there is something to commit or to abandon. Nothing here fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Protocol

from preforksmtp.prefork.hooks import Hooks
from preforksmtp.prefork.scoreboard import Scoreboard
from preforksmtp.prefork.worker.contract import WorkerConfig
from preforksmtp.prefork.worker.pool import Serve
from preforksmtp.prefork.worker.worker import Worker

Boot = Callable[[Worker], Serve]

SPARE_SLOTS = 32  # beyond two generations: TTIN, and workers slow to leave
FEW_SLOTS = 8  # the fewest of these with which a bigger generation still moves into an existing scoreboard


class MasterConfig(WorkerConfig, Protocol):
    """The settings a master reads."""

    @property
    def workers(self) -> int: ...
    @property
    def reuse_port(self) -> bool: ...
    @property
    def timeout(self) -> float: ...
    @property
    def boot_timeout(self) -> float: ...
    @property
    def drain_delay(self) -> float: ...


class Listeners(Protocol):
    """The listening sockets of a plan, by lane: with reuse_port each worker has a lane, and queues, of its own; without
    it there is lane 0 only."""

    def lane(self, number: int) -> Sequence[socket]:
        """Master: what a worker there serves; opened if it is not. OSError."""

    def every(self) -> Sequence[socket]:
        """Any process: of all lanes."""

    def cut(self, lanes: int) -> None:
        """Master: close those of the lanes from this number on."""


def nothing() -> None:
    """What a plan that holds no resources commits and abandons."""


@dataclass(frozen=True)
class Plan:
    """What root makes of one configuration. All of it is open and checked; the former one is still in place."""

    config: MasterConfig
    listeners: Listeners
    boot: Boot
    hooks: Hooks = field(default_factory=Hooks)
    commit: Callable[[], None] = nothing  # its first worker serves: let go of what only the former one needs
    abandon: Callable[[], None] = nothing  # it failed: close what it opened, put back what it changed


class Generation:
    """A plan with a number and a scoreboard. Numbers grow; workers of several generations may live at once."""

    def __init__(self, plan: Plan, number: int, board: Scoreboard) -> None:
        self.plan = plan
        self.number = number
        self.board = board
        self.config = plan.config
        self.listeners = plan.listeners
        self.hooks = plan.hooks

    def successor(self, plan: Plan) -> Generation:
        """Master: the next one; on a bigger scoreboard, to which the totals move, if it does not fit into ours."""
        config, board = plan.config, self.board
        if len(board.slots) < 2 * config.workers + FEW_SLOTS or len(board.slots[0].rows) < config.threads:
            board = new_board(config, previous=board)
        return Generation(plan, self.number + 1, board)


def new_board(config: MasterConfig, previous: Scoreboard | None = None) -> Scoreboard:
    """Master: slots for two generations and some more."""
    return Scoreboard(2 * config.workers + SPARE_SLOTS, config.threads, previous)
