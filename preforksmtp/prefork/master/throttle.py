"""The throttle: when the master may fork in place of a worker that died.

Pure arithmetic on the times it is told; knows no process. Two things are kept apart:

- A worker that dies while booting shows that the next one may not boot either: 1, 2, 4 .. 30 s until the next attempt.
  Workers forked together and dying together count once: they are one attempt.
- One that dies after READY, of a message perhaps, is owed a successor, whether others fail to boot or not: at once, as
  many as there were workers, and RATE a second after that. Who crashes all the time costs so many forks, and no gap.
"""

from __future__ import annotations

LONGEST = 30.0  # seconds between two attempts
RATE = 4.0  # successors a second, once those at hand are spent
LEAST = 4  # that are at hand at least


class Throttle:
    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0  # deaths of workers forked before this are known already
        self._retry_at = 0.0  # no attempt before
        self._owed = 0  # successors
        self._spent = 0.0  # of those at hand, not yet there again
        self._spent_at = 0.0
        self._most = LEAST

    @property
    def failures(self) -> int:
        """How many attempts in a row ended in the boot."""
        return self._failures

    @property
    def open_at(self) -> float:
        """No fork before."""
        if not self._owed:
            return self._retry_at
        return self._spent_at + max(0.0, self._spent + 1 - self._most) / RATE

    def failed(self, forked: float, now: float) -> float:
        """Master, at each unasked death before READY: note it. Returns the delay until the next attempt."""
        if forked >= self._since:
            self._failures += 1
            self._since = now
            self._retry_at = now + min(2.0 ** min(self._failures - 1, 10), LONGEST)
        return max(0.0, self._retry_at - now)

    def crashed(self, workers: int) -> None:
        """Master, at each unasked death after READY, of one of so many workers."""
        self._owed += 1
        self._most = max(LEAST, workers)

    def pause(self, until: float) -> None:
        """Master: no fork before, for whatever reason."""
        self._owed = 0
        self._retry_at = max(self._retry_at, until)

    def forked(self, now: float) -> None:
        """Master, at each fork that fills a gap."""
        if self._owed:
            self._owed -= 1
            self._spent = max(0.0, self._spent - (now - self._spent_at) * RATE) + 1
            self._spent_at = now

    def complete(self) -> None:
        """Master: there are as many workers as are wanted."""
        self._owed = 0

    def booted(self, forked: float) -> None:
        """Master, at each READY: one forked after the last failure shows that it was none of all."""
        if forked >= self._since:
            self._failures = 0
