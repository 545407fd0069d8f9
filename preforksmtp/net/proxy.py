"""The header of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): who is behind a proxy.

Read from a socket octet by octet exact: what follows the header is SMTP's or TLS's. Bounded by the protocol (107
octets in version 1, a length of 16 bits in version 2) and by one Wait. Ends in one of three ways: a Header;
ProxyError, one line that says what is wrong with it; EOFError where the peer left without a single octet, as the health
checks of load balancers do.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
from typing import NamedTuple

from preforksmtp.net.pace import Wait

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
MOST_TLVS = 128  # of version 2; usual are fewer than ten
V1_OCTETS = 107  # section 2.1: the longest line of version 1, CRLF included
CRC32C = 0x03  # the only TLV that concerns whether the header can be believed

_PREFIX = b"PROXY "
_FAMILIES = {1: (4, 12), 2: (16, 36), 3: (108, 216)}  # of version 2: octets of an address, of the whole block
_STREAM = 1

Address = tuple[str, int]  # ("unix", 0) for a unix socket


class ProxyError(ConnectionError):
    """The peer sent no usable header."""


class Header(NamedTuple):
    """The proxied connection; both None for one the proxy made itself (LOCAL) or cannot describe (UNKNOWN)."""

    source: Address | None
    destination: Address | None


NOT_PROXIED = Header(None, None)


def read_header(sock: socket.socket, wait: Wait) -> Header:
    """The header with which the connection begins. Leaves the socket blocking, and at the first octet after it."""
    reader = _Reader(sock, wait)
    try:
        # Neither version's header is shorter than version 2's signature.
        start = reader.begin(len(SIGNATURE))
        if start == SIGNATURE:
            head = start + reader.exactly(4)
            return parse_v2(head + reader.exactly(int.from_bytes(head[14:16], "big")))
        return parse_v1(start + reader.line(V1_OCTETS - len(start)))
    finally:
        sock.settimeout(None)


class _Reader:
    """Reads from a socket without ever taking more than asked for."""

    def __init__(self, sock: socket.socket, wait: Wait) -> None:
        self._sock = sock
        self._wait = wait
        self._count = 0

    def begin(self, size: int) -> bytes:
        """The first `size` octets; whoever begins otherwise than a header is refused at once, he may wait for us."""
        data = b""
        while len(data) < size:
            data += self._receive(size - len(data))
            if SIGNATURE.startswith(data):
                continue
            if not data.startswith(_PREFIX[: len(data)]):
                raise ProxyError(f"no PROXY header, but {_quote(data)}")
            if b"\n" in data:  # too early for any line of version 1
                raise _malformed(data)
        return data

    def exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            data += self._receive(size - len(data))
        return bytes(data)

    def line(self, most: int) -> bytes:
        """Up to a LF, at most `most` octets. Looked at first: only what is known to be of the line is taken."""
        line = b""
        while True:
            seen = self._receive(most - len(line), socket.MSG_PEEK)
            end = seen.find(b"\n") + 1
            line += self._receive(end or len(seen))
            if line.endswith(b"\n"):
                return line
            if len(line) >= most:
                raise ProxyError(f"PROXY header of more than {V1_OCTETS} octets")

    def _receive(self, size: int, flags: int = 0) -> bytes:
        try:
            self._wait.ready(self._sock, select.POLLIN)
            data = self._sock.recv(size, flags)
        except InterruptedError:
            raise EOFError("the server shuts down") from None
        except TimeoutError as late:
            what = f"only {self._count} octets of the" if self._count else "no"
            raise ProxyError(f"{what} PROXY header {self._wait.told(late)}") from None
        except ConnectionError:  # reset, as a health check does
            data = b""
        if not data:
            if not self._count:
                raise EOFError("closed before the PROXY header")
            raise ProxyError(f"closed after {self._count} octets of the PROXY header")
        if not flags:
            self._count += len(data)
        return data


# --- version 1


def parse_v1(line: bytes) -> Header:
    """Section 2.1: a line such as b"PROXY TCP4 192.0.2.1 192.0.2.2 51000 25\\r\\n"."""
    if not line.endswith(b"\r\n") or len(line) > V1_OCTETS:
        raise _malformed(line)
    words = line[:-2].split(b" ")
    if words[:2] == [b"PROXY", b"UNKNOWN"]:  # whatever follows is to be ignored
        return NOT_PROXIED
    if words[0] != b"PROXY" or words[1:2] not in ([b"TCP4"], [b"TCP6"]) or len(words) != 6:
        raise _malformed(line)
    version = 4 if words[1] == b"TCP4" else 6
    try:
        source, destination = (_address(word, version) for word in words[2:4])
        return Header((source, _port(words[4])), (destination, _port(words[5])))
    except ValueError:
        raise _malformed(line) from None


def _address(word: bytes, version: int) -> str:
    text = word.decode("ascii")
    address = ipaddress.IPv4Address(text) if version == 4 else ipaddress.IPv6Address(text)
    if "%" in text:  # Python takes a scope, the protocol has none
        raise ValueError(text)
    return _unmapped(address)


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (len(word) > 1 and word.startswith(b"0")) or int(word) > 65535:
        raise ValueError(word)
    return int(word)


# --- version 2


def parse_v2(header: bytes) -> Header:
    """Section 2.2: signature, version and command, family and transport, length, addresses, TLVs."""
    if len(header) < 16 or not header.startswith(SIGNATURE) or len(header) != 16 + int.from_bytes(header[14:16], "big"):
        raise _malformed(header)
    version, command = header[12] >> 4, header[12] & 15
    family, transport = header[13] >> 4, header[13] & 15
    if version != 2 or command > 1:
        raise _malformed(header)  # section 2.2: "must be rejected as invalid by receivers"
    if command == 0:  # LOCAL: the rest is to be skipped, the family too, whatever it says
        return NOT_PROXIED
    if family > 3 or transport > 2:
        raise _malformed(header)
    if not family:  # AF_UNSPEC: how many octets are an address nobody knows, so nothing behind them is found
        return NOT_PROXIED
    octets, size = _FAMILIES[family]
    if len(header) < 16 + size:
        raise ProxyError("PROXY header too short for its addresses")
    _check_tlvs(header, 16 + size)
    if transport != _STREAM:
        return NOT_PROXIED
    block = header[16 : 16 + size]
    if family == 3:
        return Header(("unix", 0), ("unix", 0))
    ports = struct.unpack("!HH", block[2 * octets :])
    source, destination = (_unmapped(ipaddress.ip_address(block[i : i + octets])) for i in (0, octets))
    return Header((source, ports[0]), (destination, ports[1]))


def _check_tlvs(header: bytes, at: int) -> None:
    """Walk over the type-length-values behind the addresses; verify a checksum if there is one (section 2.2.2)."""
    for _ in range(MOST_TLVS):
        if at >= len(header):
            return
        end = at + 3 + int.from_bytes(header[at + 1 : at + 3], "big")
        if at + 3 > len(header) or end > len(header):
            raise ProxyError("PROXY header with a broken TLV")
        if header[at] == CRC32C:
            if end - at != 7:
                raise ProxyError("PROXY header with a broken TLV")
            if crc32c(header[: at + 3] + bytes(4) + header[end:]) != int.from_bytes(header[at + 3 : end], "big"):
                raise ProxyError("PROXY header with a wrong checksum")
        at = end
    if at < len(header):
        raise ProxyError(f"PROXY header with more than {MOST_TLVS} TLVs")


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960 appendix B, which zlib does not have."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = _CRC_TABLE[(crc ^ octet) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC_TABLE = [_crc_row(value) for value in range(256)]


# --- both


def _unmapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """::ffff:192.0.2.1 is 192.0.2.1."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _malformed(header: bytes) -> ProxyError:
    return ProxyError(f"malformed PROXY header {_quote(header)}")


def _quote(data: bytes) -> str:
    """For a log line: printable, and short."""
    return ascii(data[:60])[1:] + ("..." if len(data) > 60 else "")
