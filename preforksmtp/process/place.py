"""A place: a name in a folder, reached in such a way that no other user can lead root elsewhere.

Who may write to a folder may put a link there, and root that opens, creates, renames, removes or changes the mode by
that name does so wherever the link points. So root goes step by step, each folder a descriptor, and follows a symbolic
link only where nobody else can have put it: in a folder that root alone may write to, or its own one in a folder with
the sticky bit. What is done then is done to a name in an open folder. `others` tells who else may decide what the name
is; the caller looks at what it has opened, or acts as another user.

Anybody but root goes by the name: there are no rights to be led astray. Knows the standard library only, so any room
may use it. Fails with OSError, whose strerror is for people.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections import deque
from collections.abc import Collection, Iterator

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # in one name, as in the kernel

_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/")
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class Here:
    """The current folder, as far as it was reached by a name: of the whole process, as that folder is."""

    shaky = ""  # who else may decide which folder it is
    refused = ""  # why no name may start from it


class Place:
    """`folder` is None where the name alone will do: `name` is all of it then. Close it, or use it in `with`."""

    def __init__(self, path: str, folder: int | None, name: str) -> None:
        self.path = path  # as it was asked for
        self.folder = folder
        self.name = name
        self.shaky = ""  # who else may decide which folder it is
        self.others = ""  # who else may decide what the name is
        self.owner = 0  # of the folder
        self.descriptor: int | None = None  # the name is one of this process's descriptors (/dev/stdout), not a file

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.folder is not None:
            os.close(self.folder)
            self.folder = None

    def open(self, flags: int, mode: int = 0o600) -> int:
        """A descriptor. Root follows no link here: reach() has done so, as far as it may."""
        if self.folder is not None:
            flags |= os.O_NOFOLLOW
        try:
            return os.open(self.name, flags | os.O_CLOEXEC | os.O_NOCTTY, mode, dir_fd=self.folder)
        except OSError as error:
            if error.errno == errno.ELOOP and self.others:
                raise _refusal("it is a symbolic link", self.others) from None
            raise

    def status(self) -> os.stat_result:
        """Of the name itself, be it a link."""
        return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)

    def inode(self) -> tuple[int, int] | None:
        """Device and number of what has the name; None: nothing has."""
        try:
            status = self.status()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def remove(self, inode: tuple[int, int] | None = None) -> None:
        """The name; with `inode` only if it still is that of this file."""
        if inode is None or self.inode() == inode:
            os.unlink(self.name, dir_fd=self.folder)

    def beside(self, name: str) -> str:
        """Another name in the same folder, as the functions of os take it together with `folder`."""
        return name if self.folder is not None else os.path.join(os.path.dirname(self.name), name)

    def rename(self, name: str) -> None:
        """To another name in the same folder, which nothing has, or which is replaced."""
        os.replace(self.name, self.beside(name), src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def change_mode(self, mode: int, inode: tuple[int, int]) -> None:
        """Of this file, if it still has the name; never of what a link points to."""
        if not hasattr(os, "O_PATH"):
            os.chmod(self.name, mode, dir_fd=self.folder, follow_symlinks=False)
            return
        fd = os.open(self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)
        try:
            status = os.fstat(fd)
            # A number may be given again to what comes next: to a link, whose mode nobody can change.
            if (status.st_dev, status.st_ino) != inode or stat.S_ISLNK(status.st_mode):
                raise OSError(errno.ESTALE, "another file has its name")
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    @property
    def address(self) -> str:
        """The name where only a whole one will do: of a unix socket."""
        if self.folder is None or not self.shaky:
            return self.path
        if sys.platform != "linux":
            raise OSError(errno.EPERM, f"{self.shaky}; use a folder that only root may write to")
        return f"/proc/self/fd/{self.folder}/{self.name}"


def reach(path: str, *, follow: bool = False, also: Collection[int] = ()) -> Place:
    """Go there. `follow`: the name itself may be a link, where it is root's own. `also`: users trusted like root."""
    if named_descriptor(path) is not None:
        return _open_already(path, path)
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            if follow and named_descriptor(os.readlink(path)) is not None:
                return _open_already(path, os.readlink(path))
        return Place(path, None, path)
    if Here.refused and not path.startswith("/"):
        raise OSError(errno.ELOOP, Here.refused)
    walk = _Walk(path, {0, *also})
    try:
        return walk.run(follow)
    except BaseException:
        os.close(walk.folder)
        raise


def _open_already(path: str, name: str) -> Place:
    place = Place(path, None, name)
    place.descriptor = named_descriptor(name)
    return place


