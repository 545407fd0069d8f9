"""Words of other servers' handlers: their status lines as a Reply, our parameters as the options they take.

Pure functions, and `find`, which imports what a dotted path names. A status that is no reply raises BadStatus (a
ValueError): it must not get on the wire. `find` raises ValueError, one clear line.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from preforksmtp import Reply

NULL_SENDER = "<>"  # as both aiosmtpd and the old smtpd have it

_STATUS_LINE = re.compile(r"([245]\d\d)(?:[ -](.*))?")


class BadStatus(ValueError):
    """What a hook returned is no reply."""


def read_status(status: Any) -> Reply:
    """A status as aiosmtpd takes it: str or bytes, several lines ("250-one\\r\\n250 two") or a list of them, with or
    without CRLF at the end. An enhanced status code is kept; where there is none, the Reply has its own."""
    if isinstance(status, list):
        status = "\r\n".join(map(str, status))
    text = status.decode("utf-8", "replace") if isinstance(status, (bytes, bytearray)) else status
    if not isinstance(text, str):
        raise BadStatus(f"a status such as '250 OK' is expected, not {text!r:.100}")
    lines = [_STATUS_LINE.fullmatch(line) for line in re.split(r"\r?\n", text.removesuffix("\n").removesuffix("\r"))]
    codes = {found[1] if found else "" for found in lines}
    if len(codes) != 1 or "" in codes:
        raise BadStatus(f"a status such as '250 OK' is expected, not {text!r:.100}")
    texts = [(found[2] or "").strip() for found in lines if found]
    try:
        reply = Reply(int(codes.pop()), texts)
        if len(texts) == 1:
            return reply
        own = f"{reply.enhanced} "  # theirs has it in each line, a Reply puts it there itself
        return Reply(reply.code, [texts[0], *(text.removeprefix(own) for text in texts[1:])])
    except ValueError as error:  # control characters
        raise BadStatus(str(error)) from None


def is_missing(status: Any) -> bool:
    """Whether it is aiosmtpd.smtp.MISSING, "as if I were not there"; the module may not be there to compare with."""
    return getattr(status, "name", None) == "MISSING"


# --- options


def _xtext(text: str) -> str:
    """RFC 3461 section 4."""
    return re.sub(r"[^!-*,-<>-~]", lambda found: "".join(f"+{octet:02X}" for octet in found[0].encode()), text)


def _orcpt(text: str) -> str:
    kind, _, address = text.partition(";")
    return f"{kind};{_xtext(address)}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


_WRITTEN: dict[str, Callable[[Any], str]] = {
    "AUTH": lambda submitter: _xtext(submitter) or "<>",
    "ENVID": _xtext,
    "NOTIFY": ",".join,
    "ORCPT": _orcpt,
    "BY": lambda by: f"{by.seconds};{by.mode}{'T' if by.trace else ''}",
    "HOLDUNTIL": _moment,
    "RRVS": lambda valid: f"{_moment(valid.since)};{valid.action}",
}


def options(params: Mapping[str, Any]) -> list[str]:
    """ESMTP parameters as they are written: ["BODY=8BITMIME", "SMTPUTF8"], keywords in capitals."""
    return [key if value is True else f"{key}={_WRITTEN.get(key, str)(value)}" for key, value in params.items()]


def plain(addresses: Iterable[str]) -> list[str]:
    """Recipients as plain strings: foreign code may pickle them, or ask for their type."""
    return [str(address) for address in addresses]


# --- dotted paths


def find(what: str, path: str) -> Any:
    """The object that "module:attribute" names; `what` says in the error what it was to be."""
    module_name, colon, attributes = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *attributes.split("."))):
        raise ValueError(f"{what} {path!r}: expected module:attribute, such as myapp:MyHandler")
    try:
        value = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ValueError(f"{what} {path!r}: no module named {error.name!r}") from None
        raise  # the module is there, and imports one that is not
    for name in attributes.split("."):
        if not hasattr(value, name):
            raise ValueError(f"{what} {path!r}: {module_name} has no attribute {attributes!r}")
        value = getattr(value, name)
    return value
