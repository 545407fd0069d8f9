"""The watchlist: whose sessions are transcribed, and how long."""

from __future__ import annotations

import ipaddress
import random

import pytest

from preforksmtp.prefork import watchlist
from preforksmtp.prefork.watchlist import MOST, Watchlist


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchlist, "time", clock)
    return clock


def test_nobody_at_first():
    watched = Watchlist()
    assert watched.until[0] == 0
    assert not watched.has("192.0.2.1")
    assert watched.networks() == []


def test_it_ends_by_itself(clock: Clock):
    watched = Watchlist()
    assert watched.watch(ipaddress.ip_network("192.0.2.1"), 10.0)
    clock.now += 9.9
    assert watched.has("192.0.2.1")
    assert not watched.has("192.0.2.2")
    clock.now += 0.2
    assert not watched.has("192.0.2.1")
    assert watched.networks() == []


def test_it_can_be_ended(clock: Clock):
    watched = Watchlist()
    one, other = ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")
    watched.watch(one, 10.0)
    watched.watch(other, 20.0)
    assert watched.networks() == [one, other]
    assert watched.forget(one)
    assert not watched.forget(one)
    assert not watched.has("192.0.2.7")
    assert watched.has("2001:db8::7%eth0")
    assert watched.forget(other)
    assert watched.until[0] == 0, "a session looks at this word alone"


def test_the_last_word_on_a_network_counts(clock: Clock):
    watched, network = Watchlist(), ipaddress.ip_network("192.0.2.1")
    for _ in range(MOST + 1):
        assert watched.watch(network, 100.0)
    assert watched.watch(network, 1.0)
    clock.now += 2
    assert not watched.has("192.0.2.1")


def test_room_is_bounded_and_comes_back(clock: Clock):
    watched = Watchlist()
    for number in range(MOST):
        assert watched.watch(ipaddress.ip_network(f"192.0.2.{number}"), 10.0)
    assert not watched.watch(ipaddress.ip_network("192.0.2.99"), 10.0)
    clock.now += 11
    assert watched.watch(ipaddress.ip_network("192.0.2.99"), 10.0)


@pytest.mark.parametrize("host", ["unix", "", "a" * 10_000, "192.0.2", "%"])
def test_what_is_no_address_is_not_watched(host: str, clock: Clock):
    watched = Watchlist()
    watched.watch(ipaddress.ip_network("::/0"), 10.0)
    watched.watch(ipaddress.ip_network("0.0.0.0/0"), 10.0)
    assert not watched.has(host)


def test_as_ipaddress_sees_it(clock: Clock):
    chance = random.Random(5)
    for _ in range(300):
        watched = Watchlist()
        make, bits = chance.choice([(ipaddress.IPv4Network, 32), (ipaddress.IPv6Network, 128)])
        network = make((chance.getrandbits(bits), chance.randint(0, bits)), strict=False)
        watched.watch(network, 10.0)
        assert watched.networks() == [network]
        near = int(network.network_address) ^ (1 << chance.randrange(bits))
        address = type(network.network_address)(near)
        assert watched.has(str(address)) == (address in network)
