"""From a body on the wire to the handler, and its answer back: what the client may believe of its message.

Whatever a handler does, the body is read to its end first, so that the session stays in sync; and a body with a fault
is never acknowledged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NoReturn

from preforksmtp.smtp import reply
from preforksmtp.smtp.body import BodyReader, Spool, StorageFailed
from preforksmtp.smtp.chunks import Abandoned
from preforksmtp.smtp.conversation import Conversation
from preforksmtp.smtp.message import Message
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.session import NOTHING, Ended
from preforksmtp.smtp.transaction import Transaction

if TYPE_CHECKING:
    from preforksmtp.smtp.journal import Journal


def receive(conversation: Conversation, transaction: Transaction, reader: BodyReader) -> None:
    """Receive the body, have it handled, write the final reply and send it: only then is more read."""
    try:
        if conversation.hooks.stream:
            answer = _stream(conversation, transaction, reader)
        else:
            answer = _collect(conversation, transaction, reader)
    except Abandoned:
        transaction.abandoned = True
        return  # the command that did it is read next, and finds the transaction still open
    except Reject as refusal:
        answer = refusal.reply
    outcome = _outcome(transaction, answer) if transaction.refused is not None else answer
    conversation.transaction = None  # RFC 5321 section 4.1.1.4: the buffers are cleared, whatever the outcome
    conversation.journal.message(conversation.session, transaction, reader.size, outcome)
    conversation.session.xforward = NOTHING
    if outcome.code < 400:
        conversation.forgive()
    if transaction.refused is not None or conversation.session.lmtp:
        _write_each(conversation, transaction, answer, outcome, reader.last)
    else:
        conversation.wire.write(answer.wire)
    conversation.wire.flush()  # a promise must not wait behind what the client has pipelined
    if outcome.code >= 400:
        if answer.code == 421 or (reader.fault is not None and reader.fault.fatal):
            raise Ended
        reader.settle()
        conversation.idle()


def _outcome(transaction: Transaction, answer: Reply) -> Reply:
    """What the handler's yes comes to, where it has refused each recipient alone: nobody has the message."""
    refused = transaction.refused or {}
    if answer.code >= 400 or any(recipient not in refused for recipient in transaction.recipients):
        return answer
    if any(each.code < 500 for each in refused.values()):
        return reply.REFUSED_FOR_NOW
    return reply.REFUSED_FOR_ALL


def _write_each(
    conversation: Conversation, transaction: Transaction, answer: Reply, outcome: Reply, last: bool
) -> None:
    """One reply for each recipient: LMTP always (RFC 2033 section 4.2), SMTP with PRDR where they differ."""
    wire, refused = conversation.wire, transaction.refused or {}
    if not last or (not conversation.session.lmtp and (not refused or answer.code >= 400)):
        wire.write(answer.wire)
        return
    if not conversation.session.lmtp:
        wire.write(reply.PRDR_FOLLOWS.wire)
    for recipient in transaction.recipients:
        each = refused.get(recipient, answer) if answer.code < 400 else answer
        wire.write(each.wire)
    if not conversation.session.lmtp:
        wire.write(outcome.wire)


def _collect(conversation: Conversation, transaction: Transaction, reader: BodyReader) -> Reply:
    """The body whole, then the handler's `message`."""
    content, spool = reader.read_whole(), None
    if content is None:
        spool = Spool(conversation.rules.spool_threshold, conversation.rules.spool_dir)
        with _in_sync(conversation, reader, spool):
            while block := reader.read_block():
                spool.add(block)
            content = spool.finish()
    message = Message(conversation.session, transaction, time(), content, spool.file if spool else None, reader.size)
    return _handle(conversation, message, Reply.queued(message.id))


def _stream(conversation: Conversation, transaction: Transaction, reader: BodyReader) -> Reply:
    """The handler's `stream` reads the body off the wire; `message`, where there is one too, gets what it read."""
    rules = conversation.rules
    spool = Spool(rules.spool_threshold, rules.spool_dir) if conversation.hooks.message else None
    body = BodyStream(reader, spool, conversation.journal)
    message = Message(conversation.session, transaction, time(), b"", None, 0)
    with _in_sync(conversation, reader, spool):
        try:
            answer = conversation.ask("stream", Reply.queued(message.id), conversation.handler.stream, message, body)
        finally:
            if body.broken:
                body.raise_loss()  # the connection failed: nobody is left to hear what the handler says
            if isinstance(reader.fault, Abandoned):
                raise reader.fault.fresh()  # the next reply is that to the command that did it
        body.finish(wanted=answer.positive)
        if reader.fault is not None:
            raise reader.fault.fresh()  # a handler that swallows it cannot acknowledge the message
        if spool is not None:
            message.fill(spool.finish(), spool.file)
    message.size = reader.size
    return _handle(conversation, message, answer) if spool is not None and answer.positive else answer


