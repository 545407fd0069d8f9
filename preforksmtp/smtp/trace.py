"""The trace field a server puts on top of each message: `Received:` (RFC 5321 section 4.4)."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message import Message

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


def received(message: Message) -> str:
    """The whole field, folded, without its final CRLF."""
    session = message.session
    host = session.peer.host
    address = f"[{host}]" if _IPV4.fullmatch(host) else f"[IPv6:{host}]" if ":" in host and session.peer.port else ""
    client = " ".join(filter(None, (session.reverse_dns, address)))
    how = protocol(
        lmtp=session.lmtp,
        esmtp=session.esmtp,
        utf8="SMTPUTF8" in message.params,
        tls=session.tls is not None,
        authenticated=session.user is not None,
    )
    lines = [
        f"Received: from {session.helo or 'unknown'}{f' ({client})' if client else ''}",
        f"by {session.hostname} (preforksmtp) with {how}",
        f"id {message.id}",
    ]
    if session.tls is not None:
        lines[1] += f" ({session.tls.version} {session.tls.cipher})"
    if len(message.recipients) == 1:  # more would show blind copies to each recipient (RFC 5321 section 7.6)
        lines[2] += f" for <{message.recipients[0]}>"
    if "MT-PRIORITY" in message.params:
        lines[2] += f" PRIORITY {message.params['MT-PRIORITY']}"  # RFC 6710
    when = format_datetime(datetime.fromtimestamp(message.time).astimezone())
    return "\r\n\t".join(lines) + f";\r\n\t{when}"
