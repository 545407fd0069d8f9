"""The body of a message as it arrives: end of mail data, transparency, bare newlines, size (RFC 5321 section 4.5.2).

A reader yields blocks until the end of data. It never ends a message on anything but CRLF.CRLF, and it always finds
that end, whatever fault it met before: the session stays in sync. Faults are Rejects; those that leave no
way to stay in sync say so with `fatal`.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from typing import IO, Protocol

from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.wire import Input

_END = b"\r\n.\r\n"
_SMALL_READ = 4096  # a large recv() costs even where little comes: small until the client shows it has more
_LARGE_READ = 65536
_MOST_LINES = 2048  # looked at at once: those of a usual read are fewer
# A dot alone between any mix of CR, LF and NUL ends the message for a lenient server (SMTP smuggling, CVE-2023-51764).
_LENIENT_END = re.compile(rb"[\r\n]\x00*\.\x00*[\r\n]")
_LENIENT_BEGIN = re.compile(rb"[\r\n]\x00{0,64}(?:\.\x00{0,64})?\Z")


class BodyFault(Reject):
    """The body cannot be accepted. `fatal`: the session ends with this reply."""

    def __init__(self, reply: Reply, fatal: bool = False) -> None:
        super().__init__(reply)
        self.fatal = fatal


class BodyReader(Protocol):
    """What smtp/delivery.py asks of a body: DataReader here, ChunkReader in smtp/chunks.py."""

    size: int  # octets of content so far
    fault: BodyFault | None

    @property
    def last(self) -> bool:
        """Whether the reply to come is the one to the whole message."""

    def read_whole(self) -> bytes | None: ...
    def read_block(self) -> bytes: ...
    def drain(self) -> None:
        """See that the session is in sync, before the reply where that is possible."""

    def settle(self) -> None:
        """The same, behind the reply."""


class DataReader:
    """Blocks of the body that follows DATA, dots unstuffed. `strict` refuses bare CR and LF."""

    last = True
    size = 0  # these and those below until something else is known: most messages need none of them
    fault: BodyFault | None = None
    finished = False
    _line = 0  # octets of the line that is arriving, where its length matters
    _read_size = _SMALL_READ
    _tail = b"\r\n"  # the CRLF of the DATA line: a dot may follow at once. Later: what may begin the end
    _first = 2  # octets of that CRLF still to be left out of the body
    _context = b""  # the last octets handed on, where a lenient end of data may have begun

    def __init__(self, wire: Input, limit: int, strict: bool, line_limit: int = 0) -> None:
        self._wire = wire
        self._limit = limit
        self._strict = strict
        self._line_limit = line_limit

    def read_whole(self) -> bytes | None:
        """The whole body, where one read brings it and nothing is wrong with it; otherwise None, and nothing is lost.

        Most messages are small and whole: this is read_block for them, without its bookkeeping.
        """
        chunk = self._wire.read_block(self._read_size)
        end = chunk.find(_END)
        body = chunk[: end + 2]
        if (
            end < 0
            or self._line_limit
            or chunk[0] == 46  # a dot right behind DATA: the end, or transparency
            or (self._limit and end + 2 > self._limit)
            or (self._strict and (has_bare_newline(body) or b"\0" in body))
        ):
            self._wire.push_back(chunk)
            return None
        if end + 5 < len(chunk):
            self._wire.push_back(chunk[end + 5 :])
        self.finished = True
        if b"\r\n." in body:
            body = body.replace(b"\r\n.", b"\r\n")
        self.size = len(body)
        return body

    def read_block(self) -> bytes:
        """The next block, b"" at the end of data. Raises BodyFault once, as soon as the fault is seen."""
        while not self.finished:
            chunk = self._wire.read_block(self._read_size)
            if len(chunk) >= _SMALL_READ:
                self._read_size = _LARGE_READ
            block = self._take(chunk)
            if block and self.fault is None:
                self.size += len(block)
                if self._limit and self.size > self._limit:
                    raise self._fail(BodyFault(reply.TOO_LARGE))
                return block
            del chunk, block  # a body that is dropped must not be held while we wait for more of it
        return b""

    def settle(self) -> None:
        """Nothing: drain has found the end of data."""

    def drain(self) -> None:
        """Read and drop the rest of the body, so that the session is in sync. Raises a fatal fault only."""
        while not self.finished:
            try:
                self.read_block()
            except BodyFault as fault:
                if fault.fatal:
                    raise

    def _take(self, chunk: bytes) -> bytes:
        """The part of the body that `chunk` makes certain, unstuffed."""
        window = self._tail + chunk if self._tail else chunk
        dots = b"." in window  # one cheap look: large bodies are mostly base64, which has none
        end = window.find(_END) if dots else -1
        if end >= 0:
            body, self._tail = window[: end + 2], b""
            self.finished = True
            if end + 5 < len(window):
                self._wire.push_back(window[end + 5 :])
        else:
            held = _held(window)
            body, self._tail = (window[:-held], window[-held:]) if held else (window, b"")
        if self._strict:
            self._check_newlines(body)
        if dots and b"\r\n." in body:
            body = body.replace(b"\r\n.", b"\r\n")
        if self._first and body:
            body, self._first = body[2:], 0
        if self._line_limit and self.fault is None:
            self._check_lines(body)
        return body

    def _check_lines(self, body: bytes) -> None:
        """The length of each line with its CRLF, without a transparency dot (RFC 5321 section 4.5.3.1.6)."""
        longest = 0
        while True:
            lines = body.split(b"\n", _MOST_LINES)
            body = lines.pop()  # a line that has not ended, or what was not split
            if lines:
                longest = max(longest, self._line + len(lines[0]) + 1, max(map(len, lines)) + 1)
                self._line = 0
            if len(lines) < _MOST_LINES:
                break
        self._line += len(body)
        if max(longest, self._line) > self._line_limit:
            raise self._fail(BodyFault(reply.BODY_LINE_TOO_LONG))

    def _check_newlines(self, body: bytes) -> None:
        bare = _has_bare_newline(body)
        if bare or self._context or b"\0" in body:
            self._look_for_lenient_end(body)
        if bare and self.fault is None:
            raise self._fail(BodyFault(reply.BARE_NEWLINES))

    def _look_for_lenient_end(self, body: bytes) -> None:
        """Close on a client that believes its message has ended: it would only wait for our timeout."""
        # A tail of CRLF.CR may still become the true end, so its last CR proves nothing yet.
        seen = self._context + body + (self._tail[:-1] if self._tail == _END[:4] else self._tail)
        if _LENIENT_END.search(seen):
            self.finished = True
            raise self._fail(BodyFault(reply.SMUGGLING, fatal=True))
        begun = _LENIENT_BEGIN.search(self._context + body)
        self._context = begun[0] if begun else b""

    def _fail(self, fault: BodyFault) -> BodyFault:
        if self.fault is None or fault.fatal:
            self.fault = fault
        return fault.fresh()


def has_bare_newline(body: bytes) -> bool:
    """Whether a small `body` has a CR or LF outside of CRLF. Measured: a third of the time that three count() take."""
    rest = b"".join(body.split(b"\r\n"))
    return b"\n" in rest or b"\r" in rest


def _has_bare_newline(body: bytes) -> bool:
    """The same of one of any size: not all lines at once, for very short ones take a multiple of the body's memory."""
    while True:
        lines = body.split(b"\r\n", _MOST_LINES)
        body = lines.pop() if len(lines) > _MOST_LINES else b""
        rest = b"".join(lines)
        if b"\n" in rest or b"\r" in rest:
            return True
        if not body:
            return False


