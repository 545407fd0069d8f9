"""A post: one listener of a worker, the session threads that wait there, and what accept() may fail with."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from preforksmtp.prefork.worker.seat import Seat

# accept(2): the client went away before we came, or an error of its network is reported on our socket. Next
# one.
FORGIVEN = frozenset(
    {
        errno.ECONNABORTED,  # reset while in the queue
        errno.EPROTO,  # the same on other systems
        errno.EPERM,  # forbidden by a firewall rule
        errno.ENETDOWN,  # pending network errors of the new socket, as Linux passes them on
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        getattr(errno, "ENONET", errno.ENETDOWN),
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
    }
)
# Out of descriptors or memory: the connection stays in the queue, so accept() would fail again at once.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Post:
    """One listener and the seats waiting there."""

    def __init__(self, index: int, listener: socket.socket) -> None:
        self.index = index
        self.listener = listener
        # socket.accept() converts family and type to enums and looks at timeouts: 3 of its 13 us. What it
        # calls is this; the numbers are taken once. (A bare _socket.socket would save 0.8 more, but lacks
        # makefile().)
        self.accept: Callable[[], tuple[int, Any]] = listener._accept  # type: ignore[attr-defined]
        self.kind = (int(listener.family), int(listener.type), listener.proto)
        self.idle: set[Seat] = set()
