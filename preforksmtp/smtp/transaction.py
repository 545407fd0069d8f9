"""The mail transaction under construction, and the message a handler is given when it is complete."""

from __future__ import annotations

import email.message
import email.policy
import io
import os
from email.parser import BytesHeaderParser, BytesParser
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from . import trace
from .reply import Reject, Reply

if TYPE_CHECKING:
    from .session import Session


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


class Message:
    """One message, complete, with its envelope. Handlers read it; it may be kept after the handler has returned.

    id          names it in logs, in the trace field and in the default reply
    session     the Session it came by
    sender      the reverse-path, "" for the null sender
    recipients  the forward-paths accepted, each a str with its own `.params`
    params      ESMTP parameters of MAIL: {"SIZE": 1234, "BODY": "8BITMIME", "SMTPUTF8": True}
    size        octets of content
    time        when it was complete, seconds since the epoch
    """

    __slots__ = (
        "_content", "_headers", "_spool", "_transaction", "id", "params", "recipients", "sender", "session", "size",
        "time",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        transaction: Transaction,
        time: float,
        content: bytes,
        spool: IO[bytes] | None,
        size: int,
    ) -> None:
        self.session = session
        self._transaction = transaction
        self.id = transaction.id
        self.sender = transaction.sender
        self.recipients = transaction.recipients
        self.params = transaction.params
        self.time = time
        self.size = size
        self._content = content
        self._spool = spool
        self._headers: email.message.Message | None = None

    def fill(self, content: bytes, spool: IO[bytes] | None) -> None:
        """Give it the body that a streaming handler has read, for the handler's `message`."""
        self._content, self._spool = content, spool

    @property
    def content(self) -> bytes:
        """The message exactly as sent, without transparency dots. A large one is read from its file at each use."""
        if self._spool is None:
            return self._content
        return os.pread(self._spool.fileno(), self.size, 0) if self.size < 2**30 else self.open().read()

    def open(self) -> BinaryIO:
        """The content as a new binary file, each with its own position. Large messages are never all in memory."""
        if self._spool is None:
            return io.BytesIO(self._content)
        return cast(BinaryIO, io.BufferedReader(_SpoolReader(self._spool), 65536))

    @property
    def per_recipient(self) -> bool:
        """Whether this client can hear of each recipient alone: an LMTP session, or PRDR was asked for."""
        return self.session.lmtp or "PRDR" in self.params

    def reject(self, recipient: str, reply: Reply | Reject) -> None:
        """Refuse the message for one recipient only (RFC 2033 section 4.2); the others get what the handler returns.

        Raises ValueError where `per_recipient` is false (plain SMTP has one reply for all), for a recipient that is
        none of the message's, and for a reply that is not 4xx or 5xx.
        """
        answer = reply.reply if isinstance(reply, Reject) else reply
        if not self.per_recipient:
            raise ValueError("plain SMTP has one reply for all recipients; ask message.per_recipient first")
        if recipient not in self.recipients:
            raise ValueError(f"{recipient!r} is not a recipient of this message")
        if answer.code < 400:
            raise ValueError(f"{answer!r} does not refuse")
        if self._transaction.refused is None:
            self._transaction.refused = {}
        self._transaction.refused[recipient] = answer

    @property
    def received(self) -> str:
        """The trace field that belongs on top (RFC 5321 section 4.4), folded, without its final CRLF."""
        return trace.received(self)

    @property
    def headers(self) -> email.message.Message:
        """The header fields, parsed at first use."""
        if self._headers is None:
            self._headers = BytesHeaderParser().parse(self.open())
        return self._headers

    def parse(self) -> email.message.EmailMessage:
        """The whole message as an EmailMessage of the standard library."""
        return BytesParser(policy=email.policy.default).parse(self.open())


class _SpoolReader(io.RawIOBase):
    """Reads the temporary file of a large message with a position of its own; the file closes with its last reader."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: os.fstat(self._spool.fileno()).st_size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._spool.fileno(), len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
