"""Reverse DNS with DNS played by the test: names of every kind, silence, and floods."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable

import pytest

from preforksmtp.net import resolver
from preforksmtp.net.resolver import Resolver, addresses_of, name_of
from preforksmtp.smtp.address import is_host_name
from tests.processes import PATIENCE, wait_until

ADDRESS = "192.0.2.1"


def raises(error: Exception) -> Callable[[str], str]:
    def find(text: str) -> str:
        raise error

    return find


def lookup(name: object, addresses: object = (ADDRESS,)) -> str:
    def find(text: str) -> object:
        if isinstance(name, Exception):
            raise name
        return name

    def confirm(text: str) -> object:
        if isinstance(addresses, Exception):
            raise addresses
        return addresses

    return Resolver(is_host_name, find, confirm).lookup(ADDRESS, PATIENCE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("mx.example.org", "mx.example.org"),
        ("mx.example.org.", "mx.example.org"),
        ("localhost", "localhost"),
        ("a-b.example.org", "a-b.example.org"),
        ("x" * 63 + ".org", "x" * 63 + ".org"),
        ("x" * 64 + ".org", ""),
        (".".join(["abc"] * 64), ".".join(["abc"] * 64)),
        (".".join(["abc"] * 65), ""),
        ("192.0.2.1", ""),
        ("192.0.2.1.", ""),
        ("::1", ""),
        ("[192.0.2.1]", ""),
        ("", ""),
        (".", ""),
        ("..", ""),
        ("a..b", ""),
        ("-a.example.org", ""),
        ("a_b.example.org", ""),
        ("mx.example.org\r\nRCPT TO:<x@y>", ""),
        ("mx.example.org\n", ""),
        ("mx.example.org\0", ""),
        ("mx example.org", ""),
        ("mx.exämple.org", ""),
        ("mx.example.org)\x1b[2J", ""),
        ("\udcff.example.org", ""),
        (None, ""),
        (b"mx.example.org", ""),
        (socket.herror(1, "Unknown host"), ""),
        (UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"), ""),
        (MemoryError(), ""),
    ],
)
def test_only_a_host_name_is_a_name(given: object, found: str) -> None:
    assert lookup(given) == found


@pytest.mark.parametrize(
    "addresses", [(), ("192.0.2.2",), socket.gaierror(-2, "unknown"), UnicodeError("label empty or too long"), None]
)
def test_a_name_that_does_not_lead_back_is_none(addresses: object) -> None:
    assert lookup("mx.example.org", addresses) == ""


def test_names_are_checked_before_anything_is_done_with_them() -> None:
    asked: list[str] = []

    def confirm(name: str) -> list[str]:
        asked.append(name)
        return [ADDRESS]

    rng = random.Random(4)
    for _ in range(2000):
        name = "".join(rng.choice('ab.-_ \0\r\n\t[]()<>"\\@\x7f\x80é\udcff%0') for _ in range(rng.randrange(1, 300)))
        found = Resolver(is_host_name, lambda _: name, confirm)._find(ADDRESS)  # noqa: B023 - called at once
        assert found in ("", name.removesuffix("."))
        assert found == "" or (found.isascii() and found.isprintable() and len(found) <= 255 and " " not in found)
    assert all(is_host_name(name) for name in asked)


def test_who_asks_waits_no_longer_than_told_and_a_late_answer_is_kept() -> None:
    go = threading.Event()

    def slow(address: str) -> str:
        go.wait(PATIENCE)
        return "mx.example.org"

    slow_dns = Resolver(is_host_name, slow, lambda name: [ADDRESS])
    started = time.monotonic()
    assert slow_dns.lookup(ADDRESS, 0.05) == ""
    assert time.monotonic() - started < PATIENCE / 2
    go.set()
    wait_until(lambda: slow_dns.lookup(ADDRESS, 0.0) == "mx.example.org", "the late answer")


def test_stuck_dns_costs_a_few_threads_and_then_nobody_waits() -> None:
    go = threading.Event()
    stuck = Resolver(is_host_name, lambda address: "x" if go.wait(PATIENCE) else "", lambda name: [])
    before = threading.active_count()
    for n in range(resolver.THREADS + resolver.WAITING):
        assert stuck.lookup(f"192.0.2.{n}", 0.0) == ""
    assert threading.active_count() - before == resolver.THREADS
    started = time.monotonic()
    assert stuck.lookup("198.51.100.1", PATIENCE) == ""
    assert time.monotonic() - started < PATIENCE / 2
    go.set()
    wait_until(lambda: not stuck._open, "the questions are answered")


def test_one_question_for_all_who_ask_at_once() -> None:
    asked: list[str] = []
    go = threading.Event()

    def find(address: str) -> str:
        asked.append(address)
        go.wait(PATIENCE)
        return "mx.example.org"

    dns, names = Resolver(is_host_name, find, lambda name: [ADDRESS]), []
    threads = [threading.Thread(target=lambda: names.append(dns.lookup(ADDRESS, PATIENCE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert names == ["mx.example.org"] * 8
    assert asked == [ADDRESS]


def test_answers_are_kept_for_a_time_and_not_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "KNOWN", 10)
    now, asked = [0.0], []

    def find(address: str) -> str:
        asked.append(address)
        return "mx.example.org" if address == ADDRESS else ""

    dns = Resolver(is_host_name, find, lambda name: [ADDRESS], lambda: now[0])
    for then, questions in ((0.0, 1), (resolver.TTL - 1, 1), (resolver.TTL + 1, 2)):
        now[0] = then
        assert dns.lookup(ADDRESS, PATIENCE) == "mx.example.org"
        assert len(asked) == questions
    for n in range(30):
        assert dns.lookup(f"198.51.100.{n}", PATIENCE) == ""
    assert len(dns._known) == 10
    questions = len(asked)
    dns.lookup("198.51.100.29", PATIENCE)
    assert len(asked) == questions
    now[0] += resolver.TTL_NOTHING + 1
    dns.lookup("198.51.100.29", PATIENCE)
    assert len(asked) == questions + 1


def test_the_real_resolver_knows_this_machine() -> None:
    assert "127.0.0.1" in addresses_of("localhost") | {"127.0.0.1"}
    try:
        name = name_of("127.0.0.1")
    except OSError:
        pytest.skip("127.0.0.1 has no name here")
    assert Resolver(is_host_name).lookup("127.0.0.1", PATIENCE) in (name, "")
