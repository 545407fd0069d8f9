"""Maildir(path): store every message as a file, one Maildir for all recipients.

When the handler returns, and so before the client sees its 250, the message is safe on the disk: file and
folder are synced. Under Return-Path and Received the content stands byte for byte as it was sent, with CRLF.
Any number of threads and processes may deliver at once; readers (mailbox.Maildir, Dovecot) need no lock.

The path itself may be a symbolic link, for that is the administrator's choice; its parent must exist. The
folders tmp, new and cur may not be links, and once opened they are held: what is put in their place later
cannot lead a delivery elsewhere. To move a Maildir, stop or reload the server.

A full disk or quota is answered 452; any other OSError is left to the session (451), and the file is removed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import time
from typing import TYPE_CHECKING

from preforksmtp import Reject

if TYPE_CHECKING:
    from preforksmtp import Message

BLOCK = 256 * 1024  # larger messages are copied in blocks of this size, never held in memory

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # FAT and some network file systems


class Maildir:
    """Called once per message, from many threads at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self.folders = (self.path,)  # looked at for free space (min_free_space)
        self._folders: _Folders | None = None  # opened by the first delivery, as the user the worker runs as
        self._counter = itertools.count()
        # https://cr.yp.to/proto/maildir.html: "/" and ":" of the host name are written in octal.
        self._host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")

    def __call__(self, message: Message) -> None:
        """Store the message durably."""
        try:
            try:
                self._deliver(message)
            except FileNotFoundError:  # the folders were removed since they were opened: make them again
                self._folders = None
                self._deliver(message)
        except OSError as error:
            if error.errno in _FULL:
                raise Reject(452, "4.3.1 Insufficient system storage, try again later") from error
            raise

    def _deliver(self, message: Message) -> None:
        folders = self._folders
        if folders is None:  # two threads may both come here: the descriptors close with their last user
            folders = self._folders = _Folders(self.path)
        name = self._unique_name()
        if not self._deliver_unnamed(message, name, folders):
            self._deliver_by_name(message, name, folders)
        _sync_new(name, folders)

    def _deliver_unnamed(self, message: Message, name: str, folders: _Folders) -> bool:
        """Into a file whose first name is the one in new/: a worker that is killed before leaves nothing behind.

        False where the system does not know such files, or cannot name them.
        """
        file = _open_unnamed(folders.tmp)
        if file is None:
            return False
        try:
            _write(file, message)
            os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=folders.new, follow_symlinks=True)
        except OSError as error:
            if error.errno not in (*_NO_LINKS, errno.ENOENT):
                raise
            return False
        finally:
            os.close(file)
        return True

    def _deliver_by_name(self, message: Message, name: str, folders: _Folders) -> None:
        """Through a file in tmp/, as every Maildir does it."""
        file = os.open(name, _CREATE, 0o600, dir_fd=folders.tmp)
        try:
            try:
                _write(file, message)
            finally:
                os.close(file)
            _move(name, folders)
        finally:
            _remove(name, folders.tmp)

    def _unique_name(self) -> str:
        """Unique by time, process and counter; and by chance, for process ids repeat across containers."""
        seconds, micro = divmod(time.time_ns() // 1000, 1_000_000)
        unique = f"M{micro:06}P{os.getpid()}Q{next(self._counter)}R{os.urandom(8).hex()}"
        return f"{seconds}.{unique}.{self._host}"


class _Folders:
    """Descriptors of tmp/ and new/, closed when the last delivery that uses them is done."""

    tmp = -1
    new = -1

    def __init__(self, path: str) -> None:
        _make_folder(path)
        root = os.open(path, _FOLDER)
        try:
            for name in ("tmp", "new", "cur"):
                _make_folder(name, root)
            self.tmp = _open_real_folder(path, "tmp", root)
            self.new = _open_real_folder(path, "new", root)
            os.close(_open_real_folder(path, "cur", root))
            # Also when another worker made them: it may not have come to this line yet.
            os.fsync(root)
            _sync_folder(os.path.dirname(os.path.realpath(path)))
        finally:
            os.close(root)

    def __del__(self) -> None:
        for folder in (self.tmp, self.new):
            if folder >= 0:
                os.close(folder)


def _make_folder(name: str, parent: int | None = None) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)


def _open_real_folder(path: str, name: str, root: int) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=root)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            reason = "a Maildir folder must be a folder, not a link or file"
            raise OSError(error.errno, reason, os.path.join(path, name)) from None
        raise


def _sync_folder(path: str) -> None:
    try:
        folder = os.open(path, _FOLDER)
    except PermissionError:
        return  # a parent that only root may list, as /home often is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_unnamed(folder: int) -> int | None:
    """A file on the disk of `folder` that has no name yet; None where the system has none such."""
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except (AttributeError, OSError):  # not Linux, NFS, the folder is gone: the way by name says what is wrong
        return None


def _write(file: int, message: Message) -> None:
    """Trace fields and content into the file, synced."""
    # RFC 5321 section 4.4: Return-Path on top, then Received.
    trace = f"{message.return_path}\r\n{message.received}\r\n".encode("utf-8", "surrogateescape")
    if message.size <= BLOCK:
        _write_all(file, trace + message.content)
    else:
        _write_all(file, trace)
        with message.open() as body:
            while block := body.read(BLOCK):
                _write_all(file, block)
    os.fsync(file)


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):  # the disk is nearly full: the next write says so
        data = data[written:]
        written = os.write(file, data)


def _move(name: str, folders: _Folders) -> None:
    """Into new/, but never over an existing file; the caller removes it from tmp/."""
    try:
        os.link(name, name, src_dir_fd=folders.tmp, dst_dir_fd=folders.new, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(name, name, src_dir_fd=folders.tmp, dst_dir_fd=folders.new)


def _sync_new(name: str, folders: _Folders) -> None:
    try:
        os.fsync(folders.new)  # must begin after the link: from here on the message outlives a power failure
    except BaseException:
        _remove(name, folders.new)  # the client will send it again
        raise


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):  # not there; or left to the reader, who clears tmp/ after 36 hours
        os.unlink(name, dir_fd=folder)
