"""The commands of a session, one function each, and VERBS, the table that finds them.

A row says what the command needs, checked once by `missing`. MAIL, RCPT, DATA are in
smtp/mail.py, AUTH in smtp/auth.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from preforksmtp.smtp import reply
from preforksmtp.smtp.auth import auth
from preforksmtp.smtp.command import AUTH_LINE_OCTETS, COMMAND_LINE_OCTETS, ENVELOPE_LINE_OCTETS
from preforksmtp.smtp.mail import bdat, data, mail, rcpt
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.xclient import xclient, xforward

if TYPE_CHECKING:
    from preforksmtp.smtp.dialogue import Dialogue

# What a command may need. TLS and AUTH count where the rules require them. IDLE: patience, for it brings no message
# nearer (max_idle_commands).
HELO, TLS, AUTH, OUTSIDE, TRANSACTION, NO_ARGUMENT, ARGUMENT, IDLE = 1, 2, 4, 8, 16, 32, 64, 128


class Verb(NamedTuple):
    run: Callable[[Dialogue, str], Reply | None]
    needs: int
    octets: int = COMMAND_LINE_OCTETS
    keyword: str = ""  # the extension that must be offered for HELP to name it


def missing(dialogue: Dialogue, needs: int, argument: str) -> None:
    """Refuse a command that lacks one of `needs`, in the order a client would mend it."""
    if needs & IDLE:
        dialogue.idle()
    if needs & NO_ARGUMENT and argument.strip():
        raise Reject(reply.NO_ARGUMENT_ALLOWED)
    if needs & ARGUMENT and not argument.strip():
        raise Reject(reply.NEEDS_ARGUMENT)
    if needs & TLS and dialogue.session.tls is None:
        raise Reject(reply.TLS_FIRST)
    if needs & HELO and not dialogue.session.helo:
        raise Reject(reply.HELO_FIRST)
    if needs & AUTH and dialogue.session.user is None:
        raise Reject(reply.AUTH_FIRST)
    if needs & TRANSACTION and dialogue.transaction is None:
        raise Reject(reply.MAIL_FIRST)
    if needs & OUTSIDE and dialogue.transaction is not None:
        raise Reject(reply.IN_TRANSACTION)


def ehlo(dialogue: Dialogue, name: str) -> Reply:
    """RFC 5321 section 4.1.1.1."""
    _introduce(dialogue, name, esmtp=True)
    return dialogue.offer().ehlo


def helo(dialogue: Dialogue, name: str) -> Reply:
    """RFC 5321 section 4.1.1.1."""
    _introduce(dialogue, name, esmtp=False)
    return dialogue.rules.helo


def lhlo(dialogue: Dialogue, name: str) -> Reply:
    """RFC 2033 section 4.1: the one greeting of an LMTP session, and of no other."""
    _introduce(dialogue, name, esmtp=True, lmtp=True)
    return dialogue.offer().ehlo


def _introduce(dialogue: Dialogue, name: str, esmtp: bool, lmtp: bool = False) -> None:
    if lmtp != dialogue.session.lmtp:
        raise Reject(reply.UNRECOGNIZED)
    name = name.strip()
    if not name or not dialogue.rules.syntax.is_helo(name):
        raise Reject(reply.NEEDS_DOMAIN)
    session, before = dialogue.session, dialogue.session.esmtp
    session.esmtp = esmtp  # the hook may ask which of them it was
    if dialogue.hooks.helo:
        try:
            dialogue.call("helo", dialogue.handler.helo, name)
        except Reject:  # whatever it raises: a refusal leaves the state as it was (section 4.1.4)
            session.esmtp = before
            raise
    if session.helo:  # once or twice is needed
        dialogue.idle()
    session.helo = name
    dialogue.journal.greeted()
    dialogue.reset()


def starttls(dialogue: Dialogue, argument: str) -> None:
    """RFC 3207: whatever was known of the client before the handshake is forgotten."""
    session = dialogue.session
    if session.tls is not None:
        raise Reject(reply.ALREADY_TLS)
    if not dialogue.rules.offer_tls:
        raise Reject(reply.NOT_IMPLEMENTED)
    dialogue.reset()  # before the 220: what the handler raises here must not be a reply inside TLS to nothing
    dialogue.wire.write(reply.READY_FOR_TLS.wire)
    session.tls = dialogue.wire.start_tls()
    session.helo, session.esmtp, session.user = "", False, None
    dialogue.journal.tls_started(session)


def rset(dialogue: Dialogue, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.5."""
    if dialogue.transaction is None and dialogue.hooks.reset:
        dialogue.call("reset", dialogue.handler.reset)
    dialogue.reset()
    return reply.OK


def noop(dialogue: Dialogue, argument: str) -> Reply:
    return reply.OK


def quit_(dialogue: Dialogue, argument: str) -> None:
    if argument.strip():
        raise Reject(reply.NO_ARGUMENT_ALLOWED)
    dialogue.quit = True
    dialogue.end(reply.CLOSING)


def vrfy(dialogue: Dialogue, argument: str) -> Reply:
    """RFC 5321 section 3.5.3: without a hook, neither yes nor no."""
    if not dialogue.hooks.verify:
        return reply.CANNOT_VERIFY
    return dialogue.ask("verify", reply.CANNOT_VERIFY, dialogue.handler.verify, _whom(argument))


def expn(dialogue: Dialogue, argument: str) -> Reply:
    if not dialogue.hooks.expand:
        return reply.NOT_IMPLEMENTED
    return dialogue.ask("expand", reply.NOT_IMPLEMENTED, dialogue.handler.expand, _whom(argument))


def _whom(argument: str) -> str:
    """What VRFY or EXPN asks for. A client that can read UTF-8 in the reply may say so (RFC 6531 section 3.7.4.2)."""
    words = argument.strip()
    return words[:-9].rstrip() if words.upper().endswith(" SMTPUTF8") else words


def etrn(dialogue: Dialogue, argument: str) -> Reply:
    """RFC 1985."""
    if not dialogue.hooks.etrn:
        return reply.NOT_IMPLEMENTED
    return dialogue.ask("etrn", reply.QUEUING_STARTED, dialogue.handler.etrn, argument.strip())


def help_(dialogue: Dialogue, argument: str) -> Reply:
    """RFC 5321 section 4.1.1.8: the commands that this client may use."""
    keywords = dialogue.offer().keywords
    greetings = {"HELO", "EHLO"} if dialogue.session.lmtp else {"LHLO"}  # of the other protocol
    names = [
        name for name, verb in VERBS.items() if name not in greetings and (not verb.keyword or verb.keyword in keywords)
    ]
    standard = Reply(214, ["2.0.0 Commands: " + " ".join(names), "RFC 5321 has the rest"])
    if not dialogue.hooks.help:
        return standard
    return dialogue.ask("help", standard, dialogue.handler.help, argument.strip())


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
