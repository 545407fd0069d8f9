"""The wire: one client connection, as the protocol room sees it (smtp/wire.py says what it may expect).

Owns the receive buffer, so that nothing a client sent ahead of STARTTLS can hide, and the send queue, which is sent
before a read would block: a pipelining client gets its replies in one segment. Plain sockets stay blocking and have
kernel timeouts (a settimeout costs a poll per call); the ssl module ignores those, so TLS sockets use settimeout.

Faults are built-in exceptions: EOFError, ConnectionError, TimeoutError, InterruptedError (the worker leaves).

A read between two transactions of a worker that leaves waits with poll(), for a limited time; one that began before, in
recv(), is woken by a short kernel timeout and a signal to its thread, at which it looks round. Nothing that a client
sends in that moment is lost, as it would be by shutting the socket down.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from functools import lru_cache
from time import monotonic
from typing import Any, cast

from .drain import Drain, await_socket
from .handshake import TLS, choose_context, describe, expect_hello, explained, shake_hands

__all__ = ["TLS", "Drain", "Wire"]

_LINE_READ = 4096
_TRICKLE = 1024  # octets after which a slow body has earned a new deadline
_LINGER = 2.0  # seconds to let a client read our last reply
_LINGER_OCTETS = 1 << 20
_WAKING = 0.001  # the kernel timeout of a read that is to look round
_LEFT = getattr(select, "POLLRDHUP", 0)  # elsewhere than on Linux only a reset is seen


class Wire:
    """See smtp/wire.py. `timeout` is how long the kernel lets a plain read block before deadlines are looked at."""

    __slots__ = (
        "_buffer",
        "_context",
        "_drain",
        "_end",
        "_kernel",
        "_ordinary",
        "_output",
        "_position",
        "_recv",
        "_send",
        "_sock",
        "_started",
        "_tls",
        "_trickled",
        "_waits",
        "timeout",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        drain: Drain,
        timeout: float,
        context: ssl.SSLContext | None = None,
        end: float = 0.0,
        inherited: float = 0.0,
    ) -> None:
        """`inherited`: the SO_RCVTIMEO that the socket has of its listener; 0 = none. It does for clients that answer
        at once; the first read that is not answered within it sets the one that is wanted."""
        self._sock = sock
        self._recv = sock.recv
        self._send = sock.sendall
        self._drain = drain
        self._context = context
        self._end = end  # of the whole session, monotonic; 0 = none
        self._buffer = b""
        self._position = 0
        self._output = b""
        self._tls = False
        self._waits: int = False  # in recv, where a drain may interrupt
        self._started = 0.0  # of the body block that is arriving
        self._trickled = 0
        self.timeout = timeout
        if 0.0 < inherited <= timeout:
            self._kernel = inherited
            self._ordinary = not end
        else:
            self._set_kernel_timeout(timeout)

    @property
    def draining(self) -> bool:
        return self._drain.requested

    @property
    def expired(self) -> bool:
        return bool(self._end) and monotonic() >= self._end

    @property
    def hurried(self) -> bool:
        return self._drain.hurried

    # --- any other thread, once the worker leaves; a TLS read watches the drain itself

    def wake(self) -> bool:
        """See prefork/seat.py."""
        waits = bool(self._waits) and not self._tls
        if waits:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_WAKING))
        return waits

    def interrupt(self) -> None:
        """See prefork/seat.py."""
        if self._waits and not self._tls:
            self._sock.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """See prefork/seat.py."""
        socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # SSLSocket's own would let the session go on in clear

    # --- reading

    def read_line(self, limit: int, timeout: float, idle: int = False) -> bytes | None:
        """See smtp/wire.py."""
        start, started, buffer = self._position, 0.0, self._buffer
        if start == len(buffer):
            started = self._receive(_LINE_READ, timeout, 0.0, idle)
            start, buffer = 0, self._buffer
        self._position = end = buffer.find(b"\n", start) + 1
        self._trickled = 0
        if end == len(buffer) and not start and end <= limit:
            return buffer  # one command a read: most clients wait for each reply
        if not end:
            self._position = start
            return self._read_long_line(limit, (started or monotonic()) + timeout, idle)
        return buffer[start:end] if end - start <= limit else None

    def _read_long_line(self, limit: int, deadline: float, idle: int) -> bytes | None:
        """A line that did not come in one piece. Beyond `limit` it is dropped as it comes."""
        idle = idle and 2  # no longer between two transactions
        parts = [self._buffer[self._position :]]
        size = len(parts[0])
        while True:
            self._receive(_LINE_READ, 0.0, deadline, idle)
            end = self._buffer.find(b"\n") + 1
            part = self._buffer[:end] if end else self._buffer
            self._position = len(part)
            size += len(part)
            if size <= limit:
                parts.append(part)
            if end:
                return b"".join(parts) if size <= limit else None

    def read_block(self, size: int, timeout: float) -> bytes:
        """See smtp/wire.py."""
        if self._position < len(self._buffer):
            block = self._buffer[self._position :] if self._position else self._buffer
            self._buffer, self._position = b"", 0
            return block
        if self._trickled:
            self._receive(size, 0.0, self._started + timeout, False)
        else:
            self._started = self._receive(size, timeout, 0.0, False)
        block, self._buffer = self._buffer, b""
        self._trickled += len(block)
        if self._trickled >= _TRICKLE:
            self._trickled = 0
        return block

    def take_line(self) -> bytes:
        """See smtp/wire.py."""
        start = self._position
        self._position = self._buffer.find(b"\n", start) + 1 or start
        return self._buffer[start : self._position]

    def wait(self, seconds: float, idle: bool = False) -> bool:
        """See smtp/wire.py."""
        if self._position < len(self._buffer) or (self._tls and cast(ssl.SSLSocket, self._sock).pending()):
            return True
        return self._poll(select.POLLIN, seconds, idle)

    def pause(self, seconds: float, since: float = 0.0) -> None:
        """See smtp/wire.py."""
        self._poll(_LEFT, max(0.0, since + seconds - monotonic()) if since else seconds)

    def _poll(self, events: int, seconds: float, idle: bool = False) -> bool:
        self.flush()
        deadline = monotonic() + seconds
        try:
            await_socket(self._sock, events, min(deadline, self._end or deadline), self._drain, idle)
        except TimeoutError:
            return False
        except InterruptedError:
            if idle:
                raise
        return True

    def push_back(self, data: bytes) -> None:
        self._buffer = data + self._buffer[self._position :]
        self._position = 0
        self._trickled = 0

    def discard_input(self) -> None:
        self._buffer, self._position = b"", 0

    def _receive(self, size: int, timeout: float, deadline: float, idle: int) -> float:
        """Replace the empty buffer by what comes, at least one octet. Returns when it began to wait.

        The limit is `timeout` seconds from now, or `deadline` where that is given.
        """
        output = self._output
        if output:
            self._output = b""
            try:
                self._send(output)
            except OSError as error:
                raise _write_fault(error) from None
        now = monotonic()
        if self._ordinary and not deadline and timeout >= self._kernel:
            # The way of nearly every read: the kernel's timeout, set once a session, comes before the deadline.
            # The order decides: first say that we wait, then look for the drain; who begins it does it the other
            # way round.
            self._waits = idle
            try:
                if idle and self._drain.leaving:
                    raise BlockingIOError
                data = self._recv(size)
            except BlockingIOError:
                data = self._receive_late(size, now + timeout, now, idle)
            finally:
                self._waits = False
        else:
            data = self._receive_otherwise(size, deadline or now + timeout, now, idle)
        if not data:
            if idle and self._drain.requested:
                raise InterruptedError
            raise EOFError("closed by the client")
        self._buffer, self._position = data, 0
        return now

    def _receive_otherwise(self, size: int, deadline: float, began: float, idle: int) -> bytes:
        """With TLS, with a deadline for the whole session, or in the middle of a line or block."""
        if self._end and self._end < deadline:
            deadline = self._end
        if self._tls:
            return self._receive_tls(size, deadline, began, idle)
        self._waits = idle
        try:
            return self._receive_late(size, deadline, began, idle)
        finally:
            self._waits = False

    def _receive_late(self, size: int, deadline: float, began: float, idle: int) -> bytes:
        """Where the deadline may come before the kernel's timeout: shorten that for this read."""
        while True:
            leaving = self._drain.leaving
            if idle and leaving:
                return self._receive_last(size, deadline, began, idle)
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError
            wanted = max(min(left, self.timeout), 0.001)
            if wanted < self._kernel or self._kernel < self.timeout or leaving:  # somebody may have woken us: see wake
                self._set_kernel_timeout(wanted)
            try:
                return self._recv(size)
            except BlockingIOError:
                pass

    def _receive_last(self, size: int, deadline: float, began: float, idle: int) -> bytes:
        """While the worker leaves. A command that comes too late is there for take_line."""
        self._waits = False
        await_socket(self._sock, select.POLLIN, deadline, self._drain, idle == 1, began)
        data = self._receive_tls(size, deadline) if self._tls else self._recv(size)
        if data and idle == 1 and self._drain.hurried:
            self._buffer, self._position = data, 0
            raise InterruptedError
        return data

    def _set_kernel_timeout(self, seconds: float) -> None:
        self._kernel = seconds
        self._ordinary = seconds == self.timeout and not self._end and not self._tls
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def _receive_tls(self, size: int, deadline: float, began: float = 0.0, idle: int = False) -> bytes:
        sock: Any = self._sock
        left = deadline - monotonic()
        if idle and not sock.pending():
            if self._drain.leaving:
                return self._receive_last(size, deadline, began, idle)
            await_socket(sock, select.POLLIN, deadline, self._drain, idle == 1, began)
            left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        try:
            return sock.recv(size)  # type: ignore[no-any-return]
        except ssl.SSLError as error:
            raise _tls_fault(error) from None

    # --- writing

    def write(self, data: bytes) -> None:
        self._output += data

    def flush(self) -> None:
        output, self._output = self._output, b""
        if output:
            try:
                self._send(output)
            except OSError as error:
                raise _write_fault(error) from None

    # --- TLS and the end

    def start_tls(self, timeout: float) -> TLS:
        """The handshake. What came in clear before it is never looked at (RFC 3207 section 4.2, CVE-2011-0411)."""
        assert self._context is not None
        self.flush()
        self.discard_input()
        deadline = monotonic() + timeout
        if self._end and self._end < deadline:
            deadline = self._end
        hello = expect_hello(self._sock, self._context, deadline, timeout, self._drain)
        context = choose_context(self._context, hello)
        with explained():
            sock = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
            self._sock, self._recv, self._send = sock, sock.recv, sock.sendall
            self._tls, self._ordinary = True, False
            shake_hands(sock, deadline, self._drain)
        return describe(sock, context, hello)

    def fileno(self) -> int:
        return self._sock.fileno()

    def local_address(self) -> tuple[str, int]:
        name = self._sock.getsockname()
        return (name[0], name[1]) if isinstance(name, tuple) else ("unix", 0)

    def close(self, linger: bool, wait: bool = True) -> None:
        """Close. `linger`: we end it, perhaps in the middle of what the client sends: see that it can read why.

        Closing with unread input resets the connection, and a reset destroys a reply on its way; so what comes is read
        until the client closes too, or for some time; without `wait` only what is there already.
        """
        try:
            if self._tls:
                self._close_tls()
            if linger:
                self._sock.shutdown(socket.SHUT_WR)
                self._read_out(_LINGER if wait else 0.0)
        except (OSError, ValueError):
            pass  # the client was faster
        finally:
            self._sock.close()

    def _close_tls(self) -> None:
        """Send close_notify, do not wait for the client's."""
        self._sock.settimeout(0)
        assert isinstance(self._sock, ssl.SSLSocket)
        try:
            self._sock = self._sock.unwrap()
        except OSError:
            pass

    def _read_out(self, seconds: float) -> None:
        deadline, dropped = monotonic() + seconds, 0
        self._sock.settimeout(seconds)
        while dropped < _LINGER_OCTETS and (not seconds or monotonic() < deadline):
            data = self._sock.recv(65536)
            if not data:
                return
            dropped += len(data)


@lru_cache(maxsize=64)
def _timeval(seconds: float) -> bytes:
    """A struct timeval; zero would mean for ever."""
    whole = int(seconds)
    return struct.pack("ll", whole, int((seconds - whole) * 1_000_000))


def _write_fault(error: OSError) -> Exception:
    if isinstance(error, BlockingIOError):  # SO_SNDTIMEO
        return TimeoutError("the client does not read our replies")
    return _tls_fault(error) if isinstance(error, ssl.SSLError) else error


def _tls_fault(error: ssl.SSLError) -> Exception:
    """What a TLS read or write failed with, in the words of a plain socket."""
    if isinstance(error, ssl.SSLZeroReturnError):
        return EOFError("closed by the client")
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLSyscallError)):
        return ConnectionResetError("closed by the client without TLS close_notify")
    return ConnectionError(f"TLS failed: {error.reason or error}")
