"""The types of the settings' values: text or a Python object in, the value used at run time out.

Each type takes what the command line, an environment variable or a bind's option gives (text) and what a
config file may hold (a number, a list ...), and takes its own results back unchanged. It knows no setting
by name. A value that will not do raises ValueError with the end of a sentence ("must be ...") that the
caller opens with the setting's name.
"""

import ipaddress
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from preforksmtp.config.networks import Networks
from preforksmtp.process import machine

KIB = 1024
MIB = 1024 * KIB

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(?:([KMGT])(?:I?B)?|B)?", re.IGNORECASE | re.ASCII)
_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d)?", re.IGNORECASE | re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE | re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


@dataclass(frozen=True)
class ValueType:
    """How one kind of value is read, and how the command line takes it."""

    metavar: str
    parse: Callable[[object], Any]
    switch: bool = False  # --name and --no-name instead of --name VALUE
    repeats: bool = False  # each --name VALUE adds one; an environment variable is split like a shell's words
    choices: tuple[str, ...] = ()


def integer(
    minimum: int = 0, maximum: int = 2**31 - 1, words: Mapping[str, Callable[[], int]] | None = None
) -> ValueType:
    """A whole number; `words` are names for numbers found out when the value is read ("auto")."""
    known = dict(words or {})
    limits = f"from {minimum} to {maximum}" if maximum < 2**31 - 1 else f"of at least {minimum}"
    wanted = f"must be a whole number {limits}" + "".join(f" or {word!r}" for word in known)

    def parse(raw: object) -> int:
        if isinstance(raw, str) and raw.strip().lower() in known:
            return known[raw.strip().lower()]()
        if isinstance(raw, bool) or not isinstance(raw, (int, str)):
            raise _wrong(wanted, raw)
        try:
            number = int(raw)
        except ValueError:
            raise _wrong(wanted, raw) from None
        if not minimum <= number <= maximum:
            raise _wrong(wanted, raw)
        return number

    return ValueType("|".join(["N", *known]), parse)


def octal(maximum: int = 0o777) -> ValueType:
    """Permission bits: a number in the config file (0o077); text is octal, as the shell's umask has it."""
    wanted = f"must be an octal number from 0 to {maximum:o}"

    def parse(raw: object) -> Octal:
        if isinstance(raw, bool) or not isinstance(raw, (int, str)):
            raise _wrong(wanted, raw)
        try:
            number = raw if isinstance(raw, int) else int(raw, 8)
        except ValueError:
            raise _wrong(wanted, raw) from None
        if not 0 <= number <= maximum:
            raise _wrong(wanted, raw)
        return Octal(number)

    return ValueType("OCTAL", parse)


class Octal(int):
    """Shown as it was meant."""

    def __repr__(self) -> str:
        return f"0o{self:03o}"


def size(minimum: int = 0) -> ValueType:
    """A number of bytes: 33554432, "32M", "1 MiB". K, M, G and T are powers of 1024, also KB, KiB."""
    wanted = "must be a number of bytes such as 33554432, 32M or 1 MiB"

    def parse(raw: object) -> int:
        match = _SIZE.fullmatch(str(raw).strip())
        if isinstance(raw, bool) or not isinstance(raw, (int, str)) or match is None:
            raise _wrong(wanted, raw)
        count = int(float(match[1]) * 1024 ** _POWERS[match[2].upper()]) if match[2] else int(float(match[1]))
        if not minimum <= count < 2**63:
            raise _wrong(f"{wanted}, of at least {minimum}", raw)
        return count

    return ValueType("SIZE", parse)


def seconds(*, zero: bool = False) -> ValueType:
    """Seconds as a float: 30, "1.5", "500ms", "5m", "1h". Zero only where it means something."""
    wanted = f"must be {'0 or ' if zero else ''}a number of seconds above 0, such as 30, 1.5 or 5m"

    def parse(raw: object) -> float:
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise _wrong(wanted, raw)
        match = _SECONDS.fullmatch(str(raw).strip())
        if match is None:
            raise _wrong(wanted, raw)
        duration = float(match[1]) * _UNITS[(match[2] or "s").lower()]
        # A thousand years is no timeout, and overflows the C calls that take one.
        if not math.isfinite(duration) or duration > 1e9 or (duration == 0 and not zero):
            raise _wrong(wanted, raw)
        return duration

    return ValueType("SECONDS", parse)


