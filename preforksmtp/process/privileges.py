"""Privileges: whose user and groups workers run as, and how they lose all others for good.

`find` runs at the start, `drop` in each worker before the application is loaded: the master stays what it is, binds low
ports and reads keys. `acting_as` is the master's, for what it does where that user may write. Raises PrivilegesError
with one clear line.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


class PrivilegesError(Exception):
    """No such user or group, or the system does not let us become it."""


@dataclass(frozen=True)
class Identity:
    """User, group and supplementary groups, as numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def is_ours(self) -> bool:
        return (self.uid, self.gid) == (os.geteuid(), os.getegid())

    def may_enter(self, folder: str) -> bool:
        """As far as permission bits tell: whether it can open files in there."""
        path = os.path.realpath(folder)
        return self.uid == 0 or all(map(self._may_search, (path, *_parents(path))))

    def _may_search(self, folder: str) -> bool:
        try:
            status = os.stat(folder)
        except OSError:
            return False
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid or status.st_gid in self.groups:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def find(user: str | None, group: str | None) -> Identity | None:
    """What the settings `user` and `group` name; None: nothing is to change."""
    if user is None and group is None:
        return None
    entry = _find_user(user) if user is not None else None
    uid, gid, name = entry if entry is not None else (os.geteuid(), os.getegid(), "")
    if group is not None:
        gid = _find_group(group)
    # The groups that /etc/group lists the user in: its own, not the master's. One without a name has none.
    groups = os.getgrouplist(name, gid) if name else [gid]
    identity = Identity(uid, gid, tuple(sorted(set(groups))))
    if os.geteuid() != 0 and not identity.is_ours:
        setting = "user" if uid != os.geteuid() else "group"
        raise PrivilegesError(f"{setting}: only root can change it; start the server as root, or leave the setting out")
    return identity


@contextlib.contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Master, as root: files are opened with the rights of this user until the end of the block. OSError. The real and
    the saved user stay root: it cannot be signalled or traced meanwhile, and the way back is sure."""
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(identity.groups)
        os.setegid(identity.gid)
        os.seteuid(identity.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        if os.getgroups() != groups:
            os.setgroups(groups)


def drop(identity: Identity, *, no_new_privileges: bool) -> None:
    """Worker: become it, without a way back. In this order, for each step needs the privileges the next one takes."""
    if os.geteuid() == 0:
        if identity.uid != 0:
            _leave_terminal()
        try:
            os.setgroups(identity.groups)
            os.setgid(identity.gid)
            os.setuid(identity.uid)
        except OSError as error:
            line = f"user: cannot become uid {identity.uid}, gid {identity.gid}: {error.strerror}"
            raise PrivilegesError(line) from None
    _verify(identity)
    if no_new_privileges:
        _forbid_new_privileges()


def _parents(path: str) -> list[str]:
    parents = []
    while (parent := os.path.dirname(path)) != path:
        parents.append(parent)
        path = parent
    return parents


def _verify(identity: Identity) -> None:
    """Trust the kernel's answer only: real, effective and saved."""
    if hasattr(os, "getresuid"):
        uids, gids = set(os.getresuid()), set(os.getresgid())
    else:
        uids, gids = {os.getuid(), os.geteuid()}, {os.getgid(), os.getegid()}
    if uids != {identity.uid} or gids != {identity.gid}:
        raise PrivilegesError(f"user: still uid {sorted(uids)}, gid {sorted(gids)} after the change; refusing to serve")
    if identity.uid == 0:
        return
    _shed_capabilities()
    with contextlib.suppress(PermissionError):
        os.setuid(0)
        raise PrivilegesError("user: the change could be taken back (setuid(0) works); refusing to serve")


def _leave_terminal() -> None:
    """Root's terminal is not for another user: it could read what root types, and type in root's name (TIOCSTI)."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for fd in (1, 2):
        if os.isatty(fd):
            _make_write_only(fd, null)
    if null > 2:
        os.close(null)
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return  # there is none
    os.setsid()


def _make_write_only(fd: int, null: int) -> None:
    try:
        terminal = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NOFOLLOW)
    except OSError:  # of another container, which has no name here
        os.dup2(null, fd)
        return
    os.dup2(terminal, fd)
    os.close(terminal)


def _shed_capabilities() -> None:
    """The kernel takes them with the user, unless who started us has told it not to (securebits)."""
    if not _capabilities():
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    if _capabilities():
        raise PrivilegesError("user: capabilities of root's are left after the change (securebits?); refusing to serve")


def _capabilities() -> int:
    """Those that this thread has or can get back; 0 also where the system has none."""
    try:
        with open("/proc/thread-self/status", "rb") as file:  # no codec: this user may not be able to load one
            lines = [line.split() for line in file]
    except OSError:
        return 0
    return sum(int(words[1], 16) for words in lines if words[0] in (b"CapPrm:", b"CapEff:", b"CapAmb:"))


def _forbid_new_privileges() -> None:
    """Set-user-ID programs give nothing any more. A second wall: where there is no prctl we do without."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _find_user(user: str) -> tuple[int, int, str]:
    """Number, primary group and name. A number need not be in the user database; its group then has the same one."""
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        return entry.pw_uid, entry.pw_gid, entry.pw_name
    if user.isdecimal():
        return int(user), int(user), ""
    raise PrivilegesError(f"user: there is no user {user!r}")


def _find_group(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PrivilegesError(f"group: there is no group {group!r}") from None
