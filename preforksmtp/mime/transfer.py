"""Content-Transfer-Encoding undone (RFC 2045 section 6), at once or while it is read. Never raises for what is in it.

What is not of the alphabet of base64 is skipped, and padding that completes four letters is the end; in
quoted-printable a "=" that encodes nothing stands for itself; an encoding of another name is none.
"""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

BLOCK = 64 * 1024
_LONGEST_LINE = 64 * 1024  # of quoted-printable and uuencode, where a line is decoded as a whole

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_ALPHABET + b"="))
_PADDING = ord("=")
_RUNS = re.compile(rb"=+|[^=]+")
_BEGIN = re.compile(rb"^begin ", re.MULTILINE)


class Decoder(Protocol):
    """Decodes a content block by block."""

    def feed(self, block: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class _Base64:
    def __init__(self) -> None:
        self._rest = b""  # letters of the last four, and padding behind them
        self._ended = False

    def feed(self, block: bytes) -> bytes:
        if self._ended:
            return b""
        text, padding = self._rest + block.translate(None, _NOT_BASE64), b""
        if b"=" in text:
            text, padding = self._without_padding(text)
        whole = len(text) // 4 * 4
        self._rest = text[whole:] + padding
        return binascii.a2b_base64(text[:whole])

    def finish(self) -> bytes:
        rest, self._rest = self._rest.rstrip(b"="), b""
        return binascii.a2b_base64(rest + b"==") if len(rest) > 1 else b""  # a letter alone is no octet

    def _without_padding(self, text: bytes) -> tuple[bytes, bytes]:
        """The letters up to padding that completes four, and padding at the end; other padding means nothing."""
        letters, count, padding = [], 0, b""
        for run in _RUNS.findall(text):
            if run[0] != _PADDING:
                letters.append(run)
                count += len(run)
                padding = b""
            elif count % 4 >= 2 and count % 4 + len(run) >= 4:
                self._ended = True
                break
            else:
                padding = run[:2]
        return b"".join(letters), padding


class _QuotedPrintable:
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> bytes:
        text = self._rest + block
        cut = text.rfind(b"\n") + 1
        if not cut and len(text) > _LONGEST_LINE:  # a line without end
            cut = text.rfind(b"=", -3) if b"=" in text[-3:] else len(text)
        self._rest = text[cut:]
        return binascii.a2b_qp(text[:cut])

    def finish(self) -> bytes:
        rest, self._rest = self._rest, b""
        return binascii.a2b_qp(rest)


class _Uuencode:
    """The lines between "begin" and "end"; the text as it is where its first block has no "begin"."""

    def __init__(self) -> None:
        self._rest = b""
        self._plain: bool | None = None
        self._begun = False
        self._ended = False

    def feed(self, block: bytes) -> bytes:
        if self._plain is None:
            self._plain = _BEGIN.search(block) is None
        if self._plain:
            return block
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:  # no line of it is that long
            lines.append(self._rest)
            self._rest = b""
        return b"".join(map(self._take, lines))

    def finish(self) -> bytes:
        last = self._take(self._rest) if self._rest else b""
        self._rest = b""
        return last

    def _take(self, line: bytes) -> bytes:
        line = line.rstrip(b"\r")
        if not self._begun:
            self._begun = line.startswith(b"begin ")
            return b""
        if self._ended or line.strip() == b"end":
            self._ended = True
            return b""
        try:
            return binascii.a2b_uu(line)
        except binascii.Error:  # encoders that count, or pad, in a way of their own
            length = (((line[0] - 32) & 63) * 4 + 5) // 3
            try:
                return binascii.a2b_uu(line[:length])
            except binascii.Error:
                return b""


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "base64": _Base64,
    "quoted-printable": _QuotedPrintable,
    "x-uuencode": _Uuencode,
    "uuencode": _Uuencode,
    "x-uue": _Uuencode,
    "uue": _Uuencode,
}


def name_encoding(value: str | None) -> str:
    """What the field says, if it is one that is decoded here, else ""."""
    words = (value or "").replace('"', " ").replace(";", " ").split(None, 1)
    name = words[0].lower() if words else ""
    return name if name in _DECODERS else ""


def decode_base64(octets: bytes) -> bytes:
    return _decode_all(_Base64(), octets)


def decode_transfer(octets: bytes, encoding: str) -> bytes:
    """The content, for an encoding as `name_encoding` names it."""
    return _decode_all(_DECODERS[encoding](), octets) if encoding else octets


def _decode_all(decoder: Decoder, octets: bytes) -> bytes:
    blocks = [decoder.feed(octets[start : start + BLOCK]) for start in range(0, len(octets), BLOCK)]
    return b"".join([*blocks, decoder.finish()])


def open_decoded(encoded: BinaryIO, encoding: str) -> BinaryIO:
    """A file that decodes while it is read, a block at a time; it cannot seek where there is something to decode."""
    if not encoding:
        return encoded
    return cast(BinaryIO, io.BufferedReader(_DecodingReader(encoded, _DECODERS[encoding]()), BLOCK))


class _DecodingReader(io.RawIOBase):
    def __init__(self, encoded: BinaryIO, decoder: Decoder) -> None:
        self._encoded = encoded
        self._decoder = decoder
        self._decoded = memoryview(b"")
        self._finished = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._decoded and not self._finished:
            block = self._encoded.read(BLOCK)
            self._finished = not block
            self._decoded = memoryview(self._decoder.feed(block) if block else self._decoder.finish())
        taken = min(len(buffer), len(self._decoded))
        buffer[:taken] = self._decoded[:taken]
        self._decoded = self._decoded[taken:]
        return taken

    def close(self) -> None:
        self._encoded.close()
        super().close()
