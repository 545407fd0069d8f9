"""Limits: what a dialogue asks about its client before it begins something.

Limits knows a client over all its sessions; the real one is in connection/limits.py. A dialogue without one asks
nothing. What concerns one session alone is in its Rules, how slow it may be in smtp/pace.py. Refusals are Rejects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Limits(Protocol):
    """The limits of one session's client. All but `decided` and `leave` raise Reject where it has had enough."""

    def message(self) -> None:
        """It begins a message."""

    def recipient(self) -> None:
        """It names a recipient."""

    def body(self, sender: str, recipients: Sequence[str]) -> None:
        """The body of a message is to come."""

    def look(self) -> None:
        """It wants to authenticate."""

    def attempt(self) -> bool:
        """The handler is asked now: a failure, until `decided` says otherwise. False: not yet, for others of its
        attempts are under way that may be failures."""

    def decided(self, right: bool) -> None:
        """The attempt is over, if there was one."""

    def moved(self) -> None:
        """The session is another client's from now on (XCLIENT)."""

    def leave(self) -> None:
        """The session is over. May be called again."""
