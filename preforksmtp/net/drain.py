"""The worker's drain, as this room sees it, and the wait that it ends.

Session threads wait here where no mail transaction can be open yet: for a PROXY header, for a TLS handshake, for a
command inside TLS. Raises TimeoutError when the time is up, InterruptedError when the worker drains.
"""

from __future__ import annotations

import select
import socket
import sys
from time import monotonic
from typing import Protocol


class Drain(Protocol):
    requested: bool
    fd: int  # readable from then on


def await_socket(sock: socket.socket, events: int, deadline: float, drain: Drain) -> int:
    """Wait until the socket is ready for one of the poll `events`, at most until the monotonic time `deadline`. What
    poll() says of it. A socket that is ready comes before the drain."""
    poll = select.poll()
    poll.register(sock, events)
    poll.register(drain.fd, select.POLLIN)
    ready = dict(poll.poll(max(0.0, deadline - monotonic()) * 1000))
    found = ready.get(sock.fileno())
    if found is not None:
        return found
    raise InterruptedError if drain.requested else TimeoutError


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
