"""Character sets by the names that mail gives them (RFC 2045, 2047), and text made safe.

`decode` never raises: what is not valid becomes U+FFFD, and an unknown name is taken for UTF-8. Names are looked up in
a table made once: codecs.lookup() would import by name whatever a client writes, and keep each failure for ever.
"""

from __future__ import annotations

import re
from encodings.aliases import aliases

# Codecs of no character set, or whose time grows with the square of the length (idna, punycode).
_NOT_CHARSETS = {
    "base64_codec", "bz2_codec", "hex_codec", "idna", "mbcs", "oem", "punycode", "quopri_codec", "raw_unicode_escape",
    "rot_13", "undefined", "unicode_escape", "uu_codec", "zlib_codec",
}  # fmt: skip
# Those that are read as another which has the same letters and more, as browsers do: senders mean the larger one.
_LARGER = {
    "ascii": "utf_8", "latin_1": "cp1252", "iso8859_1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030",
    "euc_kr": "cp949", "shift_jis": "cp932", "iso8859_9": "cp1254", "tis_620": "cp874", "iso8859_11": "cp874",
}  # fmt: skip
_MORE_NAMES = {
    "iso88598i": "iso8859_8", "iso88598e": "iso8859_8", "windows874": "cp874", "xsjis": "cp932", "xgbk": "gb18030",
    "xmacroman": "mac_roman", "unicode11utf7": "utf_7", "utf8mb4": "utf_8", "ansi": "cp1252", "xcp1252": "cp1252",
    "koi8": "koi8_r", "cp874": "cp874", "cp720": "cp720", "koi8t": "koi8_t", "koi8u": "koi8_u",
}  # fmt: skip
_LONGEST_NAME = 40
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
# C0 and C1 controls but for the tab, and what ends a line in Unicode, and so for str.splitlines().
_CONTROLS = re.compile("[\x00-\x08\n-\x1f\x7f-\x9f\u2028\u2029]+")


def _squeeze(name: str) -> str:
    return _NOT_IN_NAMES.sub("", name.lower())


def _table() -> dict[str, str]:
    codecs = {codec for codec in aliases.values() if codec not in _NOT_CHARSETS}
    names = {_squeeze(codec): codec for codec in codecs}
    names |= {_squeeze(alias): codec for alias, codec in aliases.items() if codec in codecs}
    names |= _MORE_NAMES
    return {name: _LARGER.get(codec, codec) for name, codec in names.items()}


_CODECS = _table()


def find_codec(name: str | None) -> str | None:
    """The codec for the name of a character set, however it is written; None for a name that says nothing."""
    if not name or len(name) > _LONGEST_NAME:
        return None
    return _CODECS.get(_squeeze(name))


def decode(octets: bytes, name: str | None = None) -> str:
    """The text of octets in the character set of this name; UTF-8 where there is none, or an unknown one."""
    codec = find_codec(name) or "utf_8"
    if codec == "utf_8":
        return octets.decode("utf_8", "replace")
    try:
        text = octets.decode(codec, "replace")
    except (ValueError, LookupError):  # a codec that does not know "replace", or is not there
        return octets.decode("utf_8", "replace")
    return without_surrogates(text)


def without_surrogates(text: str) -> str:
    """Halves of pairs joined, and replaced where the other half is missing (UTF-7 may bring them)."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf_16", "surrogatepass").decode("utf_16", "replace")


def from_raw(text: str) -> str:
    """What the header of a message says in UTF-8, where it has octets above 127 as surrogates (PEP 383)."""
    if text.isascii():
        return text
    return text.encode("utf_8", "surrogateescape").decode("utf_8", "replace")


def without_controls(text: str) -> str:
    """One line, whatever encoded words have brought: a space for each run of controls and line ends."""
    return _CONTROLS.sub(" ", text)
