"""Addresses as real clients write them, beyond the grammar of smtp/address.py: what address_syntax=lenient takes.

Pure grammar: text in, value out, or None. Taken is what can be read in one way only. Whatever it was, a mailbox has one
form: that of RFC 5321 where it has one, as it was sent; otherwise without brackets, route, comments and the final dot
of the domain, its local part of atoms and dots as it is, every other one a quoted string. Every pattern is linear.
"""

from __future__ import annotations

import ipaddress
import re

from preforksmtp.smtp import reply
from preforksmtp.smtp.address import Path, is_address_literal, match_path
from preforksmtp.smtp.reply import Reject, Reply

PATH_OCTETS = 2048  # with its brackets; the rest of a command line is for parameters

_QUOTED = r'"[^\x00-\x1f"\\\x7f-\x9f]*(?:\\[^\x00-\x1f\x7f-\x9f][^\x00-\x1f"\\\x7f-\x9f]*)*"'
_PAIR = r"\\[ -~]"  # of RFC 821, also outside of quotes
_PLAIN = r"[^\x00-\x20\"(),;<>@\[\\\]\x7f-\xa0]*"  # atoms, dots and colons
_LOCAL = rf"{_PLAIN}(?:(?:{_QUOTED}|{_PAIR}){_PLAIN})*"
_LABEL = r"[^\x00-,./:-@\[-^`{-\xa0]+"  # hyphens and underscores anywhere
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
# Also a name in brackets, an IPv6 address without its tag or with a scope.
_LITERAL = rf"\[(?:{_DOMAIN}|(?:[Ii][Pp][Vv]6:)?(?=[^:\]]*:)[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]"
_COMMENT = r"(?:(?<!\$)\([^\x00-\x20\"(),;<>@\[\\\]\x7f-\xa0]*\))?"
_ROUTE = rf"(?:@(?:{_DOMAIN}\.?|{_LITERAL})(?:,@(?:{_DOMAIN}\.?|{_LITERAL}))*:)?"

_BRACKETED = re.compile(rf'<([^"\\<>]*(?:(?:{_QUOTED}|\\[^\t])[^"\\<>]*)*)>')
_UNBRACKETED = re.compile(rf'([^" \t\\<>]*(?:(?:{_QUOTED}|\\[^\t])[^" \t\\<>]*)*)')
_MAILBOX = re.compile(
    rf"{_ROUTE}{_COMMENT}(?P<local>{_LOCAL}){_COMMENT}"
    rf"(?:@{_COMMENT}(?:(?P<domain>{_DOMAIN})\.?|(?P<literal>{_LITERAL})){_COMMENT})?[,;]?"
)
_DIGITS = re.compile(r"\[[0-9.]+\]")
_UNQUOTE = re.compile(r'\\(.)|"')
_ATOMS_AND_DOTS = re.compile(r"[^\x00-\x20\"(),:;<>@\[\\\]\x7f-\xa0]+")
_NULL = ("", '""')
_TO_ESCAPE = re.compile(r'["\\]')


def read_reverse_path(text: str) -> Path | None:
    """The sender at the start of `text`, "" for null, and where it ends; None where there is none."""
    return ("", 2) if text.startswith("<>") else _read_path(text, reply.SENDER_TOO_LONG)


def read_forward_path(text: str) -> Path | None:
    """The recipient at the start of `text`, and where it ends; None where there is none."""
    found = _read_path(text, reply.RECIPIENT_TOO_LONG)
    return found if found is not None and found[0] else None


def _read_path(text: str, too_long: Reply) -> Path | None:
    """The mailbox, "" for one that is empty, and where its path ends. Raises Reject with `too_long`."""
    found = match_path(text, None)
    if found is None or text[found[1] : found[1] + 1] in (",", ";"):
        extent = _find_path(text)
        mailbox = read_mailbox(extent[0]) if extent is not None else None
        if extent is None or mailbox is None:
            return None
        found = mailbox, extent[1]
    if found[1] > PATH_OCTETS // 4 and len(text[: found[1]].encode()) > PATH_OCTETS:
        raise Reject(too_long)
    return found


def _find_path(text: str) -> tuple[str, int] | None:
    """What is in the brackets, one or two pairs of them, or up to the first blank; and where the path ends."""
    twice = text.startswith("<<")
    found = _BRACKETED.match(text, twice) if text.startswith("<") else _UNBRACKETED.match(text)
    if found is None or not found[0]:
        return None
    end = found.end()
    if text[0] != "<" and "=" in text[:end] and "@" not in text[:end]:
        return None  # a parameter, of no path
    if twice:
        if text[end : end + 1] != ">":
            return None
        end += 1
    inner = found[1].strip(" \t")
    if text[end : end + 1] in (",", ";") and inner not in _NULL:  # of a list of one
        end += 1
    if text[end : end + 1] not in ("", " ", "\t"):
        return None
    return inner, end


def read_mailbox(text: str) -> str | None:
    """What stands in the brackets, as the one form that it has; "" where that is nothing at all."""
    strict = match_path(f"<{text}>", None)
    if strict is not None and strict[1] == len(text) + 2:
        return strict[0]
    found = _MAILBOX.fullmatch(text)
    if found is None:
        return None
    given, domain, literal = found["local"], found["domain"], found["literal"]
    # Nearly no quoted string needs a look at each of its characters, and thousands of them cost.
    local = _UNQUOTE.sub(lambda pair: pair[1] or "", given) if "\\" in given else given.replace('"', "")
    if domain is None and literal is None:
        if not local:
            return "" if text in _NULL else None
        return None if local[0] in "|/" else _write_local(local)  # of old, a program or a file
    if not given or (text[-1] == ";" and ":" in given):  # no local part; a group of RFC 822
        return None
    if literal and _DIGITS.fullmatch(literal) and not is_address_literal(literal):
        return None
    return f"{_write_local(local)}@{domain or _mend_literal(literal)}"


def _write_local(local: str) -> str:
    if _ATOMS_AND_DOTS.fullmatch(local):
        return local
    return f'"{_TO_ESCAPE.sub(lambda found: chr(92) + found[0], local)}"'


def _mend_literal(literal: str) -> str:
    """[::1] is [IPv6:::1]."""
    try:
        ipaddress.IPv6Address(literal[1:-1])
    except ValueError:
        return literal
    return literal if "%" in literal else f"[IPv6:{literal[1:-1]}]"
