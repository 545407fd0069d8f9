"""Where the server sends lines to: the values of `log_syslog_to` and `statsd_host`.

Text in, the parts of an address out; nothing is looked up or opened. A value that will not do raises ValueError with
the end of a sentence that the caller opens with the setting's name.
"""

from __future__ import annotations

import os

from preforksmtp.config.values import ValueType
from preforksmtp.logs.syslog import LOCAL, PORT, split_target

StatsdAddress = tuple[str, int] | str  # host and port, or the path of a unix socket


def syslog_target() -> ValueType:
    """The type of `log_syslog_to`: unix:///path, udp://host:port or tcp://host:port."""

    def parse(raw: object) -> str | None:
        if not raw:
            return None
        if not isinstance(raw, str):
            raise ValueError(f"must be text such as {LOCAL}, not {raw!r}")
        split_target(raw)
        return raw

    return ValueType("URL", parse)


def local_syslog() -> str:
    """This machine's own syslog."""
    return LOCAL if os.path.exists("/dev/log") else f"udp://127.0.0.1:{PORT}"


def split_address(text: str) -> StatsdAddress:
    """HOST, HOST:PORT, [::1]:PORT, or unix:/path. ValueError with the end of a sentence."""
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        path = path[2:] if path.startswith("//") else path
        if not path:
            raise ValueError("must be HOST:PORT or unix:/path; the path is missing")
        return path
    host, bracket, rest = text[1:].partition("]") if text.startswith("[") else (text.partition(":")[0], "", "")
    port = rest.removeprefix(":") if bracket else text.partition(":")[2]
    if not host or (port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536)):
        raise ValueError(f"must be HOST:PORT, [IPV6]:PORT or unix:/path, not {text!r}")
    return host, int(port or 8125)
