"""What the master may ask of its workers, and the form of an answer: all that both sides know of each other."""

from __future__ import annotations

from typing import Any

SESSIONS, STACKS = 1, 2  # the lowest bits of a question; above them its number
KINDS = 4

Line = dict[str, Any]  # of an answer: one JSON object
