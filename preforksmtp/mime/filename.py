"""Names of attachments that are safe as names of files, on any system: what a sender has written is only a wish.

No folders, control or invisible characters, nothing that a shell, an option or a device could be taken for; not longer
than MOST_OCTETS in UTF-8, never empty, and each only once in a message, also where case does not count.
"""

from __future__ import annotations

import re
import unicodedata

MOST_OCTETS = 150  # leaves room for what a handler puts in front: names of files end at 255
_LONGEST_NAME = 2000  # characters that are looked at
_LONGEST_SUFFIX = 20  # octets of ".tar.gz" and the like that are kept when a name is cut

_EXTENSIONS = {
    "application/gzip": ".gz", "application/json": ".json", "application/ms-tnef": ".dat", "application/msword": ".doc",
    "application/pdf": ".pdf", "application/pgp-encrypted": ".asc", "application/pgp-signature": ".asc",
    "application/pkcs7-signature": ".p7s", "application/rtf": ".rtf", "application/xml": ".xml",
    "application/zip": ".zip", "audio/mpeg": ".mp3", "image/gif": ".gif", "image/jpeg": ".jpg", "image/png": ".png",
    "image/svg+xml": ".svg", "image/tiff": ".tiff", "image/webp": ".webp", "message/delivery-status": ".txt",
    "message/disposition-notification": ".txt", "message/rfc822": ".eml", "text/calendar": ".ics", "text/csv": ".csv",
    "text/html": ".html", "text/plain": ".txt", "text/rfc822-headers": ".txt", "text/vcard": ".vcf",
    "text/xml": ".xml", "video/mp4": ".mp4",
}  # fmt: skip
_FOLDERS = re.compile(r"[/\\]")
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_BLANKS = re.compile(r"\s+")
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?![^. ])", re.IGNORECASE)


def make_safe(name: str) -> str:
    """The name without what is dangerous in it; "" where nothing is left."""
    if len(name) > _LONGEST_NAME:  # its end says what it is
        name = name[: _LONGEST_NAME // 2] + name[-_LONGEST_NAME // 2 :]
    name = unicodedata.normalize("NFC", name)
    name = _FOLDERS.split(name)[-1]
    name = _FORBIDDEN.sub("_", _BLANKS.sub(" ", name))
    if not name.isascii():
        name = "".join(char for char in name if unicodedata.category(char) not in _INVISIBLE)
    name = name.strip(". ")  # hidden files, "..", and what Windows drops at the end
    if name[:1] in ("-", "~") or _DEVICES.match(name):
        name = f"_{name}"
    return _cut(name, MOST_OCTETS)


def default_name(number: int, content_type: str) -> str:
    """For the attachment of this number, from 1, whose sender gave no name."""
    return f"attachment-{number}{_EXTENSIONS.get(content_type, '.bin')}"


class Names:
    """The names of one message: each is given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}  # the number to try first for a name that is taken

    def take(self, name: str) -> str:
        """This name, or the first that is free of `stem-2.ext`, `stem-3.ext` ..."""
        key = name.casefold()
        chosen = name
        while _fold(chosen) in self._taken:
            number = self._next[key] = self._next.get(key, 1) + 1
            stem, suffix = _split(name)
            mark = f"-{number}{suffix}"
            chosen = _cut_octets(stem, MOST_OCTETS - len(mark.encode())) + mark
        self._taken.add(_fold(chosen))
        return chosen


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix, as os.path.splitext; a suffix that is too long is none."""
    dot = name.rfind(".")
    if dot <= 0 or len(name[dot:].encode()) > _LONGEST_SUFFIX:
        return name, ""
    return name[:dot], name[dot:]


def _cut(name: str, most: int) -> str:
    if len(name.encode()) <= most:
        return name
    stem, suffix = _split(name)
    return _cut_octets(stem, most - len(suffix.encode())) + suffix


def _cut_octets(text: str, most: int) -> str:
    return text.encode()[:most].decode("utf_8", "ignore").rstrip(". ")
