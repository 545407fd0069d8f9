"""The ClientHello of a TLS handshake (RFC 8446 section 4.1.2), looked at before OpenSSL reads it.

It tells what Python's ssl module does not: whether a client that names protocols (ALPN) names ours, a server name that
is not ASCII (the module's own callback fails with it), and what speaks on a TLS port that is no TLS at all. What cannot
be parsed is left to OpenSSL, and nothing is taken from the socket. Raises EOFError where the client left without an
octet; NotTLS; TimeoutError; InterruptedError where the worker drains.

Each octet is looked at once, however slowly they come: HelloReader says how many it needs to get on, and the kernel
wakes us when so many are there.
"""

from __future__ import annotations

import select
import socket
import time
from typing import NamedTuple

from preforksmtp.net.pace import Wait

MOST_OCTETS = 16384 + 1024  # of a ClientHello and its record headers; usual are 200 to 2000
MOST_RECORDS = 32  # that it is split over; usual is one
MOST_PARTS = 128  # extensions, or protocols, of one that we read; usual are 20, and two

_HANDSHAKE = 22  # the type of a record
_HEADER = 5  # octets in front of each record
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN = 0, 16  # extensions: RFC 6066 section 3, RFC 7301
_HANGUP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_LOOK_AGAIN = 0.05  # seconds, where the kernel cannot wake us for a number of octets


class NotTLS(ConnectionError):
    """The client speaks something else, or TLS that nobody speaks."""


class ClientHello(NamedTuple):
    """`server_name` b"" and `protocols` empty: not sent, or not understood here."""

    server_name: bytes = b""
    protocols: tuple[bytes, ...] = ()


NOTHING_KNOWN = ClientHello()


def await_hello(sock: socket.socket, wait: Wait) -> ClientHello:
    """Wait for the whole ClientHello, and leave it in the socket."""
    reader, before = HelloReader(), 0
    try:
        while True:
            events = wait.ready(sock, select.POLLIN | _HANGUP)
            seen = _peek(sock)
            hello = reader.read(seen)
            if hello is not None:
                return hello
            if events & _HANGUP or len(seen) >= MOST_OCTETS:
                return NOTHING_KNOWN
            if len(seen) == before:  # the kernel wakes us for nothing: a unix socket, or one short of memory
                if wait.draining:
                    raise InterruptedError
                time.sleep(_LOOK_AGAIN)
            before = len(seen)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, reader.needed)
    finally:
        if before:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _peek(sock: socket.socket) -> bytes:
    try:
        seen = sock.recv(MOST_OCTETS, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except ConnectionError:  # a port scanner resets
        seen = b""
    if not seen:
        raise EOFError("closed before the TLS handshake")
    return seen


class HelloReader:
    """Reads the beginning of a connection as it grows. `needed`: octets without which `read` cannot tell more."""

    def __init__(self) -> None:
        self.needed = 1
        self._at = 0  # where the record begins that is arriving
        self._records = 0  # before it
        self._message = b""  # what they held

    def read(self, data: bytes) -> ClientHello | None:
        """The hello at the beginning of all that was received; None if it is not all there. Raises NotTLS."""
        if data[0] != _HANDSHAKE or data[1:2] not in (b"", b"\x03"):
            raise NotTLS(f"the client speaks no TLS, it sent {_quote(data)}")
        while len(data) >= self._at + _HEADER:
            if data[self._at] != _HANDSHAKE:
                return NOTHING_KNOWN
            start = self._at + _HEADER
            size = int.from_bytes(data[start - 2 : start], "big")
            if not size:  # RFC 8446 section 5.1
                raise NotTLS("the client sent an empty TLS record")
            message = self._message + data[start : start + size]
            whole = 4
            if len(message) >= 4:
                whole += int.from_bytes(message[1:4], "big")
                if message[0] != _CLIENT_HELLO or whole > MOST_OCTETS:
                    return NOTHING_KNOWN
                if len(message) >= whole:
                    return _parse_message(message[4:whole])
            if len(data) < start + size:
                self.needed = start + min(size, whole - len(self._message))
                return None
            self._begin_record(start + size, message)
        self.needed = self._at + _HEADER
        return None

    def _begin_record(self, at: int, message: bytes) -> None:
        self._at, self._message = at, message
        self._records += 1
        if self._records == MOST_RECORDS:
            raise NotTLS(f"the client splits its hello over more than {MOST_RECORDS} TLS records")


def _parse_message(body: bytes) -> ClientHello:
    try:
        return _parse_body(body)
    except ValueError:
        return NOTHING_KNOWN  # OpenSSL will say what it thinks of it


def _parse_body(body: bytes) -> ClientHello:
    at = 34  # version and random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        _, at = _vector(body, at, width)
    extensions, _ = _vector(body, at, 2) if at < len(body) else (b"", at)
    server_name, at = b"", 0
    protocols: tuple[bytes, ...] = ()
    for _ in range(MOST_PARTS):
        if at >= len(extensions):
            break
        kind = int.from_bytes(extensions[at : at + 2], "big")
        content, at = _vector(extensions, at + 2, 2)
        if kind == _SERVER_NAME:
            server_name = _parse_server_name(content)
        elif kind == _ALPN:
            protocols = tuple(_vectors(_vector(content, 0, 2)[0], 1))
    return ClientHello(server_name, protocols)


def _parse_server_name(content: bytes) -> bytes:
    """A list that holds, after 20 years, one entry of one type: host_name, 0."""
    names, _ = _vector(content, 0, 2)
    return _vector(names, 1, 2)[0] if names[:1] == b"\0" else b""


def _vectors(data: bytes, width: int) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        item, at = _vector(data, at, width)
        found.append(item)
        if len(found) > MOST_PARTS:
            raise ValueError("too many")
    return found


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """A vector with a length of `width` octets in front (RFC 8446 section 3.4), and where it ends."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if start > len(data) or end > len(data):
        raise ValueError("vector cut off")
    return data[start:end], end


def _quote(data: bytes) -> str:
    return ascii(data[:40])[1:] + ("..." if len(data) > 40 else "")
