"""statsd: once a second, what has changed since the second before, in datagrams. A thread of the status process.

Counters go as `name:difference|c`, gauges as `name:value|g`, and the handler's quantiles of that second as
`name:milliseconds|ms`. Whatever fails costs the datagrams of that second: nobody waits for a collector, and it may come
later than the server.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator

from preforksmtp.observe.snapshot import Snapshot, quantile

INTERVAL = 1.0  # seconds
RETRY = 30.0  # seconds until another look-up of a name that failed
DATAGRAM = 1432  # bytes: fits into an Ethernet frame, with room for a tunnel

QUANTILES = (50, 95, 99)
# Our counter -> its name there, where it is another one.
NAMES = {
    "messages": "messages.accepted",
    "rejected": "messages.rejected",
    "deferred": "messages.deferred",
    "auth_ok": "auth.ok",
    "auth_failed": "auth.failed",
    "refused": "sessions.refused",
    "tls": "sessions.tls",
    "workers_forked": "workers.forked",
    "workers_died": "workers.died",
    "workers_hung": "workers.hung",
    "workers_recycled": "workers.recycled",
    "messages_interrupted": "messages.interrupted",
    "reloads_failed": "reloads.failed",
}

Address = str | tuple[str, int]  # a unix socket, or host and port


class Statsd:
    """`address` as split_address makes it; `prefix` stands in front of every name; `tags` is "key:value,key:value", for
    DogStatsD, or ""."""

    def __init__(self, address: Address, prefix: str, tags: str, log: logging.Logger) -> None:
        self._address = address
        self._prefix = prefix if not prefix or prefix.endswith(".") else prefix + "."
        self._suffix = f"|#{tags}" if tags else ""
        self._log = log
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self._fault = ""
        self._before: Snapshot | None = None

    def run(self, take: Callable[[], Snapshot]) -> None:
        """For ever."""
        while True:
            self.report(take())
            time.sleep(INTERVAL)

    def report(self, snapshot: Snapshot) -> None:
        """Send what has changed since the last call; the first one sends gauges only."""
        before, self._before = self._before, snapshot
        if self._connected():
            for datagram in _pack(list(self._lines(snapshot, before))):
                self._send(datagram)

    def _lines(self, snapshot: Snapshot, before: Snapshot | None) -> Iterator[str]:
        gauges = {
            "workers.wanted": snapshot.wanted,
            "workers.ready": snapshot.count("ready"),
            "sessions.active": snapshot.active,
            "sessions.limit": snapshot.limit,
            "queued": snapshot.queued,
            "memory": sum(worker.memory for worker in snapshot.workers),
        }
        for name, value in gauges.items():
            yield self._line(name, value, "g")
        if before is None:
            return
        now, then = snapshot.readings, before.readings
        counters, earlier = now.sessions | now.master, then.sessions | then.master
        for name, value in counters.items():
            if value > earlier[name]:
                yield self._line(NAMES.get(name, name), value - earlier[name], "c")
        buckets = [max(0, new - old) for new, old in zip(now.handler_buckets, then.handler_buckets, strict=True)]
        for share in QUANTILES:
            seconds = quantile(buckets, share / 100)
            if seconds is not None:
                yield self._line(f"handler.p{share}", round(seconds * 1000, 3), "ms")

    def _line(self, name: str, value: float, kind: str) -> str:
        return f"{self._prefix}{name}:{value}|{kind}{self._suffix}"

    def _connected(self) -> bool:
        if self._socket is not None:
            return True
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._socket = _connect(self._address)
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _send(self, datagram: bytes) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(datagram)
            self._fault = ""
        except (BlockingIOError, ConnectionRefusedError):  # too fast for it, or nobody is there: not yet, or not now
            pass
        except OSError as error:
            self._socket.close()
            self._socket = None
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        """One line for each kind of trouble in a row."""
        self._retry_at = time.monotonic() + RETRY
        fault = error.strerror or str(error)
        if fault != self._fault:
            self._fault = fault
            self._log.error("statsd_host: cannot send to %s: %s; trying again", self._address, fault)


def _connect(address: Address) -> socket.socket:
    if isinstance(address, str):
        families = [(socket.AF_UNIX, address)]
    else:
        found = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)
        families = [(family, where) for family, _, _, _, where in found]  # type: ignore[misc]
    family, where = families[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock


def _pack(lines: list[str]) -> Iterator[bytes]:
    """As many lines as fit into each datagram."""
    datagram = b""
    for line in lines:
        encoded = line.encode()
        if datagram and len(datagram) + 1 + len(encoded) > DATAGRAM:
            yield datagram
            datagram = b""
        datagram += b"\n" + encoded if datagram else encoded
    if datagram:
        yield datagram
