"""Sockets handed over by a service manager (systemd's LISTEN_FDS protocol) or named by fd://N.

Runs in the master at start. An inherited socket is used as it is: never listen()ed again (SELinux, and the
backlog is the unit's), its file never unlinked. Fails with InheritError, one clear line.

Which bind a passed socket serves, first match wins:
1. a bind fd://N with its number;
2. a bind with its address (same port, and same host or all addresses; same unix path), so that the bind's
   scheme and options hold;
3. the next bind whose scheme is the socket's name (FileDescriptorName=, or the unit's name less ".socket");
   several sockets of one name share the last such bind. A socket with another name or none counts as smtp;
4. none: it is served with that scheme and no options.
A bind served by a passed socket is not bound again; every other bind is opened as usual.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from preforksmtp.net.bind import SCHEMES, Bind

FIRST_FD = 3  # SD_LISTEN_FDS_START
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")

log = logging.getLogger("preforksmtp")


class InheritError(Exception):
    """A passed file descriptor cannot be served; str() is one clear line."""


@dataclass(frozen=True)
class Passed:
    """One file descriptor from the service manager."""

    fd: int
    name: str

    @property
    def scheme(self) -> str | None:
        """The scheme its name gives, or None."""
        name = self.name.removesuffix(".socket").lower()  # the default name is that of the socket unit
        return name if name in SCHEMES else None


def sockets_passed(environ: Mapping[str, str]) -> bool:
    """Whether the service manager passed sockets to this process; the default bind is not wanted then."""
    return environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "0") != "0"


def take_passed_sockets(environ: MutableMapping[str, str]) -> list[Passed]:
    """Read and remove the LISTEN_* variables; sd_listen_fds_with_names(3)."""
    pid, count, names = (environ.get(name, "") for name in VARIABLES[:3])
    for name in VARIABLES:
        environ.pop(name, None)
    if not count:
        return []
    if pid != str(os.getpid()):
        log.warning("LISTEN_FDS ignored: it is for process %s, this one is %d", pid or "?", os.getpid())
        return []
    if not (count.isascii() and count.isdecimal()):
        raise InheritError(f"LISTEN_FDS={count!r} is not a number")
    labels = names.split(":") if names else []
    if labels and len(labels) != int(count):
        raise InheritError(f"LISTEN_FDNAMES has {len(labels)} names for LISTEN_FDS={count} sockets")
    labels = labels or [""] * int(count)
    return [Passed(FIRST_FD + index, label) for index, label in enumerate(labels)]


def assign_sockets(
    passed: list[Passed], binds: list[Bind]
) -> tuple[list[tuple[Bind, socket.socket]], list[Bind]]:
    """Match passed sockets with binds (the rules above): the pairs, and the binds still to be opened."""
    pairs: list[tuple[Bind, socket.socket]] = []
    served: set[int] = set()  # indexes into binds
    for item in passed:
        sock = adopt_socket(item.fd)
        index = find_bind(item, sock, binds, served)
        if index is None:
            bind = Bind(f"fd://{item.fd}", item.scheme or "smtp", fd=item.fd)
        else:
            bind = binds[index]
            served.add(index)
        log.info("socket %d (%s) from systemd serves %s", item.fd, item.name or "unnamed", bind.text)
        pairs.append((bind, sock))
    return pairs, [bind for index, bind in enumerate(binds) if index not in served]


def adopt_socket(fd: int) -> socket.socket:
    """The listening stream socket behind a file descriptor; InheritError when it is something else."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        known = {errno.EBADF: "it is not open", errno.ENOTSOCK: "it is not a socket"}
        reason = known.get(error.errno or 0, str(error))
        raise InheritError(f"cannot listen on file descriptor {fd}: {reason}") from None
    fault = _fault(sock)
    if fault is not None:
        sock.detach()  # not ours to close
        raise InheritError(f"cannot listen on file descriptor {fd}: {fault}")
    return sock


def _fault(sock: socket.socket) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return f"it is neither a TCP nor a unix socket ({sock.family!r})"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return "it is not a stream socket (systemd: use ListenStream=)"
    try:
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return None  # a system that cannot tell (ENOPROTOOPT)
    return None if listening else "the socket does not listen (systemd: use Accept=no)"


def find_bind(item: Passed, sock: socket.socket, binds: list[Bind], served: set[int]) -> int | None:
    """The index of the bind that a passed socket serves (the rules above), or None."""
    for index, bind in enumerate(binds):
        if bind.fd == item.fd:
            return index
    for index, bind in enumerate(binds):
        if index not in served and item.scheme in (None, bind.scheme) and _same_address(sock, bind):
            return index
    scheme = item.scheme or "smtp"
    of_scheme = [index for index, bind in enumerate(binds) if bind.scheme == scheme and bind.fd is None]
    unserved = [index for index in of_scheme if index not in served]
    return unserved[0] if unserved else of_scheme[-1] if of_scheme else None


def _same_address(sock: socket.socket, bind: Bind) -> bool:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        if bind.path is None:
            return False
        if isinstance(name, bytes):
            return bind.abstract and os.fsdecode(name[1:]) == bind.path[1:]
        return not bind.abstract and os.path.abspath(bind.path) == os.path.abspath(name)
    if bind.host is None or bind.port != name[1]:
        return False
    if bind.host == "":
        return name[0] in ("0.0.0.0", "::")
    try:
        found = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # opening the bind reports it
    return any(address[0] == name[0] for _, _, _, _, address in found)
