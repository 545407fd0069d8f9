"""Pace: how long a client may keep us waiting, whatever it owes us. Nobody else decides it.

Each thing that a client can owe is an Allowance, counted from the moment at which we begin to wait to the moment at
which all of it is here, so that octets that trickle in earn nothing: a PROXY header, a ClientHello, a TLS handshake, a
line (a command, the answer to a challenge of AUTH), a block of a message or of a chunk that is dropped, and that it
reads what we have sent. While the server is nearly full each of them is shorter (stress_command_timeout,
stress_data_timeout). A Meter adds what only bodies have: min_data_rate.

The wire asks for the time of the next look at the clock (net/pace.py). Raises TimeoutError; Overdue, where a limit with
a name was exceeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reply
from preforksmtp.smtp.wire import Wire

HEADER = 5.0  # seconds for a PROXY header: proxies send it at once
HELLO = 10.0  # for a ClientHello: a client sends it at once
REPLIES = 60.0  # to read what we have sent: some KiB at most, see net/wire.py


class Overdue(TimeoutError):
    """The client is too slow for the limit named `limit`; the session ends with `reply`."""

    def __init__(self, limit: str, reply: Reply) -> None:
        super().__init__(limit)
        self.limit = limit
        self.reply = reply


class Allowance:
    """`seconds` for one thing; `stress` seconds for it while `stressed()`, 0 = no fewer. That is looked at once in that
    time, for it costs."""

    __slots__ = ("limit", "seconds", "stress", "stressed")

    def __init__(self, seconds: float, stress: float, limit: str, stressed: Callable[[], bool] | None) -> None:
        self.seconds = seconds
        self.stress = stress if stressed is not None else 0.0
        self.limit = limit  # the name of the setting that `stress` is
        self.stressed = stressed

    def until(self, began: float, now: float) -> float:
        """See net/pace.py."""
        end, stress = began + self.seconds, self.stress
        if now >= end:
            raise TimeoutError
        if not stress or self.stressed is None:
            return end
        if now - began < stress:
            return min(end, began + stress)
        if self.stressed():
            raise Overdue(self.limit, reply.TIMED_OUT)
        return min(end, now + stress)


class Pace:
    """The allowances of one bind's clients. `stressed`: whether the server is nearly full, where anybody wants to know;
    seconds of stress are 0 where nobody does."""

    __slots__ = ("block", "command", "handshake", "header", "hello", "replies", "shortest")

    metered = False

    def __init__(
        self,
        command_timeout: float,
        data_timeout: float,
        handshake_timeout: float,
        stress_command_timeout: float,
        stress_data_timeout: float,
        stressed: Callable[[], bool] | None,
    ) -> None:
        def owed(seconds: float) -> Allowance:
            return Allowance(seconds, stress_command_timeout, "stress_command_timeout", stressed)

        self.header = owed(HEADER)
        self.hello = owed(min(HELLO, handshake_timeout))
        self.handshake = owed(handshake_timeout)
        self.command = owed(command_timeout)
        self.replies = owed(REPLIES)
        self.block = Allowance(data_timeout, stress_data_timeout, "stress_data_timeout", stressed)
        looks = (command_timeout, data_timeout, self.command.stress, self.block.stress)
        self.shortest = min(filter(None, looks))


class Meter:
    """A wire for one body whose client must keep up `rate` octets a second, on average over all of it, after `grace`
    seconds. Read from it also what comes between two chunks.

    Only the time spent waiting for the client counts: a handler that reads a stream slowly does no harm.
    """

    def __init__(self, wire: Wire, pace: Pace, rate: int, grace: float) -> None:
        self._wire = wire
        self._pace = pace
        self._rate = rate
        self._grace = grace
        self._octets = 0
        self._waited = 0.0
        self._since = 0.0  # when this read began
        self._metered = MeteredPace(pace, self)

    def read_block(self, size: int, idle: int = False) -> bytes:
        """See smtp/wire.py."""
        with self._watching():
            block = self._wire.read_block(size, idle)
        self._octets += len(block)
        return block

    def read_line(self, limit: int, idle: int = False) -> bytes | None:
        """See smtp/wire.py."""
        with self._watching():
            return self._wire.read_line(limit, idle)

    def push_back(self, data: bytes) -> None:
        """See smtp/wire.py."""
        self._octets -= len(data)
        self._wire.push_back(data)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._since = monotonic()
        self._wire.keep_pace(self._metered)
        try:
            yield
        finally:
            self._wire.keep_pace(self._pace)
            self._waited += monotonic() - self._since

    def due(self, now: float) -> float:
        """When the average falls below the minimum, if nothing more comes."""
        due = self._since + max(self._grace, self._octets / self._rate) - self._waited
        if now >= due:
            raise Overdue("min_data_rate", reply.TOO_SLOW)
        return due


class MeteredPace(Pace):
    """A pace of which a meter shortens what belongs to a body."""

    metered = True

    def __init__(self, pace: Pace, meter: Meter) -> None:
        self.header, self.hello, self.handshake = pace.header, pace.hello, pace.handshake
        self.replies, self.shortest = pace.replies, pace.shortest
        self.command = MeteredAllowance(pace.command, meter)
        self.block = MeteredAllowance(pace.block, meter)


class MeteredAllowance(Allowance):
    """An allowance that ends early where the meter says so."""

    __slots__ = ("meter",)

    def __init__(self, allowance: Allowance, meter: Meter) -> None:
        super().__init__(allowance.seconds, allowance.stress, allowance.limit, allowance.stressed)
        self.meter = meter

    def until(self, began: float, now: float) -> float:
        """See net/pace.py."""
        return min(super().until(began, now), self.meter.due(now))
