"""The trace field a server puts on top of each message: `Received:` (RFC 5321 section 4.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Any

from preforksmtp.smtp.address import is_address_literal, is_domain, is_mailbox, quote_address
from preforksmtp.smtp.session import Session

_UNSAFE = re.compile(r"[^!#$%&'*+\-./0-9:=?A-Z\[\]^_`a-z{|}~]")  # blanks too, that no word of it looks like a clause
_SAID_CHARACTERS = 255
_SEPARATOR = re.compile(r"[ ()<>,;\\]")  # legal in a quoted local part, and a trap for readers of trace fields
_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-F:.]+\]", re.IGNORECASE)  # of IP addresses; others have any punctuation

_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


def protocol(*, lmtp: bool, esmtp: bool, utf8: bool, tls: bool, authenticated: bool) -> str:
    """The `with` protocol (RFC 3848; RFC 6531 section 4.3): SMTP, ESMTPSA, UTF8SMTPS, LMTP and so on."""
    if lmtp:
        name = "UTF8LMTP" if utf8 else "LMTP"
    elif utf8:
        name = "UTF8SMTP"
    else:
        name = "ESMTP" if esmtp or tls or authenticated else "SMTP"
    return f"{name}{'S' if tls else ''}{'A' if authenticated else ''}"


def received(session: Session, id: str, recipients: Sequence[str], params: Mapping[str, Any], time: float) -> str:
    """The whole field, folded, without its final CRLF: of the message `id`, with the parameters of its MAIL, that came
    at `time`, seconds since the epoch."""
    host = session.peer.host.partition("%")[0]  # without the scope that a link-local address may have
    address = f"[{host}]" if _IPV4.fullmatch(host) else f"[IPv6:{host}]" if ":" in host else ""
    client = " ".join(filter(None, (session.reverse_dns, address)))
    how = protocol(
        lmtp=session.lmtp,
        esmtp=session.esmtp,
        utf8="SMTPUTF8" in params,
        tls=session.tls is not None,
        authenticated=session.user is not None,
    )
    name, said = _introduced(session.helo)
    if name.startswith("[") and not client:
        name, said = "unknown", f" (HELO {name})"  # the grammar has no literal alone
    lines = [
        f"Received: from {name}{f' ({client})' if client else ''}{said}",
        f"by {session.hostname} (preforksmtp) with {how}",
        f"id {id}",
    ]
    if session.tls is not None:
        lines[1] += f" ({session.tls.version} {session.tls.cipher})"
    if len(recipients) == 1:  # more would show blind copies to each recipient (RFC 5321 section 7.6)
        recipient = quote_address(recipients[0])
        if is_mailbox(recipient) and not _SEPARATOR.search(recipient):
            lines[2] += f" for <{recipient}>"
    if "MT-PRIORITY" in params:
        lines[2] += f" PRIORITY {params['MT-PRIORITY']}"  # RFC 6710
    when = format_datetime(datetime.fromtimestamp(time).astimezone())
    return "\r\n\t".join(lines) + f";\r\n\t{when}"


@lru_cache(256)
def _introduced(helo: str) -> tuple[str, str]:
    """The name after "from", and a comment with what the client said where that is no name that may stand there."""
    name = helo.removesuffix(".")
    if name.isascii() and (is_domain(name) or (_LITERAL.fullmatch(name) and is_address_literal(name))):
        return name, ""
    return "unknown", f" (HELO {_UNSAFE.sub('?', helo[:_SAID_CHARACTERS])})" if helo else ""
