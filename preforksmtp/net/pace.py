"""How long a client may keep us waiting, as this room sees it, and the wait that obeys. smtp/pace.py decides.

An Allowance stands for one thing that a client owes us; a Pace has all of them; a Wait is one that has begun, where no
command is read: for a PROXY header, for a TLS handshake. Raises TimeoutError when the client has had its time,
InterruptedError when the worker drains.
"""

from __future__ import annotations

import socket
from time import monotonic
from typing import Protocol

from preforksmtp.net.drain import Drain, await_socket


class Allowance(Protocol):
    """How long one thing may take, from the moment at which we began to wait for it to the moment at which all of it
    is here."""

    @property
    def seconds(self) -> float:
        """How long, at most."""

    def until(self, began: float, now: float) -> float:
        """The monotonic time of the next look at the clock. Raises TimeoutError where the client has had its time."""


class Pace(Protocol):
    """What one session's client may take its time for."""

    @property
    def header(self) -> Allowance:
        """The PROXY header."""

    @property
    def hello(self) -> Allowance:
        """The ClientHello, with which a TLS handshake begins."""

    @property
    def handshake(self) -> Allowance:
        """The whole TLS handshake."""

    @property
    def command(self) -> Allowance:
        """One line: a command, or what answers a challenge."""

    @property
    def block(self) -> Allowance:
        """1 KiB of a message, or what is left of it."""

    @property
    def replies(self) -> Allowance:
        """To take what we have sent."""

    @property
    def metered(self) -> bool:
        """Whether the next look at the clock may come before `shortest`."""

    @property
    def shortest(self) -> float:
        """The seconds after which somebody looks at the clock, whatever a line or a block is waited for."""


class Wait:
    """A wait that begins now. `end` is that of the session, monotonic; 0 = none."""

    __slots__ = ("_allowance", "_began", "_drain", "_end")

    def __init__(self, allowance: Allowance, drain: Drain, end: float = 0.0) -> None:
        self._allowance = allowance
        self._drain = drain
        self._end = end
        self._began = monotonic()

    def ready(self, sock: socket.socket, events: int) -> int:
        """Wait until the socket is ready for one of the poll `events`. What poll() says of it."""
        while True:
            until = self.until()
            try:
                return await_socket(sock, events, until, self._drain, began=self._began)
            except TimeoutError:
                pass  # look at the clock

    def until(self) -> float:
        """The time of the next look at the clock."""
        return look(self._allowance, self._began, self._end, monotonic())

    def told(self, late: TimeoutError) -> str:
        """The end of a sentence: what did not come."""
        return f"in time ({late})" if late.args else f"within {self._allowance.seconds:g} s"

    @property
    def draining(self) -> bool:
        return self._drain.requested


def look(allowance: Allowance, began: float, end: float, now: float) -> float:
    """Look at the clock, which shows `now`, for what is owed since `began`. The time of the next look, which is no
    later than the `end` of the session, 0 = none."""
    until = allowance.until(began, now)
    if not end or until < end:
        return until
    if now >= end:
        raise TimeoutError
    return end
