"""Networks: a list of trusted peers, as CIDR blocks; the word "unix" stands for clients of a unix socket."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

UNIX = "unix"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """`host in networks`, for the host of an Endpoint. Raises ValueError for what is not a network."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts = tuple(texts)
        self._unix = UNIX in self.texts
        self._networks = [_unmapped(ipaddress.ip_network(text)) for text in self.texts if text != UNIX]
        self._known: dict[str, bool] = {}  # few peers come often

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __contains__(self, host: str) -> bool:
        if not self.texts:
            return False
        known = self._known.get(host)
        if known is None:
            if len(self._known) > 1000:
                self._known.clear()
            known = self._known[host] = self._look_up(host)
        return known

    def _look_up(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host == UNIX and self._unix
        return any(address in network for network in self._networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return ",".join(self.texts) or "none"


def _unmapped(network: _Network) -> _Network:
    """::ffff:192.0.2.0/120 is 192.0.2.0/24: an Endpoint has an IPv4 client's address as such."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
