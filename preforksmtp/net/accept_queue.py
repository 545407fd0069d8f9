"""The queue of a listening socket: how many connections wait in the kernel to be accepted. Linux; elsewhere 0."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable

_UNACKED = struct.Struct("=8x4I1I")  # struct tcp_info up to tcpi_unacked, which is the accept queue of a listener


def queued(listeners: Iterable[socket.socket]) -> int:
    """Of all of these together; unix sockets do not tell."""
    return sum(map(_queued, listeners)) if sys.platform == "linux" else 0


def _queued(sock: socket.socket) -> int:
    if sock.family == socket.AF_UNIX:
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.size)
    except OSError:  # closed
        return 0
    return int(_UNACKED.unpack(info)[-1]) if len(info) == _UNACKED.size else 0
