"""The chronicle: what has happened to the server lately, for whoever looks at it at three in the morning.

Memory that the master alone writes, made before its first fork and handed on from board to board; workers and the
status process read it. The last events in a ring, and beside it the last reload, which must not be forgotten however
many workers die after it. Nothing here fails: a text that is too long is cut.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from preforksmtp.prefork.memory import Memory

KINDS = (
    "started", "ready", "reloaded", "reload failed", "upgraded", "upgrade failed", "scaled", "worker died",
    "worker hung", "worker recycled", "stopping", "rolled",
)  # fmt: skip
EVENTS = 64

_WORDS = 32  # of an event: when, in ms; the kind, as its place in KINDS; then the text
_OCTETS = (_WORDS - 2) * 8
_WRITTEN = 0  # word of the header: events that there ever were
_RELOAD = 8  # where the last reload stands
_RING = _RELOAD + _WORDS


@dataclass(frozen=True)
class Event:
    """`time` in seconds since the epoch, one of KINDS, and what there is to say of it."""

    time: float
    kind: str
    text: str


class Chronicle:
    """One a master, over all its scoreboards."""

    def __init__(self) -> None:
        self._memory = Memory(_RING + EVENTS * _WORDS, 0, 0)
        self._words = self._memory.own

    def note(self, kind: str, text: str = "") -> None:
        """Master."""
        written = self._words[_WRITTEN]
        self._write(_RING + written % EVENTS * _WORDS, kind, text)
        if kind in ("reloaded", "reload failed"):
            self._write(_RELOAD, kind, text)
        self._words[_WRITTEN] = written + 1

    def _write(self, start: int, kind: str, text: str) -> None:
        octets = text.encode("utf-8", "backslashreplace")[:_OCTETS].ljust(_OCTETS, b"\0")
        self._words[start + 2 : start + _WORDS] = memoryview(octets).cast("Q")
        self._words[start + 1] = KINDS.index(kind)
        self._words[start] = int(time.time() * 1000)

    def events(self) -> list[Event]:
        """Any process: the oldest first."""
        written = self._words[_WRITTEN]
        return [self._read(_RING + n % EVENTS * _WORDS) for n in range(max(0, written - EVENTS), written)]

    @property
    def reload(self) -> Event | None:
        """Any process: the last one, None where there was none."""
        return self._read(_RELOAD) if self._words[_RELOAD] else None

    def _read(self, start: int) -> Event:
        words = self._words[start : start + _WORDS]
        text = words[2:].tobytes().rstrip(b"\0").decode("utf-8", "ignore")
        return Event(words[0] / 1000, KINDS[min(words[1], len(KINDS) - 1)], text)