def _handle(conversation: Conversation, message: Message, standard: Reply) -> Reply:
    if not conversation.hooks.message:
        return standard
    return conversation.ask("message", standard, conversation.handler.message, message)


@contextmanager
def _in_sync(conversation: Conversation, reader: BodyReader, spool: Spool | None) -> Iterator[None]:
    """Whatever refuses the body inside, read the rest of it, so that the next command is found."""
    try:
        yield
    except Reject as refusal:
        if spool is not None:
            spool.close()
        if isinstance(refusal, StorageFailed):
            conversation.journal.storage_failed(conversation.session, refusal.__cause__)
        reader.drain()
        raise


class ConnectionBroken(Reject):
    """The connection failed inside the body; raised in the handler that reads it."""

    def __init__(self) -> None:
        super().__init__(reply.TIMED_OUT)


class BodyStream(BufferedIOBase):
    """The body as a handler's `stream` reads it, straight off the wire: nothing is read before it is asked for."""

    def __init__(self, reader: BodyReader, spool: Spool | None, journal: Journal) -> None:
        self.broken = False
        self._loss: Exception | None = None  # how it broke
        self._reader = reader
        self._spool = spool
        self._journal = journal
        self._failed: BaseException | None = None  # why a block could not be stored
        self._block = b""  # the last one read
        self._at = 0  # how much of it the handler has had

    def readable(self) -> bool:
        return True

    def __iter__(self) -> BodyStream:
        return self

    def __next__(self) -> bytes:
        """The next block, of any size up to 64 KiB: not a line."""
        block = self.read1()
        if not block:
            raise StopIteration
        return block

    def read1(self, size: int | None = -1, /) -> bytes:
        start, block = self._begin()
        end = len(block) if size is None or size < 0 else min(start + size, len(block))
        return self._take(start, end)

    def read(self, size: int | None = -1, /) -> bytes:
        content = bytearray()
        left = -1 if size is None else size
        while left and (block := self.read1(left)):
            content += block
            left = left - len(block) if left > 0 else left
        return bytes(content)

    def readinto(self, buffer: Any, /) -> int:
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def readinto1(self, buffer: Any, /) -> int:
        block = self.read1(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its end, or `size` octets of it: give a size, a line of a body may be of any length."""
        line = bytearray()
        left = sys.maxsize if size is None or size < 0 else size
        while left > len(line):
            start, block = self._begin()
            most = min(len(block), start + left - len(line))
            end = block.find(b"\n", start, most) + 1
            line += self._take(start, end or most)
            if end or not block:
                break
        return bytes(line)

    def finish(self, wanted: bool) -> None:
        """Read what the handler has left, into the spool if there is one. All of it, where the message is `wanted`: the
        reply to come says that it was received."""
        if not wanted:
            self._reader.drain()
        else:
            while self._next():
                pass

    def _begin(self) -> tuple[int, bytes]:
        """Where the handler goes on: in what is left of the last block, or at the beginning of the next one."""
        if self._at == len(self._block):
            self._block, self._at = self._await_block(), 0
        return self._at, self._block

    def _take(self, start: int, end: int) -> bytes:
        """This part of the block, for the handler."""
        block, self._at = self._block, end
        if end == len(block):
            self._block, self._at = b"", 0  # not held while we wait for the next one
        return block[start:end]

    def _await_block(self) -> bytes:
        """The next block for the handler, whose clock (handler_timeout) does not run while the client makes it wait."""
        self._journal.handling("", 0.0)
        try:
            return self._next()
        finally:
            self._journal.handling("stream", monotonic())

    def raise_loss(self) -> NoReturn:
        """Raise what broke the connection, once, and keep nothing of it: it and this stream would hold each other, and
        whatever the frames between them hold."""
        loss, self._loss = self._loss or ConnectionBroken(), None
        try:
            raise loss
        finally:
            del loss

    def _next(self) -> bytes:
        if self.broken:
            raise ConnectionBroken
        if self._reader.fault is not None:
            raise self._reader.fault.fresh()
        if self._failed is not None:  # a handler that swallowed it: the block is lost, and so is the message
            raise StorageFailed from self._failed
        block = b""
        try:
            block = self._reader.read_block()
        except (EOFError, OSError, Ended) as error:
            self.broken, self._loss = True, error.with_traceback(None)
        if self.broken:  # raised here, it does not refer to what is raised in the end
            raise ConnectionBroken
        if self._spool is not None:
            try:
                self._spool.add(block)
            except StorageFailed as failure:
                cause = failure.__cause__
                self._failed = cause.with_traceback(None) if cause is not None else None
                raise
        return block
