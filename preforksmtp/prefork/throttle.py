"""The throttle: how long the master waits before it forks again after workers died early.

Pure arithmetic on the times it is told; knows no process. A worker that dies while booting delays the next
fork by 1, 2, 4 .. 30 s. One that dies soon after READY is replaced at once the first time (an operator's kill
-9 costs no capacity), then by the same steps. Workers forked together and dying together count once: they are
one attempt.
"""

from __future__ import annotations

LONGEST = 30.0
SETTLED = 30.0  # seconds after READY from which a worker has proved that its generation works


class Throttle:
    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0  # deaths of workers forked before this are known already
        self.open_at = 0.0  # no fork before

    @property
    def failures(self) -> int:
        """How many attempts in a row ended early."""
        return self._failures

    def died(self, forked: float, ready: float | None, now: float) -> float:
        """Master, at each unasked death: note it; the delay it caused, 0.0 for none."""
        if ready is not None and now - ready >= SETTLED:
            return 0.0
        if forked < self._since:
            return max(0.0, self.open_at - now)
        steps = self._failures if ready is None else self._failures - 1
        self._failures += 1
        self._since = now
        delay = 0.0 if steps < 0 else min(2.0 ** min(steps, 10), LONGEST)
        self.open_at = now + delay
        return delay

    def settled(self, forked: float, ready: float, now: float) -> None:
        """Master, each round and READY worker: one forked after the last failure and still here clears it."""
        if self._failures and forked >= self._since and now - ready >= SETTLED:
            self._failures = 0
