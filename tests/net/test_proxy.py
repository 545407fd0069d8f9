"""net/proxy.py: every header ends in one of three ways, and nothing behind it is taken."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from preforksmtp.net.pace import Wait
from preforksmtp.net.proxy import NOT_PROXIED, SIGNATURE, Header, ProxyError, crc32c, parse_v1, parse_v2, read_header
from preforksmtp.prefork.worker.seat import Drain
from tests.net.pacing import within

NO_DRAIN = Drain()
AFTER = b"\x16\x03\x01 EHLO"  # what follows a header: SMTP or TLS
TCP4 = b"PROXY TCP4 192.0.2.1 198.51.100.2 51000 25\r\n"
FOUR = Header(("192.0.2.1", 51000), ("198.51.100.2", 25))
SIX = Header(("2001:db8::1", 51000), ("2001:db8::2", 25))


def v2(family: int, block: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


BLOCK4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 51000, 25)
BLOCK6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 51000, 25)
)
MAPPED = (
    socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1")
    + socket.inet_pton(socket.AF_INET6, "::ffff:198.51.100.2")
    + struct.pack("!HH", 51000, 25)
)
NOOP = tlv(4, b"x" * 50)


def summed(block: bytes, family: int = 0x11) -> bytes:
    """A version 2 header with the right checksum behind `block`."""
    crc = crc32c(v2(family, block + tlv(3, bytes(4))))
    return v2(family, block + tlv(3, crc.to_bytes(4, "big")))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection: our end, the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield ours, peer


Pair = tuple[socket.socket, socket.socket]

GOOD = [
    (TCP4, FOUR),
    (b"PROXY TCP6 2001:db8::1 2001:DB8:0::2 51000 25\r\n", SIX),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 51000 25\r\n", FOUR),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
     Header(("255.255.255.255", 65535), ("255.255.255.255", 65535))),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Header(("0.0.0.0", 0), ("0.0.0.0", 0))),
    (b"PROXY UNKNOWN\r\n", NOT_PROXIED),
    (b"PROXY UNKNOWN ffff:f...f:ffff whatever \xff\r\n", NOT_PROXIED),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NOT_PROXIED),  # 107 octets
    (v2(0x11, BLOCK4), FOUR),
    (v2(0x21, BLOCK6), SIX),
    (v2(0x21, MAPPED), FOUR),
    (v2(0x31, bytes(216)), Header(("unix", 0), ("unix", 0))),
    (v2(0x11, BLOCK4 + NOOP + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3")) + tlv(0xEA, b"")), FOUR),
    (v2(0x11, BLOCK4 + tlv(4, bytes(65535 - 12 - 3))), FOUR),  # as long as it can be
    (summed(BLOCK4), FOUR),
    (summed(BLOCK4 + NOOP), FOUR),
    (v2(0x00, b""), NOT_PROXIED),
    (v2(0x00, NOOP), NOT_PROXIED),
    (v2(0x12, BLOCK4), NOT_PROXIED),  # UDP
    (v2(0x22, BLOCK6), NOT_PROXIED),
    (v2(0x00, b"", 0x20), NOT_PROXIED),  # LOCAL
    (v2(0x11, BLOCK4, 0x20), NOT_PROXIED),
    (v2(0x11, b"junk", 0x20), NOT_PROXIED),
    (v2(0xF3, b"junk", 0x20), NOT_PROXIED),  # of LOCAL the family is ignored too
    (v2(0xFF, tlv(3, b"wrong"), 0x20), NOT_PROXIED),
    # AF_UNSPEC: whatever follows is skipped unread
    (v2(0x00, b"\x04"), NOT_PROXIED),
    (v2(0x00, b"\x04\x00\x01"), NOT_PROXIED),
    (v2(0x00, tlv(3, b"1234")), NOT_PROXIED),
    (v2(0x01, BLOCK4 + b"junk"), NOT_PROXIED),
    (v2(0x00, b"\r\nMAIL FROM:<a@b>\r\n" + bytes(range(256))), NOT_PROXIED),
    (v2(0x00, bytes(65535)), NOT_PROXIED),
]  # fmt: skip

BAD = [
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY UNKNOWN\n" + b"x" * 20,
    b"PROXY UNKNOWNS\r\n",
    b"PROXY  TCP4 192.0.2.1 198.51.100.2 51000 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 51000 25 \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 51000 25\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 51000\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 51000 25 1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 051000 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 5_1 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 \xb2 25\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.2 51000 25\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.2 51000 25\r\n",
    b"PROXY TCP4 2001:db8::1 198.51.100.2 51000 25\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 51000 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 fe80::2 51000 25\r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.2 51000 25\r\n",
    b"PROXY tcp4 192.0.2.1 198.51.100.2 51000 25\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2\0 51000 25\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # 108 octets
    b"PROXY " + b"x" * 1000,
    b"proxy UNKNOWN\r\n",
    b"EHLO client.example.com\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"\r\n\r\n\0\r\nQUIX\n" + bytes(20),
    b"GET / HTTP/1.1\r\n",
    v2(0x11, BLOCK4, 0x11),  # version 1 in binary
    v2(0x11, BLOCK4, 0x31),
    v2(0x11, BLOCK4, 0x22),  # no such command
    v2(0x41, BLOCK4),  # no such family
    v2(0x13, BLOCK4),  # no such transport
    v2(0x11, BLOCK4[:-1]),
    v2(0x11, b""),
    v2(0x21, BLOCK4),
    v2(0x31, bytes(215)),
    v2(0x11, BLOCK4 + b"\x04"),
    v2(0x11, BLOCK4 + b"\x04\x00"),
    v2(0x11, BLOCK4 + b"\x04\x00\x01"),
    v2(0x11, BLOCK4 + tlv(3, b"1234")),
    v2(0x11, BLOCK4 + tlv(3, b"123")),
    v2(0x11, BLOCK4 + tlv(3, b"12345")),
    summed(BLOCK4 + NOOP).replace(b"xx", b"xy"),
]


@pytest.mark.parametrize(("header", "wanted"), GOOD, ids=range(len(GOOD)))
def test_a_header_is_read_and_nothing_behind_it(pair: Pair, header: bytes, wanted: Header) -> None:
    ours, peer = pair
    sender = threading.Thread(target=peer.sendall, args=(header + AFTER,))
    sender.start()
    assert read_header(ours, Wait(within(10).header, NO_DRAIN)) == wanted
    assert ours.gettimeout() is None
    assert ours.recv(100, socket.MSG_WAITALL | socket.MSG_PEEK | socket.MSG_DONTWAIT) == AFTER
    sender.join()


@pytest.mark.parametrize(("header", "wanted"), [GOOD[0], GOOD[8], GOOD[12]], ids=["v1", "v2", "v2 with TLVs"])
def test_octet_by_octet(pair: Pair, header: bytes, wanted: Header) -> None:
    ours, peer = pair

    def trickle() -> None:
        for i in range(len(header)):
            peer.sendall(header[i : i + 1])

    sender = threading.Thread(target=trickle)
    sender.start()
    assert read_header(ours, Wait(within(10).header, NO_DRAIN)) == wanted
    sender.join()
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(1)


@pytest.mark.parametrize("header", BAD, ids=range(len(BAD)))
def test_a_bad_header_is_one_clear_line(pair: Pair, header: bytes) -> None:
    ours, peer = pair
    peer.sendall(header)  # and stays: what is wrong is seen without waiting for the end
    with pytest.raises(ProxyError) as caught:
        read_header(ours, Wait(within(10).header, NO_DRAIN))
    line = str(caught.value)
    assert "PROXY header" in line
    assert line.isprintable()
    assert line.isascii()
    assert len(line) < 350


def test_who_begins_with_something_else_is_refused_at_once(pair: Pair) -> None:
    ours, peer = pair
    peer.sendall(b"PRQ")
    with pytest.raises(ProxyError, match=r"^no PROXY header, but 'PRQ'$"):
        read_header(ours, Wait(within(10).header, NO_DRAIN))


def close(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize("header", [TCP4, summed(BLOCK4 + NOOP)], ids=["v1", "v2"])
def test_a_peer_that_leaves_after_any_octet(header: bytes, leave: Callable[[socket.socket], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for octets in range(len(header)):
            peer = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
            with ours, peer:
                peer.sendall(header[:octets])
                leave(peer)
                if octets == 0:
                    with pytest.raises(EOFError):
                        read_header(ours, Wait(within(10).header, NO_DRAIN))
                elif leave is close:
                    with pytest.raises(ProxyError, match=f"^closed after {octets} octets of the PROXY header$"):
                        read_header(ours, Wait(within(10).header, NO_DRAIN))
                else:  # a reset destroys what was not read yet
                    with pytest.raises((EOFError, ProxyError)):
                        read_header(ours, Wait(within(10).header, NO_DRAIN))


@pytest.mark.parametrize(
    ("begin", "line"),
    [
        (b"", "no PROXY header within 0.05 s"),
        (b"PROXY TCP4 1", "only 12 octets of the PROXY header within 0.05 s"),
        (b"PROXY TCP4 192.0.2.1", "only 20 octets of the PROXY header within 0.05 s"),
        (v2(0x11, BLOCK4, length=65535), "only 28 octets of the PROXY header within 0.05 s"),
    ],
)
def test_a_silent_peer(pair: Pair, begin: bytes, line: str) -> None:
    ours, peer = pair
    peer.sendall(begin)
    with pytest.raises(ProxyError) as caught:
        read_header(ours, Wait(within(0.05).header, NO_DRAIN))
    assert str(caught.value) == line


def test_one_deadline_for_all_of_it(pair: Pair) -> None:
    """An octet now and then does not prolong it."""
    ours, peer = pair
    done = threading.Event()

    def trickle() -> None:
        peer.sendall(b"PROXY UNKNOWN ")
        while not done.wait(0.01):
            peer.sendall(b"x")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(ProxyError, match=r"^only \d+ octets of the PROXY header within 0\.2 s$"):
            read_header(ours, Wait(within(0.2).header, NO_DRAIN))
    finally:
        done.set()
        sender.join()


def test_over_a_unix_socket() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        peer.sendall(TCP4 + AFTER)
        assert read_header(ours, Wait(within(10).header, NO_DRAIN)) == FOUR
        assert ours.recv(100) == AFTER


def test_checksum_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def mutate(header: bytes, dice: random.Random) -> bytes:
    mutant = bytearray(header)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(mutant) + 1)
        match dice.randrange(4):
            case 0:
                mutant[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del mutant[at : at + dice.randint(1, 8)]
            case 2:
                mutant[at:at] = dice.randbytes(dice.randint(1, 8))
            case _:
                mutant[at : at + 1] = dice.choice((b" ", b"\r", b"\n", b"\0", b"\xff", b"0", b":"))
        if not mutant:
            mutant = bytearray(b"P")
    return bytes(mutant)


@pytest.mark.parametrize("seed", range(4))
def test_mutants_are_a_header_an_error_or_an_end(seed: int) -> None:
    dice = random.Random(seed)
    headers = [header for header, _ in GOOD if len(header) < 1000]
    for _ in range(400):
        mutant = mutate(dice.choice(headers), dice)
        for parse in (parse_v1, parse_v2):
            try:
                check(parse(mutant))
            except ProxyError as error:
                assert str(error).isprintable()
        ours, peer = socket.socketpair()
        with ours, peer:
            peer.sendall(mutant)
            peer.shutdown(socket.SHUT_WR)
            try:
                check(read_header(ours, Wait(within(10).header, NO_DRAIN)))
            except (ProxyError, EOFError) as error:
                assert str(error).isprintable()


def check(header: Header) -> None:
    for address in header:
        if address is not None and address != ("unix", 0):
            host, port = address
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.inet_pton(family, host)
            assert 0 <= port <= 65535


def test_a_drain_ends_the_wait() -> None:
    drain = Drain()
    ours, peer = socket.socketpair()
    with ours, peer:
        peer.sendall(b"PROXY TCP4")
        threading.Timer(0.05, drain.begin, (0.0,)).start()
        with pytest.raises(EOFError):
            read_header(ours, Wait(within(60).header, drain))
    drain.close()


@pytest.mark.parametrize(("count", "taken"), [(0, True), (128, True), (129, False), (20_000, False)])
def test_more_tlvs_than_anybody_sends_are_refused(count: int, taken: bool) -> None:
    header = v2(0x11, BLOCK4 + b"\x04\0\0" * count)
    if taken:
        assert parse_v2(header) == FOUR
    else:
        with pytest.raises(ProxyError, match="more than 128 TLVs"):
            parse_v2(header)
