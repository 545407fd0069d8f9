"""Header fields of Message.parse(): as email.headerregistry has them, with the same attributes, read by our own rules.

A field that cannot be understood is its text, with a defect, and its attributes are empty. In every field encoded words
are decoded, and what ends a line is a space, so that a value may be written into another message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email import errors
from email.headerregistry import Address, BaseHeader
from email.policy import Policy
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, NamedTuple

from preforksmtp.mime.addresses import parse_addresses
from preforksmtp.mime.charset import from_raw
from preforksmtp.mime.folding import fold_field
from preforksmtp.mime.parameters import parse_parameters
from preforksmtp.mime.words import show, show_structured

_LONGEST_DATE = 200
_VERSION = re.compile(r"(\d{1,9})[ \t]*\.[ \t]*(\d{1,9})")
_COMMENT = re.compile(r"\([^()]*\)")


class RawValue(str):
    """A value as it came, for writing it out again: folded with LF, octets above 127 as surrogates (PEP 383).

    Whatever policy a generator has, it asks a value with a name to fold itself, and so does not parse this one.
    """

    __slots__ = ("name",)

    name: str

    def __new__(cls, name: str, value: str) -> RawValue:
        self = super().__new__(cls, value)
        self.name = name
        return self

    def __reduce__(self) -> tuple[type[RawValue], tuple[str, str]]:
        return RawValue, (self.name, str(self))

    def lines(self, linesep: str) -> str:
        """The field as it came."""
        return f"{self.name}: {self.replace(chr(10), linesep)}{linesep}"

    def fold(self, *, policy: Policy[Any]) -> str:
        return self.lines(policy.linesep) if self.isascii() else Field(self.name, unfold(self)).fold(policy=policy)


class _Reading(NamedTuple):
    """What a field says: its text, the attributes that fields of its kind have, and what is wrong with it."""

    text: str
    facts: dict[str, Any] = {}
    defect: errors.MessageDefect | None = None


class Field(BaseHeader):
    """A header field that was read."""

    max_count = None

    def __new__(cls, name: str, value: str) -> Field:
        """`value` is in one line, with octets above 127 as surrogates."""
        reading = _READERS.get(name.lower(), _read_text)(value)
        self = str.__new__(cls, reading.text)
        self.__dict__.update(reading.facts)
        self.init(name, parse_tree=None, defects=[reading.defect] if reading.defect else [])  # type: ignore[arg-type]
        return self

    def __reduce__(self) -> tuple[Callable[[str, dict[str, Any]], Field], tuple[str, dict[str, Any]]]:
        return _restore, (str(self), self.__dict__)

    def fold(self, *, policy: Policy[Any]) -> str:
        return fold_field(self, str(self), policy)


def _restore(text: str, facts: dict[str, Any]) -> Field:
    self = str.__new__(Field, text)
    self.__dict__.update(facts)
    return self


def unfold(value: str) -> str:
    """A folded value in one line."""
    return value.replace("\n", "").lstrip(" \t")


def _read_text(value: str) -> _Reading:
    return _Reading(show(from_raw(value)))


def _read_date(value: str) -> _Reading:
    text = show(from_raw(value))
    try:
        when = parsedate_to_datetime(text[:_LONGEST_DATE])
        return _Reading(format_datetime(when), {"datetime": when})
    except Exception as error:  # ValueError, and in some versions others
        return _Reading(text, {"datetime": None}, errors.InvalidHeaderDefect(f"not a date: {error}"))


def _read_addresses(value: str) -> _Reading:
    text = from_raw(value)
    groups, valid = parse_addresses(text)
    addresses = tuple(address for group in groups for address in group.addresses)
    facts = {"groups": tuple(groups), "addresses": addresses}
    if valid:
        return _Reading(", ".join(map(str, groups)), facts)
    return _Reading(show_structured(text), facts, errors.InvalidHeaderDefect("not all of it is an address"))


def _read_address(value: str) -> _Reading:
    reading = _read_addresses(value)
    addresses = reading.facts["addresses"]
    reading.facts["address"] = addresses[0] if addresses else Address()
    if len(addresses) == 1 or reading.defect:
        return reading
    return reading._replace(defect=errors.InvalidHeaderDefect("not a single address"))


def _read_version(value: str) -> _Reading:
    text = show(from_raw(value))
    found = _VERSION.match(_COMMENT.sub("", text).lstrip())
    if found is None:
        facts = dict.fromkeys(("version", "major", "minor"))
        return _Reading(text, facts, errors.InvalidHeaderDefect("not a version"))
    major, minor = int(found[1]), int(found[2])
    return _Reading(text, {"version": f"{major}.{minor}", "major": major, "minor": minor})


def _read_type(value: str) -> _Reading:
    content = parse_parameters(value)
    content_type = content.content_type or "text/plain"
    maintype, _, subtype = content_type.partition("/")
    facts = {"content_type": content_type, "maintype": maintype, "subtype": subtype, "params": content.parameters}
    defect = None if content.content_type else errors.InvalidHeaderDefect("not a type")
    return _Reading(show_structured(from_raw(value)), facts, defect)


def _read_disposition(value: str) -> _Reading:
    content = parse_parameters(value)
    facts = {"content_disposition": content.value or None, "params": content.parameters}
    defect = None if content.value else errors.HeaderMissingRequiredValue("no disposition")
    return _Reading(show_structured(from_raw(value)), facts, defect)


def _read_encoding(value: str) -> _Reading:
    return _Reading(show_structured(from_raw(value)), {"cte": parse_parameters(value).value or "7bit"})


_READERS: dict[str, Callable[[str], _Reading]] = {
    "date": _read_date,
    "resent-date": _read_date,
    "orig-date": _read_date,
    "sender": _read_address,
    "resent-sender": _read_address,
    **dict.fromkeys(
        ("from", "to", "cc", "bcc", "reply-to", "resent-from", "resent-to", "resent-cc", "resent-bcc"), _read_addresses
    ),
    "mime-version": _read_version,
    "content-type": _read_type,
    "content-disposition": _read_disposition,
    "content-transfer-encoding": _read_encoding,
}
STRUCTURED = frozenset(
    name for name, reader in _READERS.items() if reader not in (_read_date, _read_version)
)  # those where a decoded word is quoted if it must be