def share() -> ValueType:
    """A part of the whole: 0.9 or "90%"."""
    wanted = "must be a share of the whole, from 0 to 1, such as 0.9 or 90%"

    def parse(raw: object) -> float:
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise _wrong(wanted, raw)
        text = str(raw).strip()
        try:
            part = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise _wrong(wanted, raw) from None
        if not 0 <= part <= 1:
            raise _wrong(wanted, raw)
        return part

    return ValueType("SHARE", parse)


def boolean() -> ValueType:
    """True or false; in text 1/0, true/false, yes/no, on/off."""

    def parse(raw: object) -> bool:
        word = str(raw).strip().lower()
        if word in _YES:
            return True
        if word in _NO:
            return False
        raise _wrong("must be true or false", raw)

    return ValueType("BOOL", parse, switch=True)


def string(metavar: str = "TEXT") -> ValueType:
    """Any text without a NUL; empty text means None, "not set"."""

    def parse(raw: object) -> str | None:
        return _text(raw) or None

    return ValueType(metavar, parse)


def path(metavar: str = "FILE") -> ValueType:
    """The name of a file or folder, `~` expanded; empty text means None. Whether it exists is asked later."""

    def parse(raw: object) -> str | None:
        text = os.fspath(raw) if isinstance(raw, os.PathLike) else raw
        return os.path.expanduser(_text(text)) or None

    return ValueType(metavar, parse)


def choice(*choices: str) -> ValueType:
    """One of a few words."""

    def parse(raw: object) -> str:
        word = str(raw).strip().lower()  # str(): tls_min_version = 1.2 in a config file is a float
        if word not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {raw!r}")
        return word

    return ValueType("|".join(choices), parse, choices=choices)


def words(metavar: str, *, upper: bool = False, commas_only: bool = False) -> ValueType:
    """A list written "A,B" (or "A B"), or a Python list."""

    def parse(raw: object) -> tuple[str, ...]:
        if isinstance(raw, str):
            items: list[object] = [*(raw.split(",") if commas_only else raw.replace(",", " ").split())]
        elif isinstance(raw, (list, tuple, set, frozenset)):
            items = sorted(raw, key=str) if isinstance(raw, (set, frozenset)) else list(raw)
        else:
            raise _wrong("must be a list or text such as 'A,B'", raw)
        texts = (_text(os.fspath(item) if isinstance(item, os.PathLike) else item).strip() for item in items)
        return tuple(text.upper() if upper else text for text in texts if text)

    return ValueType(metavar, parse)


def cidrs() -> ValueType:
    """Networks in CIDR notation, such as 192.0.2.0/24 or ::1; "unix" for clients of a unix socket."""

    def parse(raw: object) -> Networks:
        if isinstance(raw, Networks):
            return raw
        parts = re.split(r"[,\s]+", raw) if isinstance(raw, str) else raw
        if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
            raise _wrong("must be networks such as 192.0.2.0/24,::1", raw)
        try:
            return Networks(part for part in parts if part)
        except ValueError as error:
            raise ValueError(f"must be networks such as 192.0.2.0/24,::1: {error}") from None

    return ValueType("CIDR,CIDR", parse)


def addresses() -> ValueType:
    """One or more addresses to bind, each kept as written; net/listener.py parses them."""

    def parse(raw: object) -> tuple[str, ...]:
        if not isinstance(raw, (str, list, tuple)):
            raise _wrong("must be an address or a list of addresses", raw)
        found = tuple(_text(item).strip() for item in ([raw] if isinstance(raw, str) else raw))
        if not found or not all(found):
            raise ValueError("must name at least one address, such as 127.0.0.1:8025")
        return found

    return ValueType("ADDRESS", parse, repeats=True)


def patterns() -> ValueType:
    """Names of files with the wildcards of glob, `~` expanded: one, or a list of them."""

    def parse(raw: object) -> tuple[str, ...]:
        items: list[object] = list(raw) if isinstance(raw, (list, tuple)) else [raw]
        texts = [_text(os.fspath(item) if isinstance(item, os.PathLike) else item).strip() for item in items]
        return tuple(os.path.expanduser(text) for text in texts if text)

    return ValueType("PATTERN", parse, repeats=True)


