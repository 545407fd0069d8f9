"""The commands of a mail transaction: MAIL, RCPT, DATA (RFC 5321 section 3.3) and BDAT (RFC 3030)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from preforksmtp.smtp import reply
from preforksmtp.smtp.address import Path, split_mailbox
from preforksmtp.smtp.body import DataReader
from preforksmtp.smtp.chunks import ChunkReader, drop_chunk, parse_chunk
from preforksmtp.smtp.delivery import receive
from preforksmtp.smtp.parameters import check_declared, read_parameters
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.transaction import Recipient, Transaction

if TYPE_CHECKING:
    from preforksmtp.smtp.dialogue import Dialogue

_LONG = 300  # characters of a path that is not remembered


def mail(dialogue: Dialogue, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.2. Spaces behind the colon are forgiven, as they are everywhere."""
    if dialogue.transaction is not None:
        raise Reject(reply.NESTED_MAIL)
    dialogue.mail_refused = True  # until it is not
    if dialogue.wire.draining and not dialogue.may_begin():
        raise Reject(reply.SHUTTING_DOWN)
    syntax = dialogue.rules.syntax
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
        params = read_parameters(syntax.parse_parameters(text[end:]), dialogue.offer().mail_parameters)
        limit = dialogue.rules.max_message_size
        if limit and params.get("SIZE", 0) > limit:
            raise Reject(reply.TOO_LARGE)
        if dialogue.hooks.extensions:
            check_declared(params, dialogue.hooks.extensions)
        if dialogue.session.user is None and "AUTH" in params:
            params["AUTH"] = ""  # RFC 4954 section 5: of a client that nobody vouches for, as if it were <>
    if not argument.isascii() and "SMTPUTF8" not in params:
        _require_ascii(dialogue, sender, params)
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


def rcpt(dialogue: Dialogue, argument: str) -> Reply | None:
    """RFC 5321 section 4.1.1.3."""
    transaction = _open_transaction(dialogue)
    syntax = dialogue.rules.syntax
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
            params = read_parameters(syntax.parse_parameters(text[end:]), dialogue.offer().rcpt_parameters)
        if not argument.isascii() and "SMTPUTF8" not in transaction.params:
            _require_ascii(dialogue, mailbox, params)
        if 0 < dialogue.rules.max_recipients <= len(transaction.recipients):
            raise Reject(reply.TOO_MANY_RECIPIENTS)
        if dialogue.rules.max_recipient_domains:
            _check_domains(dialogue, transaction, mailbox)
        if dialogue.limits is not None:
            dialogue.limits.recipient()
        recipient = Recipient(mailbox, params)
        answer = reply.RECIPIENT_OK
        if dialogue.hooks.rcpt:
            answer = dialogue.ask("rcpt", answer, dialogue.handler.rcpt, recipient, params)
            if not answer.positive:
                raise Reject(answer)
    except Reject as refusal:
        dialogue.refuse_recipient(refusal.reply, argument)
        return None
    transaction.recipients.append(recipient)
    return answer


def _read(read: Callable[[str], Path | None], text: str, fault: Reply) -> Path:
    """What is not remembered; or once more, for what looked like the end of the path may stand in a quoted string."""
    path = read(text)
    if path is None:
        raise Reject(fault)
    return path


def _require_ascii(dialogue: Dialogue, mailbox: str, params: dict[str, Any]) -> None:
    """Of a command that is not ASCII, without SMTPUTF8 (RFC 6531 section 3.5)."""
    if not mailbox.isascii() or not dialogue.rules.syntax.forgives:
        raise Reject(reply.UTF8_NOT_REQUESTED)
    for name, value in tuple(params.items()):
        if isinstance(value, str) and not value.isascii():
            del params[name]


def _check_domains(dialogue: Dialogue, transaction: Transaction, mailbox: str) -> None:
    domains = {split_mailbox(address)[2].lower() for address in (*transaction.recipients, mailbox)}
    if len(domains) > dialogue.rules.max_recipient_domains:
        raise Reject(reply.TOO_MANY_DOMAINS)


def data(dialogue: Dialogue, argument: str) -> None:
    """RFC 5321 section 4.1.1.4."""
    transaction = _open_transaction(dialogue)
    if argument.strip():
        raise Reject(reply.NO_ARGUMENT_ALLOWED)
    if transaction.params.get("BODY") == "BINARYMIME":  # RFC 3030 section 3
        raise Reject(reply.BINARY_NEEDS_BDAT)
    _before_body(dialogue, transaction)
    rules = dialogue.rules
    if dialogue.wire.ahead and not rules.accept_pipelined_body:  # RFC 2920 section 3.1
        dialogue.journal.ended(dialogue.session, "sent a message before the reply to DATA (pipelined_body)")
        dialogue.end(reply.PIPELINED_BODY)
    dialogue.wire.write(reply.START_MAIL_INPUT.wire)
    receive(
        dialogue,
        transaction,
        DataReader(
            rules.body_wire(dialogue.wire),
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
        drop_chunk(dialogue.rules.body_wire(dialogue.wire), size, 2 if dialogue.transaction is None else 0)
        return
    receive(dialogue, transaction, ChunkReader(dialogue, size, last))


def _before_body(dialogue: Dialogue, transaction: Transaction) -> None:
    if not transaction.recipients:
        # RFC 5321 section 4.1.1.4 leaves the choice; RFC 2033 section 4.2 does not
        raise Reject(reply.RECIPIENT_FIRST if dialogue.session.lmtp else reply.NO_VALID_RECIPIENTS)
    if dialogue.limits is not None:
        dialogue.limits.body(transaction.sender, transaction.recipients)
    if dialogue.hooks.data:
        dialogue.call("data", dialogue.handler.data)


def _open_transaction(dialogue: Dialogue) -> Transaction:
    if dialogue.transaction is None:
        raise Reject(reply.MAIL_FIRST if dialogue.session.helo else reply.HELO_FIRST)
    if dialogue.transaction.abandoned:
        raise Reject(reply.ABANDONED)
    return dialogue.transaction
