"""The ClientHello of a TLS handshake (RFC 8446 section 4.1.2), looked at before OpenSSL reads it.

It tells what Python's ssl module does not: whether a client that names protocols (ALPN) names ours, a server name that
is not ASCII (the module's own callback fails with it), and what speaks on a TLS port that is no TLS at all. What cannot
be parsed is left to OpenSSL, and nothing is taken from the socket. Raises EOFError where the client left without an
octet; NotTLS; TimeoutError; InterruptedError where the worker drains.
"""

from __future__ import annotations

import select
import socket
from time import monotonic, sleep
from typing import NamedTuple

from .drain import Drain, await_socket

MOST_OCTETS = 16384 + 1024  # of a ClientHello and its record headers; usual are 200 to 2000

_HANDSHAKE = 22  # the type of a record
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN = 0, 16  # extensions: RFC 6066 section 3, RFC 7301
_HANGUP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class NotTLS(ConnectionError):
    """The client speaks something else."""


class ClientHello(NamedTuple):
    """`server_name` b"" and `protocols` empty: not sent, or not understood here."""

    server_name: bytes = b""
    protocols: tuple[bytes, ...] = ()


NOTHING_KNOWN = ClientHello()


def await_hello(sock: socket.socket, deadline: float, drain: Drain) -> ClientHello:
    """Wait for the whole ClientHello, until the monotonic time `deadline`, and leave it in the socket."""
    pause = 0.001
    while True:
        events = await_socket(sock, select.POLLIN | _HANGUP, deadline, drain)
        seen = _peek(sock)
        hello = parse_hello(seen)
        if hello is not None:
            return hello
        if events & _HANGUP or len(seen) >= MOST_OCTETS:
            return NOTHING_KNOWN
        # Not all here yet. poll() cannot wait for more than what is there; this is rare, and soon over.
        if drain.requested:
            raise InterruptedError
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        sleep(min(pause, left))
        pause = min(pause * 2, 0.05)


def _peek(sock: socket.socket) -> bytes:
    try:
        seen = sock.recv(MOST_OCTETS, socket.MSG_PEEK)
    except ConnectionError:  # a port scanner resets
        seen = b""
    if not seen:
        raise EOFError("closed before the TLS handshake")
    return seen


def parse_hello(data: bytes) -> ClientHello | None:
    """The hello at the beginning of what was received; None if it is not all there. Raises NotTLS."""
    if data[0] != _HANDSHAKE or data[1:2] not in (b"", b"\x03"):
        raise NotTLS(f"the client speaks no TLS, it sent {_quote(data)}")
    message = _join_records(data)
    if len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        return None
    if message[0] != _CLIENT_HELLO:
        return NOTHING_KNOWN
    try:
        return _parse_body(message[4 : 4 + int.from_bytes(message[1:4], "big")])
    except ValueError:
        return NOTHING_KNOWN  # OpenSSL will say what it thinks of it


def _join_records(data: bytes) -> bytes:
    """The content of handshake records, the last perhaps cut off: a hello may be split over several."""
    content, at = [], 0
    while at + 5 <= len(data) and data[at] == _HANDSHAKE:
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5], "big")
        content.append(data[at + 5 : end])
        at = end
    return b"".join(content)


def _parse_body(body: bytes) -> ClientHello:
    at = 34  # version and random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        _, at = _vector(body, at, width)
    extensions, _ = _vector(body, at, 2) if at < len(body) else (b"", at)
    server_name, at = b"", 0
    protocols: tuple[bytes, ...] = ()
    while at < len(extensions):
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
