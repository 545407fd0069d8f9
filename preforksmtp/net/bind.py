"""The grammar of one -b/--bind value: [SCHEME://]ADDRESS[?option=value&...] -> Bind.

Pure text: no socket is opened and no name resolved here, so --check-config can use it without binding.
Fails with ValueError, one line that names the bind and says what to write instead. Session settings among
the options are kept as text for config.py; only the options of BIND_OPTIONS are understood in this room.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NoReturn
from urllib.parse import unquote

DEFAULT_PORTS = {"smtp": 25, "smtps": 465, "submission": 587, "submissions": 465, "lmtp": 24}
SCHEMES = tuple(DEFAULT_PORTS)

# Options of the socket itself; every other option is a session setting, checked by config.py.
BIND_OPTIONS = {"mode": "permissions of a unix socket, octal (default: what the umask leaves)"}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"[\w.-]+")
_OPTION = re.compile(r"[a-z][a-z0-9_]*")
_MODE = re.compile(r"0?o?[0-7]{1,3}")


@dataclass(frozen=True)
class Bind:
    """One -b value. Exactly one of (host, port), path and fd is set; path "@name" is an abstract socket."""

    text: str
    scheme: str = "smtp"
    host: str | None = None  # "" = all addresses, v4 and v6
    port: int | None = None  # 0 = the kernel chooses
    path: str | None = None
    fd: int | None = None
    options: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def implicit_tls(self) -> bool:
        """TLS from the first byte (RFC 8314)."""
        return self.scheme in ("smtps", "submissions")

    @property
    def submission(self) -> bool:
        """Message submission (RFC 6409): AUTH required, and TLS before AUTH."""
        return self.scheme in ("submission", "submissions")

    @property
    def lmtp(self) -> bool:
        """Local mail transfer (RFC 2033): LHLO, one reply per recipient."""
        return self.scheme == "lmtp"

    @property
    def abstract(self) -> bool:
        """A Linux abstract unix socket: a name without a file."""
        return self.path is not None and self.path.startswith("@")

    @property
    def mode(self) -> int | None:
        """Permissions asked for a unix socket (?mode=660), or None."""
        return int(self.options["mode"].replace("o", ""), 8) if "mode" in self.options else None


def parse_bind(text: str) -> Bind:
    """Parse one -b value; ValueError with one clear line."""
    if not text.isprintable() or text != text.strip():
        _refuse(text, "spaces around it and control characters are not allowed")
    scheme, address = _split_scheme(text)
    address, question, query = address.partition("?")
    options = _parse_options(text, query) if question else {}
    if not address:
        _refuse(text, f"the address is missing; ':{DEFAULT_PORTS[scheme]}' means all addresses")
    host, port, path, fd = None, None, None, None
    if address.startswith("unix:"):
        path = _parse_path(text, address)
    elif address.startswith("fd://"):
        fd = _parse_fd(text, address[len("fd://"):])
    else:
        host, port = _parse_host_port(text, address, DEFAULT_PORTS[scheme])
    bind = Bind(text, scheme, host, port, path, fd, options)
    _check_bind_options(bind)
    return bind


def _refuse(text: str, reason: str) -> NoReturn:
    raise ValueError(f"bind {text!r}: {reason}")


def _split_scheme(text: str) -> tuple[str, str]:
    match = _SCHEME.match(text)
    if match is None or match[1] in ("unix", "fd"):  # unix:///path and fd://3 are addresses
        return "smtp", text
    scheme = match[1].lower()
    if scheme not in DEFAULT_PORTS:
        near = get_close_matches(scheme, SCHEMES, n=1)
        hint = f"did you mean {near[0]}://?" if near else f"one of {', '.join(SCHEMES)}"
        _refuse(text, f"unknown scheme {match[1]!r}; {hint}")
    return scheme, text[match.end():]


def _parse_options(text: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        name = name.replace("-", "_")
        if not _OPTION.fullmatch(name):
            _refuse(text, f"{part!r} is not an option; write ?name=value&name=value after the address")
        if name in options:
            _refuse(text, f"option {name} is given twice")
        options[name] = unquote(value) if equals else "true"
        if not options[name].isprintable():
            _refuse(text, f"option {name} has control characters in its value")
    return options


def _parse_path(text: str, address: str) -> str:
    path = address[len("unix:"):]
    if path.startswith("//"):  # unix:///run/x.sock, as gunicorn takes it
        path = path[2:]
    if path in ("", "@"):
        _refuse(text, "the path is missing; write unix:/run/preforksmtp.sock")
    if path.endswith("/"):
        _refuse(text, f"{path} is a folder; write the path of a socket in it")
    if path.startswith("@") and sys.platform != "linux":
        _refuse(text, "abstract sockets (unix:@name) exist on Linux only; use unix:/path")
    if len(os.fsencode(path)) > 107:  # sun_path of unix(7); one byte is left for the end
        _refuse(text, "the path of a unix socket can have 107 bytes at most")
    return path


def _parse_fd(text: str, number: str) -> int:
    if not (number.isascii() and number.isdecimal()):
        _refuse(text, f"{number!r} is not a file descriptor; write fd://3")
    if int(number) < 3:
        _refuse(text, "file descriptors 0, 1 and 2 are the standard streams; use 3 or more")
    return int(number)


def _parse_host_port(text: str, address: str, default_port: int) -> tuple[str, int]:
    if address.startswith("["):
        return _parse_bracketed(text, address, default_port)
    if address.count(":") > 1:
        _refuse(text, _many_colons(address))
    host, colon, port = address.partition(":")
    if not colon and address.isdecimal():
        _refuse(text, f"a port alone needs a colon: ':{address}' means all addresses")
    if host == "*":
        host = ""
    if host and not _HOST.fullmatch(host):
        _refuse(text, f"{host!r} is not a host name or IP address")
    if host and re.fullmatch(r"[\d.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            _refuse(text, f"{host!r} is not an IPv4 address")
    return host, _parse_port(text, port) if colon else default_port


def _parse_bracketed(text: str, address: str, default_port: int) -> tuple[str, int]:
    host, bracket, rest = address[1:].partition("]")
    if not bracket:
        _refuse(text, "the closing bracket is missing; write [::1]:25")
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        _refuse(text, f"{host!r} is not an IPv6 address")
    if rest and not rest.startswith(":"):
        _refuse(text, f"{rest!r} after the bracket is not a port; write [{host}]:25")
    return host, _parse_port(text, rest[1:]) if rest else default_port


def _parse_port(text: str, port: str) -> int:
    if not port:
        _refuse(text, "the port after ':' is missing")
    if not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65535:
        _refuse(text, f"{port!r} is not a port (0 to 65535)")
    return int(port)


def _many_colons(address: str) -> str:
    first, _, rest = address.partition(":")
    if first.lower() in DEFAULT_PORTS:
        return f"a scheme is followed by '://'; write {first}://{rest}"
    host, _, port = address.rpartition(":")
    for literal, suffix in ((host, f":{port}"), (address, "")):  # "::1:25" is both; a port was meant
        try:
            ipaddress.IPv6Address(literal)
        except ValueError:
            continue
        return f"an IPv6 address needs brackets; write [{literal}]{suffix}"
    return "too many colons; write HOST:PORT or [IPV6]:PORT"


def _check_bind_options(bind: Bind) -> None:
    mode = bind.options.get("mode")
    if mode is None:
        return
    if bind.path is None or bind.abstract:
        _refuse(bind.text, "option mode is for unix:/path sockets only")
    if not _MODE.fullmatch(mode):
        _refuse(bind.text, f"mode {mode!r} is not octal permissions; write mode=660")
