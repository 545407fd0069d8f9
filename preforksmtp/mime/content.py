"""The content of one message, and what is read from it, each thing when it is asked for."""

from __future__ import annotations

from functools import cached_property

from preforksmtp.mime.attachment import Attachment, list_attachments
from preforksmtp.mime.entity import Entity, Headers, parse_message
from preforksmtp.mime.source import Source
from preforksmtp.mime.structure import Part, read_structure
from preforksmtp.mime.text import read_html, read_text


class Content:
    """Of a source that does not change."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @cached_property
    def headers(self) -> Headers:
        return Headers(self._source)

    @cached_property
    def _root(self) -> Part:
        return read_structure(self._source)

    @property
    def text(self) -> str:
        return read_text(self._root, self._source)

    @property
    def html(self) -> str | None:
        return read_html(self._root, self._source)

    @property
    def attachments(self) -> list[Attachment]:
        return list_attachments(self._root, self._source)

    def parse(self) -> Entity:
        """A new one each time, for whoever has it may change it."""
        return parse_message(self._source)
