"""The message a handler is given when it is complete: envelope, octets, and what preforksmtp.mime reads in them."""

from __future__ import annotations

import re
from email.message import EmailMessage
from typing import IO, TYPE_CHECKING, BinaryIO

from preforksmtp.mime.attachment import Attachment
from preforksmtp.mime.content import Content
from preforksmtp.mime.entity import Headers
from preforksmtp.mime.source import Memory, Source, Spooled
from preforksmtp.smtp import trace
from preforksmtp.smtp.reply import Reject, Reply

if TYPE_CHECKING:
    from preforksmtp.smtp.session import Session
    from preforksmtp.smtp.transaction import Transaction

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Message:
    """One message, complete, with its envelope. Handlers read it; it may be kept after the handler has returned.

    id          names it in logs, in the trace field and in the default reply
    session     the Session it came by
    sender      the reverse-path, "" for the null sender
    recipients  the forward-paths accepted, each a str with its own `.params`
    params      ESMTP parameters of MAIL: {"SIZE": 1234, "BODY": "8BITMIME", "SMTPUTF8": True}
    size        octets of content
    time        when it was complete, seconds since the epoch
    content     the octets; `open()` is a file of them; `headers`, `text`, `html`, `attachments` and `parse()` read them
    """

    __slots__ = (
        "_content", "_read", "_spool", "_transaction", "id", "params", "recipients", "sender", "session", "size",
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
        self._read: Content | None = None

    def fill(self, content: bytes, spool: IO[bytes] | None) -> None:
        """Give it the body that a streaming handler has read, for the handler's `message`."""
        self._content, self._spool = content, spool
        self._read = None

    @property
    def content(self) -> bytes:
        """The message exactly as sent, without transparency dots. A large one is read from its file at each use."""
        return self._content if self._spool is None else self._source().read(0, self.size)

    def open(self) -> BinaryIO:
        """The content as a new binary file, each with its own position. Large messages are never all in memory."""
        return self._source().open()

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
    def return_path(self) -> str:
        """The field on top of a message that is stored (RFC 5321 section 4.4), without its CRLF.

        Letters beyond ASCII stand in it as they are; what a sender could use to add fields of its own is a "?".
        """
        return f"Return-Path: <{_CONTROL.sub('?', self.sender)}>"

    @property
    def received(self) -> str:
        """The trace field below it (RFC 5321 section 4.4), folded, without its final CRLF."""
        return trace.received(self.session, self.id, self.recipients, self.params, self.time)

    @property
    def headers(self) -> Headers:
        """The header fields, read at first use, without the body: `headers["Subject"]` is a str, or None.

        Encoded words are decoded (RFC 2047), UTF-8 too; octets that are neither are U+FFFD, control characters and line
        ends a space each. `headers.raw` are the octets. At most 1,000 fields and 1 MiB of a header section are read.
        """
        return self._reading.headers

    @property
    def text(self) -> str:
        """What a person reads: the plain text, else the HTML without its markup; "" for none. Lines end with LF."""
        return self._reading.text

    @property
    def html(self) -> str | None:
        """The HTML body as the sender wrote it, which nobody has made harmless; None where there is none."""
        return self._reading.html

    @property
    def attachments(self) -> list[Attachment]:
        """The files in the message, in their order; a message within it is one. Large ones are read while they are
        decoded: see Attachment.open."""
        return self._reading.attachments

    def parse(self) -> EmailMessage:
        """The whole message as an EmailMessage of the standard library, new each time, and all in memory.

        Neither this nor reading from it raises for what a client sent: what is not valid is text, with an entry in
        `defects`. At most 50 levels and 1,000 parts are read as such.
        """
        return self._reading.parse()

    @property
    def _reading(self) -> Content:
        if self._read is None:
            self._read = Content(self._source())
        return self._read

    def _source(self) -> Source:
        return Memory(self._content) if self._spool is None else Spooled(self._spool, self.size)
