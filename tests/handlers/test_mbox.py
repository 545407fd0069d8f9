"""handlers/mbox.py: quoting, locks of every kind, and that a failed or killed delivery costs nobody else's message."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import mailbox
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from preforksmtp import Reject
from preforksmtp.handlers import Mbox
from preforksmtp.handlers import mbox as module
from tests.handlers.envelope import PATIENCE, Envelope, Large, message
from tests.handlers.test_maildir import in_children

RECEIVED = Envelope.received.replace("\r\n", "\n").encode() + b"\n"
TOP = b"From alice@example.org Sun Sep  9 01:46:40 2001\nReturn-Path: <alice@example.org>\n" + RECEIVED
HOST = os.fsencode(socket.gethostname())


def stored(path: Path) -> list[bytes]:
    """The content of each message, its quoting undone by the definition: one ">" off every line of ">+From "."""
    contents = []
    for entry in path.read_bytes().split(b"\nFrom "):
        assert RECEIVED in entry, entry[:500]
        lines = entry.partition(RECEIVED)[2].split(b"\n")
        contents.append(b"\n".join(line[1:] if line.lstrip(b">").startswith(b"From ") else line for line in lines))
    return contents


def test_as_it_stands(tmp_path: Path) -> None:
    handler = Mbox(tmp_path / "box")
    handler(message())
    handler(message(content=b"no line end"))
    assert (tmp_path / "box").read_bytes() == (
        TOP + b"Subject: hello\n\nworld\n\n" + TOP + b"no line end\n\n"
    )
    assert stat.S_IMODE((tmp_path / "box").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["box"]


def test_nothing_is_made_before_the_first_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handler = Mbox("box")
    monkeypatch.chdir("/")
    assert os.listdir(tmp_path) == []
    handler(message())
    assert os.listdir(tmp_path) == ["box"]


@pytest.mark.parametrize(
    ("sender", "word", "return_path"),
    [
        ("", b"MAILER-DAEMON", b"<>"),
        ('"a b\tc"@x', b'"a-b-c"@x', b'<"a b?c"@x>'),
        ("a\nFrom b@x Sun", b"a-From-b@x-Sun", b"<a?From b@x Sun>"),
        ("a\u2028\x85\u3000b@x", b"a---b@x", "<a\u2028?\u3000b@x>".encode()),
        ("grüße@x", "grüße@x".encode(), "<grüße@x>".encode()),
        ("a\udcff@x", b"a\xff@x", b"<a\xff@x>"),
    ],
)
def test_sender_cannot_forge(tmp_path: Path, sender: str, word: bytes, return_path: bytes) -> None:
    Mbox(tmp_path / "box")(message(sender=sender))
    first, second = (tmp_path / "box").read_bytes().split(b"\n")[:2]
    assert first == b"From " + word + b" Sun Sep  9 01:46:40 2001"
    assert second == b"Return-Path: " + return_path


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"From here\r\n", b">From here\n"),
        (b">From here\r\n", b">>From here\n"),
        (b"\r\nFrom a\r\nFrom b\r\n>>>From c\r\n", b"\n>From a\n>From b\n>>>>From c\n"),
        (b"x From a\r\n From b\r\n> From c\r\nFrom\r\nFromage\r\n", b"x From a\n From b\n> From c\nFrom\nFromage\n"),
        (b"bare\nFrom a\rFrom b\r\r\n", b"bare\n>From a\rFrom b\r\n"),
        (b"From ", b">From \n"),
        (b"x\r", b"x\r\n"),
        (b"", b""),
    ],
)
def test_quoting(tmp_path: Path, content: bytes, lines: bytes) -> None:
    Mbox(tmp_path / "box")(message(content=content))
    assert (tmp_path / "box").read_bytes() == TOP + lines + b"\n"


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7])
def test_quoting_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Texts made of the pieces that matter, cut everywhere."""
    dice = random.Random(block)
    pieces = [b"From ", b"Fro", b"m ", b">", b">>", b"\r\n", b"\r", b"\n", b"x", b" "]
    for number in range(200):
        content = b"".join(dice.choices(pieces, k=dice.randrange(40)))
        whole, cut = tmp_path / f"{number}.whole", tmp_path / f"{number}.cut"
        monkeypatch.setattr(module, "BLOCK", 1 << 20)
        Mbox(whole)(message(content=content))
        monkeypatch.setattr(module, "BLOCK", block)
        Mbox(cut)(message(content=content))
        assert cut.read_bytes() == whole.read_bytes(), content
        expected = content.replace(b"\r\n", b"\n")
        assert stored(cut) == [expected + (b"\n" if expected.endswith(b"\n") or not expected else b"\n\n")], content


