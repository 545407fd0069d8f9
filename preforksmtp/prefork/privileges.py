"""Privileges: whose user and groups workers run as, and how they lose all others for good.

`find` runs at the start, `drop` in each worker before the application is loaded: the master stays what it is, binds low
ports and reads keys. Raises PrivilegesError with one clear line.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import stat
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


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


def drop(identity: Identity, *, no_new_privileges: bool) -> None:
    """Worker: become it, without a way back. In this order, for each step needs the privileges the next one takes."""
    if os.geteuid() == 0:
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
    with contextlib.suppress(PermissionError):
        os.setuid(0)
        raise PrivilegesError("user: the change could be taken back (setuid(0) works); refusing to serve")


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