def _held(window: bytes) -> int:
    """How many octets at the end of `window` may be the beginning of the end of data."""
    for length in (4, 3, 2, 1):
        if window[-length:] == _END[:length]:
            return length
    return 0


class StorageFailed(Reject):
    """The temporary file of a large message could not be written; the cause says why."""

    def __init__(self) -> None:
        super().__init__(reply.NO_STORAGE)


class Spool:
    """The content of a message while it is collected: in memory up to `threshold` octets, above it in a file.

    Small blocks are joined as they come: a client can make them of one octet, and they would take 40 times as much.
    """

    def __init__(self, threshold: int, directory: str | None) -> None:
        self.file: IO[bytes] | None = None
        self._threshold = threshold
        self._directory = directory
        self._blocks: list[bytes] = []
        self._small = bytearray()  # blocks that follow them
        self._size = 0

    def add(self, block: bytes) -> None:
        """Raises StorageFailed where there is no room."""
        if self.file is None:
            self._size += len(block)
            if len(block) >= _SMALL_READ:
                self._join_small()
                self._blocks.append(block)
            else:
                self._small += block
                if len(self._small) >= _LARGE_READ:
                    self._join_small()
            if self._size > self._threshold:
                self._to_file()
            return
        try:
            self.file.write(block)
        except OSError as error:
            raise StorageFailed from error

    def _join_small(self) -> None:
        if self._small:
            self._blocks.append(bytes(self._small))
            self._small = bytearray()

    def _to_file(self) -> None:
        try:
            self.file = tempfile.TemporaryFile(dir=self._directory, prefix="preforksmtp-")  # noqa: SIM115 - lives with the message
            self._join_small()
            self.file.writelines(self._blocks)
        except OSError as error:
            raise StorageFailed from error
        self._blocks.clear()

    def finish(self) -> bytes:
        """The content, where it is in memory; a file is complete after this."""
        if self.file is None:
            self._join_small()
            return b"".join(self._blocks)
        try:
            self.file.flush()
        except OSError as error:
            raise StorageFailed from error
        return b""

    def close(self) -> None:
        self._blocks.clear()
        self._small = bytearray()
        if self.file is not None:
            with suppress(OSError):  # what could not be written does not matter any more
                self.file.close()
