"""A header field that was read, written again, in ASCII if the policy wants that (RFC 5322 section 2.2.3, 2047, 2231).

Not by header.fold of the standard library: for what a sender may have written it raises, and in places never ends.
"""

from __future__ import annotations

import re
from email.header import Header
from email.headerregistry import Address
from email.policy import Policy
from email.utils import formataddr, quote
from typing import Any, Protocol
from urllib.parse import quote as percent_encode

_GAP = re.compile(r"(?<=[^ \t])(?=[ \t]+[^ \t])")  # in front of blanks with something on both sides
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def fold_field(field: _Named, text: str, policy: Policy[Any]) -> str:
    """The whole field, with its last line end. `text` is in one line."""
    if not text.isascii() and not getattr(policy, "utf8", False):
        text = _to_ascii(field, text)
    width = policy.max_line_length or 0
    lines = [f"{field.name}:"]
    for index, piece in enumerate(_GAP.split(f" {text}")):
        if index and width and len(lines[-1]) + len(piece) > width:
            lines.append(piece)
        else:
            lines[-1] += piece
    return policy.linesep.join(lines) + policy.linesep


def _to_ascii(field: _Named, text: str) -> str:
    groups, params = getattr(field, "groups", None), getattr(field, "params", None)
    if params is not None:
        front = getattr(field, "content_type", None) or getattr(field, "content_disposition", None) or ""
        return "; ".join(filter(str.isascii, [front, *(_parameter(name, value) for name, value in params.items())]))
    if groups and all(address.addr_spec.isascii() for group in groups for address in group.addresses):
        return ", ".join(map(_group, groups))
    return _words(text)


def _words(text: str) -> str:
    return Header(text, "utf-8").encode(linesep="\n").replace("\n", "")


def _group(group: Any) -> str:
    members = ", ".join(map(_address, group.addresses))
    if group.display_name is None:
        return members
    name = group.display_name
    return f"{quote_phrase(name) if name.isascii() else _words(name)}: {members};"


def _address(address: Address) -> str:
    return formataddr((address.display_name, address.addr_spec), "utf-8")


def quote_phrase(name: str) -> str:
    return name if re.fullmatch(r"[\w!#$%&'*+/=?^`{|}~ -]*", name, re.ASCII) else f'"{quote(name)}"'


def _parameter(name: str, value: str) -> str:
    if not value.isascii():
        return f"{name}*=utf-8''{percent_encode(value, safe='')}"
    return f"{name}={value}" if _TOKEN.fullmatch(value) else f'{name}="{quote(value)}"'
