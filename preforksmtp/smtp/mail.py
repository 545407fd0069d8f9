"""The commands of a mail transaction: MAIL, RCPT, DATA (RFC 5321 section 3.3) and BDAT (RFC 3030)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from preforksmtp.smtp import reply
from preforksmtp.smtp.address import Path, split_mailbox
from preforksmtp.smtp.body import DataReader
from preforksmtp.smtp.chunks import ChunkReader, drop_chunk, parse_chunk
from preforksmtp.smtp.conversation import HELO, TLS, TRANSACTION, Conversation
from preforksmtp.smtp.delivery import receive
from preforksmtp.smtp.parameters import check_declared, read_parameters
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.transaction import Recipient, Transaction

_BEFORE_CHUNK = TLS | HELO | TRANSACTION  # what BDAT needs, once its chunk is read
_LONG = 300  # characters of a path that is not remembered


def mail(conversation: Conversation, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.2. Spaces behind the colon are forgiven, as they are everywhere."""
    if conversation.transaction is not None:
        raise Reject(reply.NESTED_MAIL)
    conversation.mail_refused = True  # until it is not
    if conversation.wire.draining and not conversation.may_begin():
        raise Reject(reply.SHUTTING_DOWN)
    syntax = conversation.rules.syntax
    text = argument[5:] if argument[:5].upper() == "FROM:" else syntax.find_path(argument, "FROM")
    if text is None:
        raise Reject(reply.MAIL_SYNTAX)
    text = text.strip()
    end = text.find("> ") + 1  # parameters follow, unless that stands in a quoted string
    path = text[:end] if end else text
    sender, end = (len(path) < _LONG and syntax.recall_sender(path)) or _read(
        syntax.read_sender, text, reply.BAD_SENDER
    )
    params = {}
    if end < len(text):
        params = read_parameters(syntax.parse_parameters(text[end:]), conversation.offer().mail_parameters)
        limit = conversation.rules.max_message_size
        if limit and params.get("SIZE", 0) > limit:
            raise Reject(reply.TOO_LARGE)
        if conversation.hooks.extensions:
            check_declared(params, conversation.hooks.extensions)
        if conversation.session.user is None and "AUTH" in params:
            params["AUTH"] = ""  # RFC 4954 section 5: of a client that nobody vouches for, as if it were <>
    if not argument.isascii() and "SMTPUTF8" not in params:
        _require_ascii(conversation, sender, params)
    if conversation.rules.room.short:
        raise Reject(reply.NO_STORAGE)
    if conversation.limits is not None or conversation.rules.max_messages:
        conversation.admit_message()
    if conversation.hooks.mail:
        answer = conversation.ask("mail", reply.SENDER_OK, conversation.handler.mail, sender, params)
        if not answer.positive:
            return answer
        conversation.begin(sender, params)
        return answer
    conversation.begin(sender, params)
    return reply.SENDER_OK


def rcpt(conversation: Conversation, argument: str) -> Reply | None:
    """RFC 5321 section 4.1.1.3."""
    transaction = _open_transaction(conversation)
    syntax = conversation.rules.syntax
    text = argument[3:] if argument[:3].upper() == "TO:" else syntax.find_path(argument, "TO")
    if text is None:
        raise Reject(reply.RCPT_SYNTAX)
    try:
        text = text.strip()
        end = text.find("> ") + 1
        path = text[:end] if end else text
        mailbox, end = (len(path) < _LONG and syntax.recall_recipient(path)) or _read(
            syntax.read_recipient, text, reply.BAD_RECIPIENT
        )
        params = {}
        if end < len(text):
            params = read_parameters(syntax.parse_parameters(text[end:]), conversation.offer().rcpt_parameters)
        if not argument.isascii() and "SMTPUTF8" not in transaction.params:
            _require_ascii(conversation, mailbox, params)
        if 0 < conversation.rules.max_recipients <= len(transaction.recipients):
            raise Reject(reply.TOO_MANY_RECIPIENTS)
        if conversation.rules.max_recipient_domains:
            _check_domains(conversation, transaction, mailbox)
        if conversation.limits is not None:
            conversation.limits.recipient()
        recipient = Recipient(mailbox, params)
        answer = reply.RECIPIENT_OK
        if conversation.hooks.rcpt:
            answer = conversation.ask("rcpt", answer, conversation.handler.rcpt, recipient, params)
            if not answer.positive:
                raise Reject(answer)
    except Reject as refusal:
        conversation.refuse_recipient(refusal.reply, argument)
        return None
    transaction.recipients.append(recipient)
    return answer


