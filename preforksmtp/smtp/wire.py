"""What a session needs of its connection. The real one is net/wire.py; tests make one from bytes.

Faults are the built-in exceptions: EOFError (the client closed), ConnectionError (it reset), TimeoutError (a deadline
passed), InterruptedError (the worker leaves, and the client was between transactions).
"""

from __future__ import annotations

from typing import Any, Protocol


class Wire(Protocol):
    @property
    def draining(self) -> bool:
        """The worker is about to end: begin nothing new."""

    @property
    def hurried(self) -> bool:
        """It is draining, and it is too late for a first transaction as well."""

    @property
    def expired(self) -> bool:
        """The whole session has lasted too long."""

    def read_line(self, limit: int, timeout: float, idle: int = False) -> bytes | None:
        """One line with its LF; None for a line longer than `limit` octets, which has been read to its end.

        `timeout` is a deadline for the whole line, in seconds. `idle` says whether the client may be told instead that
        the worker leaves: 0 never; 1 where it wants nothing for a while; 2 only in a hurry, it is in the middle of
        something.
        """

    def take_line(self) -> bytes:
        """After InterruptedError: the command that came nevertheless, with its LF; b"" if none did."""

    def read_block(self, size: int, timeout: float) -> bytes:
        """What has arrived, up to about `size` octets, at least one. `timeout` is a deadline for each 1 KiB."""

    def wait(self, seconds: float, idle: bool = False) -> bool:
        """Send what was written, and wait so long for input (or a drain); False where none came. `idle`: between two
        transactions, where a drain is raised."""

    def pause(self, seconds: float, since: float = 0.0) -> None:
        """Send what was written and do nothing for so long, unless the worker drains or the client leaves.

        With `since`, a monotonic time, it lasts until so long after that.
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
