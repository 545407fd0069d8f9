"""Limits: what a dialogue asks about its client before it begins something.

Limits knows a client over all its sessions; the real one is in preforksmtp/limits.py. A dialogue without one asks
nothing. What concerns one session alone is in its Rules, how slow it may be in smtp/pace.py. Refusals are Rejects.
"""

from __future__ import annotations

from typing import Protocol


class Limits(Protocol):
    """The limits of one session's client. All but `leave` raise Reject where it has had enough."""

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

    def leave(self) -> None:
        """The session is over. May be called again."""
