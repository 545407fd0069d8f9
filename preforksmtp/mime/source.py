"""Where the octets of a message are: in memory, or in the temporary file of a large one."""

from __future__ import annotations

import io
import os
from typing import IO, Any, BinaryIO, Protocol, cast

_BUFFER = 64 * 1024


class Source(Protocol):
    """Octets that do not change."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, stop: int) -> bytes: ...

    def open(self, start: int = 0, stop: int | None = None) -> BinaryIO:
        """A part of them as a new file with a position of its own."""


class Memory:
    """Octets in memory."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.size = len(octets)

    def read(self, start: int, stop: int) -> bytes:
        return self._octets[start:stop]

    def open(self, start: int = 0, stop: int | None = None) -> BinaryIO:
        return io.BytesIO(self._octets if not start and stop is None else self._octets[start:stop])


class Spooled:
    """Octets in a file. It closes with its last reader."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self.size = size

    def read(self, start: int, stop: int) -> bytes:
        """Raises OSError where the file cannot be read, and where it is shorter than it was."""
        parts = []
        while start < stop:
            part = os.pread(self._file.fileno(), min(stop - start, 2**30), start)
            if not part:
                raise OSError("the temporary file of the message is not as long as it was")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def open(self, start: int = 0, stop: int | None = None) -> BinaryIO:
        stop = self.size if stop is None else stop
        return cast(BinaryIO, io.BufferedReader(_Reader(self._file, start, stop), _BUFFER))


class _Reader(io.RawIOBase):
    """Reads a part of a file with a position of its own."""

    def __init__(self, file: IO[bytes], start: int, stop: int) -> None:
        self._file = file
        self._start = start
        self._stop = stop
        self._position = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._position, io.SEEK_END: self._stop}
        self._position = max(self._start, base[whence] + offset)
        return self._position - self._start

    def tell(self) -> int:
        return self._position - self._start

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._stop - self._position))
        data = os.pread(self._file.fileno(), wanted, self._position) if wanted else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