def _read(read: Callable[[str], Path | None], text: str, fault: Reply) -> Path:
    """What is not remembered; or once more, for what looked like the end of the path may stand in a quoted string."""
    path = read(text)
    if path is None:
        raise Reject(fault)
    return path


def _require_ascii(conversation: Conversation, mailbox: str, params: dict[str, Any]) -> None:
    """Of a command that is not ASCII, without SMTPUTF8 (RFC 6531 section 3.5)."""
    if not mailbox.isascii() or not conversation.rules.syntax.forgives:
        raise Reject(reply.UTF8_NOT_REQUESTED)
    for name, value in tuple(params.items()):
        if isinstance(value, str) and not value.isascii():
            del params[name]


def _check_domains(conversation: Conversation, transaction: Transaction, mailbox: str) -> None:
    domains = {split_mailbox(address)[2].lower() for address in (*transaction.recipients, mailbox)}
    if len(domains) > conversation.rules.max_recipient_domains:
        raise Reject(reply.TOO_MANY_DOMAINS)


def data(conversation: Conversation, argument: str) -> None:
    """RFC 5321 section 4.1.1.4."""
    transaction = _open_transaction(conversation)
    if argument.strip():
        raise Reject(reply.NO_ARGUMENT_ALLOWED)
    if transaction.params.get("BODY") == "BINARYMIME":  # RFC 3030 section 3
        raise Reject(reply.BINARY_NEEDS_BDAT)
    _before_body(conversation, transaction)
    rules = conversation.rules
    if conversation.wire.ahead and not rules.accept_pipelined_body:  # RFC 2920 section 3.1
        conversation.journal.ended(conversation.session, "sent a message before the reply to DATA (pipelined_body)")
        conversation.end(reply.PIPELINED_BODY)
    conversation.wire.write(reply.START_MAIL_INPUT.wire)
    receive(
        conversation,
        transaction,
        DataReader(
            rules.body_wire(conversation.wire),
            rules.max_message_size,
            not rules.accept_bare_newlines,
            rules.max_line_length,
        ),
    )


def bdat(conversation: Conversation, argument: str) -> None:
    """RFC 3030 section 2. The chunk follows in any case: what is refused is read and dropped."""
    size, last = parse_chunk(argument)
    try:
        conversation.require(_BEFORE_CHUNK)
        transaction = _open_transaction(conversation)
        _before_body(conversation, transaction)
    except Reject as refusal:
        conversation.answer(refusal.reply)
        conversation.wire.flush()
        drop_chunk(conversation.rules.body_wire(conversation.wire), size, 2 if conversation.transaction is None else 0)
        return
    receive(conversation, transaction, ChunkReader(conversation, size, last))


def _before_body(conversation: Conversation, transaction: Transaction) -> None:
    if not transaction.recipients:
        # RFC 5321 section 4.1.1.4 leaves the choice; RFC 2033 section 4.2 does not
        raise Reject(reply.RECIPIENT_FIRST if conversation.session.lmtp else reply.NO_VALID_RECIPIENTS)
    if conversation.limits is not None:
        conversation.limits.body(transaction.sender, transaction.recipients)
    if conversation.hooks.data:
        conversation.call("data", conversation.handler.data)


def _open_transaction(conversation: Conversation) -> Transaction:
    if conversation.transaction is None:
        raise Reject(reply.MAIL_FIRST if conversation.session.helo else reply.HELO_FIRST)
    if conversation.transaction.abandoned:
        raise Reject(reply.ABANDONED)
    return conversation.transaction
