"""Binds -> listening sockets, each blocking, close-on-exec and with kernel timeouts.

Runs in the master before any fork. Knows sockets and the file names of unix sockets; sockets that were
handed over by a service manager come from activation.py. Fails with ListenError, one line that names the
bind and says what to do; sockets opened before the failure are closed again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterable, MutableMapping
from time import sleep
from typing import Any

from preforksmtp.net.activation import (
    InheritError,
    Passed,
    adopt_socket,
    assign_sockets,
    sockets_passed,
    take_passed_sockets,
)
from preforksmtp.net.bind import BIND_OPTIONS, Bind, parse_bind
from preforksmtp.net.unixsocket import explain, inode_of, listen_abstract, listen_at
from preforksmtp.process.place import absolute, reach

__all__ = [
    "BIND_OPTIONS",
    "Bind",
    "ListenError",
    "Listener",
    "open_listeners",
    "parse_bind",
    "sockets_passed",
]

BIND_TRIES = 5  # a predecessor that is just leaving frees the address within seconds
RETRY_DELAY = 1.0
ACCEPT_TIMEOUT = 0.5  # how often a blocked accept() returns to look at the stop flag
SEND_TIMEOUT = 60.0
_SO_LOCK_FILTER = 44  # socket(7)

_Address = tuple[Any, ...]  # (host, port) or (host, port, flow, scope)

log = logging.getLogger("preforksmtp")


class ListenError(Exception):
    """A bind cannot be listened on; str() is one clear line."""


class Listener:
    """A listening socket with the Bind it serves."""

    def __init__(
        self,
        bind: Bind,
        sock: socket.socket,
        *,
        path: str | None = None,
        inode: tuple[int, int] | None = None,
        passed: Passed | None = None,
    ) -> None:
        """`path`: file of a unix socket that we bound, to be removed by close() if it still is `inode`; None: what has
        the name now. `passed`: by systemd."""
        self.bind = bind
        self.socket = sock
        self.name = sock.getsockname()  # for workers of another lane, who have closed this socket
        self.address = f"unix:{path}" if path is not None else format_address(sock)
        self.lanes: list[socket.socket] = []  # further sockets of the same address, from lane 1 on; see lanes.py
        self.path = path
        self.passed = passed
        self.shared = False  # another master serves it as well (an upgrade): its file stays
        self.inode = inode or (inode_of(path) if path is not None else None)
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Listener {self.bind.scheme} {self.address} fd={self.socket.fileno()}>"

    @property
    def multiplies(self) -> bool:
        """Whether it may have further sockets: TCP, and not given to us by somebody who would not know of them."""
        return self.bind.host is not None and self.passed is None

    def sockets(self) -> list[socket.socket]:
        """Those of all lanes."""
        return [self.socket, *self.lanes]

    def serving(self, bind: Bind) -> Listener:
        """The same sockets for another bind, of the same place; this object is not closed then."""
        other = Listener(bind, self.socket, path=self.path, inode=self.inode, passed=self.passed)
        other.lanes = self.lanes
        other.shared = self.shared
        return other

    def close(self) -> None:
        """Close; the process that bound a unix socket also removes its file, if it is still the same one."""
        for sock in self.sockets():
            sock.close()
        if self.path is None or self.shared or os.getpid() != self._pid:
            return  # a worker's copy, or a socket that belongs to the service manager
        path, self.path = self.path, None
        try:
            if self.inode is not None:
                with reach(path) as place:
                    place.remove(self.inode)
        except FileNotFoundError:
            pass  # removed by someone else: what we wanted
        except OSError as error:
            log.warning("cannot remove the unix socket %s: %s", path, error.strerror)

    def change_mode(self, mode: int) -> None:
        """Of the file of a unix socket, as long as it is this one. OSError."""
        if self.path is not None and self.inode is not None:
            with reach(self.path) as place:
                place.change_mode(mode, self.inode)

    def rename(self, path: str) -> None:
        """Of the file of a unix socket: another name in the same folder. OSError."""
        assert self.path is not None
        with reach(self.path) as place:
            place.rename(os.path.basename(path))
        self.path, self.address = path, f"unix:{path}"


def open_listeners(
    binds: Iterable[Bind],
    *,
    backlog: int,
    environ: MutableMapping[str, str],
    send_timeout: float = SEND_TIMEOUT,
    tries: int | None = None,
) -> list[Listener]:
    """Open every bind, in the given order; runs in the master. A host name or ":25" may yield several.

    Sockets passed by systemd (LISTEN_FDS) serve the binds they match (see activation.py) and come first.
    The LISTEN_* variables are removed from `environ`, so that workers and their children do not see them.
    """
    listeners: list[Listener] = []
    try:
        passed = {item.fd: item for item in take_passed_sockets(environ)}
        assigned, rest = assign_sockets(list(passed.values()), list(binds))
        listeners += [Listener(bind, sock, passed=passed[sock.fileno()]) for bind, sock in assigned]
        _refuse_same_fd(rest)
        for bind in rest:
            listeners += _open(bind, backlog, BIND_TRIES if tries is None else tries)
    except (ListenError, InheritError) as error:
        for listener in listeners:
            listener.close()
        raise ListenError(str(error)) from None
    except BaseException:  # Ctrl-C while waiting for an address
        for listener in listeners:
            listener.close()
        raise
    for listener in listeners:
        prepare_socket(listener.socket, send_timeout)
    _note_somaxconn(backlog)
    return listeners


def format_address(sock: socket.socket) -> str:
    """The local address as logs show it: 127.0.0.1:8025, [::1]:25, unix:/path, unix:@name."""
    name = sock.getsockname()
    if sock.family == socket.AF_INET:
        return f"{name[0]}:{name[1]}"
    if sock.family == socket.AF_INET6:
        return f"[{name[0]}]:{name[1]}"
    if isinstance(name, bytes):  # abstract: a leading zero byte
        return "unix:@" + os.fsdecode(name[1:])
    return f"unix:{name}"


def _open(bind: Bind, backlog: int, tries: int) -> list[Listener]:
    if bind.fd is not None:
        return [Listener(bind, adopt_socket(bind.fd))]
    if bind.path is not None:
        return [_open_unix(bind, bind.path, backlog, tries)]
    return _open_inet(bind, backlog, tries)


def _refuse_same_fd(binds: Iterable[Bind]) -> None:
    seen: dict[int, Bind] = {}
    for bind in binds:
        if bind.fd is not None and seen.setdefault(bind.fd, bind) is not bind:
            raise ListenError(f"cannot listen on {bind.text}: file descriptor {bind.fd} is given twice")


# --- TCP


def _open_inet(bind: Bind, backlog: int, tries: int) -> list[Listener]:
    """One listener for each address of the host; an address family this machine lacks is passed over."""
    listeners: list[Listener] = []
    missing: OSError | None = None
    addresses = _resolve(bind)
    for family, address in addresses:
        if bind.port == 0 and listeners:  # ":0": v4 and v6 on the same port
            address = (address[0], listeners[0].socket.getsockname()[1], *address[2:])  # noqa: PLW2901
        try:
            listeners.append(Listener(bind, _listen_retrying(bind, family, address, backlog, tries)))
        except OSError as error:
            if len(addresses) > 1 and _family_missing(family, error):
                missing = error.with_traceback(None)
                log.info("%s: not listening on [%s]: %s", bind.text, address[0], error.strerror)
                continue
            for listener in listeners:
                listener.close()
            raise ListenError(_explain(bind, address, error, tries)) from None
    if not listeners and missing is not None:
        raise ListenError(_explain(bind, addresses[0][1], missing, tries))
    return listeners


def _family_missing(family: socket.AddressFamily, error: OSError) -> bool:
    """A machine without IPv6 whose hosts file still has "::1 localhost", or one without IPv4."""
    if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
        return True
    return error.errno == errno.EAFNOSUPPORT


def _resolve(bind: Bind) -> list[tuple[socket.AddressFamily, _Address]]:
    if bind.host == "":
        wildcards = [(socket.AF_INET, ("0.0.0.0", bind.port or 0))]
        if socket.has_ipv6:
            wildcards.append((socket.AF_INET6, ("::", bind.port or 0)))
        return [(family, address) for family, address in wildcards]
    try:
        found = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ListenError(f"cannot listen on {bind.text}: cannot resolve {bind.host!r}: {reason}") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen_retrying(
    bind: Bind, family: socket.AddressFamily, address: _Address, backlog: int, tries: int
) -> socket.socket:
    for attempt in range(1, tries + 1):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # v4 has a socket of its own, so no peer shows as ::ffff:192.0.2.1
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(backlog)
            return sock
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE or attempt == tries:
                raise
        _wait_for_address(bind, attempt, tries)
    raise AssertionError("unreachable")


def _wait_for_address(bind: Bind, attempt: int, tries: int) -> None:
    """A predecessor's workers may still drain, after their master was killed."""
    log.info("%s is in use, trying again in %g s (%d of %d)", bind.text, RETRY_DELAY, attempt, tries)
    sleep(RETRY_DELAY)


