"""The files and folders that a configuration names, looked at before they are used: what cannot be opened, and who else
could meddle with it.

check() is for --check-config and for the rehearsal of a reload, warn() for every start: lists of lines, each naming the
setting. Nothing is made or changed. Call them after config.apply(), for relative names start from `chdir`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from preforksmtp.logs.logfile import TO_APPEND, open_log
from preforksmtp.process import privileges
from preforksmtp.process.place import reach, who_else
from preforksmtp.process.trust import passed_over

if TYPE_CHECKING:
    from preforksmtp.config.model import Config

_LOGS = ("error_logfile", "access_logfile", "transcript")


def check(config: Config, former: Config | None = None) -> list[str]:
    """What a start would stumble over; or a reload, which goes on with what `former` has."""
    owner = workers_user(config)
    errors = []
    for name in _LOGS:
        file = getattr(config, name)
        if file not in (None, "-") and (former is None or getattr(former, name) != file):
            errors += _check_log(name, file, owner)
    made = set(_made_by_the_master(former)) if former is not None else set()
    for name, path in _made_by_the_master(config):
        if (name, path) not in made:
            errors += _check_place(name, path)
    known = _spool_dirs(former) if former is not None else []
    for folder in _spool_dirs(config):
        if folder not in known:
            errors += _check_writable("spool_dir", folder, owner)
    return errors


def warn(config: Config) -> list[str]:
    """What a user should hear of though the server can run."""
    owner = workers_user(config)
    lines = _warn_of_code(owner) if owner is not None else []
    if owner is not None:
        lines += _warn_of_logs(config, owner)
    if config.pid is not None:
        with contextlib.suppress(OSError), reach(config.pid) as place:
            if place.others and not _is_settled(place.others, place.folder):
                lines.append(
                    f"pid: {place.others}, and so could put another number into {config.pid}; use a folder that only "
                    "root may write to, such as /run"
                )
    for folder in _spool_dirs(config):
        lines += _warn_of_spool_dir(folder, owner)
    return lines


def workers_user(config: Config) -> privileges.Identity | None:
    """Where it is another one than ours."""
    try:
        identity = privileges.find(config.user, config.group)
    except privileges.PrivilegesError:
        return None  # an error of its own
    return None if identity is None or identity.is_ours else identity


def _made_by_the_master(config: Config) -> Iterator[tuple[str, str]]:
    """Setting and path of what it makes itself, and removes."""
    from preforksmtp.net.bind import parse_bind

    if config.pid is not None:
        yield "pid", config.pid
    if config.control_socket is not None:
        yield "control_socket", config.control_socket
    binds = [("bind", bind) for bind in config.binds()]
    if config.status_bind is not None:
        binds.append(("status_bind", parse_bind(config.status_bind)))
    for name, bind in binds:
        if bind.path is not None and not bind.abstract:
            yield name, bind.path


def _spool_dirs(config: Config) -> list[str]:
    return sorted({view.spool_dir for view in map(config.for_bind, config.binds()) if view.spool_dir})


# -- errors


def _check_log(name: str, file: str, owner: privileges.Identity | None) -> list[str]:
    if os.path.isdir(file):
        return [f"{name}: {file} is a folder"]
    try:
        os.close(open_log(file, owner, TO_APPEND))
    except FileNotFoundError:
        return _check_writable(name, os.path.dirname(file) or ".", _who_creates(file, owner))
    except PermissionError as error:
        if os.geteuid() != 0:
            return [f"{name}: {file} is not writable"]
        return [f"{name}: cannot open {file}: {error.strerror}"]
    except OSError as error:
        return [f"{name}: cannot open {file}: {error.strerror}"]
    return []


def _who_creates(file: str, owner: privileges.Identity | None) -> privileges.Identity | None:
    """See logfile.py. None: we do."""
    try:
        with reach(file, follow=True) as place:
            return owner if place.others and (place.shaky or place.owner != 0) else None
    except OSError:
        return owner


def _check_place(name: str, path: str) -> list[str]:
    folder = os.path.dirname(path) or "."
    try:
        with reach(path) as place:
            mode = place.status().st_mode if place.inode() is not None else None
    except FileNotFoundError:
        return [f"{name}: the folder {folder} does not exist"]
    except OSError as error:
        return [f"{name}: cannot make {path}: {error.strerror}"]
    fits = mode is None or (stat.S_ISREG(mode) if name == "pid" else stat.S_ISSOCK(mode))
    if not fits:
        kind = "regular file" if name == "pid" else "socket"
        return [f"{name}: {path} is there and is no {kind}; remove it or choose another path"]
    return _check_writable(name, folder, None)


def _check_writable(name: str, folder: str, owner: privileges.Identity | None) -> list[str]:
    """`owner`: for whom; None: for us."""
    if not os.path.isdir(folder):
        return [f"{name}: the folder {folder} does not exist"]
    if owner is None:
        return [] if os.access(folder, os.W_OK | os.X_OK) else [f"{name}: the folder {folder} is not writable"]
    try:
        with privileges.acting_as(owner):
            writable = os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
    except OSError:  # we cannot be that user, and who starts workers will say so
        return []
    return [] if writable else [f"{name}: the folder {folder} is not writable for uid {owner.uid}"]


# -- warnings


def _warn_of_code(owner: privileges.Identity) -> list[str]:
    lines = [
        f"user: others than root may write to {folder}: the master imports nothing from there, workers do"
        for folder in passed_over()
    ]
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if owner.uid != 0 and os.stat(package).st_uid == owner.uid:
        lines.append(
            f"user: preforksmtp itself, in {package}, belongs to uid {owner.uid}: a worker that is taken over could "
            "become root by changing it; install it as root"
        )
    return lines


def _warn_of_logs(config: Config, owner: privileges.Identity) -> list[str]:
    """The master opens them, and a worker has what it has opened; but at USR1 each opens its own."""
    files = {name: file for name in _LOGS if (file := getattr(config, name)) and os.path.isfile(file)}
    return [
        f"{name}: uid {owner.uid} cannot enter the folder of {file}: at USR1 workers keep the old file; reopen logs "
        "with HUP instead"
        for name, file in files.items()
        if not owner.may_enter(os.path.dirname(file) or ".")
    ]


def _warn_of_spool_dir(folder: str, owner: privileges.Identity | None) -> list[str]:
    """What cannot be used is an error of check(), but no reason not to serve: larger messages are refused (452)."""
    lines = _check_writable("spool_dir", folder, owner)
    with contextlib.suppress(OSError):
        status = os.stat(folder)
        if not status.st_mode & stat.S_ISVTX:
            others = who_else(folder, status, {0, os.geteuid(), *([owner.uid] if owner is not None else [])})
            lines += [f"spool_dir: {others}, and could remove temporary files there"] if others else []
    return lines


def _is_settled(others: str, folder: int | None) -> bool:
    """In a folder with the sticky bit the name is ours once we have it."""
    return folder is not None and bool(os.fstat(folder).st_mode & stat.S_ISVTX) and os.fstat(folder).st_uid == 0
