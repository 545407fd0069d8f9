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

from preforksmtp.process.place import Place, check_chosen, reach
from preforksmtp.process.privileges import Identity, acting_as

TO_APPEND = os.O_WRONLY | os.O_APPEND
_FLAGS = TO_APPEND | os.O_CREAT
# A FIFO without a reader must not hold up the master: ENXIO.
_AT_ONCE = os.O_NONBLOCK
_MODE = 0o640


def open_log(path: str, owner: Identity | None, flags: int = _FLAGS, mode: int = _MODE) -> int:
    """A descriptor to append to. `owner`: the workers' user, where it is another one than ours; to it root gives the
    file, unless `flags` are those of somebody who only looks."""
    stranger = owner if owner is not None and owner.uid != 0 and os.geteuid() == 0 else None
    try:
        place = reach(path, follow=True)
    except OSError as error:
        if stranger is None or isinstance(error, FileNotFoundError):
            raise
        return _open_as(stranger, Place(path, None, path), flags | os.O_NOFOLLOW, mode, error.strerror or str(error))
    with place:
        if place.descriptor is not None:
            return os.dup(place.descriptor)
        if place.others and stranger is not None:
            try:
                return _open_as(stranger, place, flags, mode, place.others)
            except PermissionError:
                # /var/log of root and a group, as some systems have it: only root can make what is not there yet.
                if place.owner != 0 or place.shaky or not flags & os.O_CREAT or place.inode() is not None:
                    raise
                flags |= os.O_EXCL
        truncate = flags & os.O_TRUNC and place.folder is not None  # root: not before it has looked at the file
        try:
            fd = place.open((flags & ~os.O_TRUNC if truncate else flags) | _AT_ONCE, mode)
        except OSError as error:
            raise type(error)(error.errno, _explain(error)) from None
        if place.folder is not None:
            _settle(fd, place, owner if flags & os.O_CREAT else None, truncate=bool(truncate))
        return _patient(fd)


def _settle(fd: int, place: Place, owner: Identity | None, *, truncate: bool) -> None:
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


def _open_as(owner: Identity, place: Place, flags: int, mode: int, why: str) -> int:
    """With the rights of the workers' user: whatever is there, it could write to that itself."""
    try:
        with acting_as(owner):
            fd = place.open(flags & ~os.O_TRUNC | _AT_ONCE, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:  # why tells of it, or the name was a link only just now
            raise OSError(errno.ELOOP, f"it is a symbolic link, and {place.others}" if place.others else why) from None
        raise OSError(error.errno, f"{_explain(error)} (opened as uid {owner.uid}, because {why})") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        raise OSError(errno.EINVAL, f"it is no plain file with one name, and {why}")
    if flags & os.O_TRUNC:
        os.ftruncate(fd, 0)
    return fd


def _explain(error: OSError) -> str:
    if error.errno == errno.ENXIO:
        return "it is a FIFO that nobody reads from, or a socket"
    return error.strerror or str(error)


def _patient(fd: int) -> int:
    """A terminal or a FIFO that is slow is waited for, as standard error is."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.set_blocking(fd, True)
    return fd
