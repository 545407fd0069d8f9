"""The wire: one client connection, as the protocol room sees it (smtp/wire.py says what it may expect).

Owns the receive buffer, so that nothing a client sent ahead of STARTTLS can hide; what is under it, and sending, is
net/stream.py. Plain sockets stay blocking and have kernel timeouts (a settimeout costs a poll per call); the ssl module
ignores those, so TLS sockets use settimeout.

Faults are built-in exceptions: EOFError, ConnectionError, TimeoutError, InterruptedError (the worker leaves).

A read between two transactions of a worker that leaves waits with poll(), for a limited time; one that began before, in
recv(), is woken by a short kernel timeout and a signal to its thread, at which it looks round. Nothing that a client
sends in that moment is lost, as it would be by shutting the socket down.
"""

from __future__ import annotations

import select
import socket
import ssl
from time import monotonic
from typing import cast

from preforksmtp.net.drain import Drain, await_socket, await_time
from preforksmtp.net.handshake import TLS
from preforksmtp.net.pace import Pace, look
from preforksmtp.net.stream import AT_ONCE, FULL, Stream, timeval, tls_fault

__all__ = ["TLS", "Drain", "Wire"]

_LINE_READ = 4096
_TRICKLE = 1024  # octets after which a slow body has earned a new allowance
_MOST_OUTPUT = 4096  # octets of replies that may wait while there are more commands to read
_INSTANT = 0.001  # seconds that do not matter


