"""How a log file is opened: so that root writes where the administrator said, and nowhere else.

Root itself opens it where nobody else can have put the file, and gives it to the workers' user, who must be able to
reopen it. Where somebody else may write, it is opened with that user's rights, and nobody gains any; where workers are
root, only if it is a plain file with one name, of root's or of the folder's owner. Fails with OSError, whose strerror
is for people.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from .place import Place, check_chosen, reach
from .prefork.privileges import Identity, acting_as

TO_APPEND = os.O_WRONLY | os.O_APPEND
_FLAGS = TO_APPEND | os.O_CREAT
# A FIFO without a reader must not hold up the master: ENXIO.
_AT_ONCE = os.O_NONBLOCK
_MODE = 0o640


def open_log(path: str, owner: Identity | None, flags: int = _FLAGS) -> int:
    """A descriptor to append to. `owner`: the workers' user, where it is another one than ours; to it root gives the
    file, unless `flags` are those of somebody who only looks."""
    stranger = owner if owner is not None and owner.uid != 0 and os.geteuid() == 0 else None
    try:
        place = reach(path, follow=True)
    except OSError as error:
        if stranger is None or isinstance(error, FileNotFoundError):
            raise
        return _open_as(stranger, Place(path, None, path), flags | os.O_NOFOLLOW, error.strerror or str(error))
    with place:
        if place.descriptor is not None:
            return os.dup(place.descriptor)
        if place.others and stranger is not None:
            return _open_as(stranger, place, flags, place.others)
        if place.folder is None:
            return _patient(place.open(flags | _AT_ONCE, _MODE))
        fd = place.open(flags & ~os.O_TRUNC | _AT_ONCE, _MODE)
        return _patient(_settled(fd, place, owner if flags & os.O_CREAT else None, truncate=bool(flags & os.O_TRUNC)))


def _settled(fd: int, place: Place, owner: Identity | None, *, truncate: bool) -> int:
    """Root has opened it: what may be done with it depends on what it is."""
    try:
        status = os.fstat(fd)
        if place.others and not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"it is no regular file, and {place.others}")
        check_chosen(place, status)
        if truncate:
            os.ftruncate(fd, 0)
        # With a second name it may be any file: root made that, but hardly to give it away.
        if owner is not None and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            with contextlib.suppress(OSError):  # a file system without owners
                os.fchown(fd, owner.uid, owner.gid)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_as(owner: Identity, place: Place, flags: int, why: str) -> int:
    """With the rights of the workers' user: whatever is there, it could write to that itself."""
    try:
        with acting_as(owner):
            fd = place.open(flags & ~os.O_TRUNC | _AT_ONCE, _MODE)
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise OSError(error.errno, f"{reason} (opened as uid {owner.uid}, because {why})") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        raise OSError(errno.EINVAL, f"it is no plain file with one name, and {why}")
    if flags & os.O_TRUNC:
        os.ftruncate(fd, 0)
    return fd


def _patient(fd: int) -> int:
    """A terminal or a FIFO that is slow is waited for, as standard error is."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.set_blocking(fd, True)
    return fd
