"""EmailMessage as Message.parse() gives it, and the header fields of Message.headers: classes that read anything.

An Entity is an EmailMessage of the standard library in which no method that reads raises for what a sender has written,
nor takes time that grows with the square of it: fields and parameters are read by mime.fields and mime.parameters, and
content by mime.transfer and mime.charset. Writing, into it and out of it, is the standard library's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.contentmanager import ContentManager, raw_data_manager
from email.message import EmailMessage
from email.policy import EmailPolicy, Policy
from typing import Any, TypeVar, overload

from preforksmtp.mime.charset import decode as decode_text
from preforksmtp.mime.charset import from_raw
from preforksmtp.mime.fields import STRUCTURED, Field, RawValue, unfold
from preforksmtp.mime.parameters import Parameterized, parse_parameters
from preforksmtp.mime.section import MOST_FIELDS, mailbox_line, read_section, split_fields
from preforksmtp.mime.source import Memory, Source
from preforksmtp.mime.structure import MOST_PARTS, REPORT, Part, TooLargeDefect, read_structure
from preforksmtp.mime.transfer import decode_transfer, name_encoding
from preforksmtp.mime.words import show, show_structured

_T = TypeVar("_T")
_EMPTY_LINES = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2,}")


class _ReadingPolicy(EmailPolicy):
    """The default policy, but for how the fields that came are read, and for writing them as they came."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        return Field(name, unfold(value)) if isinstance(value, RawValue) else super().header_fetch_parse(name, value)

    def fold_binary(self, name: str, value: str) -> bytes:
        if isinstance(value, RawValue) and self.cte_type != "7bit":
            return value.lines(self.linesep).encode("ascii", "surrogateescape")
        return super().fold_binary(name, value)


class _TextPolicy(_ReadingPolicy):
    """Fields as text, decoded, for Message.headers."""

    def header_fetch_parse(self, name: str, value: str) -> Any:
        if not isinstance(value, RawValue):
            return str(super().header_fetch_parse(name, value))
        read = show_structured if name.lower() in STRUCTURED else show
        return read(from_raw(unfold(value)))


def _get_text(part: EmailMessage, errors: str = "replace") -> str:
    octets = part.get_payload(decode=True)
    return decode_text(octets, part.get_content_charset()) if isinstance(octets, bytes) else str(octets or "")


def _get_octets(part: EmailMessage) -> Any:
    return part.get_payload(decode=True)


def _get_message(part: EmailMessage) -> Any:
    return part.get_payload(0) if part.is_multipart() else _get_text(part)


def _get_message_octets(part: EmailMessage) -> Any:
    return b"".join(each.as_bytes() for each in part.iter_parts()) if part.is_multipart() else _get_octets(part)


def _no_content(part: EmailMessage) -> Any:
    raise KeyError(part.get_content_type())


def _make_content_manager() -> ContentManager:
    manager = ContentManager()
    for kind, handler in raw_data_manager.set_handlers.items():  # type: ignore[attr-defined]
        manager.add_set_handler(kind, handler)
    manager.add_get_handler("text", _get_text)
    manager.add_get_handler("message/rfc822", _get_message)
    manager.add_get_handler("message/external-body", _get_message)
    manager.add_get_handler("message", _get_message_octets)
    manager.add_get_handler("multipart", _no_content)  # has parts, as the standard library has it
    manager.add_get_handler("", _get_octets)
    return manager


_PARSED = _ReadingPolicy(content_manager=_make_content_manager())
_TEXT = _TextPolicy(content_manager=_PARSED.content_manager)


class Entity(EmailMessage):
    """An EmailMessage that came from a client."""

    reads_as_text = False  # it says that it has parts, and has none

    def __init__(self, policy: Policy[Any] | None = None) -> None:
        super().__init__(_PARSED if policy is None else policy)

    def get_content_type(self) -> str:
        """The type; text/plain where none, or no type, is given, and for a multipart without parts."""
        if self.reads_as_text:
            return "text/plain"
        value = self._parameterized("content-type")
        if value is None:
            return self.get_default_type()
        return value.content_type or "text/plain"

    def get_params(self, failobj: Any = None, header: str = "content-type", unquote: bool = True) -> Any:
        if not unquote:  # for those who put it together again
            return super().get_params(failobj, header, unquote)
        value = self._parameterized(header)
        return failobj if value is None else [(value.value, ""), *value.parameters.items()]

    def get_param(self, param: str, failobj: Any = None, header: str = "content-type", unquote: bool = True) -> Any:
        if not unquote:
            return super().get_param(param, failobj, header, unquote)
        value = self._parameterized(header)
        return failobj if value is None else value.parameters.get(param.lower(), failobj)

    def get_content_disposition(self) -> str | None:
        value = self._parameterized("content-disposition")
        return None if value is None else value.value or None

    def is_attachment(self) -> bool:
        return self.get_content_disposition() == "attachment"

    def get_payload(self, i: int | None = None, decode: bool = False) -> Any:
        """The parts; or the text, decoded to octets with `decode`."""
        payload: Any = self._payload  # type: ignore[attr-defined]
        if i is not None or not isinstance(payload, str):
            return super().get_payload(i, decode)  # type: ignore[call-overload]
        octets = payload.encode("utf_8", "surrogateescape")
        if decode:
            return decode_transfer(octets, name_encoding(self._raw("content-transfer-encoding")))
        return payload if payload.isascii() else decode_text(octets, self.get_content_charset())

    def iter_parts(self) -> Iterator[Any]:
        if self.is_multipart():
            yield from self.get_payload()

    def as_bytes(self, unixfrom: bool = False, policy: Policy[Any] | None = None) -> bytes:
        """The message written out: what came as it came."""
        try:
            return super().as_bytes(unixfrom, policy)
        except Exception:  # 8 bits, to be encoded for a policy of 7, in a character set that is none
            return super().as_bytes(unixfrom, (policy or self.policy).clone(cte_type="8bit"))

    def as_string(
        self, unixfrom: bool = False, maxheaderlen: int | None = None, policy: Policy[Any] | None = None
    ) -> str:
        """The message written out; what is not UTF-8 in it is U+FFFD."""
        return self.as_bytes(unixfrom, policy).decode("utf_8", "replace")

    def _raw(self, name: str) -> str | None:
        """The first field of this name in one line, not decoded."""
        for each, value in self.raw_items():
            if each.lower() == name:
                return unfold(str(value))
        return None

    def _parameterized(self, name: str) -> Parameterized | None:
        value = self._raw(name.lower())
        return None if value is None else parse_parameters(value)


