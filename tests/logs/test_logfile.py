"""How a log file is opened as root: by whom, what is taken, and whose it is afterwards."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from preforksmtp.logs.logfile import TO_APPEND, open_log
from preforksmtp.process.privileges import Identity, acting_as

BOB = Identity(65534, 65534, (65534,))
ROOT = Identity(0, 0, (0,))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's rules")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    return tmp_path


@pytest.fixture
def bobs(root: Path) -> Path:
    (root / "bobs").mkdir()
    os.chown(root / "bobs", BOB.uid, BOB.gid)
    return root / "bobs"


def write(path: Path, owner: Identity | None, flags: int | None = None) -> None:
    fd = open_log(str(path), owner) if flags is None else open_log(str(path), owner, flags)
    assert not os.get_inheritable(fd)
    os.write(fd, b"line\n")
    os.close(fd)


def refusal(path: Path, owner: Identity | None) -> str:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with pytest.raises(OSError) as error:
        open_log(str(path), owner)
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    return error.value.strerror or ""


@needs_root
def test_acting_as_somebody_and_back() -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with acting_as(BOB):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (65534, 65534, [65534])
        assert os.getresuid() == (0, 65534, 0)  # nobody else can signal it
        assert not os.access("/etc/shadow", os.R_OK, effective_ids=True)
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    with pytest.raises(ZeroDivisionError), acting_as(BOB):
        raise ZeroDivisionError
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


@needs_root
def test_where_nobody_else_may_write_root_makes_it_and_gives_it_away(root: Path) -> None:
    write(root / "log", BOB)
    status = (root / "log").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & 0o137) == (BOB.uid, BOB.gid, 0)
    write(root / "ours", None)
    assert (root / "ours").stat().st_uid == 0
    (root / "link").symlink_to("log")
    write(root / "link", BOB)
    assert (root / "log").read_text() == "line\nline\n"


@needs_root
def test_who_only_looks_changes_nothing(root: Path) -> None:
    (root / "log").write_text("")
    os.close(open_log(str(root / "log"), BOB, TO_APPEND))
    assert (root / "log").stat().st_uid == 0
    with pytest.raises(FileNotFoundError):
        open_log(str(root / "none"), BOB, TO_APPEND)


@needs_root
def test_a_second_name_is_not_given_away(root: Path) -> None:
    (root / "log").write_text("")
    os.link(root / "log", root / "other")
    write(root / "log", BOB)
    assert (root / "log").stat().st_uid == 0


@needs_root
def test_in_a_folder_of_the_workers_user_it_is_opened_as_that_user(root: Path, bobs: Path) -> None:
    write(bobs / "log", BOB)
    assert (bobs / "log").stat().st_uid == BOB.uid
    (bobs / "roots").write_text("")
    (bobs / "roots").chmod(0o600)
    assert refusal(bobs / "roots", BOB).startswith("Permission denied (opened as uid 65534, because ")
    (root / "target").write_text("")
    os.chown(root / "target", BOB.uid, BOB.gid)
    (bobs / "link").symlink_to(root / "target")
    assert "is a symbolic link, and " in refusal(bobs / "link", BOB)
    os.link(root / "target", bobs / "hard")
    assert refusal(bobs / "hard", BOB).startswith("it is no plain file with one name, and ")
    os.mkfifo(bobs / "fifo", 0o666)
    os.chown(bobs / "fifo", BOB.uid, BOB.gid)
    assert "a FIFO that nobody reads from" in refusal(bobs / "fifo", BOB)
    reader = os.open(bobs / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert "it is no plain file" in refusal(bobs / "fifo", BOB)
    os.close(reader)
    assert (root / "target").read_text() == ""


@needs_root
@pytest.mark.parametrize("owner", [None, ROOT])
def test_in_a_folder_of_somebody_elses_with_workers_of_roots(root: Path, bobs: Path, owner: Identity | None) -> None:
    write(bobs / "new", owner)
    write(bobs / "new", owner)
    (bobs / "bobs").write_text("")
    os.chown(bobs / "bobs", BOB.uid, BOB.gid)
    write(bobs / "bobs", owner)  # it is that of who has the folder: nobody is harmed
    (bobs / "carols").write_text("")
    os.chown(bobs / "carols", 4242, 4242)
    assert "the file belongs to uid 4242, and " in refusal(bobs / "carols", owner)
    (root / "target").write_text("")
    os.link(root / "target", bobs / "hard")
    assert "the file has other names besides this one" in refusal(bobs / "hard", owner)
    (bobs / "link").symlink_to(root / "target")
    assert "is a symbolic link, and " in refusal(bobs / "link", owner)
    os.mkfifo(bobs / "fifo")
    assert "a FIFO that nobody reads from" in refusal(bobs / "fifo", owner)
    reader = os.open(bobs / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert "it is no regular file, and " in refusal(bobs / "fifo", owner)
    os.close(reader)
    assert (root / "target").read_text() == ""


@needs_root
def test_truncation_waits_for_the_look(root: Path, bobs: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    (root / "target").write_text("root's own")
    os.link(root / "target", bobs / "hard")
    for owner in (None, BOB):
        with pytest.raises(OSError):
            open_log(str(bobs / "hard"), owner, flags)
    assert (root / "target").read_text() == "root's own"
    for folder in (root, bobs):
        (folder / "log").write_text("former")
        os.chown(folder / "log", BOB.uid, BOB.gid)
        write(folder / "log", BOB, flags)
        assert (folder / "log").read_text() == "line\n"


@needs_root
def test_a_group_that_may_write_to_the_folder_of_all_logs(root: Path) -> None:
    """/var/log belongs to root and to syslog's group on some systems."""
    (root / "log").mkdir()
    os.chown(root / "log", 0, 4)
    (root / "log").chmod(0o775)
    (root / "log" / "smtp").mkdir()
    os.chown(root / "log" / "smtp", BOB.uid, BOB.gid)
    write(root / "log" / "smtp" / "log", BOB)
    write(root / "log" / "ours", None)
    for _ in range(2):
        write(root / "log" / "given", BOB)
    assert (root / "log" / "given").stat().st_uid == BOB.uid
    os.rename(root / "log" / "ours", root / "log" / "moved")
    assert refusal(root / "log" / "moved", BOB).startswith("Permission denied (opened as uid 65534, because group 4 may ")
    os.chown(root / "log" / "smtp", 0, 0)  # but the group may put another one in its place
    assert "Permission denied" in refusal(root / "log" / "smtp" / "new", BOB)


def test_descriptors_and_devices(tmp_path: Path) -> None:
    read, write_end = os.pipe()
    for name in (f"/dev/fd/{write_end}", f"/proc/self/fd/{write_end}"):
        fd = open_log(name, None)
        assert fd != write_end
        os.write(fd, b"x")
        os.close(fd)
    assert os.read(read, 10) == b"xx"
    os.close(read)
    os.close(write_end)
    fd = open_log("/dev/null", BOB)
    assert os.get_blocking(fd)
    os.close(fd)
    assert os.stat("/dev/null").st_uid == 0


def test_a_fifo_with_a_reader_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(OSError, match="a FIFO that nobody reads from"):
        open_log(str(tmp_path / "log"), None)
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    fd = open_log(str(tmp_path / "log"), None)
    assert os.get_blocking(fd)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    os.close(fd)
    os.close(reader)


def test_anybody_but_root_opens_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(os, "fchown", lambda *_: pytest.fail("gives a file away"))
    (tmp_path / "target").write_text("")
    os.link(tmp_path / "target", tmp_path / "hard")
    (tmp_path / "link").symlink_to("hard")
    write(tmp_path / "link", BOB)
    assert (tmp_path / "target").read_text() == "line\n"
