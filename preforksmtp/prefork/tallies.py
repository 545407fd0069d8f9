"""The tallies: counters with names, for whatever is too rare, or of too many kinds, for a word in every thread's row.

A tally is a family and its labels in one key, "refused rcpt 550 5.1.1". Each worker has a section that it alone writes,
its threads under a lock that dies with it; when the master buries the worker it adds the section to `retired`, which is
the master's own. So totals never go back, not even over `kill -9`. Counting takes about a microsecond; whoever reads
sums over all sections. Layout: a line of eight words for each key, seven with its text and one with the count, in the
order in which the keys came up; the first line without text is the end.

A worker may have been taken over: of its section counts what has the form of a key of ours and a count that so young a
worker can have come to. There are at most KEYS of them in a section, and RETIRED over all; what finds no place there is
counted as LOST.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Iterator, Mapping

from preforksmtp.prefork.memory import Memory

KEYS, RETIRED = 512, 2048
LOST = "lost"  # the key of what had no place
FASTEST = 10_000_000  # times a second that anything can be counted
_FASTER = {"hook_ns": 1 << 42}  # nanoseconds of many threads

_LINE = 8  # words
_OCTETS = (_LINE - 1) * 8
_KEY = re.compile(r"[a-z_]{2,20}(?: [A-Za-z0-9_.+/:-]{1,30}){0,3}")
_LARGEST = (1 << 63) - 1


def key(family: str, *labels: str) -> str:
    """The key of these labels. An empty one is "-"; what does not fit, or has no form a label may have, is "other"."""
    text = " ".join([family, *(label or "-" for label in labels)])
    if len(text) <= _OCTETS and text.count(" ") == len(labels) and _KEY.fullmatch(text):
        return text
    return " ".join([family, *("other" for _ in labels)])


def labels(text: str) -> tuple[str, list[str]]:
    """The family and the labels of a key."""
    family, *rest = text.split(" ")
    return family, ["" if label == "-" else label for label in rest]


class Tally:
    """One section, for the process that writes it."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}  # of the counts, by key
        for place, text in _texts(words):
            self._places[text] = place + _LINE - 1

    def add(self, text: str, by: int = 1) -> None:
        """Any thread."""
        with self._lock:
            place = self._places.get(text)
            if place is None:
                place = self._begin(text)
            self._words[place] = min(self._words[place] + by, _LARGEST)

    def count(self, family: str, *labels: str) -> None:
        """Any thread: once more."""
        self.add(key(family, *labels))

    def _begin(self, text: str) -> int:
        start = len(self._places) * _LINE
        last = start + _LINE >= len(self._words)
        if last and text != LOST:
            return self._places[LOST] if LOST in self._places else self._begin(LOST)
        octets = text.encode("ascii").ljust(_OCTETS, b"\0")
        self._words[start + 1 : start + _LINE - 1] = memoryview(octets[8:]).cast("Q")
        self._words[start] = struct.unpack("=Q", octets[:8])[0]  # last: whoever reads sees all of a key, or none
        self._places[text] = start + _LINE - 1
        return start + _LINE - 1


class Tallies:
    """All sections of a scoreboard, and what is retired."""

    def __init__(self, slots: int) -> None:
        self.memory = Memory(RETIRED * _LINE, slots, KEYS * _LINE)
        self.retired = Tally(self.memory.own)

    def of(self, slot: int) -> Tally:
        """Worker: its own."""
        return Tally(self.memory.sections[slot])

    def read(self, slot: int, seconds: float) -> dict[str, int]:
        """Any process: what a worker that has lived so long has counted."""
        life = int(seconds + 60)
        return {
            text: count for text, count in _counts(self.memory.sections[slot])
            if count <= life * _FASTER.get(text.partition(" ")[0], FASTEST)
        }  # fmt: skip

    def total(self) -> dict[str, int]:
        """Any process: what is retired."""
        return dict(_counts(self.memory.own))

    def release(self, slot: int, seconds: float) -> None:
        """Master: the worker of this slot is gone."""
        self.absorb(self.read(slot, seconds))
        self.memory.clear(slot)

    def absorb(self, counts: Mapping[str, int]) -> None:
        """Master."""
        for text, count in counts.items():
            self.retired.add(text, count)


def add_up(each: Iterator[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in each:
        for text, count in counts.items():
            total[text] = min(total.get(text, 0) + count, _LARGEST)
    return total


def _texts(words: memoryview) -> Iterator[tuple[int, str]]:
    """The place and the text of each line that has one of ours, to the first without any."""
    octets = words.cast("B")
    for place in range(0, len(words), _LINE):
        if not words[place]:
            return
        text = bytes(octets[place * 8 : place * 8 + _OCTETS]).rstrip(b"\0").decode("ascii", "replace")
        if _KEY.fullmatch(text):
            yield place, text


def _counts(words: memoryview) -> Iterator[tuple[str, int]]:
    for place, text in _texts(words):
        yield text, words[place + _LINE - 1]
