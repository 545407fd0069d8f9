"""The commands of a session, one function each, and VERBS, the table that finds them.

A row says what the command needs, checked once by `missing` (smtp/conversation.py). MAIL, RCPT, DATA and BDAT are in
smtp/mail.py, AUTH in smtp/auth.py, XCLIENT and XFORWARD in smtp/xclient.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from preforksmtp.smtp import reply
from preforksmtp.smtp.auth import auth
from preforksmtp.smtp.command import AUTH_LINE_OCTETS, COMMAND_LINE_OCTETS, ENVELOPE_LINE_OCTETS
from preforksmtp.smtp.conversation import ARGUMENT, AUTH, HELO, IDLE, NO_ARGUMENT, OUTSIDE, TLS, Conversation
from preforksmtp.smtp.mail import bdat, data, mail, rcpt
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.xclient import xclient, xforward


class Verb(NamedTuple):
    run: Callable[[Conversation, str], Reply | None]
    needs: int
    octets: int = COMMAND_LINE_OCTETS
    keyword: str = ""  # the extension that must be offered for HELP to name it


def ehlo(conversation: Conversation, name: str) -> Reply:
    """RFC 5321 section 4.1.1.1."""
    _introduce(conversation, name, esmtp=True)
    return conversation.offer().ehlo


def helo(conversation: Conversation, name: str) -> Reply:
    """RFC 5321 section 4.1.1.1."""
    _introduce(conversation, name, esmtp=False)
    return conversation.rules.helo


def lhlo(conversation: Conversation, name: str) -> Reply:
    """RFC 2033 section 4.1: the one greeting of an LMTP session, and of no other."""
    _introduce(conversation, name, esmtp=True, lmtp=True)
    return conversation.offer().ehlo


def _introduce(conversation: Conversation, name: str, esmtp: bool, lmtp: bool = False) -> None:
    if lmtp != conversation.session.lmtp:
        raise Reject(reply.UNRECOGNIZED)
    name = name.strip()
    if not name or not conversation.rules.syntax.is_helo(name):
        raise Reject(reply.NEEDS_DOMAIN)
    session, before = conversation.session, conversation.session.esmtp
    session.esmtp = esmtp  # the hook may ask which of them it was
    if conversation.hooks.helo:
        try:
            conversation.call("helo", conversation.handler.helo, name)
        except Reject:  # whatever it raises: a refusal leaves the state as it was (section 4.1.4)
            session.esmtp = before
            raise
    if session.helo:  # once or twice is needed
        conversation.idle()
    session.helo = name
    conversation.journal.greeted()
    conversation.reset()


def starttls(conversation: Conversation, argument: str) -> None:
    """RFC 3207: whatever was known of the client before the handshake is forgotten."""
    session = conversation.session
    if session.tls is not None:
        raise Reject(reply.ALREADY_TLS)
    if not conversation.rules.offer_tls:
        raise Reject(reply.NOT_IMPLEMENTED)
    conversation.reset()  # before the 220: what the handler raises here must not be a reply inside TLS to nothing
    conversation.wire.write(reply.READY_FOR_TLS.wire)
    session.tls = conversation.wire.start_tls()
    session.helo, session.esmtp, session.user = "", False, None
    conversation.journal.tls_started(session)


def rset(conversation: Conversation, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.5."""
    if conversation.transaction is None and conversation.hooks.reset:
        conversation.call("reset", conversation.handler.reset)
    conversation.reset()
    return reply.OK


def noop(conversation: Conversation, argument: str) -> Reply:
    return reply.OK


def quit_(conversation: Conversation, argument: str) -> None:
    if argument.strip():
        raise Reject(reply.NO_ARGUMENT_ALLOWED)
    conversation.quit = True
    conversation.end(reply.CLOSING)


def vrfy(conversation: Conversation, argument: str) -> Reply:
    """RFC 5321 section 3.5.3: without a hook, neither yes nor no."""
    if not conversation.hooks.verify:
        return reply.CANNOT_VERIFY
    return conversation.ask("verify", reply.CANNOT_VERIFY, conversation.handler.verify, _whom(argument))


def expn(conversation: Conversation, argument: str) -> Reply:
    if not conversation.hooks.expand:
        return reply.NOT_IMPLEMENTED
    return conversation.ask("expand", reply.NOT_IMPLEMENTED, conversation.handler.expand, _whom(argument))


def _whom(argument: str) -> str:
    """What VRFY or EXPN asks for. A client that can read UTF-8 in the reply may say so (RFC 6531 section 3.7.4.2)."""
    words = argument.strip()
    return words[:-9].rstrip() if words.upper().endswith(" SMTPUTF8") else words


def etrn(conversation: Conversation, argument: str) -> Reply:
    """RFC 1985."""
    if not conversation.hooks.etrn:
        return reply.NOT_IMPLEMENTED
    return conversation.ask("etrn", reply.QUEUING_STARTED, conversation.handler.etrn, argument.strip())


def help_(conversation: Conversation, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.8: the commands that this client may use."""
    keywords = conversation.offer().keywords
    greetings = {"HELO", "EHLO"} if conversation.session.lmtp else {"LHLO"}  # of the other protocol
    names = [
        name for name, verb in VERBS.items() if name not in greetings and (not verb.keyword or verb.keyword in keywords)
    ]
    standard = Reply(214, ["2.0.0 Commands: " + " ".join(names), "RFC 5321 has the rest"])
    if not conversation.hooks.help:
        return standard
    return conversation.ask("help", standard, conversation.handler.help, argument.strip())


VERBS: dict[str, Verb] = {
    "HELO": Verb(helo, TLS),
    "EHLO": Verb(ehlo, 0),
    "LHLO": Verb(lhlo, 0),
    "STARTTLS": Verb(starttls, NO_ARGUMENT, keyword="STARTTLS"),
    "AUTH": Verb(auth, TLS | HELO | OUTSIDE | IDLE, AUTH_LINE_OCTETS, "AUTH"),
    "MAIL": Verb(mail, TLS | HELO | AUTH, ENVELOPE_LINE_OCTETS),
    "RCPT": Verb(rcpt, TLS, ENVELOPE_LINE_OCTETS),  # it looks for the transaction, which stands for HELO and AUTH
    "DATA": Verb(data, TLS),
    "BDAT": Verb(bdat, 0),  # it says itself what it needs: its chunk must be read in any case
    "RSET": Verb(rset, TLS | NO_ARGUMENT | IDLE),
    "NOOP": Verb(noop, IDLE),
    "VRFY": Verb(vrfy, TLS | AUTH | ARGUMENT | IDLE),
    "EXPN": Verb(expn, TLS | AUTH | ARGUMENT | IDLE, keyword="EXPN"),
    "ETRN": Verb(etrn, TLS | HELO | AUTH | OUTSIDE | ARGUMENT | IDLE, keyword="ETRN"),
    "XCLIENT": Verb(xclient, OUTSIDE | IDLE, keyword="XCLIENT"),
    "XFORWARD": Verb(xforward, TLS | HELO | OUTSIDE | IDLE, keyword="XFORWARD"),
    "HELP": Verb(help_, TLS | IDLE),
    "QUIT": Verb(quit_, 0),
}
