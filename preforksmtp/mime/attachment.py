"""Attachments: the parts of a message that are files, decoded while they are read."""

from __future__ import annotations

from typing import BinaryIO

from preforksmtp.mime.charset import from_raw
from preforksmtp.mime.filename import Names, default_name, make_safe
from preforksmtp.mime.source import Source
from preforksmtp.mime.structure import Part
from preforksmtp.mime.text import is_for_reading
from preforksmtp.mime.transfer import decode_transfer, open_decoded
from preforksmtp.mime.words import show


class Attachment:
    """One file in a message. Its content is read when it is asked for, also after the handler has returned.

    name          safe as the name of a file, and different for each attachment of a message; never empty
    declared_name what the sender called it, decoded; "" for nothing. Not safe as the name of a file
    content_type  "application/pdf", in lower case, as the sender says
    inline        whether it is meant to be shown within the text
    content_id    its name in the text, without brackets (RFC 2392); "" for none
    """

    __slots__ = (
        "_encoding", "_source", "_start", "_stop", "content_id", "content_type", "declared_name", "inline", "name",
    )  # fmt: skip

    def __init__(self, part: Part, source: Source, name: str) -> None:
        self.name = name
        self.declared_name = part.filename
        self.content_type = part.content_type
        self.content_id = show(from_raw(part.get("content-id") or "")).strip().removeprefix("<").removesuffix(">")
        disposition = part.disposition.value
        self.inline = disposition == "inline" or (not disposition and bool(self.content_id))
        self._encoding = part.encoding
        self._source = source
        self._start, self._stop = part.body, part.end

    def __repr__(self) -> str:
        return f"<Attachment {self.name!r} {self.content_type}>"

    @property
    def content(self) -> bytes:
        """All of it, decoded, in memory."""
        return decode_transfer(self._source.read(self._start, self._stop), self._encoding)

    def open(self) -> BinaryIO:
        """The same as a binary file that decodes while it is read: never all in memory."""
        return open_decoded(self._source.open(self._start, self._stop), self._encoding)


def list_attachments(root: Part, source: Source) -> list[Attachment]:
    """Every part but text for reading that has no name; of a message within the message, the whole as one."""
    names = Names()
    attachments: list[Attachment] = []
    for part in root.leaves():
        if is_for_reading(part) and not part.filename:
            continue
        name = make_safe(part.filename) or default_name(len(attachments) + 1, part.content_type)
        attachments.append(Attachment(part, source, names.take(name)))
    return attachments
