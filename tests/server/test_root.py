"""Root's master beside a user who may write to the folder where its files are: that user swaps them for links to what
is root's, for second names of it, for FIFOs; and root writes, makes, gives away, opens to others and removes nothing
but what it is meant to. Needs root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import PATIENCE, ROOT, wait_until
from tests.server.conftest import Server, Talk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to be led astray")

NOBODY = 65534
DISCARD = "preforksmtp.handlers:Discard()"
LOOPBACK = "127.0.0.1:0"

# Names in the folder, and the options that have them there.
FILES = {
    "error.log": "--error-logfile",
    "access.log": "--access-logfile",
    "dialogue": "--transcript",
    "run.pid": "--pid",
    "ctl.sock": "--control-socket",
}


@pytest.fixture
def tree() -> Iterator[Path]:
    """/tmp/x, of root's alone; in it `secret`, root's, and `open`, nobody's."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    secret = path / "secret"
    secret.mkdir(0o711)
    for name in ("victim", "second"):
        (secret / name).write_text("root's own\n")
        (secret / name).chmod(0o600)
    (path / "open").mkdir()
    os.chown(path / "open", NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that may be done to what is in there."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, content)
    return found


def swap(path: Path, kind: str, target: Path) -> None:
    """What nobody can do in a folder of its own: take a name away, and give it to something else."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.away"))
    elif os.path.lexists(path):
        path.unlink()
    if kind == "link":
        path.symlink_to(target)
    elif kind == "link to nothing":
        path.symlink_to(target.with_name("made"))
    elif kind == "hard link":
        os.link(target, path)
    elif kind == "fifo":
        os.mkfifo(path, 0o666)
    elif kind == "folder":
        path.mkdir()
    elif kind == "own file":
        path.write_text("")
    if kind != "hard link":
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


KINDS = ("link", "link to nothing", "hard link", "fifo", "folder")
NAMES = ("access.log", "dialogue", "run.pid", "ctl.sock", "lmtp.sock", "status.sock")


def begin(tree: Path, *more: str, app: str = DISCARD) -> Server:
    """As root, for nobody, in nobody's folder, with each of NAMES in it."""
    options = ["--access-logfile", "access.log", "--transcript", "dialogue", "-p", "run.pid"]
    options += ["--control-socket", "ctl.sock", "--status-bind", "unix:status.sock?mode=660"]
    return Server(tree / "open", "-b", LOOPBACK, "-b", "lmtp://unix:lmtp.sock?mode=600", "-u", "nobody", *options, *more, app)


def serves(port: int) -> None:
    with Talk(port) as talk:
        talk.begin_data()
        assert talk.ask("Subject: x\r\n\r\n.").startswith("250")
        assert talk.ask("QUIT").startswith("221")


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_swapped_while_it_runs(tree: Path, kind: str) -> None:
    """Reopened, reloaded, stopped: nothing happens to what is root's, and the server serves on."""
    secret, folder = tree / "secret", tree / "open"
    (tree / "conf.py").write_text("bind = ['127.0.0.1:0', 'lmtp://unix:lmtp.sock?mode=600']\n")
    options = ["-c", str(tree / "conf.py")]
    with begin(tree, *options) as server:
        server.ready()
        serves(server.port())
        for name in NAMES:
            assert (folder / name).exists(), name
            swap(folder / name, kind, secret / "victim")
        before = snapshot(secret)
        swapped = snapshot(folder)
        server.send(signal.SIGUSR1)
        server.wait_for("access_logfile: cannot open access.log: .*the old file stays in use")
        serves(server.port())
        (tree / "conf.py").write_text("bind = ['127.0.0.1:0', 'lmtp://unix:lmtp.sock?mode=666']\n")
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        serves(server.port())
        assert server.stop() == 0
        assert "Traceback" not in server.output
    assert snapshot(secret) == before
    assert {name: found for name, found in snapshot(folder).items() if "Maildir" not in name} == swapped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*NAMES, "error.log"])
def test_names_that_are_taken_at_the_start(tree: Path, kind: str, name: str) -> None:
    """One line that says what is wrong with the folder, and exit code 1; but a pid file may take a name that is free."""
    secret, folder = tree / "secret", tree / "open"
    options = {
        "access.log": ["--access-logfile", name], "dialogue": ["--transcript", name], "run.pid": ["-p", name],
        "ctl.sock": ["--control-socket", name], "lmtp.sock": ["-b", f"lmtp://unix:{name}"],
        "status.sock": ["--status-bind", f"unix:{name}"], "error.log": ["--error-logfile", name],
    }[name]  # fmt: skip
    swap(folder / name, kind, secret / "victim")
    before, taken = snapshot(secret), snapshot(folder)
    with Server(folder, "-b", LOOPBACK, "-u", "nobody", *options, DISCARD) as server:
        if (name, kind) == ("run.pid", "hard link"):  # a file: its name is taken over, and that is all
            server.ready()
            assert server.stop() == 0
            assert snapshot(secret) == before
            return
        assert server.wait() == 1
        line = server.lines[-1]
        assert line.startswith("preforksmtp: error: "), server.output
        assert name in line
    assert snapshot(secret) == before
    assert snapshot(folder) == taken
