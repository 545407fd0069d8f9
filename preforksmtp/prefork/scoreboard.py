"""The scoreboard: shared memory in which each worker writes to its own slot, the master to all, and everybody reads.

The master makes it before its first fork. Layout, all of unsigned 64-bit words on 64-byte lines:

    the master's    header, 2 lines   sequence, flags, counters and gauges of its own
                    retired, 1 row    counters of the workers that are gone
                    for each slot     1 line: who is there, and what the master wants of it; 1 row: `seen`
    slot 0..n       gauges, 2 lines   state, clock readings (worker, main thread)
                    1 row per session thread: counters, a histogram, and its call of a handler (that thread only)

Every word has one writer at a time and an aligned 8-byte store is atomic, so nobody takes a lock: a session
thread does ``row[MESSAGES] += 1``. When the master reaps a worker it adds the slot's rows to ``retired`` and
zeroes the slot, so totals never go back, not even over ``kill -9``. Readers of totals retry when they meet
that fold half done. A reload that needs more slots or rows than there are begins a new board, which counts those of
its predecessor with its own until the last worker there is gone (`absorb`). Fails only at creation (OSError from mmap)
and when every slot is taken (None).

A worker may have been taken over, so what stands in its slot is a claim. A gauge beyond its bound reads as 0, a counter
beyond what so young a worker can have counted as what the master has `seen` of it before; `fault` says that there is
such a one, and the master ends the worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from preforksmtp.prefork import calls
from preforksmtp.prefork.chronicle import Chronicle
from preforksmtp.prefork.clients import Clients
from preforksmtp.prefork.memory import Memory, restrict
from preforksmtp.prefork.pages import Pages
from preforksmtp.prefork.poison import Poison
from preforksmtp.prefork.tallies import Tallies, add_up
from preforksmtp.prefork.watchlist import Watchlist

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
    # Where somebody looks:
    "greeted",  # HELO, EHLO and LHLO accepted
    "quits",  # sessions that ended by QUIT
    "octets_in",  # of SMTP, of sessions that are over
    "octets_out",
)
SESSIONS, MESSAGES, REJECTED, DEFERRED, RECIPIENTS, BYTES = range(6)
TLS, AUTH_OK, AUTH_FAILED, TIMEOUTS, ERRORS, REFUSED, GREETED, QUITS, OCTETS_IN, OCTETS_OUT = range(6, len(COUNTERS))
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
    "messages_interrupted",  # in the handler when their worker died
)

FREE, BOOTING, READY, DRAINING = range(4)
STATES = ("free", "booting", "ready", "draining")

_LINE = 8  # words in 64 bytes: two writers never share a cache line
_END = BUCKETS + len(BOUNDS) + 1
_COUNTED_ROW = (_END + _LINE - 1) // _LINE * _LINE
CALL = _COUNTED_ROW  # where the call of a handler stands in a row, see calls.py
_ROW = CALL + calls.WORDS
_SUMMED = (*range(SINCE), *range(HANDLER_NS, _END))  # what of a row is added up, over threads and workers
_GAUGE_WORDS = 2 * _LINE
# Words of the header.
_SEQUENCE, _STOPPING, _ABSORBED, _WANTED, _BEAT, _QUEUED, _LEVEL, _SUPERSEDED, _LEAVING, _COUNTED = range(10)
_HEADER = _COUNTED + _LINE
_FOLD_RETRIES = 1000
_LARGEST = (1 << 63) - 1  # no total is more
# What a worker can count, each second of its life; in bytes; and, with each of its threads, in nanoseconds.
_FASTEST, _FASTEST_BYTES, _FASTEST_NS = 10_000_000, 1 << 40, 2_000_000_000
_GRACE = 60  # seconds that are added to its life
_AHEAD = 1_000_000_000  # nanoseconds by which a moment may be later than the one at which we look
_NOW, _ROWS = -1, -2  # bounds of a gauge that are none but that moment, and the number of rows


_EMPTY = memoryview(bytes(_COUNTED_ROW * 8)).cast("Q")


class _Word:
    """One word that the master writes, of the board's or of a slot's, as an attribute."""

    def __init__(self, word: int) -> None:
        self.word = word

    def __get__(self, owner: Slot | Scoreboard, kind: type) -> int:
        return owner.words[self.word]

    def __set__(self, owner: Slot | Scoreboard, value: int) -> None:
        owner.words[self.word] = value


class _Gauge:
    """One word that a worker writes, as an attribute. More than `most` reads as 0."""

    def __init__(self, word: int, most: int) -> None:
        self.word = word
        self.most = most

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, slot: Slot, kind: type) -> int:
        value = slot.gauges[self.word]
        return value if self.most == _NOW or value <= (self.most if self.most != _ROWS else len(slot.rows)) else 0

    def __set__(self, slot: Slot, value: int) -> None:
        slot.gauges[self.word] = value


@dataclass(frozen=True)
class Readings:
    """All counters at one moment: of the sessions and of the master, by name; and the handler's histogram, how many
    bodies took up to each of BOUNDS and not to the one before, and longer than all of them."""

    sessions: dict[str, int]
    master: dict[str, int]
    handler_seconds: float
    handler_buckets: list[int]
    tallies: dict[str, int] = field(default_factory=dict)  # see tallies.py


class Slot:
    """What one worker publishes. Times are time.monotonic_ns(), the same clock in every process."""

    # Written by the master.
    taken = _Word(0)  # 1 = there is a worker
    pid = _Word(1)
    generation = _Word(2)
    forked = _Word(3)
    closing = _Word(4)  # 1 = nobody serves its queue after it
    question = _Word(5)  # see questions.py
    argument = _Word(6)  # of that question
    # Written by the worker's main thread; the first heartbeat and the first state by the master.
    claimed = _Gauge(0, DRAINING)  # its state
    ready = _Gauge(1, _NOW)  # when the worker became READY; 0 = not yet
    heartbeat = _Gauge(2, _NOW)
    threads = _Gauge(3, _ROWS)  # session threads alive
    rss = _Gauge(4, 1 << 48)  # bytes; 0 = not known
    retire = _Gauge(5, 4)  # why the worker asks to be replaced, an index into recycling.REASONS; 0 = it does not
    limit = _Gauge(6, _ROWS)  # most session threads
    longest = _Gauge(7, _NOW)  # when the longest call of a handler that still runs began; 0 = none
    cpu = _Gauge(8, 1 << 62)  # nanoseconds of processor time used
    answer = _Gauge(9, _LARGEST)  # see questions.py
    place = _Gauge(10, 1 << 16)  # the processor on which its session threads stay, plus 1; 0 = on all
    spooled = _Gauge(11, 1 << 32)  # bodies in temporary files now
    descriptors = _Gauge(12, 1 << 32)  # open
    unwell = _Gauge(13, 1)  # 1 = the application says that it cannot work (Handler.healthy)

    def __init__(self, index: int, own: memoryview, section: memoryview, rows: int) -> None:
        self.index = index
        self.tainted = False  # the master's own memory: somebody who has served here wrote what no worker writes
        self.words = own[:_LINE]
        self._seen = own[_LINE:]  # the sums of the counters when the master last looked
        self.gauges = section[:_GAUGE_WORDS]
        self._rows = section[_GAUGE_WORDS:]
        self.rows = [self._rows[start : start + _ROW] for start in range(0, rows * _ROW, _ROW)]

    @property
    def state(self) -> int:
        """Any process. Of what no worker writes, the least that can be true."""
        return (self.claimed or BOOTING) if self.taken else FREE

    @state.setter
    def state(self, state: int) -> None:
        """Worker; and the master, for a worker to come, or gone."""
        self.gauges[0] = state

    def count(self, counter: int) -> int:
        """Any process: of all its threads."""
        return self.counts((counter,))[0]

    def counts(self, counters: Sequence[int] = _SUMMED) -> list[int]:
        """Any process: each of these counters, of all its threads."""
        return [
            total if self._is_plausible(counter, total) else self._seen[counter]
            for counter in counters
            for total in (sum(self._rows[counter::_ROW]),)
        ]

    def _is_plausible(self, counter: int, total: int) -> bool:
        fastest = _FASTEST_BYTES if counter in (BYTES, OCTETS_IN, OCTETS_OUT) else _FASTEST
        if counter == HANDLER_NS:
            fastest = _FASTEST_NS * len(self.rows)
        return self._seen[counter] <= total <= int(self.life + _GRACE) * fastest

    @property
    def life(self) -> float:
        """Seconds since the fork."""
        return (time.monotonic_ns() - self.forked) / 1e9

    def fault(self) -> str:
        """Master: a gauge with what no worker of ours writes there, or ""."""
        values = self.gauges.tolist()
        bounds = {_NOW: time.monotonic_ns(), _ROWS: len(self.rows)}  # after it was read: we may be stopped in between
        for gauge in _GAUGES:
            if values[gauge.word] > bounds.get(gauge.most, gauge.most):
                return f"{gauge.name} {values[gauge.word]}"
        return "" if values[0] else "claimed 0"

    def look(self) -> str:
        """Master, now and then: a counter that went back, or up too fast, or "". What is all right counts as seen."""
        for counter in _SUMMED:
            total = sum(self._rows[counter::_ROW])
            if not self._is_plausible(counter, total):
                return f"{COUNTERS[counter] if counter < SINCE else 'handler time'} {total}"
            self._seen[counter] = total
        return ""

    def calls(self) -> list[calls.Call]:
        """Master: those of the handler that run now, or ran when the worker died."""
        return [call for row in self.rows if row[SINCE] and (call := calls.read(row[CALL:])) is not None]

    def forget(self) -> None:
        """Master: the worker is gone, and its section cleared."""
        self.words[:] = _EMPTY[:_LINE]
        self._seen[:] = _EMPTY

    def active(self) -> int:
        """Sessions being served now."""
        return sum(1 for since in self._rows[SINCE::_ROW] if since)

    def oldest(self) -> int:
        """monotonic_ns at which the oldest session now served began; 0 = no session."""
        return min((since for since in self._rows[SINCE::_ROW] if since), default=0)


_GAUGES = [gauge for gauge in vars(Slot).values() if isinstance(gauge, _Gauge)]


class Scoreboard:
    """The whole mapping. `slots` is the most workers alive at once, old generations included."""

    wanted = _Word(_WANTED)  # workers
    beat = _Word(_BEAT)  # monotonic_ns of the master's last round
    queued = _Word(_QUEUED)  # connections that wait in the kernel
    superseded = _Word(_SUPERSEDED)  # 1 = new workers have another board: who knows only this one sees half of them
    leaving = _Word(_LEAVING)  # 1 = it was told to stop, and serves on for drain_delay
    level = _Word(_LEVEL)  # the error log's, as logging numbers it, in place of log_level; 0 = as configured

    def __init__(self, slots: int, rows: int, previous: Scoreboard | None = None) -> None:
        self.previous = previous
        self.watched = False  # by a process that has not seen a successor: its counters stay (the master's own memory)
        width = _LINE + _COUNTED_ROW  # of what the master keeps of a slot
        first = _HEADER + _COUNTED_ROW
        self.memory = Memory(first + slots * width, slots, _GAUGE_WORDS + rows * _ROW)
        self.words = self.memory.own[:_HEADER]
        self.pages = Pages(slots)
        self.clients = Clients(slots, rows)
        self.tallies = Tallies(slots)
        self.poison: Poison = previous.poison if previous is not None else Poison()
        self.chronicle: Chronicle = previous.chronicle if previous is not None else Chronicle()
        self.watchlist: Watchlist = previous.watchlist if previous is not None else Watchlist()
        self.retired = self.memory.own[_HEADER:first]
        self.slots = [
            Slot(index, self.memory.own[first + index * width : first + (index + 1) * width], section, rows)
            for index, section in enumerate(self.memory.sections)
        ]

    def restrict(self, slot: Slot) -> None:
        """Worker, before it runs any code that is not ours: write to nothing but this slot, and what belongs to it.
        OSError: out of memory."""
        restrict((self.memory, self.pages.memory, self.clients.memory, self.tallies.memory), slot.index)

    @property
    def stopping(self) -> bool:
        """The whole server stops (as opposed to one worker being retired). Set by the master, once."""
        return self.words[_STOPPING] != 0

    def stop(self) -> None:
        """Master: on the boards of older generations too."""
        for board in self.chain():
            board.words[_STOPPING] = 1

    def chain(self) -> Iterator[Scoreboard]:
        """This board and those before it on which workers still live."""
        board: Scoreboard | None = self
        while board is not None:
            yield board
            board = board.previous

    def count(self, counter: str, by: int = 1) -> None:
        """Master: more of its own."""
        self.words[_COUNTED + MASTER_COUNTERS.index(counter)] += by

    @property
    def absorbed(self) -> bool:
        """Its counters are those of a successor now; whoever looks here counts nothing."""
        return self.words[_ABSORBED] != 0

    def claim(self, generation: int) -> Slot | None:
        """Master, before a fork: a free slot, now BOOTING; None if all are taken. A tainted one only if there is no
        other: children of the worker that was there may live, and write to it."""
        free = [slot for slot in self.slots if not slot.taken]
        if not free:
            return None
        slot = min(free, key=lambda slot: slot.tainted)
        slot.generation = generation
        slot.forked = slot.heartbeat = time.monotonic_ns()
        slot.state = BOOTING
        slot.taken = 1
        return slot

    def release(self, slot: Slot) -> None:
        """Master, once the worker of this slot is reaped (nobody writes there any more): fold and free."""
        self.clients.release(slot.index)
        self.pages.release(slot.index)
        self.words[_SEQUENCE] += 1  # odd: readers wait
        for counter, total in zip(_SUMMED, slot.counts(), strict=True):
            self.retired[counter] = min(self.retired[counter] + total, _LARGEST)
        self.tallies.release(slot.index, slot.life)
        self.memory.clear(slot.index)
        slot.forget()  # state becomes FREE
        self.words[_SEQUENCE] += 1

    def fault(self, slot: Slot) -> str:
        """Master, now and then: what no worker of ours has written to the slot, or to what belongs to it, or ""."""
        return slot.look() or self.clients.fault(slot.index)

    def absorb(self) -> None:
        """Master, after a release: take over the counters of a predecessor on which no worker lives any more, and at
        which nobody else looks."""
        old = self.previous
        if old is None:
            return
        old.absorb()
        if old.watched or old.previous is not None or any(slot.taken for slot in old.slots):
            return
        self.words[_SEQUENCE] += 1
        for counter in _SUMMED:
            self.retired[counter] = min(self.retired[counter] + old.retired[counter], _LARGEST)
        for word in range(_COUNTED, _COUNTED + len(MASTER_COUNTERS)):
            self.words[word] += old.words[word]
        self.tallies.absorb(old.tallies.total())
        old.words[_ABSORBED] = 1  # whoever still looks at it counts nothing twice
        self.words[_SEQUENCE] += 1
        self.previous = None

    def _sums(self) -> list[int]:
        """Of each counter in _SUMMED."""
        if self.absorbed:
            return [0] * len(_SUMMED)
        each = [[self.retired[counter] for counter in _SUMMED]]
        each += [slot.counts() for slot in self.slots if slot.taken]
        if self.previous is not None:
            each.append(self.previous._sums())
        return [min(sum(sums), _LARGEST) for sums in zip(*each, strict=True)]

    def _sum_master(self, word: int) -> int:
        before = self.previous._sum_master(word) if self.previous is not None else 0
        return before + (0 if self.absorbed else self.words[word])

    def _sum_tallies(self) -> dict[str, int]:
        return add_up(counts for board in self.chain() if not board.absorbed for counts in board._tallied())

    def _tallied(self) -> Iterator[dict[str, int]]:
        yield self.tallies.total()
        yield from (self.tallies.read(slot.index, slot.life) for slot in self.slots if slot.taken)

    def readings(self) -> Readings:
        """Any process: every counter over all workers there ever were; none of them ever goes back."""
        for _ in range(_FOLD_RETRIES):
            before = self.words[_SEQUENCE]
            sums = dict(zip(_SUMMED, self._sums(), strict=True))
            own = [self._sum_master(word) for word in range(_COUNTED, _COUNTED + len(MASTER_COUNTERS))]
            tallies = self._sum_tallies()
            if before % 2 == 0 and before == self.words[_SEQUENCE]:
                break
            time.sleep(0)  # let the master finish; if it was killed in mid-fold, answer after all
        return Readings(
            {name: sums[counter] for counter, name in enumerate(COUNTERS)},
            dict(zip(MASTER_COUNTERS, own, strict=True)),
            sums[HANDLER_NS] / 1e9,
            [sums[counter] for counter in range(BUCKETS, _END)],
            tallies,
        )
