"""Service extensions: KEYWORDS, the table of what EHLO offers to whom.

An extension is a row here and, where it has parameters, a row for each in smtp/parameters.py. A row says when the
extension is offered, which is only where it is wholly honoured, and what stands behind its keyword.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from preforksmtp.smtp.parameters import MAIL_PARAMETERS, RCPT_PARAMETERS, Parameter, Parameters
from preforksmtp.smtp.reply import Reply
from preforksmtp.smtp.rules import Rules
from preforksmtp.smtp.sasl import MECHANISMS


class Standing(NamedTuple):
    """What decides what a client is offered."""

    tls: bool = False
    authenticated: bool = False
    xclient: bool = False  # trusted to say XCLIENT, XFORWARD
    xforward: bool = False
    binding: bool = False  # its TLS has something to bind to (-PLUS)
    certificate: bool = False  # its TLS has a verified certificate of the client


def _declared(keyword: str) -> Callable[[Rules, Standing], str | None]:
    return lambda rules, standing: rules.hooks.extensions.get(keyword)


def _limits(rules: Rules, standing: Standing) -> str | None:
    """RFC 9422."""
    limits = {
        "RCPTMAX": rules.max_recipients,
        "MAILMAX": rules.max_messages,
        "RCPTDOMAINMAX": rules.max_recipient_domains,
    }
    return " ".join(f"{name}={limit}" for name, limit in limits.items() if limit) or None


def _future_release(rules: Rules, standing: Standing) -> str | None:
    """RFC 4865 section 3: the most seconds, and the date they come to."""
    seconds = rules.hooks.extensions.get("FUTURERELEASE")
    if seconds is None:
        return None
    until = datetime.now(timezone.utc) + timedelta(seconds=int(seconds))
    return f"{seconds} {until:%Y-%m-%dT%H:%M:%SZ}"


# (rules, standing) -> None: not offered; "" or what follows the keyword
KEYWORDS: dict[str, Callable[[Rules, Standing], str | None]] = {
    "PIPELINING": lambda rules, standing: "",  # RFC 2920
    "SIZE": lambda rules, standing: str(rules.max_message_size or ""),  # RFC 1870
    "8BITMIME": lambda rules, standing: "",  # RFC 6152
    "SMTPUTF8": lambda rules, standing: "",  # RFC 6531
    "ENHANCEDSTATUSCODES": lambda rules, standing: "",  # RFC 2034
    "CHUNKING": lambda rules, standing: "",  # RFC 3030
    "BINARYMIME": lambda rules, standing: "",  # RFC 3030
    "DSN": lambda rules, standing: "",  # RFC 3461
    "STARTTLS": lambda rules, standing: "" if rules.offer_tls and not standing.tls else None,  # RFC 3207
    "AUTH": lambda rules, standing: (  # RFC 4954
        None if standing.authenticated else " ".join(offered_mechanisms(rules, standing)) or None
    ),
    "REQUIRETLS": lambda rules, standing: "" if standing.tls and not rules.lmtp else None,  # RFC 8689
    "LIMITS": _limits,  # RFC 9422
    "MT-PRIORITY": _declared("MT-PRIORITY"),  # RFC 6710
    "DELIVERBY": _declared("DELIVERBY"),  # RFC 2852
    "FUTURERELEASE": _future_release,  # RFC 4865
    "RRVS": _declared("RRVS"),  # RFC 7293
    "PRDR": lambda rules, standing: None if rules.lmtp else rules.hooks.extensions.get("PRDR"),  # draft-hall-prdr
    "ETRN": lambda rules, standing: "" if rules.hooks.etrn else None,  # RFC 1985
    "VRFY": lambda rules, standing: "" if rules.hooks.verify else None,  # RFC 5321 section 3.5.2: may be listed,
    "EXPN": lambda rules, standing: "" if rules.hooks.expand else None,  # and this one must
    "HELP": lambda rules, standing: "",
    "XCLIENT": lambda rules, standing: (
        "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT" if standing.xclient else None
    ),
    "XFORWARD": lambda rules, standing: "NAME ADDR PORT PROTO HELO IDENT SOURCE" if standing.xforward else None,
}


def offered(rules: Rules, standing: Standing) -> dict[str, str]:
    """The keywords offered, with what follows each."""
    found = ((keyword, offer(rules, standing)) for keyword, offer in KEYWORDS.items())
    return {keyword: value for keyword, value in found if value is not None}


def offered_mechanisms(rules: Rules, standing: Standing) -> tuple[str, ...]:
    """The AUTH mechanisms a client may use now: none in clear unless that is allowed (RFC 4954 section 4).

    That holds for those too that do not show the password: they do not hide the rest of the session.
    """
    if not standing.tls and not rules.allow_insecure_auth:
        return ()
    has = {"": True, "binding": standing.binding, "certificate": standing.certificate}
    return tuple(name for name in rules.mechanisms if has[MECHANISMS[name].needs])


class Offer:
    """The extensions offered to clients of one standing, as the EHLO reply and as the parameters they may use."""

    def __init__(self, rules: Rules, standing: Standing) -> None:
        self._rules = rules
        self._standing = standing
        self.keywords = keywords = offered(rules, standing)
        self.mechanisms = offered_mechanisms(rules, standing)
        self._reply = None if "FUTURERELEASE" in keywords else self._encode(keywords)
        self.mail_parameters = self._known(MAIL_PARAMETERS)
        self.rcpt_parameters = self._known(RCPT_PARAMETERS)

    @property
    def ehlo(self) -> Reply:
        """The reply to EHLO or LHLO: the greeting domain and one keyword a line (RFC 5321 section 4.1.1.1)."""
        return self._reply or self._encode(offered(self._rules, self._standing))  # a keyword with a date in it

    def _encode(self, keywords: dict[str, str]) -> Reply:
        lines = [f"{keyword} {value}".rstrip() for keyword, value in keywords.items()]
        return Reply(250, [self._rules.hostname, *lines], bare=True)

    def _known(self, table: dict[str, Parameter]) -> Parameters:
        choose = self._rules.syntax.choose_reader
        return {name: choose(row) for name, row in table.items() if not row.extension or row.extension in self.keywords}


def offer(rules: Rules, standing: Standing) -> Offer:
    """What a client of this standing is offered. Made once for all of them."""
    found: Offer | None = rules.offers.get(standing)
    if found is None:
        found = rules.offers[standing] = Offer(rules, standing)
    return found