def variables() -> ValueType:
    """Environment variables: "NAME=VALUE", a list of them, or a dict."""

    def parse(raw: object) -> dict[str, str]:
        if isinstance(raw, Mapping):
            pairs = [(str(name), _text(value)) for name, value in raw.items()]
        elif isinstance(raw, (str, list, tuple)):
            pairs = [_variable(item) for item in ([raw] if isinstance(raw, str) else raw)]
        else:
            raise _wrong("must be NAME=VALUE or a list of them", raw)
        for name, _ in pairs:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"must be NAME=VALUE; {name!r} is no name of a variable")
        return dict(pairs)

    return ValueType("NAME=VALUE", parse, repeats=True)


def named_certificates() -> ValueType:
    """Certificates by name: "NAME=CERT,KEY", several with semicolons between, a list of them, or a dict."""

    def parse(raw: object) -> dict[str, tuple[str, str | None]]:
        if isinstance(raw, Mapping):
            pairs = [(str(name), files) for name, files in raw.items()]
        elif isinstance(raw, (str, list, tuple)):
            items = [part for item in ([raw] if isinstance(raw, str) else raw) for part in _text(item).split(";")]
            pairs = [_named_certificate(item.strip()) for item in items if item.strip()]
        else:
            raise _wrong("must be NAME=CERT,KEY or a list of them", raw)
        return {_server_name(name): _certificate_files(name, files) for name, files in pairs}

    return ValueType("NAME=CERT,KEY", parse, repeats=True)


def _named_certificate(text: str) -> tuple[str, object]:
    name, equals, files = text.partition("=")
    if not equals:
        raise _wrong("must be NAME=CERT,KEY", text)
    return name, files


def _server_name(name: str) -> str:
    """As clients send it, in lower case; "*." in front stands for one label."""
    name = name.strip().lower().removesuffix(".")
    bare = name.removeprefix("*.")
    if not is_hostname(bare) or bare.startswith("["):
        hint = "" if bare.isascii() else "; write it in its ASCII form, xn--..."
        raise ValueError(f"must have a host name such as mx.example.org or *.example.org, not {name!r}{hint}")
    return name


def _certificate_files(name: str, raw: object) -> tuple[str, str | None]:
    parts = raw.split(",") if isinstance(raw, str) else [raw] if isinstance(raw, os.PathLike) else raw
    if not isinstance(parts, (list, tuple)) or not 1 <= len(parts) <= 2:
        raise _wrong(f"must give {name} a certificate and a key, CERT,KEY", raw)
    certfile = path().parse(parts[0])
    keyfile = path().parse(parts[1]) if len(parts) == 2 and parts[1] is not None else None
    if certfile is None:
        raise _wrong(f"must give {name} a certificate and a key, CERT,KEY", raw)
    return certfile, keyfile


def hostname() -> ValueType:
    """The name a server gives itself: a domain or an address literal (RFC 5321 section 4.1.2, 4.1.3)."""

    def parse(raw: object) -> str:
        text = _text(raw).strip()
        if not is_hostname(text):
            hint = f"; did you mean [{text}]?" if _is_address(text) else ""
            raise ValueError(f"must be a host name such as mail.example.org, not {raw!r}{hint}")
        return text

    return ValueType("NAME", parse)


def is_hostname(text: str) -> bool:
    """Is it a domain of letters, digits and hyphens, or an address literal in brackets?"""
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
        if inner[:5].lower() == "ipv6:":
            return _is_address(inner[5:]) and ":" in inner[5:]
        return _is_address(inner) and ":" not in inner
    if not text or len(text) > 255 or _is_address(text):
        return False
    return all(_LABEL.fullmatch(label) for label in text.split("."))


def local_hostname() -> str:
    """This machine's full name, if it is one that a mail server may have."""
    return next((name for name in machine.names() if is_hostname(name)), "localhost")


def shell_words(text: str) -> list[str]:
    """Text split as a shell would, for values that are lists in an environment variable."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"must be words as in a shell: {error}") from None


def _wrong(wanted: str, raw: object) -> ValueError:
    return ValueError(f"{wanted}, not {raw!r}")


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise _wrong("must be text", raw)
    if "\0" in raw:
        raise ValueError("must not hold a NUL character")
    return raw


def _variable(raw: object) -> tuple[str, str]:
    name, equals, value = _text(raw).partition("=")
    if not equals:
        raise _wrong("must be NAME=VALUE", raw)
    return name, value


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
