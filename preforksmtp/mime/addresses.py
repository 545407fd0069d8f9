"""Addresses in header fields (RFC 5322 section 3.4, with its obsolete forms): a list of mailboxes and groups.

The results are the classes of email.headerregistry. An item that is no address is left out, and the list says so: what
is not certain is never guessed, for two readers who guess differently are a way to forge (CVE-2023-27043).
"""

from __future__ import annotations

import re
from email.headerregistry import Address, Group
from typing import NamedTuple

from preforksmtp.mime.charset import without_controls
from preforksmtp.mime.words import show, unquote

MOST_TOKENS = 10_000  # of one field; what follows is not looked at, and the list is not valid

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)|(?P<word>=\?[^?\s]{1,100}\?[bBqQ]\?[^?\s]*\?=)|(?P<comment>\()"""
    r"""|(?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<literal>\[[^\[\]\\]*\])|(?P<unfinished>"(?:[^\\]|\\.)*|\[)"""
    r"""|(?P<special>[<>,:;@)\]\\])|(?P<atom>[^ \t\r\n"()<>\[\],:;@\\]+)""",
    re.DOTALL,
)
_COMMENT_PART = re.compile(r"\\.|\(+|\)", re.DOTALL)


class AddressList(NamedTuple):
    """What a field says."""

    groups: list[Group]  # each mailbox outside of a group is one without a name
    valid: bool  # whether every item of it was understood


class _Token(NamedTuple):
    kind: str  # atom (an encoded word, too), quoted, literal, unfinished, or the special itself
    text: str
    apart: bool  # from the one before, by blanks or a comment


def parse_addresses(text: str) -> AddressList:
    """Of a field in one line, its encoded words not yet decoded."""
    groups: list[Group] = []
    name: str | None = None  # of the group that is open
    members: list[Address] = []
    item: list[_Token] = []
    in_angle = False
    tokens, valid = _split(text)
    for token in (*tokens, _Token(",", "", False)):
        kind = token.kind
        if kind == "<":
            valid = valid and not in_angle
            in_angle = True
        elif kind == ">":
            in_angle = False
        if (in_angle and token.text) or kind not in (",", ";", ":"):
            item.append(token)
            continue
        if kind == ":":
            valid = valid and name is None and bool(item) and all(each.kind in ("atom", "quoted") for each in item)
            name, item = _phrase(item), []
            continue
        if item:
            address = _mailbox(item)
            if address is None:
                valid = False
            elif name is None:
                groups.append(Group(None, [address]))
            else:
                members.append(address)
            item = []
        if kind == ";":
            valid = valid and name is not None
            if name is not None:
                groups.append(Group(name, members))
            name, members = None, []
    if name is not None:  # its semicolon is missing
        groups.append(Group(name, members))
        valid = False
    return AddressList(groups, valid and not in_angle)


def _split(text: str) -> tuple[list[_Token], bool]:
    """Tokens without blanks and comments; and whether that is all, and each comment has its end."""
    tokens: list[_Token] = []
    valid, apart, place = True, False, 0
    while found := _TOKEN.match(text, place):
        place = found.end()
        kind = found.lastgroup or ""
        if kind == "comment":
            place, closed = _skip_comment(text, place)
            valid = valid and closed
        if kind in ("blank", "comment"):
            apart = True
            continue
        piece = found[0]
        if kind == "word":
            kind = "atom"
        if len(tokens) == MOST_TOKENS:
            return tokens, False
        tokens.append(_Token(piece if kind == "special" else kind, piece, apart))
        apart = False
    return tokens, valid


def _skip_comment(text: str, place: int) -> tuple[int, bool]:
    """Where the comment that begins in front of `place` ends: comments nest."""
    depth = 1
    for found in _COMMENT_PART.finditer(text, place):
        if found[0][0] == "(":
            depth += len(found[0])
        elif found[0] == ")":
            depth -= 1
            if not depth:
                return found.end(), True
    return len(text), False


def _mailbox(item: list[_Token]) -> Address | None:
    """`local@domain`, `name <local@domain>`, or a name alone as the local part of an address without domain."""
    kinds = [token.kind for token in item]
    if "<" not in kinds:
        return _address("", item)
    start = kinds.index("<")
    if kinds[-1] != ">" or kinds.count(">") != 1 or not {*kinds[:start]} <= {"atom", "quoted"}:
        return None
    inner = item[start + 1 : -1]
    if ":" in kinds and inner and inner[0].kind == "@":  # a source route, which means nothing (RFC 5322 section 4.4)
        inner = inner[kinds.index(":") - start :]
    if not inner:
        return Address(_phrase(item[:start]))
    return _address(_phrase(item[:start]), inner)


def _address(name: str, item: list[_Token]) -> Address | None:
    kinds = [token.kind for token in item]
    if "@" not in kinds:
        local = _local(item)
        return None if local is None else Address(name, local)
    at = kinds.index("@")
    local = _local(item[:at])
    domain = "".join(token.text for token in item[at + 1 :])
    domain_kinds = {*kinds[at + 1 :]}
    if local is None or not domain or (domain_kinds != {"atom"} and kinds[at + 1 :] != ["literal"]):
        return None
    if any(token.apart and not _dotted(item, index) for index, token in enumerate(item) if index > at + 1):
        return None
    return Address(name, local, without_controls(domain))


def _local(item: list[_Token]) -> str | None:
    """Words with dots between them; blanks around the dots are obsolete, but were allowed."""
    if not item or not {token.kind for token in item} <= {"atom", "quoted"}:
        return None
    if any(not _dotted(item, index) for index in range(1, len(item))):
        return None
    return without_controls("".join(unquote(token.text) if token.kind == "quoted" else token.text for token in item))


def _dotted(item: list[_Token], index: int) -> bool:
    """Whether there is a dot between this token and the one before."""
    before, after = item[index - 1], item[index]
    return (before.kind, before.text[-1]) == ("atom", ".") or (after.kind, after.text[0]) == ("atom", ".")


def _phrase(item: list[_Token]) -> str:
    """The display name."""
    pieces: list[str] = []
    for token in item:
        if token.apart and pieces:
            pieces.append(" ")
        pieces.append(unquote(token.text) if token.kind == "quoted" else token.text)
    return show("".join(pieces))