def test_large_message_is_never_in_memory(tmp_path: Path) -> None:
    large: Any = Large(module.BLOCK, 40, b">")
    Mbox(tmp_path / "box")(large)
    assert large.asked == {module.BLOCK}
    assert (tmp_path / "box").read_bytes() == TOP + b">" * 40 * module.BLOCK + b"\n\n"


def test_standard_library_reads_it(tmp_path: Path) -> None:
    handler = Mbox(tmp_path / "box")
    for number in range(3):
        handler(message(content=b"Subject: %d\r\n\r\nFrom me\r\n" % number))
    box = mailbox.mbox(tmp_path / "box", create=False)
    assert [one["Subject"] for one in box] == ["0", "1", "2"]
    assert [one["Return-Path"] for one in box] == ["<alice@example.org>"] * 3
    assert [one.get_from() for one in box] == ["alice@example.org Sun Sep  9 01:46:40 2001"] * 3
    assert [one.get_payload() for one in box] == [">From me\n"] * 3
    box.lock()  # it takes the same locks
    box.remove(1)
    box.flush()  # puts another file in place
    box.unlock()
    box.close()
    handler(message(content=b"Subject: 3\r\n\r\n"))
    assert [one["Subject"] for one in mailbox.mbox(tmp_path / "box")] == ["0", "2", "3"]


def test_folder_is_synced_before_and_file_after_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, write = os.fsync, os.write

    def record_fsync(fd: int) -> None:
        steps.append("sync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
        fsync(fd)

    def record_write(fd: int, data: bytes) -> int:
        if data.startswith(b"From "):
            steps.append("write")
        return write(fd, data)

    handler = Mbox(tmp_path / "box")
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "write", record_write)
    handler(message())
    handler(message())
    assert steps == ["sync folder", "write", "sync file", "write", "sync file"]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 452), (errno.EDQUOT, 452), (errno.EIO, 0)])
@pytest.mark.parametrize("function", ["write", "fsync"])
def test_failed_delivery_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, code: int
) -> None:
    handler = Mbox(tmp_path / "box")
    handler(message())
    before = (tmp_path / "box").read_bytes()
    content = b"x" * (2 * module.BLOCK)
    calls = iter((function == "write", function == "write", False))  # the lock and the first part are written
    real = getattr(os, function)

    def fail(fd: int, *data: bytes) -> int:
        if next(calls, True):
            return real(fd, *data)  # type: ignore[no-any-return]
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(Reject if code else OSError) as caught:
            handler(message(content=content))
    if isinstance(caught.value, Reject):
        assert (caught.value.reply.code, caught.value.reply.enhanced) == (code, "4.3.1")
    assert (tmp_path / "box").read_bytes() == before
    assert os.listdir(tmp_path) == ["box"]
    handler(message())
    assert (tmp_path / "box").read_bytes() == before * 2


def test_partial_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    Mbox(tmp_path / "box")(message())
    assert (tmp_path / "box").read_bytes() == TOP + b"Subject: hello\n\nworld\n\n"


def make_link(path: Path) -> None:
    path.with_name("elsewhere").touch()
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [make_link, os.mkfifo, os.mkdir], ids=["link", "fifo", "folder"])
def test_only_a_regular_file_will_do(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "box")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OSError, match="box"):
        Mbox(tmp_path / "box")(message())
    assert sorted(os.listdir(tmp_path)) == before
    assert not (tmp_path / "elsewhere").exists() or (tmp_path / "elsewhere").read_bytes() == b""


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent/box"):
        Mbox(tmp_path / "absent" / "box")(message())


@pytest.mark.parametrize(
    ("before", "gap"), [(b"", b""), (b"From a\n\nx\n\n", b""), (b"From a\n\nx\n", b"\n"), (b"From a", b"\n\n"), (b"\n", b"\n")]
)
def test_begins_on_a_line_of_its_own(tmp_path: Path, before: bytes, gap: bytes) -> None:
    (tmp_path / "box").write_bytes(before)
    Mbox(tmp_path / "box")(message())
    assert (tmp_path / "box").read_bytes() == before + gap + TOP + b"Subject: hello\n\nworld\n\n"


