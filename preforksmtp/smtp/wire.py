"""What a session needs of its connection. The real one is net/wire.py; tests make one from bytes.

How long the client may take is for smtp/pace.py to say. Faults are the built-in exceptions: EOFError (the client
closed), ConnectionError (it reset), TimeoutError (it had its time), InterruptedError (the worker leaves, and the
client was between transactions).
"""

from __future__ import annotations

from typing import Any, Protocol


class Input(Protocol):
    """What a client sends."""

    def read_line(self, limit: int, idle: int = False) -> bytes | None:
        """One line with its LF; None for a line longer than `limit` octets, which has been read to its end.

        `idle` says whether the client may be told instead that the worker leaves: 0 never; 1 where it wants nothing for
        a while; 2 only in a hurry, it is in the middle of something.
        """

    def read_block(self, size: int, idle: int = False) -> bytes:
        """What has arrived, up to `size` octets, at least one."""

    def push_back(self, data: bytes) -> None:
        """Put `data` back in front of what is read next."""


class Wire(Input, Protocol):
    """All of the connection."""

    @property
    def draining(self) -> bool:
        """The worker is about to end: begin nothing new."""

    @property
    def hurried(self) -> bool:
        """It is draining, and it is too late for a first transaction as well."""

    @property
    def expired(self) -> bool:
        """The whole session has lasted too long."""

    @property
    def ahead(self) -> bool:
        """Whether the client has sent more than was read, as far as we know."""

    def keep_pace(self, pace: Any) -> None:
        """From now on the client may be as slow as `pace` says, see smtp/pace.py."""

    def take_line(self) -> bytes:
        """After InterruptedError: the command that came nevertheless, with its LF; b"" if none did."""

    def wait(self, seconds: float, idle: bool = False) -> bool:
        """Send what was written, and wait so long for input (or a drain); False where none came. `idle`: between two
        transactions, where a drain is raised."""

    def pause(self, seconds: float, since: float = 0.0, idle: bool = False) -> None:
        """Send what was written and do nothing for so long; with `since`, a monotonic time, until so long after that.

        It ends in its time or with a fault, never early: what comes behind it is not for a client that does not wait.
        `idle` says that a drain is such a fault.
        """

    def discard_input(self) -> None:
        """Forget what has been received and not yet read (RFC 3207 section 4.2)."""

    def write(self, data: bytes) -> None:
        """Send `data` no later than the next wait for input."""

    def flush(self) -> None:
        """Send what was written, now."""

    def start_tls(self) -> Any:
        """Do the TLS handshake as server and return its facts. Raises OSError where it fails."""
