"""handlers/maildir.py: durable, unique, byte-exact deliveries, and what happens when they fail."""

from __future__ import annotations

import errno
import io
import mailbox
import os
import signal
import stat
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from preforksmtp import Reject
from preforksmtp.handlers import Maildir
from preforksmtp.handlers import maildir as module
from tests.handlers.fake import FakeMessage, message

RECEIVED = FakeMessage.received.encode() + b"\r\n"


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def only_file(path: Path) -> Path:
    [name] = names(path / "new")
    return path / "new" / name


def test_folders_and_file_are_private(tmp_path: Path) -> None:
    path = tmp_path / "Maildir"
    before = os.umask(0)
    try:
        Maildir(path)(message())
    finally:
        os.umask(before)
    assert names(path) == ["cur", "new", "tmp"]
    for folder in (path, path / "cur", path / "new", path / "tmp"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(path).stat().st_mode) == 0o600
    assert names(path / "tmp") == []


def test_nothing_is_made_before_the_first_message(tmp_path: Path) -> None:
    Maildir(tmp_path / "Maildir")
    assert names(tmp_path) == []


def test_relative_path_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handler = Maildir("Maildir")
    monkeypatch.chdir("/")
    handler(message())
    assert only_file(tmp_path / "Maildir").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Subject: x\r\n\r\n.\r\nFrom here\r\n",
        bytes(range(256)),
        b"bare\nand\rends",
        b"x" * (module.BLOCK - 1),
        b"x" * module.BLOCK,
        os.urandom(3 * module.BLOCK + 1),
    ],
    ids=["empty", "plain", "binary", "bare", "below-block", "block", "large"],
)
def test_content_is_stored_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    Maildir(tmp_path / "m")(message(content=content))
    stored = only_file(tmp_path / "m").read_bytes()
    assert stored == b"Return-Path: <alice@example.org>\r\n" + RECEIVED + content


@pytest.mark.parametrize(
    ("sender", "field"),
    [
        ("", "Return-Path: <>"),
        ("grüße@example.org", "Return-Path: <grüße@example.org>"),
        ("a\r\nX-Evil: yes\r\n\r\nbody@x", "Return-Path: <a??X-Evil: yes????body@x>"),
        ('"a\x00\x85b"@x', 'Return-Path: <"a??b"@x>'),
    ],
)
def test_return_path(tmp_path: Path, sender: str, field: str) -> None:
    Maildir(tmp_path / "m")(message(sender=sender))
    lines = only_file(tmp_path / "m").read_bytes().split(b"\r\n")
    assert lines[0] == field.encode()
    assert lines[1].startswith(b"Received: ")


def test_undecodable_sender_keeps_its_bytes(tmp_path: Path) -> None:
    Maildir(tmp_path / "m")(message(sender="a\udcff@x"))
    assert only_file(tmp_path / "m").read_bytes().startswith(b"Return-Path: <a\xff@x>\r\n")


def test_standard_library_reads_it(tmp_path: Path) -> None:
    Maildir(tmp_path / "m")(message())
    box = mailbox.Maildir(tmp_path / "m", create=False)
    [stored] = list(box)
    assert stored["Subject"] == "hello"
    assert stored["Return-Path"] == "<alice@example.org>"
    assert str(stored.get_payload()).strip() == "world"


def test_large_content_is_never_read_whole(tmp_path: Path) -> None:
    sizes: list[int | None] = []

    class Body(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size)
            return super().read(size)

    class Large(FakeMessage):
        def open(self) -> BinaryIO:
            return Body(b"x" * self.size)

        @property
        def size(self) -> int:
            return 4 * module.BLOCK

    large = Large(content=b"must not be used")
    Maildir(tmp_path / "m")(large)  # type: ignore[arg-type]
    assert set(sizes) == {module.BLOCK}
    assert only_file(tmp_path / "m").stat().st_size > 4 * module.BLOCK


