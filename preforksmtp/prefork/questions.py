"""What the master may ask of its workers, and the form of an answer: all that both sides know of each other."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

# The lowest bits of a question; above them its number. CLOSE: end the session of which the slot's `argument` is the
# name, as `named` makes a number of it.
SESSIONS, STACKS, CLOSE = 1, 2, 3
KINDS = 4

Line = dict[str, Any]  # of an answer: one JSON object


def named(session: str) -> int:
    """The word that stands for the name of a session."""
    return int.from_bytes(blake2b(session.encode("utf-8", "replace"), digest_size=8).digest(), "little")
