"""networks.py: which peer is in a list of trusted ones."""

from __future__ import annotations

import pytest

from preforksmtp.config.networks import Networks


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        ((), (), ("127.0.0.1", "::1", "unix")),
        (("127.0.0.1",), ("127.0.0.1",), ("127.0.0.2", "::1", "unix")),
        (("10.0.0.0/8", "::1"), ("10.255.0.1", "::1"), ("11.0.0.1", "::2")),
        (("fe80::/10",), ("fe80::1", "fe80::1%eth0"), ("fec0::1",)),
        (("0.0.0.0/0",), ("192.0.2.1",), ("2001:db8::1", "unix")),
        (("unix",), ("unix",), ("127.0.0.1", "")),
        (("::ffff:192.0.2.0/120",), ("192.0.2.7",), ("192.0.3.1", "::1")),  # hosts come unmapped
        (("::/0",), ("2001:db8::1",), ("192.0.2.1",)),
    ],
)
def test_membership(networks: tuple[str, ...], inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    trusted = Networks(networks)
    for _ in range(2):  # the second answer is remembered
        assert [host for host in (*inside, *outside) if host in trusted] == list(inside)
    assert bool(trusted) == bool(networks)


def test_what_is_remembered_is_bounded() -> None:
    trusted = Networks(["10.0.0.0/8"])
    for number in range(3000):
        assert f"10.0.{number >> 8}.{number & 255}" in trusted
    assert len(trusted._known) <= 1001
