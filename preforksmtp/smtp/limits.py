"""Limits: what a dialogue asks about its client before it begins something, and how it deals with slow ones.

Limits knows a client over all its sessions; the real one is in preforksmtp/limits.py. A dialogue without one asks
nothing. What concerns one session alone is in its Rules. Refusals are Rejects; Overdue ends the session.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from . import reply
from .reply import Reply

if TYPE_CHECKING:
    from .dialogue import Dialogue


class Limits(Protocol):
    """The limits of one session's client. All but `stressed` and `leave` raise Reject where it has had enough."""

    def message(self) -> None:
        """It begins a message."""

    def recipient(self) -> None:
        """It names a recipient."""

    def attempt(self) -> None:
        """It tries to authenticate. That counts as a failure until `succeeded` is called."""

    def succeeded(self) -> None:
        """It has authenticated, or given up."""

    def moved(self) -> None:
        """The session is another client's from now on (XCLIENT)."""

    def stressed(self) -> bool:
        """The server is so full that slow clients get less time."""

    def leave(self) -> None:
        """The session is over. May be called again."""


class Overdue(TimeoutError):
    """The client is too slow for the limit named `limit`; the session ends with `reply`."""

    def __init__(self, limit: str, reply: Reply) -> None:
        super().__init__(limit)
        self.limit = limit
        self.reply = reply


def await_command(dialogue: Dialogue) -> None:
    """Under stress, a client that is silent for stress_command_timeout makes room. Looked at once in that time."""
    wire, rules, limits = dialogue.wire, dialogue.rules, dialogue.limits
    end = monotonic() + rules.command_timeout
    idle = dialogue.transaction is None
    while not wire.wait(max(0.0, min(rules.stress_command_timeout, end - monotonic())), idle):
        if wire.expired or monotonic() >= end:
            raise TimeoutError
        if limits is not None and limits.stressed():
            raise Overdue("stress_command_timeout", reply.TIMED_OUT)


def body_wire(dialogue: Dialogue) -> Any:
    """The wire to read a body from."""
    rules = dialogue.rules
    return PacedWire(dialogue) if rules.min_data_rate or rules.stress_data_timeout else dialogue.wire


class PacedWire:
    """A wire whose client must keep up min_data_rate over the whole body, and be quicker under stress.

    Only the time spent waiting for the client counts: a handler that reads a stream slowly does no harm.
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self._wire = dialogue.wire
        self._rules = dialogue.rules
        self._limits = dialogue.limits
        self._octets = 0
        self._waited = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def read_block(self, size: int, timeout: float) -> bytes:
        """See smtp/wire.py."""
        started = monotonic()
        self._await(started, timeout)
        block = self._wire.read_block(size, timeout)
        self._waited += monotonic() - started
        self._octets += len(block)
        return block

    def push_back(self, data: bytes) -> None:
        """See smtp/wire.py."""
        self._octets -= len(data)
        self._wire.push_back(data)

    def _await(self, started: float, timeout: float) -> None:
        """Return once there is something to read, or raise."""
        rules, end = self._rules, started + timeout
        due = end
        if rules.min_data_rate:
            # When the average falls below the minimum, if nothing more comes.
            due = started + max(rules.min_data_rate_grace, self._octets / rules.min_data_rate) - self._waited
            if due <= started:
                raise Overdue("min_data_rate", reply.TOO_SLOW)
        while True:
            now = monotonic()
            patience = min(due, end) - now
            stress = rules.stress_data_timeout
            if self._wire.wait(max(0.0, min(patience, stress) if stress else patience)):
                return
            now = monotonic()
            if self._wire.expired or now >= end:
                raise TimeoutError
            if now >= due:
                raise Overdue("min_data_rate", reply.TOO_SLOW)
            if self._limits is not None and self._limits.stressed():
                raise Overdue("stress_data_timeout", reply.TIMED_OUT)
