"""Whose code root runs: files that are refused, folders that are passed over, and how the program is started anew."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforksmtp.process import trust
from preforksmtp.process.trust import command_line, import_again, pass_over, passed_over, read_code, trusted_users

BOB = 65534
CAROL = 4242
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's rules")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for path in (tmp_path, tmp_path.parent):
        path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    import_again()


@needs_root
def test_who_is_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.stat(Path(trust.__file__).parent).st_uid
    assert trusted_users() == {owner}
    monkeypatch.setenv("SUDO_UID", str(BOB))
    assert trusted_users() == {owner, BOB}
    assert BOB not in trusted_users(but=BOB)
    monkeypatch.setenv("SUDO_UID", "bob")
    assert trusted_users() == {owner}


@needs_root
@pytest.mark.parametrize(
    ("uid", "gid", "mode", "sudo", "refusal"),
    [
        (0, 0, 0o644, "", ""),
        (0, 0, 0o664, "", ""),
        (0, BOB, 0o664, "", "group 65534 may write to it"),
        (0, 0, 0o646, "", "anybody may write to it"),
        (BOB, BOB, 0o600, "", "it belongs to uid 65534"),
        (BOB, BOB, 0o664, str(BOB), ""),
        (BOB, BOB, 0o666, str(BOB), "anybody may write to it"),
        (CAROL, BOB, 0o600, str(BOB), "it belongs to uid 4242"),
        (BOB, CAROL, 0o664, str(BOB), "group 4242 may write to it"),
    ],
)
def test_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, mode: int, sudo: str, refusal: str
) -> None:
    file = folder / "conf.py"
    file.write_text("x = 1\n")
    os.chown(file, uid, gid)
    file.chmod(mode)
    if sudo:
        monkeypatch.setenv("SUDO_UID", sudo)
        monkeypatch.setenv("SUDO_GID", sudo)
    if not refusal:
        assert read_code(str(file)) == read_code("conf.py") == b"x = 1\n"
        return
    with pytest.raises(OSError, match=refusal):
        read_code(str(file))


@needs_root
def test_files_that_are_none(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with pytest.raises(OSError, match="no regular file"):
        read_code("fifo")
    with pytest.raises(FileNotFoundError):
        read_code("absent")
    (folder / "link").symlink_to("conf.py")
    (folder / "conf.py").write_text("x")
    assert read_code("link") == b"x"
    os.chown(folder, BOB, BOB)
    with pytest.raises(OSError, match="is a symbolic link, and the current folder belongs to uid 65534"):
        read_code("link")
    read, write = os.pipe()
    os.write(write, b"piped")
    os.close(write)
    assert read_code(f"/dev/fd/{read}") == b"piped"  # whoever starts us has it
    os.close(read)


@needs_root
def test_folders(folder: Path) -> None:
    for name in ("bobs", "mine"):
        (folder / name).mkdir()
        (folder / name / f"module_of_{name}.py").write_text("")
        sys.path.insert(0, str(folder / name))
    os.chown(folder / "bobs", BOB, BOB)
    pass_over(BOB)
    assert passed_over() == [str(folder / "bobs")]
    import importlib

    importlib.import_module("module_of_mine")
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("module_of_bobs")
    assert trust.left_out() == f"; but root imports nothing from {folder / 'bobs'}, where others may write"
    import_again()
    importlib.import_module("module_of_bobs")
    assert trust.left_out() == ""


def test_pythons_own_folders_are_not_passed_over(folder: Path) -> None:
    pass_over(BOB)
    assert not [path for path in passed_over() if "site-packages" in path or path == os.path.dirname(os.__file__)]


@needs_root
def test_the_program_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "bin" / "python"
    program.parent.mkdir()
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(Path(trust.__file__).parent / "__main__.py")])
    monkeypatch.setattr(sys, "orig_argv", [str(program), "-m", "preforksmtp", "-m", "027"])
    assert command_line(str(folder), "/bin", BOB) == sys.orig_argv
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "preforksmtp"])
    assert command_line(str(folder), str(program.parent), BOB) == sys.orig_argv
    os.chown(program, BOB, BOB)
    with pytest.raises(OSError, match="bin/python: it belongs to uid 65534"):
        command_line(str(folder), str(program.parent), BOB)
    assert command_line(str(folder), str(program.parent), None) == sys.orig_argv  # workers are root themselves
    os.chown(program, 0, 0)
    os.chown(folder, BOB, BOB)
    with pytest.raises(OSError, match="belongs to uid 65534"):
        command_line(str(folder), str(program.parent), BOB)
    program.parent.parent.chmod(0o755)
    if sys.version_info >= (3, 11):
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "preforksmtp"])
        executable = os.path.realpath(sys.executable)
        monkeypatch.setattr(sys, "orig_argv", [executable, "-m", "preforksmtp"])
        assert command_line(str(folder), None, BOB) == [executable, "-P", "-m", "preforksmtp"]


def test_anybody_but_root_runs_what_it_likes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "conf.py").write_text("x")
    (folder / "conf.py").chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: CAROL)
    assert read_code("conf.py") == b"x"
    sys.path.insert(0, "/tmp")
    pass_over(BOB)
    assert passed_over() == []
    assert command_line("/tmp", "", BOB) == sys.orig_argv
