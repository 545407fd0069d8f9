"""Reads everything that a handler can read of a message, as a handler does; whatever raises here would be a 451.

`read` gives facts that JSON can hold, and `handler` is an application that writes them to a file named by the recipient.
"""

from __future__ import annotations

import json
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from preforksmtp import Message
from preforksmtp.mime.content import Content

BLOCK = 1000  # an odd size of the pieces in which an attachment is read


def handler(message: Message) -> None:
    """250, or the 451 that a handler's exception becomes."""
    facts = read(message)
    assert message.return_path == f"Return-Path: <{message.sender}>"
    assert message.received.startswith("Received: from ")
    Path(f"{message.recipients[0].partition('@')[0]}.json").write_text(json.dumps(facts, ensure_ascii=False), "utf-8")


def read(message: Message | Content) -> dict[str, Any]:
    headers = message.headers
    items = headers.items()
    assert list(headers) == [name for name, _ in items]
    assert items == [(name, value) for name, value in zip(headers.keys(), headers.values(), strict=True)]
    for name, value in items:
        assert type(value) is str
        assert "\r" not in value and "\n" not in value and "\0" not in value
        assert name in headers and headers[name] is not None and headers[name.upper()] == headers.get(name)
        assert value in (headers.get_all(name) or [])
    missing = headers.get("X-Not-There", "default")
    assert headers["X-Not-There"] is None and missing == "default" and "X-Not-There" not in headers
    assert len(headers) == len(items)
    assert isinstance(headers.raw, bytes)
    bytes(headers), str(headers), headers.get_content_type(), headers.get_filename(), headers.get_content_charset()
    attachments = message.attachments
    assert len({attachment.name.casefold() for attachment in attachments}) == len(attachments)
    files = []
    for attachment in attachments:
        with attachment.open() as file:
            pieces = list(iter(lambda: file.read(BLOCK), b""))
        assert b"".join(pieces) == attachment.content
        assert "/" not in attachment.name and len(attachment.name.encode()) <= 200 and attachment.name.isprintable()
        files.append([attachment.name, attachment.content_type, attachment.content.decode("latin-1")])
    parsed = message.parse()
    assert parsed["X-Not-There"] is None
    return {
        "headers": items,
        "addresses": {
            name: [[each.display_name, each.addr_spec] for each in value.addresses]
            for name, value in parsed.items()
            if hasattr(value, "addresses")
        },
        "text": message.text,
        "html": message.html,
        "files": files,
        "defects": [type(defect).__name__ for defect in parsed.defects],
        "parts": read_parsed(parsed),
    }


def read_parsed(message: EmailMessage) -> list[list[str]]:
    """Every method that reads, of every part; type and decoded text of each."""
    parts = []
    for part in message.walk():
        for name, value in part.items():
            assert isinstance(value, str) and value.encode("utf-8") is not None
            assert "\r" not in value and "\n" not in value
            assert value is not None and part.get_all(name)
            for attribute in (
                "groups", "address", "datetime", "version", "params", "content_type", "cte", "defects",
                "content_disposition", "maintype", "subtype", "name", "max_count",
            ):  # fmt: skip
                repr(getattr(value, attribute, None))
            assert value.fold(policy=part.policy)
        part.keys(), part.values(), list(part.raw_items()), part.get_unixfrom(), list(part), "Subject" in part
        for each in (part.get_params(), part.get_param("charset"), part.get_param("name", header="content-disposition")):
            repr(each)
        part.get_content_maintype(), part.get_content_subtype(), part.get_default_type(), part.get_boundary()
        part.get_content_charset(), part.get_charsets(), part.get_content_disposition(), part.is_attachment()
        part.get_filename(), part.get_payload(), part.is_multipart(), part.preamble, part.epilogue, len(part)
        for body in (part.get_body(), part.get_body(("plain",)), part.get_body(("html", "plain"))):
            assert body is None or body.get_content_type() is not None
        list(part.iter_parts()), list(part.iter_attachments()), part.get_charset()
        payload = part.get_payload(decode=True)
        if part.get_content_maintype() != "multipart":  # whose content are its parts: KeyError, says the library
            assert part.get_content() is not None
        assert (payload is None) == part.is_multipart()
        parts.append([part.get_content_type(), (payload or b"").decode("latin-1")[:100]])
    message.as_bytes(), message.as_string(), bytes(message), str(message)
    message.as_bytes(policy=message.policy.clone(linesep="\r\n", max_line_length=0))
    return parts
