"""The text of a message as a person reads it: the plain text it has, else its HTML without the markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.entities import html5
from typing import NamedTuple

from preforksmtp.mime.charset import decode
from preforksmtp.mime.source import Source
from preforksmtp.mime.structure import Part
from preforksmtp.mime.transfer import decode_transfer

MOST_MARKUP = 1024 * 1024  # characters of HTML that are made text; nobody reads more

# Text without a file name that is the message, not a file in it.
_FOR_READING = {"text/plain", "text/html", "text/enriched", "text/richtext", "text/x-amp-html", "text/watch-html"}

_META_CHARSET = re.compile(rb"""<meta[^>]{1,200}charset\s*=\s*["']?([\w-]{1,40})""", re.IGNORECASE)
_HIDDEN = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|title|template)\b.*?(?:</\1[^>]{0,100}>|\Z)", re.IGNORECASE | re.DOTALL
)
_BREAK = re.compile(
    r"<(?:br|hr|/?(?:p|div|tr|table|ul|ol|li|h[1-6]|blockquote|pre|article|section|header|footer|dl|dt|dd))\b[^<>]*>",
    re.IGNORECASE,
)
_CELL = re.compile(r"</t[dh]\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"""</?[a-zA-Z][^<>"']*(?:"[^"]*"[^<>"']*|'[^']*'[^<>"']*)*>|<[!?/][^<>]*>""")
_BLANKS = re.compile(r"[ \t\r\n\f]+")
_AROUND_BREAK = re.compile(r" ?\n[ \n]*")
_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});?")


def is_for_reading(part: Part) -> bool:
    """Whether it is text of the message itself, not a file."""
    return part.content_type in _FOR_READING and part.disposition.value != "attachment" and not part.unread


def read_text(root: Part, source: Source) -> str:
    """The first body that is not blank: plain text, else HTML without its markup; "" for none. Lines end with LF."""
    for body in find_bodies(root):
        text = _decode(body.plain, source) if body.plain is not None else ""
        if not text.strip() and body.html is not None:
            text = strip_markup(_decode(body.html, source)[:MOST_MARKUP])
        if text.strip():
            return text
    return ""


def read_html(root: Part, source: Source) -> str | None:
    """The first HTML body, as the sender wrote it; None for none. Lines end with LF."""
    for body in find_bodies(root):
        if body.html is not None:
            return _decode(body.html, source)
    return None


class Body(NamedTuple):
    """What a reader is shown, in the forms it has: those of a multipart/alternative are one."""

    plain: Part | None
    html: Part | None


def find_bodies(root: Part) -> Iterator[Body]:
    """In their order, those without a file name first."""
    bodies = list(_bodies(root))
    named = [bool((body.plain or body.html or root).filename) for body in bodies]
    yield from (body for body, has_name in zip(bodies, named, strict=True) if not has_name)
    yield from (body for body, has_name in zip(bodies, named, strict=True) if has_name)


def _bodies(part: Part) -> Iterator[Body]:
    if part.disposition.value == "attachment":
        return
    if part.maintype != "multipart":
        if is_for_reading(part):
            yield Body(None, part) if part.subtype == "html" else Body(part, None)
        return
    parts = part.parts
    if part.subtype == "related":  # the others are what the first one refers to (RFC 2387)
        start = part.parameters.get("start")
        parts = [each for each in parts if start and (each.get("content-id") or "").strip() == start] or parts
        parts = parts[:1]
    bodies = (body for each in parts for body in _bodies(each))
    if part.subtype == "alternative":
        forms = list(bodies)
        plain = next((body.plain for body in forms if body.plain is not None), None)
        html = next((body.html for body in forms if body.html is not None), None)
        if forms:
            yield Body(plain, html)
    else:
        yield from bodies


def _decode(part: Part, source: Source) -> str:
    octets = decode_transfer(source.read(part.body, part.end), part.encoding)
    charset = part.parameters.get("charset", "").partition(" ")[0]
    if not charset and part.subtype == "html":
        meta = _META_CHARSET.search(octets[:2048])
        charset = meta[1].decode("ascii", "replace") if meta is not None else ""
    text = decode(octets, charset).removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def strip_markup(html: str) -> str:
    """HTML as text: lines where a browser has them, nothing of what it does not show."""
    text = _BLANKS.sub(" ", _HIDDEN.sub("", html))
    text = _CELL.sub(" ", _BREAK.sub("\n", text))
    text = _AROUND_BREAK.sub(_squeeze, _TAG.sub("", text)).strip()
    return _ENTITY.sub(_character, text).replace("\xa0", " ") + "\n" if text else ""


def _squeeze(found: re.Match[str]) -> str:
    """At most one empty line."""
    return "\n\n" if found[0].count("\n") > 2 else "\n"


def _character(found: re.Match[str]) -> str:
    name = found[1]
    if name[0] != "#":
        return html5.get(f"{name};", found[0])
    code = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    if code < 32:
        return " "
    return chr(code) if code < 0xD800 or 0xE000 <= code < 0x110000 else "\ufffd"
