"""The worker's drain, as this room sees it, and the wait that it ends.

Session threads wait here where no mail transaction can be open yet: for a PROXY header, for a TLS handshake, for a
command inside TLS. Raises TimeoutError when the time is up, InterruptedError when the worker drains.
"""

from __future__ import annotations

import select
import socket
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
