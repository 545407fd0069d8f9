"""What a dialogue tells of itself: to the logs, to the counters, and to whoever watches for stuck handlers.

The real one is in connection/journal.py; tests record it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from preforksmtp.smtp.reply import Reply
    from preforksmtp.smtp.session import Session
    from preforksmtp.smtp.transaction import Transaction


class Journal(Protocol):
    def commands(self, verbs: Mapping[str, Any]) -> Any:
        """The table to look commands up in, by its `get`: `verbs`, or one like it that counts."""

    def greeted(self) -> None:
        """HELO, EHLO or LHLO was accepted."""

    def refused(self, session: Session, verb: str, reply: Reply, argument: str = "") -> None:
        """A command was answered with 4xx or 5xx; `verb` is "" for what is none, "CONNECT" for the greeting, "SESSION"
        for a 421 that ends the session whatever it answers. Not for what a body is answered with."""

    def abandoned(self, transaction: Transaction) -> None:
        """A transaction was given up before its message came."""

    def deferred(self, session: Session, hook: str, reply: Reply, cause: BaseException) -> None:
        """A hook has answered 4xx, and named the exception that is the reason."""

    def storage_failed(self, session: Session, cause: BaseException | None) -> None:
        """There was no room for a body (452)."""

    def told(self) -> None:
        """The client was told that the worker leaves."""

    def handling(self, hook: str, since: float) -> None:
        """A handler hook runs from now, `since` (monotonic seconds), on; "" where it has returned."""

    def message(self, session: Session, transaction: Transaction, size: int, reply: Reply) -> None:
        """A body was received, and answered with `reply`."""

    def authenticated(
        self, session: Session, mechanism: str, username: str | None, binding: str = "", claimed: str = ""
    ) -> None:
        """An AUTH exchange has ended; `username` is None where it failed. `binding`: the channel binding that was asked
        for, in words; `claimed`: the name that was given where it failed, "" where it is nobody's."""

    def tls_started(self, session: Session) -> None:
        """The handshake after STARTTLS is done."""

    def handler_failed(self, session: Session, hook: str, error: BaseException) -> None:
        """A hook raised something other than Reject."""

    def timed_out(self, session: Session, limit: str = "") -> None:
        """The client was silent, or slow, for too long; `limit` is the setting it ran into, if not a common timeout."""

    def ended(self, session: Session, why: str) -> None:
        """The session ended otherwise than by QUIT or by the client's leaving."""
