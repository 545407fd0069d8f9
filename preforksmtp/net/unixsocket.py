"""Listening unix sockets and their files: made, and removed when stale, in the folder that place.py has reached.

Runs in the master. Fails with OSError; explain() says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat

from preforksmtp.process.place import Place, reach

log = logging.getLogger(__name__)


def listen_abstract(name: str, backlog: int) -> socket.socket:
    """@name: it has no file."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + name[1:])
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def listen_at(path: str, mode: int | None, backlog: int) -> socket.socket:
    """A file of this mode, in place of one whose server is gone. EADDRINUSE while one lives."""
    with reach(path) as place:
        _remove_stale(place)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(sock, place.address, mode)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
    return sock


def _bind(sock: socket.socket, address: str, mode: int | None) -> None:
    if mode is None:
        sock.bind(address)
        return
    # The umask gives the file its mode at birth; a chmod afterwards could hit a file put in its place.
    # Only the master runs this, and it has one thread.
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(address)
    finally:
        os.umask(umask)


def _remove_stale(place: Place) -> None:
    """Remove the socket file of a server that is gone."""
    try:
        before = place.status()
    except OSError:
        return  # nothing there, or a fault that bind() names
    if not stat.S_ISSOCK(before.st_mode):
        raise OSError(errno.ENOTSOCK, "the file is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)  # also: a full queue answers EAGAIN instead of blocking
        error = probe.connect_ex(place.address)
    if error == errno.ENOENT:
        return  # went away meanwhile
    if error != errno.ECONNREFUSED:  # connected, EAGAIN (queue full), EPROTOTYPE (datagram), EACCES: not ours
        if error not in (errno.EACCES, errno.EPERM):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        raise OSError(error, "a socket that may not be connected to is there; remove it if no server uses it")
    with contextlib.suppress(FileNotFoundError):
        place.remove((before.st_dev, before.st_ino))
        log.info("removed the stale socket %s", place.path)


def inode_of(path: str) -> tuple[int, int] | None:
    """None: there is nothing, or somebody else's link on the way."""
    try:
        with reach(path) as place:
            return place.inode()
    except OSError:
        return None


def explain(path: str, error: OSError, tries: int) -> str:
    """What is wrong with the path, for people."""
    text = error.strerror or str(error)
    if text != os.strerror(error.errno or 0):
        return text  # said by us
    if error.errno == errno.EADDRINUSE:
        tried = f" (tried {tries} times)" if tries > 1 else ""
        return f"another program listens there{tried}; stop it or choose another path"
    if error.errno == errno.ENOENT:
        return f"the folder {os.path.dirname(path) or '.'} does not exist"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to create a file in {os.path.dirname(path) or '.'}"
    return text
