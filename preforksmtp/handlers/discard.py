"""Discard(): accept every message and throw it away. For load tests, and the smallest handler there is.

Never fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforksmtp import Message


class Discard:
    """Called once per message; None means: 250, queued."""

    def __call__(self, message: Message) -> None:
        """Accept."""
