"""What a session needs of its connection. The real one is net/wire.py; tests make one from bytes.

Faults are the built-in exceptions: EOFError (the client closed), ConnectionError (it reset), TimeoutError (a deadline
passed), InterruptedError (the server is draining and the client was between transactions).
"""

from __future__ import annotations

from typing import Any, Protocol


class Wire(Protocol):
    @property
    def draining(self) -> bool:
        """The worker is about to end: begin nothing new."""

    @property
    def expired(self) -> bool:
        """The whole session has lasted too long."""

    def read_line(self, limit: int, timeout: float, idle: bool = False) -> bytes | None:
        """One line with its LF; None for a line longer than `limit` octets, which has been read to its end.

        `timeout` is a deadline for the whole line, in seconds. `idle` says that a drain may interrupt the wait.
        """

    def read_block(self, size: int, timeout: float) -> bytes:
        """What has arrived, up to about `size` octets, at least one. `timeout` is a deadline for each 1 KiB."""

    def wait(self, seconds: float) -> bool:
        """Send what was written, and wait so long for input (or a drain); False where none came."""

    def pause(self, seconds: float, since: float = 0.0, idle: bool = False) -> None:
        """Send what was written and do nothing for so long; with `since`, a monotonic time, until so long after that.

        It ends in its time or with a fault, never early: what comes behind it is not for a client that does not wait.
        `idle` says that a drain is such a fault.
        """

    def push_back(self, data: bytes) -> None:
        """Put `data` back in front of what is read next."""

    def discard_input(self) -> None:
        """Forget what has been received and not yet read (RFC 3207 section 4.2)."""

    def write(self, data: bytes) -> None:
        """Send `data` no later than the next wait for input."""

    def flush(self) -> None:
        """Send what was written, now."""

    def start_tls(self, timeout: float) -> Any:
        """Do the TLS handshake as server and return its facts. Raises OSError where it fails."""
