"""Lines to syslog (RFC 3164) over a unix socket, UDP or TCP.

Knows nothing of what a line says. A target that cannot be reached at the start is a LogError with one line; later a
line that cannot be sent is lost: a session never waits for a log server but for a TCP connection, which is tried for
half a second and then not again for five. logging.handlers.SysLogHandler is no choice: it blocks when the other side
is slow, looks the host up for each line, and shares a TCP connection among processes that write at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from preforksmtp.logs.linefile import LogError
from preforksmtp.process.place import reach

if TYPE_CHECKING:
    from preforksmtp.process.privileges import Identity

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", *(f"local{number}" for number in range(8)),
)  # fmt: skip
SEVERITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}

LOCAL = "unix:///dev/log"
PORT = 514
LONGEST = 8192  # octets of a message; what is longer is cut, for no server takes more
CONNECT_TIMEOUT = 0.5  # of a TCP connection, in a session
START_TIMEOUT = 5.0  # and at the start
RETRY_INTERVAL = 5.0  # seconds from a connection that failed to the next attempt

_Address = tuple[int, int, int, str, Any]  # as getaddrinfo() gives it

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in every locale
_NOT_IN_A_TAG = re.compile(r"[^!-~]|[:\[\]]")


def split_target(text: str) -> tuple[str, str | tuple[str, int]]:
    """A target -> its scheme and a path or (host, port). ValueError."""
    wanted = f"must be {LOCAL}, udp://host:port or tcp://host:port, not {text!r}"
    try:
        url = urlsplit(text)
        port = url.port or PORT
    except ValueError:
        raise ValueError(wanted) from None
    if url.query or url.fragment or url.username:
        raise ValueError(wanted)
    if url.scheme == "unix" and not url.netloc and url.path.startswith("/") and url.path != "/":
        return "unix", url.path
    if url.scheme in ("udp", "tcp") and url.hostname and url.path in ("", "/"):
        return url.scheme, (url.hostname, port)
    raise ValueError(wanted)


class SyslogSettings(Protocol):
    """The settings that open_syslog() reads."""

    name: str
    log_syslog: bool
    log_syslog_to: str
    log_syslog_prefix: str | None
    log_syslog_facility: str


def open_syslog(config: SyslogSettings, owner: Identity | None = None) -> Syslog | None:
    """The connection that the settings ask for, if they ask for one. `owner`: whom workers run as. LogError."""
    if not config.log_syslog:
        return None
    return Syslog(config.log_syslog_to, config.log_syslog_prefix or config.name, config.log_syslog_facility, owner)


class Syslog:
    """A connection to one target. record() may be called by any thread, and after a fork."""

    def __init__(self, target: str, prefix: str, facility: str, owner: Identity | None = None) -> None:
        self._target = target
        self._owner = owner
        self._scheme, self._address = split_target(target)
        self._tag = _NOT_IN_A_TAG.sub("_", prefix)
        self._facility = FACILITIES.index(facility) * 8
        # A local server knows its own name, and takes ours for a part of the message.
        self._host = "" if self._scheme == "unix" else socket.gethostname().partition(".")[0] + " "
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self._found: list[_Address] = []
        self._sock: socket.socket | None = self._open(START_TIMEOUT, look_up=True)
        self._pid = os.getpid()

    def record(self, level: str, text: str) -> None:
        """Each line of `text` as one message. Never raises; what cannot be sent is lost."""
        severity = SEVERITIES.get(level, 6)
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
        head = f"<{self._facility + severity}>{stamp} {self._host}{self._tag}[{os.getpid()}]: "
        for line in text.splitlines():
            self._send((head + line).encode("utf-8", "backslashreplace")[:LONGEST])

    def reopen(self) -> None:
        """Connect afresh (USR1). LogError: the old connection stays."""
        new = self._open(CONNECT_TIMEOUT, look_up=True)
        with self._lock:
            self._drop()
            self._sock, self._pid = new, os.getpid()

    def close(self) -> None:
        with self._lock:
            self._drop()
            self._retry_at = float("inf")

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, message: bytes) -> None:
        if not self._lock.acquire(timeout=CONNECT_TIMEOUT):
            return
        try:
            # Twice, for the first fails where the server was restarted, or where UDP tells of an earlier message.
            for _ in range(2):
                sock = self._connection()
                if sock is None or self._sent(sock, message):
                    return
        finally:
            self._lock.release()

    def _sent(self, sock: socket.socket, message: bytes) -> bool:
        """Whether that is the end of it. False: no connection any more, try another."""
        stream = sock.type == socket.SOCK_STREAM
        if stream:
            message += b"\n"  # RFC 6587 section 3.4.2
        try:
            if sock.send(message) == len(message):
                return True
        except BlockingIOError:
            return True  # the other side is too slow: the line is lost, the connection is not
        except OSError:
            pass
        self._drop()  # a part of a line in a stream can be mended by a new connection only
        return False

    def _connection(self) -> socket.socket | None:
        """The connection of this process, made if need be; None while there can be none."""
        if self._sock is not None and self._sock.type == socket.SOCK_STREAM and self._pid != os.getpid():
            self._drop()  # the master's: lines of two processes would mix
        if self._sock is None and time.monotonic() >= self._retry_at:
            try:
                self._sock, self._pid = self._open(CONNECT_TIMEOUT), os.getpid()
            except LogError:
                self._retry_at = time.monotonic() + RETRY_INTERVAL
        return self._sock

    def _open(self, timeout: float, look_up: bool = False) -> socket.socket:
        """`look_up`: the host's addresses too, which no session does: DNS knows no timeout."""
        try:
            if isinstance(self._address, str):
                return _connect_trusted(self._address, self._owner)
            if look_up:
                kind = socket.SOCK_DGRAM if self._scheme == "udp" else socket.SOCK_STREAM
                self._found = socket.getaddrinfo(*self._address, type=kind)  # type: ignore[assignment]
            return _connect(self._found, timeout)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise LogError(f"log_syslog_to: cannot reach {self._target}: {reason}") from None


def _connect_trusted(path: str, owner: Identity | None) -> socket.socket:
    """Root goes to no socket that somebody else may have put there, or linked to: then the workers' user does."""
    try:
        with reach(path, follow=True) as place:
            others = place.others
    except FileNotFoundError:
        raise
    except OSError as error:
        others = error.strerror or str(error)
    if not others:
        return _connect_unix(path)
    if owner is None or owner.uid == 0:
        raise OSError(errno.EPERM, f"{others}; root only goes where nobody else can have put a socket")
    from preforksmtp.process.privileges import (
        acting_as,  # root's master only: what reads settings need not know of users
    )

    with acting_as(owner):
        return _connect_unix(path)


def _connect_unix(path: str) -> socket.socket:
    """A datagram socket, or a stream where the server has one."""
    try:
        return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), path, CONNECT_TIMEOUT)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
        return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path, CONNECT_TIMEOUT)


def _connect(addresses: Sequence[_Address], timeout: float) -> socket.socket:
    """The first of them that answers, within `timeout` seconds for all of them."""
    deadline = time.monotonic() + timeout
    for place, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return _connected(socket.socket(family, kind, protocol), address, left)
        except OSError:
            if place == len(addresses):
                raise
    raise TimeoutError("timed out")


def _connected(sock: socket.socket, address: object, timeout: float) -> socket.socket:
    """Connected, and from then on never waiting."""
    with contextlib.ExitStack() as stack:
        stack.callback(sock.close)
        sock.settimeout(timeout)
        sock.connect(address)  # type: ignore[arg-type]
        sock.setblocking(False)
        stack.pop_all()
    return sock