class Headers(Entity):
    """The header fields of a message, each value a str in one line, decoded; None for one that is not there.

    raw  the octets of the header section
    """

    def __init__(self, source: Source) -> None:
        super().__init__(_TEXT)
        self.set_payload("")  # as the standard library has it for a body that it has not read
        section = read_section(source, 0, source.size)
        self.raw: bytes = section.octets
        _set_fields(self, split_fields(section.octets))
        if not section.complete or len(self) == MOST_FIELDS:
            self.defects.append(TooLargeDefect("there may be more header fields"))
        _set_mailbox_line(self, mailbox_line(section.octets))

    def __getitem__(self, name: str) -> str | None:
        return self.get(name)

    @overload
    def get(self, name: str, failobj: None = None) -> str | None: ...
    @overload
    def get(self, name: str, failobj: _T) -> str | _T: ...
    def get(self, name: str, failobj: Any = None) -> Any:
        """The first field of this name."""
        return super().get(name, failobj)

    @overload
    def get_all(self, name: str, failobj: None = None) -> list[str] | None: ...
    @overload
    def get_all(self, name: str, failobj: _T) -> list[str] | _T: ...
    def get_all(self, name: str, failobj: Any = None) -> Any:
        """All fields of this name."""
        return super().get_all(name, failobj)

    def values(self) -> list[str]:
        return super().values()

    def items(self) -> list[tuple[str, str]]:
        return super().items()


def parse_message(source: Source) -> Entity:
    """The whole message, in memory."""
    return _Maker(source).make(read_structure(source))


class _Maker:
    """Makes entities of the parts of one message."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._blocks = MOST_PARTS  # of delivery reports that may still be made

    def make(self, part: Part) -> Entity:
        entity = Entity()
        _set_fields(entity, part.fields)
        _set_mailbox_line(entity, part.mailbox_line)
        entity.set_default_type(part.default_type)
        entity.defects = part.defects
        if part.preamble is not None and part.parts:
            entity.preamble = self._text(*part.preamble)
        if part.epilogue is not None:
            entity.epilogue = self._text(*part.epilogue)
        for child in part.parts:
            entity.attach(self.make(child))
        if part.content_type == REPORT:
            self._add_blocks(entity, self._source.read(part.body, part.end))
        elif not part.parts:
            is_octets = part.maintype not in ("text", "message", "multipart") and not part.encoding
            entity.set_payload(self._octets(part.body, part.end) if is_octets else self._text(part.body, part.end))
            entity.reads_as_text = entity.get_content_maintype() in ("multipart", "message")
        return entity

    def _add_blocks(self, report: Entity, octets: bytes) -> None:
        """The blocks of fields of a delivery report, with empty lines between them (RFC 3464 section 2.1)."""
        blocks = _EMPTY_LINES.split(octets.strip(b"\r\n"), maxsplit=self._blocks)
        self._blocks = max(0, self._blocks - len(blocks))
        for block in blocks:
            section = read_section(Memory(block), 0, len(block))
            entity = Entity()
            _set_fields(entity, split_fields(section.octets))
            entity.set_payload(block[section.body :].decode("ascii", "surrogateescape"))
            report.attach(entity)

    def _text(self, start: int, stop: int) -> str:
        """With LF, as BytesParser has it."""
        text = self._octets(start, stop)
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

    def _octets(self, start: int, stop: int) -> str:
        return self._source.read(start, stop).decode("ascii", "surrogateescape")


def _set_fields(entity: Entity, fields: list[tuple[str, str]]) -> None:
    for name, value in fields:
        entity.set_raw(name, RawValue(name, value))


def _set_mailbox_line(entity: Entity, line: str | None) -> None:
    if line is not None:
        entity.set_unixfrom(line)
