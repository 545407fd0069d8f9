"""Reverse DNS: the name of a client's address, confirmed by the address of that name (FCrDNS); in bounded time.

The C library's resolver has no timeout of ours, so it runs in a few daemon threads of the worker, started when first
needed; who asks waits for `timeout` at most and goes on without a name. What comes later is kept for the next time.
Nothing here fails: no name, a name that is none, no confirmation, no answer, too many questions are all "".
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Collection

THREADS = 4
WAITING = 64  # questions that may wait for a thread
KNOWN = 4096  # answers kept
TTL = 300.0  # seconds an answer is good for
TTL_NOTHING = 60.0

Name = Callable[[str], str]
Addresses = Callable[[str], Collection[str]]


def name_of(address: str) -> str:
    """The name DNS has for an address. Raises OSError."""
    return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]


def addresses_of(name: str) -> set[str]:
    """The addresses DNS has for a name. Raises OSError."""
    return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}


class _Question:
    def __init__(self) -> None:
        self.answered = threading.Event()
        self.name = ""


class Resolver:
    """Names of addresses. One a worker, for all its session threads; `valid` says whether a text is a host name."""

    def __init__(
        self,
        valid: Callable[[str], bool],
        name_of: Name = name_of,
        addresses_of: Addresses = addresses_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._valid = valid
        self._name_of = name_of
        self._addresses_of = addresses_of
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below
        self._known: dict[str, tuple[float, str]] = {}
        self._open: dict[str, _Question] = {}
        self._threads = 0
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def lookup(self, address: str, timeout: float) -> str:
        """The confirmed name of a client's address, or ""."""
        with self._lock:
            known = self._known.get(address)
            if known is not None and known[0] > self._clock():
                return known[1]
            question = self._open.get(address)
            if question is None:
                if len(self._open) >= THREADS + WAITING:
                    return ""
                question = self._open[address] = _Question()
                self._queue.put(address)
                if self._threads < min(THREADS, len(self._open)):
                    self._threads += 1
                    threading.Thread(target=self._run, name=f"resolver-{self._threads}", daemon=True).start()
        question.answered.wait(timeout)
        return question.name

    def _run(self) -> None:
        """A resolver thread's life."""
        while True:
            address = self._queue.get()
            name = self._find(address)
            with self._lock:
                question = self._open.pop(address)
                while len(self._known) >= KNOWN:
                    del self._known[next(iter(self._known))]  # the oldest
                self._known.pop(address, None)
                self._known[address] = (self._clock() + (TTL if name else TTL_NOTHING), name)
            question.name = name
            question.answered.set()

    def _find(self, address: str) -> str:
        """What DNS says is anybody's text: nothing of it is used before it is known to be a host name."""
        try:
            name = self._name_of(address)
            if isinstance(name, str) and name.endswith("."):
                name = name[:-1]
            if isinstance(name, str) and self._valid(name) and address in self._addresses_of(name):
                return name
        except Exception:  # OSError: no such name. UnicodeError, ValueError: a name Python cannot make a str of
            return ""
        return ""
