"""The watchlist: whose sessions are transcribed for a while, because an operator wants to see them.

Memory that the master alone writes, made before its first fork and handed on from board to board; workers read it, and
no more than one word of it while nobody is watched. A network is in it as IPv6 has it, an IPv4 one as ::ffff:0:0/96.
Nothing here fails.
"""

from __future__ import annotations

import ipaddress
import time

from preforksmtp.prefork.memory import Memory

MOST = 16  # networks at a time

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WORDS = 4  # of an entry
_UNTIL, _HIGH, _LOW, _PREFIX = range(_WORDS)
_FIRST = 8  # word at which the entries begin
_HALF = 64  # bits
_MAPPED = 0xFFFF << 32
_BITS = 128


class Watchlist:
    """One a master, over all its scoreboards. `until`: a word, monotonic_ns at which the last entry ends; 0 = none."""

    def __init__(self) -> None:
        self._words = Memory(_FIRST + MOST * _WORDS, 0, 0).own
        self.until = self._words[:1]
        self._entries = [self._words[start : start + _WORDS] for start in range(_FIRST, _FIRST + MOST * _WORDS, _WORDS)]

    def watch(self, network: Network, seconds: float) -> bool:
        """Master: from now on, so long; in place of what was said of the same network. False: there is no room."""
        self.forget(network)
        now = time.monotonic_ns()
        free = next((entry for entry in self._entries if entry[_UNTIL] <= now), None)
        if free is None:
            return False
        first, prefix = _mapped(network)
        free[_UNTIL] = 0  # first: nobody reads half of the old one and half of the new one
        free[_HIGH], free[_LOW], free[_PREFIX] = first >> _HALF, first & (1 << _HALF) - 1, prefix
        free[_UNTIL] = now + int(seconds * 1e9)
        self._set_end()
        return True

    def forget(self, network: Network) -> bool:
        """Master. False: it is not watched."""
        wanted, now, found = _mapped(network), time.monotonic_ns(), False
        for entry in self._entries:
            if entry[_UNTIL] > now and _read(entry) == wanted:
                entry[_UNTIL] = 0
                found = True
        self._set_end()
        return found

    def networks(self) -> list[Network]:
        """Those that are watched now."""
        now = time.monotonic_ns()
        return [_network(*_read(entry)) for entry in self._entries if entry[_UNTIL] > now]

    def has(self, host: str) -> bool:
        """Any process: whether sessions of this address are watched now. What is no address never is."""
        now = time.monotonic_ns()
        if self.until[0] <= now:
            return False
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:  # a unix socket
            return False
        number = int(address) | (_MAPPED if address.version == 4 else 0)
        for entry in self._entries:
            until = entry[_UNTIL]
            if until > now:
                first, prefix = _read(entry)
                if (number ^ first) >> _BITS - prefix == 0 and entry[_UNTIL] == until:
                    return True
        return False

    def _set_end(self) -> None:
        self.until[0] = max(entry[_UNTIL] for entry in self._entries)


def _mapped(network: Network) -> tuple[int, int]:
    """Its first address, and the bits of its prefix."""
    first, prefix = int(network.network_address), network.prefixlen
    return (first | _MAPPED, prefix + _BITS - 32) if network.version == 4 else (first, prefix)


def _read(entry: memoryview) -> tuple[int, int]:
    return entry[_HIGH] << _HALF | entry[_LOW], min(entry[_PREFIX], _BITS)


def _network(first: int, prefix: int) -> Network:
    if prefix >= _BITS - 32 and first >> 32 == 0xFFFF:
        return ipaddress.IPv4Network((first & 0xFFFFFFFF, prefix - _BITS + 32))
    return ipaddress.IPv6Network((first, prefix))
