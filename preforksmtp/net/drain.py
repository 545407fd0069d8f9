"""The worker's drain, as this room sees it, and the wait that it ends.

Session threads wait here: for a PROXY header, for a TLS handshake, for a command inside TLS or of a worker that leaves.
Raises TimeoutError when the time is up, InterruptedError when the worker leaves and has waited long enough.
"""

from __future__ import annotations

import select
import socket
import sys
from time import monotonic
from typing import Protocol


class Drain(Protocol):
    leaving: bool  # a wait between two transactions has an end from now on
    requested: bool  # every other wait as well, but those within a transaction
    notice: int  # readable once it is leaving
    fd: int  # readable once it is requested

    @property
    def hurried(self) -> bool:
        """Nothing begins any more, not even a first transaction."""

    def until(self, began: float) -> float:
        """When a wait that began then has been long enough; monotonic."""


def await_socket(
    sock: socket.socket, events: int, deadline: float, drain: Drain, idle: bool = False, began: float = 0.0
) -> int:
    """Wait until the socket is ready for one of the poll `events`, at most until the monotonic time `deadline`. What
    poll() says of it. A socket that is ready comes before time and drain. `idle`: between two transactions, since
    `began` if that is given."""
    poll = select.poll()
    poll.register(sock, events)
    poll.register(drain.notice if idle else drain.fd, select.POLLIN)
    ready = dict(poll.poll(max(0.0, deadline - monotonic()) * 1000))
    found = ready.get(sock.fileno())
    if found is not None:
        return found
    if not ready:
        raise TimeoutError
    return _await_last(sock, events, deadline, drain, began or monotonic())


def _await_last(sock: socket.socket, events: int, deadline: float, drain: Drain, began: float) -> int:
    """The same once there is news of the drain: no longer than that lets us."""
    while True:
        end = min(deadline, drain.until(began))
        poll = select.poll()
        poll.register(sock, events)
        if not drain.requested:  # what has told its news stays readable for ever
            poll.register(drain.fd, select.POLLIN)
        ready = dict(poll.poll(max(0.0, end - monotonic()) * 1000))
        found = ready.get(sock.fileno())
        if found is not None:
            return found
        if monotonic() >= end:
            raise InterruptedError if end < deadline else TimeoutError


def await_time(sock: socket.socket, deadline: float, drain: Drain | None) -> None:
    """Let time pass until the monotonic time `deadline`, whatever the client sends, and though it has said that it
    sends no more: a delay that it could end would be none. A connection that is broken is a ConnectionResetError, for
    nobody reads what we would say there. A drain ends it with InterruptedError, if one is given."""
    poll = select.poll()
    if sys.platform == "linux":  # elsewhere POLLHUP may stand for half a connection
        poll.register(sock, 0)
    if drain is not None:
        poll.register(drain.fd, select.POLLIN)
    while (left := deadline - monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            if drain is not None and fd == drain.fd:
                raise InterruptedError
            raise ConnectionResetError("reset by the client while it had to wait")
