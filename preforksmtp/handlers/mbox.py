"""Mbox(path): append every message to one mbox file (mboxrd: ">From " quoting that can be undone, lines end with LF).

When the handler returns, the message is safe on the disk, under Return-Path and Received. It takes turns with other
threads, processes and mail readers by an fcntl lock and the file PATH.lock, so the folder must be writable. A mailbox
that stays locked is answered 451, a full disk or quota 452, any other OSError is left to the session (451); the file is
cut back to what it was. A worker killed with SIGKILL may leave a part of a message, never acknowledged, and the lock:
the next delivery removes that and begins on a line of its own. One writer at a time: a busy server wants Maildir.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import stat
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from preforksmtp import Reject

if TYPE_CHECKING:
    from preforksmtp import Message

BLOCK = 256 * 1024  # larger messages are copied in blocks of this size, never held in memory
LOCK_WAIT = 30.0  # seconds until a delivery gives up; clients wait for the reply much longer
LOCK_AGE = 300.0  # a lock file older than this was left behind: what mutt and procmail think, too
POLL = 0.005  # seconds between two looks at a lock
STREAK = 8  # deliveries in a row until other processes, which only look now and then, are let in
GAP = 2 * POLL  # by as long as this

_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOT_A_WORD = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
_FROM = re.compile(rb"(\n>*)From ")
_FIRST_FROM = re.compile(rb"(>*)From ")
_OWNER = re.compile(rb"([1-9][0-9]{0,8}):(.+)", re.DOTALL)  # what Dovecot writes into its locks, and understands

Identity = tuple[int, int, int]
_log = logging.getLogger("preforksmtp")  # the error log


class Mbox:
    """Called once per message, from many threads at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self.folders = (os.path.dirname(self.path),)  # looked at for free space (min_free_space)
        self._dot_lock = f"{self.path}.lock"
        self._host = os.fsencode(socket.gethostname())
        self._turn = _turn_of(self.path)

    def __call__(self, message: Message) -> None:
        """Store the message durably."""
        try:
            with self._locked() as file:
                _append(file, message, os.path.dirname(self.path))
        except OSError as error:
            if error.errno in _FULL:
                raise Reject(452, "4.3.1 Insufficient system storage, try again later") from error
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open, and nobody else's."""
        deadline = time.monotonic() + LOCK_WAIT
        if not self._turn.begin(LOCK_WAIT):
            raise self._busy()
        try:
            file, lock = self._wait(deadline)
            try:
                yield file
            finally:
                _remove(self._dot_lock, lock)
                os.close(file)  # and its fcntl lock with it
        finally:
            self._turn.end()

    def _wait(self, deadline: float) -> tuple[int, Identity]:
        """Both locks or none, each time: who takes them in the other order must not wait for us while we wait for him.

        The file is opened afresh each time, for a mail reader may put another in its place.
        """
        while True:
            file, lock = _open(self.path), None
            try:
                lock = self._try_lock(file)
            finally:
                if lock is None:
                    os.close(file)
            if lock is not None:
                return file, lock
            if time.monotonic() >= deadline:
                raise self._busy()
            time.sleep(POLL)

    def _busy(self) -> Reject:
        _log.warning("%s: locked for more than %g s", self.path, LOCK_WAIT)
        return Reject(451, "4.3.0 The mailbox is locked, try again later")

    def _try_lock(self, file: int) -> Identity | None:
        if self._is_taken():  # a reader that has both must be able to let go of one, and take it again (mailbox.flush)
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file), os.lstat(self.path)):
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        return self._try_dot_lock()

    def _try_dot_lock(self) -> Identity | None:
        try:
            return self._lock_at_once() or self._lock_by_name()
        except FileExistsError:
            self._remove_stale()
            return None

    def _lock_at_once(self) -> Identity | None:
        """A lock that names its owner from the first moment, so that it is known for stale if he is killed.

        None where the system does not know files without a name, or cannot name them.
        """
        try:
            folder = os.open(os.path.dirname(self.path), _FOLDER)
        except PermissionError:
            return None  # one that we may write to, but not list
        lock = -1
        try:
            lock = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o644, dir_fd=folder)
            _write_all(lock, b"%d:%b" % (os.getpid(), self._host))
            name = os.path.basename(self._dot_lock)
            os.link(f"/proc/self/fd/{lock}", name, dst_dir_fd=folder, follow_symlinks=True)
            return _identity(os.fstat(lock))
        except FileExistsError:
            raise
        except (AttributeError, OSError):  # not Linux, NFS, FAT, no /proc: the way by name says what is wrong
            return None
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(folder)

    def _lock_by_name(self) -> Identity:
        lock = os.open(self._dot_lock, _CREATE, 0o644)
        try:
            _write_all(lock, b"%d:%b" % (os.getpid(), self._host))
            return _identity(os.fstat(lock))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(self._dot_lock)
            raise
        finally:
            os.close(lock)

    def _is_taken(self) -> bool:
        """Whether the dot lock is there, and somebody's."""
        try:
            return not self._is_stale(os.lstat(self._dot_lock))
        except OSError:
            return False  # it is not there; or what is wrong with it is told to who wants it

    def _is_stale(self, status: os.stat_result) -> bool:
        return time.time() - status.st_mtime > LOCK_AGE or self._is_dead(_read_start(self._dot_lock))

    def _remove_stale(self) -> None:
        """Remove a lock that was left behind. With the fcntl lock held: no two of us look at the same one."""
        try:
            status = os.lstat(self._dot_lock)
            if not self._is_stale(status):
                return
            # Out of the way first: another program may have removed it and made its own since.
            aside = f"{self._dot_lock}.{os.getpid()}.{os.urandom(4).hex()}"
            os.rename(self._dot_lock, aside)
        except OSError:  # gone; or not ours to read or to remove
            return
        with contextlib.suppress(OSError):
            if _identity(os.lstat(aside)) != _identity(status):
                os.link(aside, self._dot_lock)
            else:
                _log.warning("%s: removed, it was left behind", self._dot_lock)
        with contextlib.suppress(OSError):
            os.unlink(aside)

    def _is_dead(self, owner: bytes) -> bool:
        """Whether this names a process of this host that is gone."""
        found = _OWNER.fullmatch(owner)
        if found is None or found[2] != self._host:
            return False
        pid = int(found[1])
        if pid == os.getpid():  # it is our turn, so this is from a former life of ours: a container begins at 1 again
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass
        return False


