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


def as_nobody(script: str, *arguments: str) -> None:
    """Run Python as nobody; as root it could not show what nobody may do."""
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-S", "-c", script, *arguments] if False else [sys.executable, "-c", script, *arguments],
        preexec_fn=None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


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
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False) if kind != "hard link" else None


KINDS = ("link", "link to nothing", "hard link", "fifo", "folder")


def serves(port: int) -> None:
    with Talk(port) as talk:
        talk.begin_data()
        assert talk.ask("Subject: x\r\n\r\n.").startswith("250")
        assert talk.ask("QUIT").startswith("221")


def arguments(folder: Path) -> list[str]:
    return [word for name, option in FILES.items() for word in (option, name)]


class Victim(Server):
    """As root, for nobody, in nobody's folder."""

    def __init__(self, tree: Path, *more: str, app: str = DISCARD) -> None:
        self.log = tree / "open" / "error.log"
        self.file = os.open  # the log as it was at first, whatever name it has later
        super().__init__(tree / "open", "-b", "127.0.0.1:0", "-u", "nobody", *more, app)
