"""The commands of a mail transaction: MAIL, RCPT, DATA (RFC 5321 section 3.3) and BDAT (RFC 3030)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import reply
from .address import parse_forward_path, parse_reverse_path
from .body import DataReader
from .chunks import ChunkReader, drop_chunk, parse_chunk
from .command import parse_parameters
from .delivery import receive
from .limits import body_wire
from .parameters import check_declared, read_parameters
from .reply import Reject, Reply
from .transaction import Recipient, Transaction

if TYPE_CHECKING:
    from .dialogue import Dialogue


def mail(dialogue: Dialogue, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.2. A space behind the colon is forgiven, as it is everywhere."""
    if dialogue.transaction is not None:
        raise Reject(reply.NESTED_MAIL)
    if dialogue.wire.draining and not dialogue.may_begin():
        raise Reject(reply.SHUTTING_DOWN)
    if argument[:5].upper() != "FROM:":
        raise Reject(reply.MAIL_SYNTAX)
    path = argument[5:].strip(" ")
    sender, end = parse_reverse_path(path)
    params = {}
    if end < len(path):
        params = read_parameters(parse_parameters(path[end:]), dialogue.offer().mail_parameters)
        limit = dialogue.rules.max_message_size
        if limit and params.get("SIZE", 0) > limit:
            raise Reject(reply.TOO_LARGE)
        if dialogue.hooks.extensions:
            check_declared(params, dialogue.hooks.extensions)
        if dialogue.session.user is None and "AUTH" in params:
            params["AUTH"] = ""  # RFC 4954 section 5: of a client that nobody vouches for, as if it were <>
    if not argument.isascii() and "SMTPUTF8" not in params:
        raise Reject(reply.UTF8_NOT_REQUESTED)
    if dialogue.limits is not None or dialogue.rules.max_messages:
        dialogue.admit_message()
    if dialogue.hooks.mail:
        answer = dialogue.ask("mail", reply.SENDER_OK, dialogue.handler.mail, sender, params)
        if not answer.positive:
            return answer
        dialogue.begin(sender, params)
        return answer
    dialogue.begin(sender, params)
    return reply.SENDER_OK


def rcpt(dialogue: Dialogue, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.3."""
    transaction = _open_transaction(dialogue)
    if argument[:3].upper() != "TO:":
        raise Reject(reply.RCPT_SYNTAX)
    path = argument[3:].strip(" ")
    mailbox, end = parse_forward_path(path)
    params = {}
    if end < len(path):
        params = read_parameters(parse_parameters(path[end:]), dialogue.offer().rcpt_parameters)
    if not argument.isascii() and "SMTPUTF8" not in transaction.params:
        raise Reject(reply.UTF8_NOT_REQUESTED)
    if 0 < dialogue.rules.max_recipients <= len(transaction.recipients):
        raise Reject(reply.TOO_MANY_RECIPIENTS)
    if dialogue.rules.max_recipient_domains:
        domains = {mail.rpartition("@")[2].lower() for mail in (*transaction.recipients, mailbox)}
        if len(domains) > dialogue.rules.max_recipient_domains:
            raise Reject(reply.TOO_MANY_DOMAINS)
    if dialogue.limits is not None:
        dialogue.limits.recipient()
    recipient = Recipient(mailbox, params)
    answer = reply.RECIPIENT_OK
    if dialogue.hooks.rcpt:
        answer = dialogue.ask("rcpt", answer, dialogue.handler.rcpt, recipient, params)
        if not answer.positive:
            return answer
    transaction.recipients.append(recipient)
    return answer


def data(dialogue: Dialogue, argument: str) -> None:
    """RFC 5321 section 4.1.1.4."""
    transaction = _open_transaction(dialogue)
    if argument.strip():
        raise Reject(reply.NO_ARGUMENT_ALLOWED)
    if transaction.params.get("BODY") == "BINARYMIME":  # RFC 3030 section 3
        raise Reject(reply.BINARY_NEEDS_BDAT)
    _before_body(dialogue, transaction)
    dialogue.wire.write(reply.START_MAIL_INPUT.wire)
    rules = dialogue.rules
    receive(
        dialogue,
        transaction,
        DataReader(
            body_wire(dialogue),
            rules.data_timeout,
            rules.max_message_size,
            not rules.accept_bare_newlines,
            rules.max_line_length,
        ),
    )


def bdat(dialogue: Dialogue, argument: str) -> None:
    """RFC 3030 section 2. The chunk follows in any case: what is refused is read and dropped."""
    size, last = parse_chunk(argument)
    try:
        dialogue.require(dialogue.BEFORE_CHUNK)
        transaction = _open_transaction(dialogue)
        _before_body(dialogue, transaction)
    except Reject as refusal:
        dialogue.answer(refusal.reply)
        dialogue.wire.flush()
        drop_chunk(dialogue.wire, size, dialogue.rules.data_timeout)
        return
    receive(dialogue, transaction, ChunkReader(dialogue, size, last))


def _before_body(dialogue: Dialogue, transaction: Transaction) -> None:
    if not transaction.recipients:
        # RFC 5321 4.1.1.4 leaves the choice; RFC 2033 4.2 does not
        raise Reject(reply.RECIPIENT_FIRST if dialogue.session.lmtp else reply.NO_VALID_RECIPIENTS)
    if dialogue.hooks.data:
        dialogue.call("data", dialogue.handler.data)


def _open_transaction(dialogue: Dialogue) -> Transaction:
    if dialogue.transaction is None:
        raise Reject(reply.MAIL_FIRST if dialogue.session.helo else reply.HELO_FIRST)
    if dialogue.transaction.abandoned:
        raise Reject(reply.ABANDONED)
    return dialogue.transaction