def test_file_then_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Maildir(tmp_path / "m")
    handler(message())
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def record_fsync(fd: int) -> None:
        steps.append("fsync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        fsync(fd)

    def record_link(*arguments: str, **options: int) -> None:
        steps.append("link")
        link(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", record_link)
    handler(message())
    assert steps == ["fsync file", "link", "fsync folder"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link"])
def test_full_disk_is_452_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    handler = Maildir(tmp_path / "m")
    handler(message())
    kept = only_file(tmp_path / "m")

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Reject) as caught:
        handler(message())
    monkeypatch.undo()
    assert str(caught.value).startswith("452 4.3.1 ")
    assert names(tmp_path / "m" / "tmp") == []
    assert only_file(tmp_path / "m") == kept
    handler(message())
    assert len(names(tmp_path / "m" / "new")) == 2


def test_failed_folder_sync_takes_the_message_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Maildir(tmp_path / "m")
    handler(message())
    fsync = os.fsync

    def fail_on_folders(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail_on_folders)
    with pytest.raises(OSError, match="Input/output error"):
        handler(message())
    assert only_file(tmp_path / "m") and names(tmp_path / "m" / "tmp") == []


def test_partial_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    Maildir(tmp_path / "m")(message())
    assert only_file(tmp_path / "m").read_bytes().endswith(RECEIVED + FakeMessage.content)


def test_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    Maildir(tmp_path / "m")(message())
    assert only_file(tmp_path / "m").exists() and names(tmp_path / "m" / "tmp") == []


def test_system_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    Maildir(tmp_path / "m")(message())
    assert only_file(tmp_path / "m").read_bytes().endswith(FakeMessage.content)
    assert names(tmp_path / "m" / "tmp") == []


def test_an_existing_file_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Maildir(tmp_path / "m")
    monkeypatch.setattr(handler, "_unique_name", lambda: "same")
    handler(message(content=b"first"))
    with pytest.raises(FileExistsError):
        handler(message(content=b"second"))
    assert only_file(tmp_path / "m").read_bytes().endswith(b"first")
    (tmp_path / "m" / "new" / "same").rename(tmp_path / "m" / "tmp" / "same")
    monkeypatch.delattr(os, "O_TMPFILE")
    with pytest.raises(FileExistsError):
        handler(message(content=b"third"))
    assert (tmp_path / "m" / "tmp" / "same").read_bytes().endswith(b"first")


@pytest.mark.parametrize("folder", ["tmp", "new", "cur"])
def test_linked_folder_is_refused(tmp_path: Path, folder: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / folder).symlink_to(elsewhere)
    with pytest.raises(OSError, match="must be a folder, not a link or file"):
        Maildir(tmp_path / "m")(message())
    assert names(elsewhere) == []


def test_linked_path_is_the_administrators_choice(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    Maildir(tmp_path / "link")(message())
    assert only_file(tmp_path / "real").exists()


def test_replaced_folder_does_not_redirect(tmp_path: Path) -> None:
    handler = Maildir(tmp_path / "m")
    handler(message())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "m" / "new").rename(tmp_path / "m" / "moved")
    (tmp_path / "m" / "new").symlink_to(elsewhere)
    handler(message())
    assert names(elsewhere) == [] and len(names(tmp_path / "m" / "moved")) == 2


@pytest.mark.parametrize("gone", ["m", "m/tmp", "m/new"])
def test_removed_folders_are_made_again(tmp_path: Path, gone: str) -> None:
    handler = Maildir(tmp_path / "m")
    handler(message())
    (tmp_path / gone).rename(tmp_path / "doomed")
    for folder, folders, files in os.walk(tmp_path / "doomed", topdown=False):
        for name in files:
            os.unlink(f"{folder}/{name}")
        for name in folders:
            os.rmdir(f"{folder}/{name}")
    os.rmdir(tmp_path / "doomed")
    before = names(tmp_path / "m" / "new") if (tmp_path / "m" / "new").exists() else []
    handler(message())
    assert len(names(tmp_path / "m" / "new")) == len(before) + 1
    assert names(tmp_path / "m" / "tmp") == []


def test_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="parent/m"):
        Maildir(tmp_path / "parent" / "m")(message())


def test_descriptors_are_not_leaked(tmp_path: Path) -> None:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    handler = Maildir(tmp_path / "m")
    handler(message())
    before = len(os.listdir(folder))
    for _ in range(20):
        handler(message())
        handler._folders = None
    handler(message())
    assert len(os.listdir(folder)) == before


def test_host_name_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "a/b:c")
    Maildir(tmp_path / "m")(message())
    assert only_file(tmp_path / "m").name.endswith(r".a\057b\072c")


def in_children(count: int, run: object) -> list[int]:
    """Fork `count` children that call run(index) and end; their exit statuses."""
    pids = []
    for index in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                run(index)  # type: ignore[operator]
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in pids]


def test_processes_and_threads_deliver_at_once(tmp_path: Path) -> None:
    handler = Maildir(tmp_path / "m")  # shared, as an app loaded before the fork is
    processes, threads, each = 4, 4, 25

    def deliver(process: int) -> None:
        def many(thread: int) -> None:
            for number in range(each):
                handler(message(content=f"{process} {thread} {number}".encode()))

        running = [threading.Thread(target=many, args=(thread,)) for thread in range(threads)]
        for one in running:
            one.start()
        for one in running:
            one.join()

    assert in_children(processes, deliver) == [0] * processes
    stored = {file.read_bytes().rpartition(b"\r\n")[2] for file in (tmp_path / "m" / "new").iterdir()}
    assert len(names(tmp_path / "m" / "new")) == processes * threads * each
    assert len(stored) == processes * threads * each
    assert names(tmp_path / "m" / "tmp") == []


def test_acknowledged_messages_survive_kill(tmp_path: Path) -> None:
    """SIGKILL in the midst of deliveries: what was acknowledged through the pipe is in new/, complete."""
    read, write = os.pipe()
    content = b"x" * (2 * module.BLOCK)  # written in several steps
    pid = os.fork()
    if pid == 0:
        handler = Maildir(tmp_path / "m")

        def deliver(thread: int) -> None:
            for number in range(10_000):
                name = f"{thread}.{number}"
                handler(message(sender=name, content=content))
                os.write(write, name.encode() + b"\n")

        for thread in range(4):
            threading.Thread(target=deliver, args=(thread,)).start()
        signal.pause()
    os.close(write)
    with open(read, "rb") as acknowledgements:
        seen = [acknowledgements.readline() for _ in range(20)]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        seen += acknowledgements.readlines()
    files = [file.read_bytes() for file in (tmp_path / "m" / "new").iterdir()]
    assert all(file.endswith(RECEIVED + content) for file in files)
    senders = {file.split(b"\r\n", 1)[0] for file in files}
    assert len(seen) >= 20
    assert {b"Return-Path: <" + line.strip() + b">" for line in seen} <= senders
