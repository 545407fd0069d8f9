"""Encoded words (RFC 2047) as the text they stand for, in one line.

`show` is for fields of free text, `show_structured` for those with a grammar, addresses and parameters, where a decoded
word is quoted if its letters would mean something there: `=?utf-8?q?boss=40bank=2C?= <me@x>` must not become two
addresses. Both take time that grows with the length only, and never raise.
"""

from __future__ import annotations

import binascii
import re

from preforksmtp.mime.charset import decode, without_controls
from preforksmtp.mime.transfer import decode_base64

_WORD = r"=\?[^?\s]{1,100}\?[bBqQ]\?[^?]*\?="
_PARTS = re.compile(r"=\?([^?\s]{1,100})\?([bBqQ])\?([^?]*)\?=")
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"?'
_COMMENT = r"\((?P<inner>[^()\\]*(?:\\.[^()\\]*)*)(?P<closed>\)?)"
# What a word may stand in, and words that stand alone, with those that follow.
_PLACES = re.compile(
    rf"(?P<quoted>{_QUOTED})|(?P<comment>{_COMMENT})|<[^<>]*>?|(?P<words>{_WORD}(?:[ \t]*{_WORD})*)", re.DOTALL
)
_SPECIALS = re.compile(r'[()<>\[\]:;@\\,."]')
_TO_ESCAPE = re.compile(r'["\\()]')
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def show(text: str) -> str:
    """A field of free text: Subject and the like."""
    if "=?" in text:
        text = _decode_words(text)
    return text if text.isprintable() else without_controls(text).strip()


def show_structured(text: str) -> str:
    """A field of addresses or parameters."""
    if "=?" in text:
        text = _PLACES.sub(_decode_place, text)
    return text if text.isprintable() else without_controls(text).strip()


def unquote(quoted: str) -> str:
    """The content of a quoted string, whose last quote may be missing."""
    inner = quoted[1:-1] if len(quoted) > 1 and quoted.endswith('"') else quoted[1:]
    return "".join(_QUOTED_PAIR.split(inner)) if "\\" in inner else inner


def quote(text: str) -> str:
    # Parentheses need it in comments only, but nobody can be sure that this is none.
    return '"' + _TO_ESCAPE.sub(r"\\\g<0>", text) + '"'


def _decode_words(text: str) -> str:
    """Each run of words without the blanks between them; a letter may be cut in two between two of one kind."""
    pieces = _PARTS.split(text)  # text, and again and again: character set, encoding, encoded text, text
    shown = [pieces[0]]
    run: list[str] = []
    kind = ("", "")
    last = len(pieces) // 4 - 1
    for index, (charset, encoding, encoded, after) in enumerate(
        zip(pieces[1::4], pieces[2::4], pieces[3::4], pieces[4::4], strict=True)
    ):
        if (charset, encoding) != kind:
            shown.append(_decode_run(run, kind))
            run, kind = [], (charset, encoding)
        run.append(encoded)
        if after and (index == last or not after.isspace()):
            shown += (_decode_run(run, kind), after)
            run = []
    shown.append(_decode_run(run, kind))
    return "".join(shown)


def _decode_run(run: list[str], kind: tuple[str, str]) -> str:
    if not run:
        return ""
    charset, encoding = kind
    if encoding in "bB":
        octets = b"".join(map(_decode_base64, run))
    else:
        octets = binascii.a2b_qp("".join(run).replace("_", " ").encode("utf_8", "replace"))
    return decode(octets, charset.partition("*")[0])  # RFC 2231 section 5: a language may follow


def _decode_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(f"{text}==")  # padding too much is no fault
    except ValueError:  # a letter too many, or letters beyond ASCII
        pass
    try:
        return binascii.a2b_base64(f"{text.rstrip('=')[:-1]}==")
    except ValueError:
        return decode_base64(text.encode("utf_8", "replace"))


def _decode_place(place: re.Match[str]) -> str:
    text = place[0]
    if "=?" not in text:
        return text
    if place["words"]:
        decoded = without_controls(_decode_words(text))
        return quote(decoded) if _SPECIALS.search(decoded) else decoded
    if place["quoted"]:
        return quote(without_controls(_decode_words(unquote(text))))
    if place["comment"]:
        inner = _decode_words(_QUOTED_PAIR.sub(r"\1", place["inner"]))
        return "(" + _TO_ESCAPE.sub(r"\\\g<0>", inner) + place["closed"]
    return text
