"""--check-config and the files and folders of a configuration: as whoever will use them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from preforksmtp.config.load import load
from preforksmtp.config.model import Config
from preforksmtp.server import premises

BOB = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's rules")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in (tmp_path, tmp_path.parent):
        path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_with(*arguments: str) -> Config:
    return load([*arguments, "preforksmtp.handlers:Discard()"], {})


def make(folder: Path, uid: int = 0, mode: int = 0o755) -> None:
    folder.mkdir()
    os.chown(folder, uid, uid)
    folder.chmod(mode)


@needs_root
def test_a_log_in_a_folder_that_only_root_may_write_to(folder: Path) -> None:
    make(folder / "log")
    assert premises.check(load_with("-u", "nobody", "--access-logfile", "log/access")) == []
    assert os.listdir("log") == []


@needs_root
def test_folders_are_looked_at_as_the_workers_user(folder: Path) -> None:
    make(folder / "spool")
    assert premises.check(load_with("--spool-dir", "spool")) == []
    lines = premises.check(load_with("-u", "nobody", "--spool-dir", "spool"))
    assert lines == ["spool_dir: the folder spool is not writable for uid 65534"]
    assert premises.warn(load_with("-u", "nobody", "--spool-dir", "spool"))[-1:] == lines
    os.chown("spool", BOB, BOB)
    assert premises.check(load_with("-u", "nobody", "--spool-dir", "spool")) == []
    make(folder / "carols", 4242, 0o755)
    (line,) = premises.check(load_with("-u", "nobody", "--access-logfile", "carols/access"))
    assert line == "access_logfile: the folder carols is not writable for uid 65534"


@needs_root
@pytest.mark.parametrize(("uid", "mode", "line"), [
    (0, 0o777, "spool_dir: anybody may write to spool, and could remove temporary files there"),
    (4242, 0o777, "spool_dir: spool belongs to uid 4242, and could remove temporary files there"),
    (0, 0o1777, ""),
    (BOB, 0o700, ""),
])  # fmt: skip
def test_whose_the_spool_folder_is(folder: Path, uid: int, mode: int, line: str) -> None:
    make(folder / "spool", uid, mode)
    lines = [found for found in premises.warn(load_with("-u", "nobody", "--spool-dir", "spool")) if "spool" in found]
    assert lines == ([line] if line else [])


@needs_root
@pytest.mark.parametrize(("uid", "mode", "warned"), [(0, 0o755, False), (0, 0o1777, False), (0, 0o777, True),
                                                     (BOB, 0o755, True)])  # fmt: skip
def test_a_pid_file_that_others_could_replace(folder: Path, uid: int, mode: int, warned: bool) -> None:
    make(folder / "run", uid, mode)
    settings = load_with("-p", "run/pid")
    assert premises.check(settings) == []
    assert any(line.startswith("pid: ") and "another number" in line for line in premises.warn(settings)) == warned


@pytest.mark.parametrize("option", [["-p", "{}"], ["--control-socket", "{}"], ["--status-bind", "unix:{}"],
                                    ["-b", "lmtp://unix:{}"]])  # fmt: skip
def test_what_the_master_makes(folder: Path, option: list[str]) -> None:
    def check(path: str) -> list[str]:
        return premises.check(load_with(*(word.format(path) for word in option)))

    assert check("x") == []
    (missing,) = check("no/x")
    assert missing.endswith(": the folder no does not exist")
    (folder / "taken").mkdir()
    (taken,) = check("taken")
    assert "taken is there and is no " in taken
    if os.geteuid() == 0:
        make(folder / "bobs", BOB)
        (folder / "bobs" / "link").symlink_to(folder)
        (led,) = check("bobs/link/x")
        assert "bobs/link is a symbolic link, and bobs belongs to uid 65534" in led


def test_a_reload_goes_on_with_what_is_in_use(folder: Path) -> None:
    make(folder / "log", os.geteuid())
    options = ["--access-logfile", "log/access", "--spool-dir", "log", "--control-socket", "log/x"]
    former, other = load_with(*options), load_with("--access-logfile", "log/other", *options[2:])
    (folder / "log").rmdir()
    assert len(premises.check(former)) == 3
    assert premises.check(load_with(*options), former) == []
    assert premises.check(other, former) == ["access_logfile: the folder log does not exist"]


@needs_root
def test_a_log_that_workers_cannot_open_again() -> None:
    with tempfile.TemporaryDirectory() as path:  # pytest's own are closed to all others
        (Path(path) / "access").write_text("")
        settings = load_with("-u", "nobody", "--access-logfile", f"{path}/access")
        (line,) = [line for line in premises.warn(settings) if "access" in line]
        assert line.startswith("access_logfile: uid 65534 cannot enter the folder of ")
        assert line.endswith("reopen logs with HUP instead")
        os.chmod(path, 0o711)
        assert not [line for line in premises.warn(settings) if "access" in line]


@needs_root
def test_the_programs_own_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder / "package", BOB)
    monkeypatch.setattr(premises, "__file__", str(folder / "package" / "server" / "premises.py"))
    assert any("preforksmtp itself, in " in line for line in premises.warn(load_with("-u", "nobody")))
    assert not any("preforksmtp itself" in line for line in premises.warn(load_with("-u", "root")))