class _Turn:
    """Whose turn it is among the threads of this process: fcntl locks are the process's, not the thread's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = 0.0
        self._streak = 0

    def begin(self, timeout: float) -> bool:
        if not self._lock.acquire(timeout=timeout):
            return False
        self._streak = self._streak + 1 if time.monotonic() - self._ended < POLL else 0
        if self._streak >= STREAK:
            self._streak = 0
            time.sleep(GAP)
        return True

    def end(self) -> None:
        self._ended = time.monotonic()
        self._lock.release()


_turns: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()
_turns_lock = threading.Lock()


def _turn_of(path: str) -> _Turn:
    """The same for every Mbox of this file: closing a file drops the locks that others in the process hold on it."""
    folder, name = os.path.split(path)
    with _turns_lock:
        return _turns.setdefault(os.path.join(os.path.realpath(folder), name), _Turn())


def _open(path: str) -> int:
    try:
        file = os.open(path, _OPEN, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "a mailbox must be a regular file, not a link", path) from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "a mailbox must be a regular file", path)
    return file


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_mtime_ns  # the number alone is soon used again


def _remove(lock: str, identity: Identity) -> None:
    """Our lock, unless somebody thought us dead and has his own there now."""
    with contextlib.suppress(OSError):
        if _identity(os.lstat(lock)) == identity:
            os.unlink(lock)


def _read_start(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(file, 1024)
    finally:
        os.close(file)


def _sync_folder(path: str) -> None:
    try:
        folder = os.open(path, _FOLDER)
    except PermissionError:
        return  # one that we may write to, but not list
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _append(file: int, message: Message, folder: str) -> None:
    """All of it, synced, or nothing."""
    size = os.fstat(file).st_size
    if not size:
        _sync_folder(folder)  # before the first octet: a mailbox that has any outlives a power failure
    try:
        parts = _entry(message, _separator(file, size))
        if message.size <= BLOCK:
            _write_all(file, b"".join(parts))
        else:
            for part in parts:
                _write_all(file, part)
        os.fsync(file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
            os.fsync(file)
        raise


def _separator(file: int, size: int) -> bytes:
    """What is missing for an empty line at the end, where somebody was killed."""
    end = os.pread(file, 2, max(0, size - 2))
    if not end or end == b"\n\n":
        return b""
    return b"\n" if end.endswith(b"\n") else b"\n\n"


def _entry(message: Message, separator: bytes) -> Iterator[bytes]:
    """The message as it stands in the mailbox."""
    # A word for every reader, as qmail writes it: the sender must not add words of its own.
    sender = _NOT_A_WORD.sub("-", message.sender) or "MAILER-DAEMON"
    when = time.asctime(time.gmtime(message.time))
    yield separator + f"From {sender} {when}\n".encode("utf-8", "surrogateescape")
    last = b""
    for part in _mboxrd(_blocks(message)):
        yield part
        last = part[-1:] or last
    yield b"\n" if last == b"\n" else b"\n\n"


def _blocks(message: Message) -> Iterator[bytes]:
    """Trace fields and content."""
    # RFC 5321 section 4.4: Return-Path on top, then Received.
    yield f"{message.return_path}\r\n{message.received}\r\n".encode("utf-8", "surrogateescape")
    with message.open() as body:
        while block := body.read(BLOCK):
            yield block


def _mboxrd(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """CRLF to LF, and one more ">" in front of each line that begins with "From ", ">From ", ">>From " ...

    Held back at the end of a block: a CR, and what may become "From ". Of the ">" before it nothing need be held, for
    it does not matter where among them one is added.
    """
    held = b""
    in_front = True  # whether there is nothing but ">" between the last line end and here
    for block in blocks:
        text = held + block
        cr = b"\r" if text.endswith(b"\r") else b""
        text = text[: len(text) - len(cr)].replace(b"\r\n", b"\n")
        if in_front:
            text = _FIRST_FROM.sub(rb"\1>From ", text, count=1) if _FIRST_FROM.match(text) else text
        text = _FROM.sub(rb"\1>From ", text)
        line = text.rfind(b"\n") + 1
        if line:
            in_front = True
        begun = text[line:].lstrip(b">")
        in_front = in_front and len(begun) < 5 and b"From ".startswith(begun)
        keep = len(begun) if in_front else 0
        yield text[: len(text) - keep]
        held = text[len(text) - keep :] + cr
    yield held


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):  # the disk is nearly full: the next write says so
        data = data[written:]
        written = os.write(file, data)
