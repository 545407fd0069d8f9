"""Upkeep: the listening sockets are the same open files in the master and in all workers, so one worker that has been
taken over can shut them down, or change their flags and timeouts, for everybody. The master puts right what it finds.

Runs in the master, once a second. What cannot be put right (a unix socket that was shut down) is said once; nothing
here fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from preforksmtp.net.lanes import is_listening
from preforksmtp.net.listener import accepts_as_prepared, prepare_socket

EVERY = 1.0  # seconds between two looks
# What accepted sockets inherit, or what keeps clients from being accepted at all. Buffers are not among them: what the
# kernel has chosen it chooses no more once it was set.
_NAMES = {
    socket.SOL_SOCKET: ("SO_LINGER", "SO_RCVTIMEO", "SO_SNDTIMEO", "SO_RCVLOWAT", "SO_KEEPALIVE"),
    socket.IPPROTO_TCP: ("TCP_NODELAY", "TCP_DEFER_ACCEPT", "TCP_USER_TIMEOUT"),
    socket.IPPROTO_IP: ("IP_TTL",),
    socket.IPPROTO_IPV6: ("IPV6_UNICAST_HOPS",),
}
_OPTIONS = [
    (level, getattr(socket, name)) for level, names in _NAMES.items() for name in names if hasattr(socket, name)
]
if sys.platform == "linux":
    _OPTIONS.append((socket.SOL_SOCKET, 47))  # SO_MAX_PACING_RATE
_LONGEST = 16  # bytes of a value
_Options = dict[tuple[int, int], bytes]
QUIET = 60.0  # seconds between two lines about the same thing
_SHUT = getattr(select, "POLLRDHUP", 0) | select.POLLHUP


class Upkeep:
    """One a master. `backlog`: of the configuration in force."""

    def __init__(self, backlog: Callable[[], int], log: logging.Logger) -> None:
        self._backlog = backlog
        self._log = log
        self._names: weakref.WeakKeyDictionary[socket.socket, Any] = weakref.WeakKeyDictionary()  # of who has listened
        self._options: weakref.WeakKeyDictionary[socket.socket, _Options] = weakref.WeakKeyDictionary()
        self._now = 0.0
        self._next = 0.0
        self._said: dict[str, float] = {}

    def look(self, sockets: Iterable[socket.socket]) -> None:
        """Each round. Sockets of a lane begin to listen when they are served."""
        self._now = time.monotonic()
        if self._now < self._next:
            return
        self._next = self._now + EVERY
        for sock in sockets:
            if sock.fileno() >= 0:
                with contextlib.suppress(OSError):
                    self._look_at(sock)

    def _look_at(self, sock: socket.socket) -> None:
        if _is_open(sock):
            self._names.setdefault(sock, sock.getsockname())
            sock.listen(self._backlog())  # a worker's listen(0) leaves room for one; nobody can ask what it is
        elif sock in self._names:
            self._listen_again(sock, self._names[sock])
        if not os.get_blocking(sock.fileno()) or not accepts_as_prepared(sock):
            self._say("a worker has changed the listening socket of %s, it is as before", self._names.get(sock))
            os.set_blocking(sock.fileno(), True)
            prepare_socket(sock)
        self._restore(sock)

    def _restore(self, sock: socket.socket) -> None:
        """Its options, as they were when we first saw it."""
        found = _options(sock)
        before = self._options.setdefault(sock, found)
        changed = [option for option, value in found.items() if before.get(option, value) != value]
        if changed:
            self._say("a worker has changed the listening socket of %s, it is as before", self._names.get(sock))
        for level, option in changed:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, before[level, option])

    def _listen_again(self, sock: socket.socket, name: Any) -> None:
        with contextlib.suppress(OSError):  # it is bound still, where the port was not the kernel's choice
            sock.bind(name)
        try:
            if sock.family == socket.AF_UNIX:
                raise OSError("a unix socket cannot, restart the server")
            sock.listen(self._backlog())
        except OSError as error:
            self._say("a worker has shut down the listening socket of %s: " + str(error), name)
        else:
            self._say("a worker has shut down the listening socket of %s, it listens again", name)

    def _say(self, line: str, name: Any) -> None:
        if self._now - self._said.get(line, -QUIET) >= QUIET:
            self._said[line] = self._now
            self._log.error(line, name)


def _options(sock: socket.socket) -> _Options:
    """Those that it has."""
    found = {}
    for level, option in _OPTIONS:
        with contextlib.suppress(OSError):  # of another family
            found[level, option] = sock.getsockopt(level, option, _LONGEST)
    return found


def _is_open(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, _SHUT)
    return is_listening(sock) and not any(event & _SHUT for _, event in poll.poll(0))
