"""The mail transaction under construction: its sender and its recipients so far (RFC 5321 section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preforksmtp.smtp.reply import Reply


class Recipient(str):
    """One accepted forward-path, with the ESMTP parameters of its RCPT command in `params`."""

    __slots__ = ("params",)

    params: dict[str, Any]

    def __new__(cls, mailbox: str, params: dict[str, Any]) -> Recipient:
        self = super().__new__(cls, mailbox)
        self.params = params
        return self

    def __reduce__(self) -> tuple[type[Recipient], tuple[str, dict[str, Any]]]:  # a str with arguments of its own
        return Recipient, (str(self), self.params)


class Transaction:
    """What MAIL and RCPT have said so far (RFC 5321 section 3.3)."""

    __slots__ = ("abandoned", "id", "params", "recipients", "refused", "sender", "started")

    def __init__(self, id: str, sender: str, params: dict[str, Any], started: float) -> None:
        self.id = id
        self.sender = sender
        self.params = params
        self.recipients: list[Recipient] = []
        self.started = started
        self.abandoned = False  # between two chunks: what has come of the message is gone
        self.refused: dict[str, Reply] | None = None  # recipients refused after the body (LMTP, PRDR)