# --- locks


@contextlib.contextmanager
def other_process_locks(path: Path) -> object:
    """A mail reader in a process of its own that holds the fcntl lock."""
    code = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        yield reader
        reader.kill()


def test_locked_by_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT", 0.1)
    (tmp_path / "box").touch()
    with other_process_locks(tmp_path / "box"):
        with pytest.raises(Reject, match="451 4.3.0 The mailbox is locked"):
            Mbox(tmp_path / "box")(message())
        assert os.listdir(tmp_path) == ["box"]
    Mbox(tmp_path / "box")(message())


@pytest.mark.parametrize(
    "owner",
    [b"", b"0", b"1", b"%d:elsewhere" % os.getpid(), b"%d:%b" % (os.getppid(), HOST), b"1:" + HOST, b"99999999999:x"],
)
def test_lock_file_of_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: bytes) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT", 0.1)
    (tmp_path / "box.lock").write_bytes(owner)
    with pytest.raises(Reject, match="451 4.3.0 The mailbox is locked"):
        Mbox(tmp_path / "box")(message())
    assert (tmp_path / "box.lock").read_bytes() == owner
    assert (tmp_path / "box").read_bytes() == b""
    assert sorted(os.listdir(tmp_path)) == ["box", "box.lock"]


@pytest.mark.parametrize("age", [0, 299, 301])
def test_old_lock_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT", PATIENCE if age > 300 else 0.1)
    (tmp_path / "box.lock").touch()
    os.utime(tmp_path / "box.lock", (time.time() - age,) * 2)
    if age > 300:
        Mbox(tmp_path / "box")(message())
        assert os.listdir(tmp_path) == ["box"]
    else:
        monkeypatch.setattr(time, "time", lambda now=time.time(): now)  # a busy machine must not make it older
        with pytest.raises(Reject):
            Mbox(tmp_path / "box")(message())


def test_lock_that_somebody_else_has_renewed_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT", 0.1)
    lock = tmp_path / "box.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    rename = os.rename

    def too_late(old: str, new: str) -> None:
        os.unlink(old)
        Path(old).write_text("a new one")
        rename(old, new)

    monkeypatch.setattr(os, "rename", too_late)
    with pytest.raises(Reject, match="locked"):
        Mbox(tmp_path / "box")(message())
    assert lock.read_text() == "a new one"
    assert sorted(os.listdir(tmp_path)) == ["box", "box.lock"]


def test_delivers_once_the_lock_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "box.lock"
    lock.touch()
    thread = threading.Thread(target=Mbox(tmp_path / "box"), args=(message(),))
    thread.start()
    while not (tmp_path / "box").exists():  # it has come to the lock
        thread.join(0.001)
    assert (tmp_path / "box").read_bytes() == b""
    lock.unlink()
    thread.join(PATIENCE)
    assert stored(tmp_path / "box") == [b"Subject: hello\n\nworld\n\n"]


def test_both_locks_are_held_while_it_writes(tmp_path: Path) -> None:
    seen: list[object] = []

    class Looking(Envelope):
        def open(self) -> BinaryIO:
            seen.append((tmp_path / "box.lock").read_bytes())

            def look(_: int) -> None:
                with open(tmp_path / "box", "ab") as file, pytest.raises(BlockingIOError):
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

            seen.append(in_children(1, look))
            return super().open()

    Mbox(tmp_path / "box")(Looking())  # type: ignore[arg-type]
    assert seen == [b"%d:%b" % (os.getpid(), HOST), [0]]


