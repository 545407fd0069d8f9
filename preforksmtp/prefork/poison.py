"""Poison: messages that were in the handler when their worker died, and how often.

The master records them when it buries a worker; workers read, before they take such a message again. A message is a
key, of its client and its envelope. It is refused while it has `limit` deaths, the last of them less than REFUSED ago;
then it may try once more, and after FORGOTTEN the count begins anew. A hash table of fixed size in memory that the
master alone writes: a key stands within WINDOW places of where it hashes to, the oldest one gives way. Nothing here
fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import blake2b

from preforksmtp.prefork.memory import Memory

REFUSED = 3600  # seconds
FORGOTTEN = 24 * 3600  # seconds
ENTRIES = 1024  # places; a power of two
WINDOW = 8

_WIDTH = ENTRIES + WINDOW  # the last windows reach beyond the end

Clock = Callable[[], float]


class Poison:
    """The whole table; one a master, over all its scoreboards."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._memory = Memory(3 * _WIDTH, 0, 0)
        words = self._memory.own
        self._keys, self._deaths, self._last = (words[start : start + _WIDTH] for start in (0, _WIDTH, 2 * _WIDTH))
        self._secret = os.urandom(16)  # or somebody could send what has the key of another one's message
        self._clock = clock

    def key(self, octets: bytes) -> int:
        """Any process."""
        return int.from_bytes(blake2b(octets, digest_size=8, key=self._secret).digest(), "little") or 1

    def record(self, key: int) -> None:
        """Master: one more death."""
        now = int(self._clock())
        start = key % ENTRIES
        window = range(start, start + WINDOW)
        place = next((place for place in window if self._keys[place] == key), -1)
        if place < 0:
            place = min(window, key=lambda place: self._last[place] if self._keys[place] else -1)
            self._keys[place] = 0  # nobody reads the counts of the former one for this one's
            self._deaths[place] = 0
        elif now - self._last[place] >= FORGOTTEN:
            self._deaths[place] = 0
        self._deaths[place] += 1
        self._last[place] = now
        self._keys[place] = key

    def refuses(self, key: int, limit: int) -> bool:
        """Worker."""
        start = key % ENTRIES
        window = self._keys[start : start + WINDOW].tolist()
        if key not in window:
            return False
        place = start + window.index(key)
        return self._deaths[place] >= limit and self._clock() - self._last[place] < REFUSED