class _Walk:
    """Root's way to one place. `folder` is open all the while."""

    def __init__(self, path: str, trusted: Collection[int]) -> None:
        self._path = path
        self._trusted = trusted
        self._rest = deque(path.split("/"))
        self._links = 0
        self._begin(path)
        self.folder = os.open(self._shown or ".", _FOLDER)

    def _begin(self, path: str) -> None:
        absolute = path.startswith("/")
        self._shown = "/" if absolute else ""  # the folder, for people
        self._shaky = "" if absolute else Here.shaky

    def run(self, follow: bool) -> Place:
        while True:
            part = self._rest.popleft()
            if part in ("", ".") and self._rest:
                continue
            if self._path:  # "folder/" is the folder; the empty name is none
                part = part or "."
            others, entry = self._look(part)
            if entry is not None and stat.S_ISLNK(entry.st_mode) and (self._rest or follow):
                if others or self._shaky:
                    raise _refusal(f"{os.path.join(self._shown, part)} is a symbolic link", others or self._shaky)
                target = os.readlink(part, dir_fd=self.folder)
                if not self._rest and named_descriptor(target) is not None:
                    os.close(self.folder)
                    return _open_already(self._path, target)
                self._follow(target)
                continue
            if not self._rest:
                return self._found(part, others)
            self._enter(part)
            self._shaky = self._shaky or others

    def _look(self, part: str) -> tuple[str, os.stat_result | None]:
        """Who else may decide what has this name, and what has it."""
        status = os.fstat(self.folder)
        others = who_else(self._shown or "the current folder", status, self._trusted)
        try:
            entry = os.stat(part, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return others, None
        # In a folder with the sticky bit nobody takes the name away from what is root's; a hard link may be anybody's.
        settled = bool(status.st_mode & stat.S_ISVTX) and status.st_uid in self._trusted
        settled = settled and entry.st_uid in self._trusted and (stat.S_ISDIR(entry.st_mode) or entry.st_nlink == 1)
        return "" if settled else others, entry

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path)
        if target.startswith("/"):
            self._begin("/")
            self._replace(os.open("/", _FOLDER))
        self._rest.extendleft(reversed(target.split("/")))

    def _enter(self, part: str) -> None:
        self._replace(os.open(part, _FOLDER, dir_fd=self.folder))
        self._shown = os.path.join(self._shown, part)

    def _replace(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder

    def _found(self, part: str, others: str) -> Place:
        place = Place(self._path, self.folder, part)
        place.shaky, place.others = self._shaky, self._shaky or others
        place.owner = os.fstat(self.folder).st_uid
        return place


def who_else(folder: str, status: os.stat_result, trusted: Collection[int] = (0,)) -> str:
    """Who else than these users may put something into the folder, for people; "" for nobody."""
    if status.st_uid not in trusted:
        return f"{folder} belongs to uid {status.st_uid}"
    if status.st_mode & stat.S_IWOTH:
        return f"anybody may write to {folder}"
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        return f"group {status.st_gid} may write to {folder}"
    return ""


def who_decides(path: str, also: Collection[int] = ()) -> str:
    """Who else than root may put something into a folder, or another folder in its place, for people; "" for nobody."""
    try:
        with reach(os.path.join(path, "."), also=also) as place:
            if place.folder is None:
                return ""
            return place.shaky or who_else(path, os.fstat(place.folder), {0, *also})
    except FileNotFoundError:
        return ""  # there is nothing in it
    except OSError as error:
        return error.strerror or str(error)


def named_descriptor(path: str) -> int | None:
    """/dev/stdout, /dev/fd/3, /proc/self/fd/3: the descriptor, for to open such a name is to ask for more rights."""
    for folder in _DESCRIPTORS:
        if path.startswith(folder):
            number = path[len(folder) :]
            return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else None
    return _STREAMS.get(path)


def absolute(path: str) -> str:
    """The same name for when the current folder is another one. OSError: no name may start from where we are."""
    if Here.refused and not path.startswith("/") and os.geteuid() == 0:
        raise OSError(errno.ELOOP, Here.refused)
    return os.path.abspath(path)


def change_folder(path: str) -> None:
    """Make it the current one, and remember what a name that starts from it is worth. OSError."""
    shaky, refused = _worth(path)
    os.chdir(path)
    Here.shaky, Here.refused = shaky, refused


def note_folder(path: str) -> None:
    """The current folder was reached by this name, by whoever started us."""
    Here.shaky, Here.refused = _worth(path)


def _worth(path: str) -> tuple[str, str]:
    try:
        with reach(os.path.join(path, ".")) as place:
            return place.shaky, ""
    except OSError as error:
        return "", error.strerror or str(error)  # where there is no such folder, os.chdir says so


@contextlib.contextmanager
def reading(path: str, also: Collection[int] = ()) -> Iterator[int]:
    """A plain file, open for reading. Root reads what its own folder has, or what is root's or that of the folder's
    owner, under no other name: no other user chooses which of its secrets it reads."""
    with reach(path, follow=True, also=also) as place:
        fd = place.open(os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not hold us up
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            check_chosen(place, status, also)
            yield fd
        finally:
            os.close(fd)


def check_chosen(place: Place, status: os.stat_result, also: Collection[int] = ()) -> None:
    """Of an open file that somebody else may have put there: that it is no third user's. OSError."""
    if not place.others:
        return
    if status.st_nlink != 1:
        raise _refusal("the file has other names besides this one (hard links)", place.others)
    if status.st_uid not in {0, place.owner, *also}:
        raise _refusal(f"the file belongs to uid {status.st_uid}", place.others)


def name_of(fd: int, path: str) -> str:
    """A name by which a library opens what is open here as `fd`, whatever has become of `path`."""
    name = f"/proc/self/fd/{fd}"
    return name if os.geteuid() == 0 and os.path.exists(name) else path


def _refusal(what: str, others: str) -> OSError:
    return OSError(errno.ELOOP, f"{what}, and {others}: remove it, or use a folder that only root may write to")