def no_link(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("missing", ["files without a name", "links"])
def test_lock_file_where_the_system_has_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    seen = []

    class Looking(Envelope):
        def open(self) -> BinaryIO:
            seen.append((tmp_path / "box.lock").read_bytes())
            return super().open()

    if missing == "links":
        monkeypatch.setattr(os, "link", no_link)
    else:
        monkeypatch.delattr(os, "O_TMPFILE")
    Mbox(tmp_path / "box")(Looking())  # type: ignore[arg-type]
    assert seen == [b"%d:%b" % (os.getpid(), HOST)]
    assert os.listdir(tmp_path) == ["box"]


def test_lock_of_another_is_not_removed_at_the_end(tmp_path: Path) -> None:
    class Robbed(Envelope):
        def open(self) -> BinaryIO:
            (tmp_path / "box.lock").unlink()
            (tmp_path / "box.lock").write_text("mine now")
            return super().open()

    Mbox(tmp_path / "box")(Robbed())  # type: ignore[arg-type]
    assert (tmp_path / "box.lock").read_text() == "mine now"


def test_one_turn_for_every_handler_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    one, two = Mbox(tmp_path / "box"), Mbox(tmp_path / "link" / "box")
    assert one._turn is two._turn
    assert one._turn is not Mbox(tmp_path / "other")._turn


def test_processes_and_threads_deliver_at_once(tmp_path: Path) -> None:
    handler = Mbox(tmp_path / "box")  # shared, as an app loaded before the fork is
    processes, threads, each = 4, 4, 15

    def deliver(process: int) -> None:
        failed = []

        def many(thread: int) -> None:
            mine = handler if thread % 2 else Mbox(tmp_path / "box")
            for number in range(each):
                try:
                    mine(message(content=b"%d %d %d\r\n" % (process, thread, number) + b"From \r\n" * 2000))
                except BaseException as error:
                    failed.append(error)

        running = [threading.Thread(target=many, args=(thread,)) for thread in range(threads)]
        for one in running:
            one.start()
        for one in running:
            one.join()
        assert not failed

    assert in_children(processes, deliver) == [0] * processes
    found = stored(tmp_path / "box")
    assert len({one.partition(b"\n")[0] for one in found}) == len(found) == processes * threads * each
    assert {one.partition(b"\n")[2].rstrip(b"\n") for one in found} == {b"\n".join([b"From "] * 2000)}
    assert os.listdir(tmp_path) == ["box"]


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """It leaves a half message and both traces of a lock; the next delivery has no need to wait."""
    handler = Mbox(tmp_path / "box")
    handler(message())
    read, write = os.pipe()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                os.write(write, b"written")
                signal.pause()
            return super().read(size)

    class Large(Envelope):
        def open(self) -> BinaryIO:
            return Slow(self.content)

    pid = os.fork()
    if pid == 0:
        try:
            handler(Large(content=b"y" * (3 * module.BLOCK)))  # type: ignore[arg-type]
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 100) == b"written"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    assert (tmp_path / "box.lock").exists()
    half = (tmp_path / "box").read_bytes()
    assert half.endswith(b"yyy") and len(half) < 3 * module.BLOCK
    begun = time.monotonic()
    handler(message(content=b"Subject: next\r\n\r\n"))
    assert time.monotonic() - begun < module.LOCK_WAIT
    assert (tmp_path / "box").read_bytes() == half + b"\n\n" + TOP + b"Subject: next\n\n\n"
    assert os.listdir(tmp_path) == ["box"]
    assert [one["Subject"] for one in mailbox.mbox(tmp_path / "box")] == ["hello", None, "next"]


def test_acknowledged_messages_survive_kill(tmp_path: Path) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        handler = Mbox(tmp_path / "box")

        def deliver(thread: int) -> None:
            try:
                for number in range(10_000):
                    handler(message(content=b"%d.%d\r\n" % (thread, number) + b"x" * module.BLOCK))
                    os.write(write, b"%d.%d\n" % (thread, number))
            finally:
                os._exit(1)  # the test must not wait for one that has failed

        for thread in range(4):
            threading.Thread(target=deliver, args=(thread,)).start()
        signal.pause()
    os.close(write)
    with open(read, "rb") as acknowledgements:
        seen = [acknowledgements.readline() for _ in range(10)]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        seen += acknowledgements.readlines()
    Mbox(tmp_path / "box")(message(content=b"last"))
    entries = b"\n" + (tmp_path / "box").read_bytes()
    whole = [entry.partition(RECEIVED)[2] for entry in entries.split(b"\nFrom alice")]
    complete = {entry.partition(b"\n")[0] + b"\n" for entry in whole if entry.count(b"x") == module.BLOCK}
    assert len(seen) >= 10
    assert set(seen) <= complete
    assert whole[-1] == b"last\n\n"


def test_descriptors_are_not_leaked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT", 0.02)
    handler = Mbox(tmp_path / "box")
    handler(message())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        handler(message())
    (tmp_path / "box.lock").touch()
    with pytest.raises(Reject):
        handler(message())
    assert len(os.listdir("/proc/self/fd")) == before
