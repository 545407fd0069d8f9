"""The end of a connection, so that the client can read our last reply.

Closing with unread input resets the connection, and a reset destroys a reply on its way. Runs in session threads, for
at most LINGER seconds. Raises OSError or ValueError where the client was faster.
"""

from __future__ import annotations

import socket
import ssl
from time import monotonic

LINGER = 2.0  # seconds to let a client read our last reply
LINGER_OCTETS = 1 << 20


def end_tls(sock: ssl.SSLSocket) -> socket.socket:
    """Send close_notify, do not wait for the client's. The socket to go on with."""
    sock.settimeout(0)
    try:
        return sock.unwrap()
    except OSError:
        return sock


def linger(sock: socket.socket, wait: bool) -> None:
    """Read what comes until the client closes too, or for some time; without `wait` only what is there already."""
    sock.shutdown(socket.SHUT_WR)
    seconds = LINGER if wait else 0.0
    deadline, dropped = monotonic() + seconds, 0
    sock.settimeout(seconds)
    while dropped < LINGER_OCTETS and (not seconds or monotonic() < deadline):
        data = sock.recv(65536)
        if not data:
            return
        dropped += len(data)
