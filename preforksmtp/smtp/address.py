"""Addresses: the paths, mailboxes, domains and address literals of RFC 5321 section 4.1.2 (and RFC 6531).

Pure grammar: text in, value out, None or Reject. What the grammar does not allow is refused, never repaired; what real
clients send besides is in smtp/lenient.py.
"""

from __future__ import annotations

import ipaddress
import re

from preforksmtp.smtp import reply
from preforksmtp.smtp.reply import Reject, Reply

# RFC 6531 section 3.3: UTF-8 in atoms and labels, but no C1 control characters. All by what they exclude: a set that
# reaches to U+10FFFF takes re.compile 3 ms, there are many in a path, and every start of the server would wait.
_ATOM = r"[^\x00-\x20\"(),.:;<>@\[\\\]\x7f-\xa0]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED_STRING = r'"(?:[^\x00-\x1f"\\\x7f-\xa0]|\\[ -~])*"'
_LABEL_PART = r"[^\x00-/:-@\[-`{-\xa0]+"
_LABEL = rf"{_LABEL_PART}(?:-+{_LABEL_PART})*"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[!-Z^-~]+\]"
_ROUTE = rf"@{_DOMAIN}(?:,@{_DOMAIN})*:"  # RFC 5321 appendix C: accepted, ignored

_PATH = re.compile(rf"<(?:{_ROUTE})?((?P<local>{_DOT_STRING}|{_QUOTED_STRING})@(?P<domain>{_DOMAIN}|{_LITERAL}))>")
_IS_DOT_STRING = re.compile(_DOT_STRING)
_IS_DOMAIN = re.compile(_DOMAIN)
# What clients call themselves in EHLO: also underscores and a final dot, which real hosts have.
_IS_HELO = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_GENERAL_LITERAL = re.compile(r"[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+")

LOCAL_PART_OCTETS = 64  # RFC 5321 section 4.5.3.1.1
DOMAIN_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
PATH_OCTETS = 256  # RFC 5321 section 4.5.3.1.3, with its punctuation

Path = tuple[str, int]  # a mailbox, and where its path ends


def read_reverse_path(text: str) -> Path | None:
    """`<>` or a path at the start of `text`: the sender, "" for null; None where there is none.

    Raises Reject for one that is too long.
    """
    if text.startswith("<>"):
        return "", 2
    return match_path(text, reply.SENDER_TOO_LONG)


def read_forward_path(text: str) -> Path | None:
    """A path or `<Postmaster>` (RFC 5321 section 4.5.1) at the start of `text`: the recipient.

    None where there is none; raises Reject for one that is too long.
    """
    if text[:12].lower() == "<postmaster>":
        return text[1:11], 12
    return match_path(text, reply.RECIPIENT_TOO_LONG)


def match_path(text: str, too_long: Reply | None) -> Path | None:
    """The path at the start of `text`; where its length matters, Reject with `too_long`."""
    found = _PATH.match(text)
    if found is None:
        return None
    mailbox, local, domain = found.groups()
    # Shorter paths cannot break a limit.
    if too_long is not None and (found.end() > LOCAL_PART_OCTETS or not mailbox.isascii()):
        _check_lengths(local, domain, text[: found.end()], too_long)
    if domain[0] == "[" and not is_address_literal(domain):
        return None
    return mailbox, found.end()


def _check_lengths(local: str, domain: str, path: str, too_long: Reply) -> None:
    if (
        len(local.encode()) > LOCAL_PART_OCTETS
        or len(domain.encode()) > DOMAIN_OCTETS
        or len(path.encode()) > PATH_OCTETS
        or any(len(label) > 63 for label in domain.split(".") if domain[0] != "[")
    ):
        raise Reject(too_long)


def quote_address(mailbox: str) -> str:
    """A sender or recipient, as handlers get it, in the form that RFC 5321 has for it: `a..b@x` is `"a..b"@x`.

    What has no such form (no domain, an underscore in it, more octets than section 4.5.3.1 allows) stays as it is.
    """
    local, at, domain = split_mailbox(mailbox)
    if not local or local.startswith('"') or _IS_DOT_STRING.fullmatch(local):
        return mailbox
    return f'"{local}"{at}{domain}'  # atoms and dots only: nothing in it needs a backslash


def split_mailbox(mailbox: str) -> tuple[str, str, str]:
    """Local part, "@", domain; the last two are "" where there is no domain."""
    local, at, domain = mailbox.rpartition("@")
    return (local, at, domain) if at and not domain.endswith('"') else (mailbox, "", "")


def is_mailbox(text: str) -> bool:
    """Whether `text` is a mailbox of RFC 5321 in all respects, its lengths included."""
    try:
        return match_path(f"<{text}>", reply.RECIPIENT_TOO_LONG) == (text, len(text) + 2)
    except Reject:
        return False


def is_domain(text: str) -> bool:
    """Whether `text` is a domain name (RFC 5321 section 4.1.2) of legal length."""
    return (
        len(text.encode()) <= DOMAIN_OCTETS
        and _IS_DOMAIN.fullmatch(text) is not None
        and all(len(label) <= 63 for label in text.split("."))
    )


def is_host_name(text: str) -> bool:
    """Whether `text` is a domain name in ASCII and no IP address (RFC 3696 section 2: its end is no number)."""
    return text.isascii() and is_domain(text) and not text.rpartition(".")[2].isdigit()


def is_address_literal(text: str) -> bool:
    """Whether `text` is `[192.0.2.1]`, `[IPv6:2001:db8::1]` or a general address literal (RFC 5321 section 4.1.3)."""
    if not (text.startswith("[") and text.endswith("]")):
        return False
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return "%" not in inner and bool(ipaddress.IPv6Address(inner[5:]))
        if inner[:1].isdigit() and ":" not in inner:
            return bool(ipaddress.IPv4Address(inner))
    except ValueError:
        return False
    return _GENERAL_LITERAL.fullmatch(inner) is not None


def is_helo_name(text: str) -> bool:
    """Whether `text` may stand in EHLO, HELO and LHLO: a host name as hosts have them, or an address literal."""
    if len(text) > DOMAIN_OCTETS:
        return False
    return _IS_HELO.fullmatch(text) is not None or is_address_literal(text)
