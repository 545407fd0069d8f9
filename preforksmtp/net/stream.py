"""The stream under a wire: one client's socket; sending on it, TLS, and its end.

Owns the send queue, which is sent before a read would block: a pipelining client gets its replies in one segment.
Faults are built-in exceptions, as net/wire.py has them; what a wire is, and how it reads, stands there.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, cast

from preforksmtp.net import closing
from preforksmtp.net.drain import Drain
from preforksmtp.net.handshake import TLS, choose_context, describe, expect_hello, explained, shake_hands
from preforksmtp.net.pace import Pace, Wait

AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)  # elsewhere than on Windows
FULL = (BlockingIOError, ssl.SSLWantWriteError)  # send: the client has not read enough yet
_WAKING = 0.001  # the kernel timeout of a read that is to look round


DISMISSED = b"421 4.3.2 Closed by the operator, try again later\r\n"
_INFO = struct.Struct("=52xI64xQQ")  # struct tcp_info: milliseconds since data came, octets acknowledged, and received


class Traffic(Protocol):
    """What counts octets: each function does what the one it is given does."""

    def receiver(self, receive: Callable[[int], bytes]) -> Callable[[int], bytes]: ...
    def sender(self, send: Callable[[bytes, int], int]) -> Callable[[bytes, int], int]: ...


class Stream:
    """What a wire has beside its receive buffer."""

    __slots__ = (
        "_context", "_drain", "_end", "_ordinary", "_output", "_pace", "_polls", "_recv", "_send", "_sock", "_tls",
        "_traffic", "_waits",
    )  # fmt: skip

    _sock: socket.socket
    _recv: Callable[[int], bytes]
    _send: Callable[[bytes, int], int]
    _drain: Drain
    _context: ssl.SSLContext | None
    _end: float  # of the whole session, monotonic; 0 = none
    _output: bytes
    _tls: bool
    _traffic: Traffic | None
    _waits: int  # in recv, where a drain may interrupt
    _pace: Pace
    _ordinary: bool  # reads go the usual way

    def count(self, traffic: Traffic) -> None:
        """From here on have octets counted as they are received and sent."""
        self._traffic = traffic
        self._recv, self._send = traffic.receiver(self._recv), traffic.sender(self._send)

    # --- any other thread, once the worker leaves; a TLS read watches the drain itself

    def wake(self) -> bool:
        """See prefork/worker/seat.py."""
        waits = bool(self._waits) and not self._tls
        if waits:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(_WAKING))
        return waits

    def interrupt(self) -> None:
        """See prefork/worker/seat.py."""
        if self._waits and not self._tls:
            self._sock.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """See prefork/worker/seat.py."""
        socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # SSLSocket's own would let the session go on in clear

    def dismiss(self) -> None:
        """See prefork/worker/seat.py. In TLS, or in the middle of something, no word would be understood."""
        if self._waits and not self._tls:
            socket.socket.send(self._sock, DISMISSED, AT_ONCE)
        self.cut()

    def activity(self) -> tuple[float, int, int]:
        """Any thread: seconds since the client sent something, octets received, octets sent. Linux and TCP; elsewhere
        nothing is known, which is 0."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            silent, sent, received = _INFO.unpack(info)
        except (OSError, AttributeError, struct.error):
            return 0.0, 0, 0
        return silent / 1000, received, sent

    # --- sending

    def write(self, data: bytes) -> None:
        self._output += data

    def flush(self) -> None:
        output, self._output = self._output, b""
        if output:
            try:
                sent = self._send(output, AT_ONCE)
            except FULL:
                sent = 0
            except ssl.SSLError as error:
                raise tls_fault(error) from None
            if sent != len(output):
                self._send_slowly(output, sent)

    def _send_slowly(self, output: bytes, sent: int) -> None:
        """Send what the client did not take at once."""
        wait = Wait(self._pace.replies, self._drain, self._end)
        try:
            while sent < len(output):
                self._await_room(wait)
                with contextlib.suppress(*FULL):
                    sent += self._send(output[sent:], AT_ONCE)
        except TimeoutError as late:
            self._send = _drop  # no reply gets through any more
            raise late if late.args else TimeoutError("the client does not read our replies") from None
        except ssl.SSLError as error:
            raise tls_fault(error) from None

    def _await_room(self, wait: Wait) -> None:
        """Wait until the client has read something; while the worker drains not for long."""
        try:
            wait.ready(self._sock, select.POLLOUT)
        except InterruptedError:
            poll = select.poll()
            poll.register(self._sock, select.POLLOUT)
            if not poll.poll(closing.LINGER * 1000):
                raise TimeoutError from None

    # --- TLS and the end

    def discard_input(self) -> None:
        """Forget what came in clear."""
        raise NotImplementedError

    def start_tls(self) -> TLS:
        """The handshake. What came in clear before it is never looked at (RFC 3207 section 4.2, CVE-2011-0411)."""
        assert self._context is not None
        self.flush()
        self.discard_input()
        pace, drain, end = self._pace, self._drain, self._end
        whole = Wait(pace.handshake, drain, end)
        hello = expect_hello(self._sock, self._context, Wait(pace.hello, drain, end))
        context = choose_context(self._context, hello)
        with explained():
            sock = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
            self._sock, self._recv, self._send = sock, sock.recv, lambda data, flags: sock.send(data)
            self._tls, self._ordinary = True, False
            if self._traffic is not None:
                self.count(self._traffic)
            shake_hands(sock, whole)
        self._polls = [select.poll() for _ in range(3)]  # by what read_line calls idle
        for poll in self._polls:
            poll.register(sock, select.POLLIN)
        self._polls[1].register(drain.notice, select.POLLIN)
        self._polls[2].register(drain.fd, select.POLLIN)
        return describe(sock, context, hello)

    def fileno(self) -> int:
        return self._sock.fileno()

    def local_address(self) -> tuple[str, int]:
        name = self._sock.getsockname()
        return (name[0], name[1]) if isinstance(name, tuple) else ("unix", 0)

    def close(self, linger: bool, wait: bool = True) -> None:
        """Close. `linger`: we end it, perhaps in the middle of what the client sends: see that it can read why."""
        try:
            if self._tls:
                self._sock = closing.end_tls(cast(ssl.SSLSocket, self._sock))
            if linger:
                closing.linger(self._sock, wait)
        except (OSError, ValueError):
            pass  # the client was faster
        finally:
            self._sock.close()


@lru_cache(maxsize=64)
def timeval(seconds: float) -> bytes:
    """A struct timeval; zero would mean for ever."""
    whole = int(seconds)
    return struct.pack("ll", whole, int((seconds - whole) * 1_000_000))


def _drop(data: bytes, flags: int) -> int:
    """In place of send()."""
    return len(data)


def tls_fault(error: ssl.SSLError) -> Exception:
    """What a TLS read or write failed with, in the words of a plain socket."""
    if isinstance(error, ssl.SSLZeroReturnError):
        return EOFError("closed by the client")
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLSyscallError)):
        return ConnectionResetError("closed by the client without TLS close_notify")
    return ConnectionError(f"TLS failed: {error.reason or error}")
