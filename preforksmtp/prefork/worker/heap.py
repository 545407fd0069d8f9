"""The heap: what the C library keeps of the memory that sessions have given back.

Bodies of many sizes leave holes between them, in a heap for each thread, and so a worker that keeps nothing grows all
the same: without this from 25 MiB to 40 in 75,000 messages of up to 100 KB, of which less than a third was in use, and
to no end in sight. Now and then the holes go back to the kernel. That takes 1 to 13 ms, without the interpreter's
lock; and what is needed after all must be fetched again, so a busy worker is left alone for longer than an idle one.
Runs in a worker's main thread. Only with glibc; others return memory by themselves, or never.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

GROWTH, EVERY = 8 << 20, 10.0  # bytes by which a busy worker has grown; seconds at least between two trims
IDLE_GROWTH, IDLE_EVERY = 1 << 20, 1.0  # the same of one that serves nobody: what it had returned it needs no more


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
        self._last = -EVERY  # when

    def look(self, resident: int, now: float, busy: bool) -> bool:
        """So many bytes are resident; True: holes were returned, and it may be fewer."""
        growth, every = (GROWTH, EVERY) if busy else (IDLE_GROWTH, IDLE_EVERY)
        if self._trim is None or now < self._last + every:
            return False
        if not self._least or resident < self._least:
            self._least = resident
        if resident - self._least < growth:
            return False
        self._last, self._least = now, 0
        self._trim(0)
        return True