def _tried(tries: int) -> str:
    return f" (tried {tries} times)" if tries > 1 else ""


def _explain(bind: Bind, address: _Address, error: OSError, tries: int) -> str:
    host, port = address[0], address[1]
    where = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = f"another program uses it{_tried(tries)}; stop that or choose another port"
    elif error.errno in (errno.EACCES, errno.EPERM) and port >= 1024:
        reason = "permission denied by a policy of this machine (SELinux, AppArmor, firewall?)"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason = (
            f"port {port} needs a privilege: start as root with --user, grant CAP_NET_BIND_SERVICE, "
            "or let systemd pass the socket"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = "no network interface of this machine has that address"
    elif error.errno == errno.EAFNOSUPPORT:
        reason = "this machine has no such address family (IPv6 switched off?)"
    return f"cannot listen on {where}: {reason}" + (f" (bind {bind.text})" if where not in bind.text else "")


# --- unix


def _open_unix(bind: Bind, path: str, backlog: int, tries: int) -> Listener:
    for attempt in range(1, tries + 1):
        try:
            address = path if bind.abstract else absolute(path)  # a later chdir must not matter
            sock = listen_abstract(path, backlog) if bind.abstract else listen_at(address, bind.mode, backlog)
            return Listener(bind, sock, path=None if bind.abstract else address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or attempt == tries:
                raise ListenError(f"cannot listen on unix:{path}: {explain(path, error, tries)}") from None
        _wait_for_address(bind, attempt, tries)
    raise AssertionError("unreachable")


# --- every listener


def prepare_socket(sock: socket.socket, send_timeout: float = SEND_TIMEOUT) -> None:
    """Set what accepted sockets inherit on Linux, so that a session needs no system call for it."""
    sock.setblocking(True)  # O_NONBLOCK is shared with whoever passed the socket to us
    sock.set_inheritable(False)
    # accept() raises BlockingIOError about twice a second; a session sets its own receive timeout at once.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(ACCEPT_TIMEOUT))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send_timeout))
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":  # a worker that was taken over could have the kernel drop what comes, for all, for ever
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)


def accepts_as_prepared(sock: socket.socket) -> bool:
    """Does accept() still give up after ACCEPT_TIMEOUT?"""
    seconds, micro = struct.unpack("ll", sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.calcsize("ll")))
    return bool(abs(seconds + micro / 1e6 - ACCEPT_TIMEOUT) < 0.1)


def _timeval(seconds: float) -> bytes:
    """struct timeval for setsockopt; 0 means for ever."""
    whole = int(seconds)
    return struct.pack("ll", whole, int((seconds - whole) * 1_000_000))


def _note_somaxconn(backlog: int) -> None:
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            limit = int(file.read())
    except (OSError, ValueError):
        return  # not Linux, or no /proc
    if limit < backlog:
        log.warning("backlog %d is cut to %d by the kernel; raise net.core.somaxconn", backlog, limit)