class Wire(Stream):
    """See smtp/wire.py. How long the client may take is for `pace` to say."""

    __slots__ = ("_buffer", "_kernel", "_position", "_started", "_trickled")

    def __init__(
        self,
        sock: socket.socket,
        drain: Drain,
        pace: Pace,
        context: ssl.SSLContext | None = None,
        end: float = 0.0,
        inherited: float = 0.0,
    ) -> None:
        """`inherited`: the SO_RCVTIMEO that the socket has of its listener; 0 = none. It does for clients that answer
        at once; the first read that is not answered within it sets the one that is wanted."""
        self._sock = sock
        self._recv = sock.recv
        self._send = sock.send
        self._drain = drain
        self._context = context
        self._end = end
        self._buffer = b""
        self._position = 0
        self._output = b""
        self._tls = False
        self._traffic = None
        self._waits = False
        self._started = 0.0  # of the body block that is arriving
        self._trickled = 0
        self._pace = pace
        if 0.0 < inherited <= pace.shortest:
            self._kernel = inherited
            self._ordinary = not end
        else:
            self._set_kernel_timeout(pace.shortest)

    def keep_pace(self, pace: Pace) -> None:
        """See smtp/wire.py."""
        self._pace = pace
        if self._kernel > pace.shortest:
            self._set_kernel_timeout(pace.shortest)
        else:
            self._ordinary = not pace.metered and not self._end and not self._tls

    @property
    def draining(self) -> bool:
        return self._drain.requested

    @property
    def expired(self) -> bool:
        return bool(self._end) and monotonic() >= self._end

    @property
    def hurried(self) -> bool:
        return self._drain.hurried

    # --- reading

    def read_line(self, limit: int, idle: int = False) -> bytes | None:
        """See smtp/wire.py."""
        start, began, buffer = self._position, 0.0, self._buffer
        if start == len(buffer):
            began = self._receive(_LINE_READ, 0.0, idle, False)
            start, buffer = 0, self._buffer
        elif len(self._output) > _MOST_OUTPUT:
            self.flush()
        self._position = end = buffer.find(b"\n", start) + 1
        self._trickled = 0
        if end == len(buffer) and not start and end <= limit:
            return buffer  # one command a read: most clients wait for each reply
        if not end:
            self._position = start
            return self._read_long_line(limit, began or monotonic(), idle)
        return buffer[start:end] if end - start <= limit else None

    def _read_long_line(self, limit: int, began: float, idle: int) -> bytes | None:
        """A line that did not come in one piece. Beyond `limit` it is dropped as it comes."""
        idle = idle and 2  # no longer between two transactions
        line = bytearray(self._buffer[self._position :])
        size = len(line)
        while True:
            self._receive(_LINE_READ, began, idle, False)
            end = self._buffer.find(b"\n") + 1
            self._position = end or len(self._buffer)
            size += self._position
            if size <= limit:
                line += self._buffer[: self._position]
            else:
                line.clear()
            if end:
                return bytes(line) if size <= limit else None

    def read_block(self, size: int, idle: int = False) -> bytes:
        """See smtp/wire.py."""
        if self._position < len(self._buffer):
            return self._take(size)
        if self._trickled:
            self._receive(size, self._started, idle, True)
        else:
            self._started = self._receive(size, 0.0, idle, True)
        block, self._buffer = self._buffer, b""
        self._trickled += len(block)
        if self._trickled >= _TRICKLE:
            self._trickled = 0
        return block

    def _take(self, size: int) -> bytes:
        """At most so much of the buffer."""
        start, end = self._position, self._position + size
        block = self._buffer[start:end]
        if end < len(self._buffer):
            self._position = end
        else:
            self._buffer, self._position = b"", 0
        return block

    @property
    def ahead(self) -> bool:
        """See smtp/wire.py."""
        return self._position < len(self._buffer)

    def take_line(self) -> bytes:
        """See smtp/wire.py."""
        start = self._position
        self._position = self._buffer.find(b"\n", start) + 1 or start
        return self._buffer[start : self._position]

    def wait(self, seconds: float, idle: bool = False) -> bool:
        """See smtp/wire.py."""
        if self._position < len(self._buffer) or (self._tls and cast(ssl.SSLSocket, self._sock).pending()):
            return True
        self.flush()
        deadline = monotonic() + seconds
        try:
            await_socket(self._sock, select.POLLIN, min(deadline, self._end or deadline), self._drain, idle)
        except TimeoutError:
            return False
        except InterruptedError:
            if idle:
                raise
        return True

    def pause(self, seconds: float, since: float = 0.0, idle: bool = False) -> None:
        """See smtp/wire.py."""
        self.flush()
        deadline = (since or monotonic()) + seconds
        end = min(deadline, self._end or deadline)
        await_time(self._sock, end, self._drain if idle else None)
        if end < deadline:
            raise TimeoutError

    def push_back(self, data: bytes) -> None:
        self._buffer = data + self._buffer[self._position :]
        self._position = 0
        self._trickled = 0

    def discard_input(self) -> None:
        self._buffer, self._position = b"", 0

    def _receive(self, size: int, began: float, idle: int, block: bool) -> float:
        """Replace the empty buffer by what comes, at least one octet. Returns when it began to wait.

        `began`: when we began to wait for the line or, if `block`, the block that this is a part of; 0 = now.
        """
        output = self._output
        if output:
            self._output = b""
            try:
                sent = self._send(output, AT_ONCE)
            except FULL:
                sent = 0
            except ssl.SSLError as error:
                raise tls_fault(error) from None
            if sent != len(output):
                self._send_slowly(output, sent)
        now = monotonic()
        if self._ordinary and not began:
            # The way of nearly every read: the kernel's timeout, set once a session, comes before the next look at the
            # clock. The order decides: first say that we wait, then look for the drain; who begins it does it the
            # other way round.
            try:
                if idle:
                    self._waits = idle
                    if self._drain.leaving:
                        raise BlockingIOError
                data = self._recv(size)
            except BlockingIOError:
                data = self._receive_late(size, now, idle, block)
            finally:
                self._waits = False
        elif self._tls:
            data = self._receive_tls(size, began or now, idle, block)
        else:
            data = self._receive_otherwise(size, began or now, idle, block)
        if not data:
            if idle and self._drain.requested:
                raise InterruptedError
            raise EOFError("closed by the client")
        self._buffer, self._position = data, 0
        return now

    def _receive_otherwise(self, size: int, began: float, idle: int, block: bool) -> bytes:
        """With a deadline for the whole session, or in the middle of a line or block."""
        self._waits = idle
        try:
            return self._receive_late(size, began, idle, block)
        finally:
            self._waits = False

    def _receive_late(self, size: int, began: float, idle: int, block: bool) -> bytes:
        """Where the next look at the clock may come before the kernel's timeout: shorten that for this read."""
        while True:
            leaving = self._drain.leaving
            if idle and leaving:
                return self._receive_last(size, began, idle, block)
            now, shortest = monotonic(), self._pace.shortest
            left = self._look(began, block, now) - now
            wanted = shortest if left > shortest - _INSTANT else max(left, _INSTANT)
            if wanted < self._kernel or self._kernel < shortest or leaving:  # somebody may have woken us: see wake
                self._set_kernel_timeout(wanted)
            try:
                return self._recv(size)
            except BlockingIOError:
                pass

    def _receive_last(self, size: int, began: float, idle: int, block: bool) -> bytes:
        """While the worker leaves. A command that comes too late is there for take_line."""
        self._waits = False
        while True:
            until = self._look(began, block, monotonic())
            try:
                await_socket(self._sock, select.POLLIN, until, self._drain, idle == 1, began)
                data = self._recv(size)
                break
            except TimeoutError:
                pass  # look at the clock
            except (BlockingIOError, ssl.SSLWantReadError):
                pass  # a piece of a TLS record
            except ssl.SSLError as error:
                raise tls_fault(error) from None
        if data and idle == 1 and self._drain.hurried:
            self._buffer, self._position = data, 0
            raise InterruptedError
        return data

    def _look(self, began: float, block: bool, now: float) -> float:
        """The time of the next look at the clock."""
        return look(self._pace.block if block else self._pace.command, began, self._end, now)

    def _set_kernel_timeout(self, seconds: float) -> None:
        self._kernel = seconds
        pace = self._pace
        self._ordinary = seconds == pace.shortest and not pace.metered and not self._end and not self._tls
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(seconds))

    def _receive_tls(self, size: int, began: float, idle: int, block: bool) -> bytes:
        """A record may come in pieces: whatever is there is read, and waited for otherwise."""
        # Before a line there is usually nothing yet, and an exception costs more than a poll().
        wait = size == _LINE_READ and not cast(ssl.SSLSocket, self._sock).pending()
        while True:
            if wait:
                if idle and self._drain.leaving:
                    return self._receive_last(size, began, idle, block)
                now = monotonic()
                self._polls[idle].poll((self._look(began, block, now) - now) * 1000)
            try:
                return self._recv(size)
            except ssl.SSLWantReadError:
                wait = True
            except ssl.SSLError as error:
                raise tls_fault(error) from None
