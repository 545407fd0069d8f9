"""The heap: what the C library keeps of the memory that sessions have given back.

Bodies of many sizes leave holes between them, in a heap for each thread, and so a worker that keeps nothing grows all
the same: without this from 25 MiB to 40 in 75,000 messages of up to 100 KB, of which less than a third was in use, and
to no end in sight. Now and then the holes go back to the kernel. That takes 1 to 13 ms, without the interpreter's
lock. Runs in a worker's main thread. Only with glibc; others return memory by themselves, or never.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

GROWTH = 2 << 20  # bytes by which the worker has grown
EVERY = 1.0  # seconds at least between two trims


def _find() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


_TRIM = _find()

class Heap:
    """`trim`: malloc_trim(3), or None where there is none."""

    def __init__(self, trim: Callable[[int], int] | None = _TRIM) -> None:
        self._trim = trim
        self._least = 0  # bytes that were resident after the last trim, or since
        self._next = 0.0

    def look(self, resident: int, now: float) -> bool:
        """So many bytes are resident; True: holes were returned, and it may be fewer."""
        if self._trim is None or now < self._next:
            return False
        if not self._least or resident < self._least:
            self._least = resident
        if resident - self._least < GROWTH:
            return False
        self._next, self._least = now + EVERY, 0
        self._trim(0)
        return True
