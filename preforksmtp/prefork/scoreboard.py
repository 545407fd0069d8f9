"""The scoreboard: one anonymous shared mapping in which workers write and everybody reads.

The master makes it before its first fork. Layout, all of unsigned 64-bit words on 64-byte lines:

    header      2 lines   sequence, flags, counters of the master's own (written by the master)
    retired     1 row     counters of the workers that are gone (written by the master)
    slot 0..n   2 lines   gauges: pid, generation, state, clock readings (master and worker main thread)
                1 row per session thread: counters (written by that thread only)

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

from preforksmtp.prefork.clients import Clients

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
)
SESSIONS, MESSAGES, REJECTED, DEFERRED, RECIPIENTS, BYTES = range(6)
TLS, AUTH_OK, AUTH_FAILED, TIMEOUTS, ERRORS = range(6, len(COUNTERS))
# Not a counter but a gauge in the same row: time.monotonic_ns() at which the session now served was accepted;
# 0 = no session.
SINCE = len(COUNTERS)

FREE, BOOTING, READY, DRAINING = range(4)
STATES = ("free", "booting", "ready", "draining")

_WORD = 8
_LINE = 8  # words in 64 bytes: two writers never share a cache line
_ROW = (SINCE + 1 + _LINE - 1) // _LINE * _LINE
_HEADER = 2 * _LINE
_GAUGES = 2 * _LINE
_SEQUENCE, _STOPPING, _ABSORBED, _RELOADS, _RELOADS_FAILED = 0, *range(_LINE, _LINE + 4)  # words of the header
_FOLD_RETRIES = 1000


class _Gauge:
    """One word of a slot's gauges, as an attribute."""

    def __init__(self, word: int) -> None:
        self.word = word

    def __get__(self, slot: Slot, owner: type[Slot]) -> int:
        return slot.gauges[self.word]

    def __set__(self, slot: Slot, value: int) -> None:
        slot.gauges[self.word] = value


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
    closing = _Gauge(9)  # 1 = nobody serves its queue after it (written by the master)
    retire = _Gauge(8)  # why the worker asks to be replaced, an index into recycling.REASONS; 0 = it does not

    def __init__(self, index: int, words: memoryview, rows: int) -> None:
        self.index = index
        self.gauges = words[:_GAUGES]
        self.rows = [words[start : start + _ROW] for start in range(_GAUGES, _GAUGES + rows * _ROW, _ROW)]

    def count(self, counter: int) -> int:
        return sum(row[counter] for row in self.rows)

    def active(self) -> int:
        """Sessions being served now."""
        return sum(1 for row in self.rows if row[SINCE])

    def oldest(self) -> int:
        """monotonic_ns at which the oldest session now served began; 0 = no session."""
        return min((since for row in self.rows if (since := row[SINCE])), default=0)


class Scoreboard:
    """The whole mapping. `slots` is the most workers alive at once, old generations included."""

    def __init__(self, slots: int, rows: int, previous: Scoreboard | None = None) -> None:
        self.previous = previous
        width = _GAUGES + rows * _ROW
        self._map = mmap.mmap(-1, (_HEADER + _ROW + slots * width) * _WORD)  # shared, anonymous, zeroed
        words = memoryview(self._map).cast("Q")
        self._header = words[:_HEADER]
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

    @property
    def reloads(self) -> int:
        """Reloads asked for and brought to an end, failed ones included."""
        return sum(board._header[_RELOADS] for board in self.chain())

    @property
    def reload_failed(self) -> int:
        """Those of them after which the former configuration went on."""
        return sum(board._header[_RELOADS_FAILED] for board in self.chain())

    def count_reload(self, *, failed: bool) -> None:
        """Master."""
        self._header[_RELOADS] += 1
        self._header[_RELOADS_FAILED] += failed

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
            for counter in range(len(COUNTERS)):
                if row[counter]:
                    self.retired[counter] += row[counter]
            row[:] = _EMPTY_ROW
        slot.gauges[:] = _EMPTY_GAUGES  # state becomes FREE
        self._header[_SEQUENCE] += 1

    def absorb(self) -> None:
        """Master, after a release: take over the counters of a predecessor on which no worker lives any more."""
        old = self.previous
        if old is None:
            return
        old.absorb()
        if old.previous is not None or any(slot.state for slot in old.slots):
            return
        self._header[_SEQUENCE] += 1
        for counter in range(len(COUNTERS)):
            self.retired[counter] += old.retired[counter]
        self._header[_RELOADS] += old._header[_RELOADS]
        self._header[_RELOADS_FAILED] += old._header[_RELOADS_FAILED]
        old._header[_ABSORBED] = 1  # whoever still looks at it counts nothing twice
        self._header[_SEQUENCE] += 1
        self.previous = None

    def _sum(self, counter: int) -> int:
        if self._header[_ABSORBED]:
            return 0
        before = self.previous._sum(counter) if self.previous is not None else 0
        return before + self.retired[counter] + sum(slot.count(counter) for slot in self.slots if slot.state)

    def totals(self) -> dict[str, int]:
        """Any process: every counter over all workers there ever were; it never goes back."""
        for _ in range(_FOLD_RETRIES):
            before = self._header[_SEQUENCE]
            sums = [self._sum(counter) for counter in range(len(COUNTERS))]
            if before % 2 == 0 and before == self._header[_SEQUENCE]:
                break
            time.sleep(0)  # let the master finish; if it was killed in mid-fold, answer after all
        return dict(zip(COUNTERS, sums, strict=True))


_EMPTY_ROW = memoryview(bytes(_ROW * _WORD)).cast("Q")
_EMPTY_GAUGES = memoryview(bytes(_GAUGES * _WORD)).cast("Q")
