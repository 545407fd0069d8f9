"""The clients: how many sessions each has now, and how often it came lately, over all workers; a shared mapping.

The master makes it before its first fork. A client is a key, any 64-bit number but 0; what it stands for is not known
here. Every worker slot owns one table, which only that process writes (its threads under a lock that dies with it);
whoever asks for a client sums over the tables of all slots. So no lock is shared, and what a worker held when it was
killed is gone as soon as the master reaps it: the sessions are dropped, the rates move to a table of the master's. A
worker that lies in its table can make others refuse a client, and nothing else: nobody follows a place or a length that
is written there, and more sessions than it has threads are found by `fault`.

A table is a hash table of fixed size without deletion: a key stands within WINDOW places of where it hashes to, and is
replaced there once its client has neither a session nor a rate. Layout, in columns of unsigned 64-bit words:

    header    one line per table: places ever used, sessions, sessions the worker can serve
    table     keys, then sessions, then one column per rate

A rate is one word, so it is read and written whole: the minute, and the counts of the minute before and of this one.
What is said of the last minute is this count and the share of the one before that is still within 60 seconds.

Limits are exact where a caller counts itself first, asks for the sum, and takes itself back if that is too high: two
who come at once may both be turned away, but never both let in. (To release the lock in between is the memory barrier
this needs.) To look before as well spares others the sight of those who are turned away. A full window fails softly:
the client that lacks a session but came longest ago is forgotten, and where all have sessions, the new one is not
counted (enter gives -1).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from itertools import chain, compress

from preforksmtp.prefork.memory import Memory

# The rates of a client, each per minute. ATTEMPTS are those of the last two minutes that are under way.
CONNECTIONS, MESSAGES, RECIPIENTS, FAILURES, ATTEMPTS = range(5)
RATES = 5

ENTRIES = 4096  # places per table at least; a power of two
WINDOW = 8

_LINE = 8  # words in 64 bytes: two writers never share a cache line
_USED, _SESSIONS, _CAPACITY = range(3)  # words of a header
_BITS = 22  # of a count
_STAMP = 2 * _BITS  # where the minute stands: the 20 bits above the two counts
_MOST = (1 << _BITS) - 1
_MINUTES = (1 << 20) - 1

Clock = Callable[[], float]


class Table:
    """One slot's clients. The owner's threads call all methods, other processes `find` and read the columns."""

    def __init__(self, header: memoryview, words: memoryview, entries: int, clock: Clock) -> None:
        width = entries + WINDOW  # the last windows reach beyond the end
        self.header = header
        self.keys = words[:width]
        self.sessions = words[width : 2 * width]
        self.rates = [words[start : start + width] for start in range(2 * width, (2 + RATES) * width, width)]
        self._mask = entries - 1
        self._clock = clock
        self._lock = threading.Lock()  # among the threads of the process that writes here

    def find(self, key: int) -> int:
        """Any process: where the key stands; -1 if it does not."""
        keys = self.keys
        start = key & self._mask
        first = keys[start]
        if first == key:
            return start
        if first:  # or nobody was ever sent further
            window = keys[start : start + WINDOW].tolist()
            if key in window:
                return start + window.index(key)
        return -1

    def open(self, capacity: int) -> None:
        """The worker takes up to `capacity` sessions from now on; 0: no more."""
        self.header[_CAPACITY] = capacity

    def enter(self, key: int) -> int:
        """One more session of the client, of nobody if 0. Returns its place, for leave and count, valid until then."""
        with self._lock:
            place = self._claim(key) if key else -1
            if place >= 0:
                self.sessions[place] += 1
            self.header[_SESSIONS] += 1
        return place

    def leave(self, place: int) -> None:
        with self._lock:
            if place >= 0:
                self.sessions[place] -= 1
            self.header[_SESSIONS] -= 1

    def count(self, place: int, rate: int, by: int = 1) -> int:
        """Add to a rate of the client that stands there. The minute in which that was, for take_back."""
        with self._lock:
            column = self.rates[rate]
            minute = _minute(self._clock())
            word = _rolled(column[place], minute)
            if (word & _MOST) + by <= _MOST:
                word += by
            column[place] = word
        return minute

    def take_back(self, place: int, rate: int, minute: int) -> None:
        """Undo one count of that minute, and of no other: or who takes back a minute late has credit in the next."""
        with self._lock:
            column = self.rates[rate]
            now = _minute(self._clock())
            word = _rolled(column[place], now)
            if minute == now and word & _MOST:
                word -= 1
            elif minute == now - 1 & _MINUTES and word >> _BITS & _MOST:
                word -= 1 << _BITS
            column[place] = word

    def _claim(self, key: int) -> int:
        """The place of the key, newly taken if need be; -1 if the window is full of clients with sessions."""
        place = self.find(key)
        if place >= 0:
            return place
        start = key & self._mask
        window = self.keys[start : start + WINDOW].tolist()
        if 0 in window:
            place = start + window.index(0)
            self.header[_USED] += 1
        else:
            idle = [place for place in range(start, start + WINDOW) if not self.sessions[place]]
            if not idle:
                return -1
            minute = _minute(self._clock())
            place = max(idle, key=lambda place: self._silence(place, minute))
        # The key last: until then the place is that of a client nobody asks for, wherever we are killed.
        for column in self.rates:
            column[place] = 0
        self.keys[place] = key
        return place

    def _silence(self, place: int, minute: int) -> int:
        """For how many minutes its client has not been counted."""
        return min((minute - (column[place] >> _STAMP)) & _MINUTES for column in self.rates)

    def absorb(self, other: Table) -> None:
        """Master: take over the rates of a table whose worker is gone, its sessions not."""
        minute = _minute(self._clock())
        for there, key in enumerate(other.keys.tolist()):
            if key and other._silence(there, minute) <= 1:
                place = self._claim(key)
                for mine, its in zip(self.rates, other.rates, strict=True):
                    mine[place] = _sum(mine[place], its[there], minute)


class Clients:
    """The whole mapping: a table for each slot, and one of the master's."""

    def __init__(self, slots: int, threads: int, clock: Clock = time.monotonic) -> None:
        entries = ENTRIES
        while entries < 8 * threads:
            entries *= 2
        words = _LINE + (2 + RATES) * (entries + WINDOW)  # of a table
        self.memory = Memory(words, slots, words)
        self._used, self._sessions, self._capacity = map(self.memory.column, (_USED, _SESSIONS, _CAPACITY))
        self._clock = clock
        self._threads = threads
        self._secret = os.urandom(16)
        self._mask = entries - 1
        self.tables = [
            Table(words[:_LINE], words[_LINE:], entries, clock) for words in (*self.memory.sections, self.memory.own)
        ]

    def key(self, octets: bytes) -> int:
        """The key of what `octets` name. Keyed with a secret, so that nobody can aim at a place in the tables."""
        return int.from_bytes(blake2b(octets, digest_size=8, key=self._secret).digest(), "little") or 1

    def sessions(self, key: int) -> int:
        """Sessions the client has now."""
        total, start = 0, key & self._mask
        for table in compress(self.tables, self._used.tolist()):  # not the master's: it has none
            place = start if table.keys[start] == key else table.find(key)  # nearly always: spare the call
            if place >= 0:
                sessions = table.sessions[place]
                if table.keys[place] == key:  # and not just replaced by another, between the two reads
                    total += sessions
        return total

    def rate(self, key: int, rate: int) -> float:
        """What was counted of the client within the last minute."""
        now = self._clock()
        minute, start = _minute(now), key & self._mask
        this = last = 0
        for table in chain(compress(self.tables, self._used.tolist()), self.tables[-1:]):
            place = start if table.keys[start] == key else table.find(key)
            if place >= 0:
                word = table.rates[rate][place]
                if table.keys[place] == key:
                    written = word >> _STAMP
                    if written not in (minute, minute + 1 & _MINUTES):  # a minute ahead: after we took the time
                        word = _rolled(word, minute)
                    this += word & _MOST
                    last += word >> _BITS & _MOST
        return this + last * (1.0 - now % 60.0 / 60.0) if last else this

    def total(self) -> int:
        """Sessions of all clients."""
        return sum(self._sessions.tolist())

    def load(self) -> tuple[int, int]:
        """Sessions, and how many there is room for, in the workers that take new ones."""
        capacity = self._capacity.tolist()
        return sum(compress(self._sessions.tolist(), capacity)), sum(capacity)

    def fault(self, index: int) -> str:
        """Master: what no worker of ours writes to its table, or ""."""
        used, sessions, capacity = self.tables[index].header[:3].tolist()
        most = max(self.tables[index].sessions) if used else 0
        if max(sessions, capacity, most) > self._threads or used > self._mask + 1 + WINDOW:
            return f"{max(sessions, most)} sessions of {capacity}, {used} clients"
        return ""

    def release(self, index: int) -> None:
        """Master, once the worker of this slot is reaped: nobody writes to its table any more."""
        if self._used[index]:
            self.tables[-1].absorb(self.tables[index])
        self.memory.clear(index)


def _minute(now: float) -> int:
    return int(now // 60.0) & _MINUTES


def _rolled(word: int, minute: int) -> int:
    """A rate as it is in `minute`."""
    age = (minute - (word >> _STAMP)) & _MINUTES
    if age == 0:
        return word
    return minute << _STAMP | ((word & _MOST) << _BITS if age == 1 else 0)


def _sum(one: int, other: int, minute: int) -> int:
    one, other = _rolled(one, minute), _rolled(other, minute)
    this = min(_MOST, (one & _MOST) + (other & _MOST))
    last = min(_MOST, (one >> _BITS & _MOST) + (other >> _BITS & _MOST))
    return minute << _STAMP | last << _BITS | this
