"""Pages: a piece of shared memory for each slot of the scoreboard, in which its worker answers what the master asks.

The master makes them before its first fork. A page has one writer, the worker's main thread, and is read by the master
once the worker says in its slot which question it has answered (inquiry.py). Memory is used only where something was
written. Nothing here fails; what does not fit is cut off.
"""

from __future__ import annotations

import mmap

PAGE = 256 * 1024  # bytes of one answer
_LENGTH = 8  # bytes in front of it


class Pages:
    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, slots * (_LENGTH + PAGE))  # shared, anonymous

    def write(self, slot: int, answer: bytes) -> None:
        """Worker, main thread."""
        start = slot * (_LENGTH + PAGE)
        answer = answer[:PAGE]
        self._map[start : start + _LENGTH] = len(answer).to_bytes(_LENGTH, "little")
        self._map[start + _LENGTH : start + _LENGTH + len(answer)] = answer

    def read(self, slot: int) -> bytes:
        """Master."""
        start = slot * (_LENGTH + PAGE)
        length = int.from_bytes(self._map[start : start + _LENGTH], "little")
        return self._map[start + _LENGTH : start + _LENGTH + min(length, PAGE)]
