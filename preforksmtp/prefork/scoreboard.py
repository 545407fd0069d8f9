"""The scoreboard: one anonymous shared mapping in which workers write and everybody reads.

The master makes it before its first fork. Layout, all of unsigned 64-bit words on 64-byte lines:

    header      3 lines   sequence, flags, counters and gauges of the master's own (written by the master)
    retired     1 row     counters of the workers that are gone (written by the master)
    slot 0..n   2 lines   gauges: pid, generation, state, clock readings (master and worker main thread)
                1 row per session thread: counters, and a histogram (written by that thread only)

Every word has one writer at a time and an aligned 8-byte store is atomic, so nobody takes a lock: a session
thread does ``row[MESSAGES] += 1``. When the master reaps a worker it adds the slot's rows to ``retired`` and
zeroes the slot, so totals never go back, not even over ``kill -9``. Readers of totals retry when they meet
that fold half done. A reload that needs more slots or rows than there are begins a new board, which counts those of
its predecessor with its own until the last worker there is gone (`absorb`). Fails only at creation (OSError from mmap)
and when every slot is taken (None).
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from dataclasses import dataclass

from preforksmtp.prefork.clients import Clients
from preforksmtp.prefork.pages import Pages

# The counters of one row, in order. The names are indexes into a row.
COUNTERS = (
    "sessions",  # connections accepted
    "messages",  # accepted with 2xx
    "rejected",  # refused with 5xx
    "deferred",  # refused with 4xx
    "recipients",
    "bytes",
    "tls",
    "auth_ok",
    "auth_failed",
    "timeouts",
    "errors",  # exceptions that were our fault or the handler's
    "refused",  # connections turned away by a limit
)
SESSIONS, MESSAGES, REJECTED, DEFERRED, RECIPIENTS, BYTES = range(6)
TLS, AUTH_OK, AUTH_FAILED, TIMEOUTS, ERRORS, REFUSED = range(6, len(COUNTERS))
# Not a counter but a gauge in the same row: time.monotonic_ns() at which the session now served was accepted;
# 0 = no session.
SINCE = len(COUNTERS)
# How long the handler took with each body: all together, and how many times up to each bound (the last: longer).
HANDLER_NS = SINCE + 1
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
BUCKETS = HANDLER_NS + 1
# What the master counts itself, in the header.
MASTER_COUNTERS = (
    "reloads",  # asked for and brought to an end, failed ones included
    "reloads_failed",  # those after which the former configuration went on
    "workers_forked",
    "workers_died",  # unasked: crashed, killed by somebody, or could not boot
    "workers_hung",  # killed by us: boot_timeout, timeout, or still there after graceful_timeout
    "workers_recycled",  # replaced because they had served enough, or had a stuck handler
)

FREE, BOOTING, READY, DRAINING = range(4)
STATES = ("free", "booting", "ready", "draining")

_WORD = 8
_LINE = 8  # words in 64 bytes: two writers never share a cache line
_END = BUCKETS + len(BOUNDS) + 1
_ROW = (_END + _LINE - 1) // _LINE * _LINE
_SUMMED = (*range(SINCE), *range(HANDLER_NS, _END))  # what of a row is added up, over threads and workers
_HEADER = 3 * _LINE
_GAUGES = 2 * _LINE
_SEQUENCE, _STOPPING, _ABSORBED, _COUNTED = 0, *range(_LINE, _LINE + 3)  # words of the header
_WANTED, _BEAT, _QUEUED, _LEVEL, _SUPERSEDED = range(2 * _LINE, 2 * _LINE + 5)
_FOLD_RETRIES = 1000


class _Gauge:
    """One word of the gauges of a slot or of the board, as an attribute."""

    def __init__(self, word: int) -> None:
        self.word = word

    def __get__(self, owner: Slot | Scoreboard, kind: type) -> int:
        return owner.gauges[self.word]

    def __set__(self, owner: Slot | Scoreboard, value: int) -> None:
        owner.gauges[self.word] = value


@dataclass(frozen=True)
class Readings:
    """All counters at one moment: of the sessions and of the master, by name; and the handler's histogram, how many
    bodies took up to each of BOUNDS and not to the one before, and longer than all of them."""

    sessions: dict[str, int]
    master: dict[str, int]
    handler_seconds: float
    handler_buckets: list[int]


class Slot:
    """What one worker publishes. Times are time.monotonic_ns(), the same clock in every process."""

    pid = _Gauge(0)
    generation = _Gauge(1)
    state = _Gauge(2)
    forked = _Gauge(3)
    ready = _Gauge(4)  # when the worker became READY; 0 = not yet
    heartbeat = _Gauge(5)
    threads = _Gauge(6)  # session threads alive
    rss = _Gauge(7)  # bytes; 0 = not known
    retire = _Gauge(8)  # why the worker asks to be replaced, an index into recycling.REASONS; 0 = it does not
    closing = _Gauge(9)  # 1 = nobody serves its queue after it (written by the master)
    limit = _Gauge(10)  # most session threads
    longest = _Gauge(11)  # when the longest call of a handler that still runs began; 0 = none
    cpu = _Gauge(12)  # nanoseconds of processor time used
    question = _Gauge(13)  # see inquiry.py (written by the master)
    answer = _Gauge(14)
    place = _Gauge(15)  # the processor on which its session threads stay, plus 1; 0 = on all

    def __init__(self, index: int, words: memoryview, rows: int) -> None:
        self.index = index
        self.gauges = words[:_GAUGES]
        self._words = words[_GAUGES : _GAUGES + rows * _ROW]
        self.rows = [self._words[start : start + _ROW] for start in range(0, rows * _ROW, _ROW)]

    def count(self, counter: int) -> int:
        return sum(self._words[counter::_ROW])

    def active(self) -> int:
        """Sessions being served now."""
        return sum(1 for since in self._words[SINCE::_ROW] if since)

    def oldest(self) -> int:
        """monotonic_ns at which the oldest session now served began; 0 = no session."""
        return min((since for since in self._words[SINCE::_ROW] if since), default=0)


class Scoreboard:
    """The whole mapping. `slots` is the most workers alive at once, old generations included."""

    wanted = _Gauge(_WANTED)  # workers
    beat = _Gauge(_BEAT)  # monotonic_ns of the master's last round
    queued = _Gauge(_QUEUED)  # connections that wait in the kernel
    superseded = _Gauge(_SUPERSEDED)  # 1 = new workers have another board: who knows only this one sees half of them
    level = _Gauge(_LEVEL)  # the error log's, as logging numbers it, in place of log_level; 0 = as configured

    def __init__(self, slots: int, rows: int, previous: Scoreboard | None = None) -> None:
        self.previous = previous
        self.watched = False  # by a process that has not seen a successor: its counters stay (the master's own memory)
        width = _GAUGES + rows * _ROW
        self._map = mmap.mmap(-1, (_HEADER + _ROW + slots * width) * _WORD)  # shared, anonymous, zeroed
        words = memoryview(self._map).cast("Q")
        self._header = self.gauges = words[:_HEADER]
        self.pages = Pages(slots)
        self.clients = Clients(slots, rows)
        self.retired = words[_HEADER : _HEADER + _ROW]
        first = _HEADER + _ROW
        self.slots = [
            Slot(index, words[first + index * width : first + (index + 1) * width], rows) for index in range(slots)
        ]

    @property
    def stopping(self) -> bool:
        """The whole server stops (as opposed to one worker being retired). Set by the master, once."""
        return self._header[_STOPPING] != 0

    def stop(self) -> None:
        """Master: on the boards of older generations too."""
        for board in self.chain():
            board._header[_STOPPING] = 1

    def chain(self) -> Iterator[Scoreboard]:
        """This board and those before it on which workers still live."""
        board: Scoreboard | None = self
        while board is not None:
            yield board
            board = board.previous

    def count(self, counter: str) -> None:
        """Master: one more of its own."""
        self._header[_COUNTED + MASTER_COUNTERS.index(counter)] += 1

    @property
    def absorbed(self) -> bool:
        """Its counters are those of a successor now; whoever looks here counts nothing."""
        return self._header[_ABSORBED] != 0

    def claim(self, generation: int) -> Slot | None:
        """Master, before a fork: a free slot, now BOOTING; None if all are taken."""
        for slot in self.slots:
            if slot.state == FREE:
                slot.generation = generation
                slot.ready = 0
                slot.forked = slot.heartbeat = time.monotonic_ns()
                slot.state = BOOTING
                return slot
        return None

    def release(self, slot: Slot) -> None:
        """Master, once the worker of this slot is reaped (nobody writes there any more): fold and free."""
        self.clients.release(slot.index)
        self._header[_SEQUENCE] += 1  # odd: readers wait
        for row in slot.rows:
            for counter in _SUMMED:
                if row[counter]:
                    self.retired[counter] += row[counter]
            row[:] = _EMPTY_ROW
        slot.gauges[:] = _EMPTY_GAUGES  # state becomes FREE
        self._header[_SEQUENCE] += 1

    def absorb(self) -> None:
        """Master, after a release: take over the counters of a predecessor on which no worker lives any more, and at
        which nobody else looks."""
        old = self.previous
        if old is None:
            return
        old.absorb()
        if old.watched or old.previous is not None or any(slot.state for slot in old.slots):
            return
        self._header[_SEQUENCE] += 1
        for counter in _SUMMED:
            self.retired[counter] += old.retired[counter]
        for word in range(_COUNTED, _COUNTED + len(MASTER_COUNTERS)):
            self._header[word] += old._header[word]
        old._header[_ABSORBED] = 1  # whoever still looks at it counts nothing twice
        self._header[_SEQUENCE] += 1
        self.previous = None

    def _sum(self, counter: int) -> int:
        if self.absorbed:
            return 0
        before = self.previous._sum(counter) if self.previous is not None else 0
        return before + self.retired[counter] + sum(slot.count(counter) for slot in self.slots if slot.state)

    def _sum_master(self, word: int) -> int:
        before = self.previous._sum_master(word) if self.previous is not None else 0
        return before + (0 if self.absorbed else self._header[word])

    def readings(self) -> Readings:
        """Any process: every counter over all workers there ever were; none of them ever goes back."""
        for _ in range(_FOLD_RETRIES):
            before = self._header[_SEQUENCE]
            sums = {counter: self._sum(counter) for counter in _SUMMED}
            own = [self._sum_master(word) for word in range(_COUNTED, _COUNTED + len(MASTER_COUNTERS))]
            if before % 2 == 0 and before == self._header[_SEQUENCE]:
                break
            time.sleep(0)  # let the master finish; if it was killed in mid-fold, answer after all
        return Readings(
            {name: sums[counter] for counter, name in enumerate(COUNTERS)},
            dict(zip(MASTER_COUNTERS, own, strict=True)),
            sums[HANDLER_NS] / 1e9,
            [sums[counter] for counter in range(BUCKETS, _END)],
        )

    def totals(self) -> dict[str, int]:
        """Any process: those of the sessions alone."""
        return self.readings().sessions


_EMPTY_ROW = memoryview(bytes(_ROW * _WORD)).cast("Q")
_EMPTY_GAUGES = memoryview(bytes(_GAUGES * _WORD)).cast("Q")
