"""Lanes: with reuse_port each worker has a queue of its own: for each TCP listener a socket on the same address.

The worker with lane 3 serves socket 3 of every listener; unix sockets, descriptors given to us and those of systemd are
the same in all lanes. Lane 0 is the listener's first socket. It is bound without SO_REUSEPORT, so that a port in use is
noticed as ever, and gets the option when a second lane is opened (Linux asks for it then, and not before).

The master binds what a worker needs before it forks it (low ports want its privileges) and keeps it, so that the
replacement of a worker inherits the queue. A lane listens once its first worker can serve, not before: what it is sent
would wait until then. `cut` lets go of lanes that get no worker any more; the last one there empties its queue.
Fails with OSError.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from preforksmtp.net.listener import Listener, prepare_socket

MIGRATION = "/proc/sys/net/ipv4/tcp_migrate_req"


class Lanes:
    """The sockets of these listeners, by lane, in the listeners' order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def lane(self, number: int) -> list[socket.socket]:
        """Master: what a worker of this lane serves; opened where it is not."""
        return [_socket(listener, number) for listener in self._listeners]

    def every(self) -> list[socket.socket]:
        """Any process: of all lanes."""
        return [sock for listener in self._listeners for sock in listener.sockets()]

    def cut(self, lanes: int) -> None:
        """Master: so many are left. A worker's copy stays open until it leaves."""
        for listener in self._listeners:
            while len(listener.lanes) >= lanes and listener.lanes:
                listener.lanes.pop().close()

    def listen(self, number: int, backlog: int) -> None:
        """Worker, before it serves for the first time in this lane."""
        for listener in self._listeners:
            sock = _socket(listener, number)
            if sock is not listener.socket and not is_listening(sock):
                sock.listen(backlog)


def is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def queues_migrate() -> bool:
    """Whether the kernel moves the queue of a socket that is closed to another one of its address (Linux 5.14)."""
    try:
        with open(MIGRATION, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def _socket(listener: Listener, number: int) -> socket.socket:
    if number == 0 or not listener.multiplies:
        return listener.socket
    while len(listener.lanes) < number:
        listener.lanes.append(_open(listener))
    return listener.lanes[number - 1]


def _open(listener: Listener) -> socket.socket:
    first = listener.socket
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock = socket.socket(first.family, first.type)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(listener.name)
        prepare_socket(sock)
    except BaseException:
        sock.close()
        raise
    return sock
