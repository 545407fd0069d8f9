"""An upgrade in which a master dies, hangs, or has another configuration: the service goes on, and nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, Program, descriptors, stat, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server
from tests.program.load import Load, write_app
from tests.program.test_reload import version
from tests.program.test_upgrade import pid_of, upgrade, wait_gone, workers

CONFIG = "workers = 2\ngraceful_timeout = 5\n"
OTHERS = "pid = 'other.pid'\nbind = ['unix:b.sock', '127.0.0.1:0']\n"

# Stands for init: the parent of the server, and of whoever loses his own. It says when somebody wants to stop it.
STRANGER = """\
import ctypes, os, signal, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
signal.signal(signal.SIGTERM, lambda number, frame: os.write(1, b"the stranger got SIGTERM\\n"))
os.write(1, b"server %d\\n" % subprocess.Popen([sys.executable, "-m", "preforksmtp", *sys.argv[1:]]).pid)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""

HOLD = """\
import os, time
def hold():
    os.write(2, b"held\\n")
    while not os.path.exists("go"):
        time.sleep(0.005)
"""
PRE_EXEC = f"{HOLD}def pre_exec(server):\n    hold()\n"
SITE = f"{HOLD}if 'PREFORKSMTP_PID' in os.environ:\n    hold()\n"


def write_config(folder: Path, text: str = "") -> None:
    (folder / "preforksmtp.conf.py").write_text(
        f"bind = {LOOPBACK!r}\npid = 'run.pid'\nboot_timeout = 10\n{CONFIG}{text}"
    )


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    write_config(tmp_path)
    return tmp_path


def left(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith((".sock", ".pid", ".2", ".new")))


class Fostered(Server):
    """The server as the child of a stranger; its own process id is in the pid file."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder = folder
        Program.__init__(self, [sys.executable, "-c", STRANGER, "app:handler"], {"PYTHONPATH": path}, cwd=folder)


@pytest.mark.parametrize("held", ["before exec", "after exec"])
def test_the_old_master_is_killed_right_after_usr2(app: Path, held: str) -> None:
    """The new one keeps the sockets, takes over at once, and takes no foster parent for the old one."""
    site = app / "site"
    site.mkdir()
    if held == "after exec":
        (site / "sitecustomize.py").write_text(SITE)
    else:
        write_config(app, PRE_EXEC)
    with Fostered(app, f"{site}:{ROOT}") as server:
        port = server.ready().port()
        old = int(server.wait_for(r"^server (\d+)")[1])
        orphans = workers(old)
        new = upgrade(server)
        server.wait_for("^held$")
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: (stat(new) or ("", 0))[1] == server.pid, "the stranger as its foster parent")
        write_app(app, "2")
        (app / "go").touch()
        server.wait_for(f"master {new}: has taken over: the old master is gone")
        server.wait_for(f"master {new}: ready")
        for pid in orphans:
            wait_gone(pid)
        assert version(server, port) == "2"
        assert pid_of(server) == new
        assert left(app) == ["run.pid"]
        os.kill(new, signal.SIGTERM)
        assert server.wait() == 0
        assert not server.matches("the stranger got SIGTERM")
    assert not left(app)


HANGS = {
    "config": "import time\ntime.sleep(3600)\n",
    "config that ignores TERM": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(3600)\n",
    "preload": "preload = True\n",
}


@pytest.mark.parametrize(
    ("what", "preload"),
    [("config", False), ("config", True), ("config that ignores TERM", False), ("preload", True)],
)
def test_a_new_program_that_hangs_is_given_up(serve: Serve, app: Path, what: str, preload: bool) -> None:
    """Wherever that is before its loop runs."""
    settings = "boot_timeout = 2\n" + ("preload = True\n" if preload else "")
    write_config(app, settings)
    server = serve("app:handler").ready()
    before, fds, port = server.children(), descriptors(server.pid), server.port()
    write_config(app, settings + HANGS[what])
    if what == "preload":  # deaf to the alarm, and to what it raises
        (app / "app.py").write_text(
            "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\ntime.sleep(3600)\n"
        )
    with Load(("127.0.0.1", port), app, clients=2) as load:
        server.send(signal.SIGHUP if preload else signal.SIGUSR2)
        new = int(server.wait_for(r"upgrading, the new master is (\d+)")[1])
        server.wait_for(f"the new master {new} is not ready to begin after boot_timeout 2 s")
        server.wait_for("the upgrade failed, this program goes on: the new master")
        assert stat(new) is None
        load.progress()
    load.assert_sound()
    assert server.children() == before
    wait_until(lambda: descriptors(server.pid) == fds, "as many descriptors as before")
    assert left(app) == ["run.pid"]
    write_config(app, settings)
    write_app(app, "3")
    server.send(signal.SIGHUP if preload else signal.SIGUSR2)
    new = int(server.wait_for(r"master (\d+): has taken over")[1])
    wait_gone(server.pid)
    assert version(server, port) == "3"
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def test_a_longer_boot_timeout_of_the_new_configuration_holds(serve: Serve, app: Path) -> None:
    write_config(app, "boot_timeout = 2\n")
    server = serve("app:handler").ready()
    with (app / "app.py").open("a") as file:
        file.write(f"{HOLD}hold()\n")
    write_config(app, "boot_timeout = 30\npreload = True\n")
    new = upgrade(server)
    server.wait_for("^held$")
    wait_until(lambda: age(new) > 5, "an age at which the old master would have given it up")
    (app / "go").touch()
    server.wait_for(f"master {new}: has taken over")
    wait_gone(server.pid)
    assert not server.matches("upgrade failed")
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def age(pid: int) -> float:
    """Seconds since it was forked."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("way", ["auto", "manual"])
def test_files_of_the_former_configuration_go_when_it_has_taken_over(serve: Serve, app: Path, way: str) -> None:
    write_config(app, f"upgrade = {way!r}\nbind = 'unix:a.sock'\n")
    server = serve("app:handler").ready()
    assert left(app) == ["a.sock", "run.pid"]
    write_config(app, f"upgrade = {way!r}\n" + OTHERS)
    new = upgrade(server)
    server.wait_for(f"master {new}: ready")
    if way == "manual":
        assert left(app) == ["a.sock", "b.sock", "other.pid.2", "run.pid"]
        server.send(signal.SIGTERM)
    server.wait_for(f"master {new}: has taken over")
    wait_gone(server.pid)
    wait_until(lambda: left(app) == ["b.sock", "other.pid"], "the files of the new one only")
    assert version(server) == "1"
    os.kill(new, signal.SIGTERM)
    wait_gone(new)
    assert not left(app)


def test_no_pid_file_any_more(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    write_config(app, "pid = None\n")
    new = upgrade(server)
    server.wait_for(f"master {new}: has taken over")
    wait_gone(server.pid)
    assert not left(app)
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


@pytest.mark.parametrize("how", ["backed out of", "not able to boot"])
def test_files_of_the_former_configuration_stay_when_it_goes_on(serve: Serve, app: Path, how: str) -> None:
    write_config(app, "upgrade = 'manual'\nbind = 'unix:a.sock'\n")
    server = serve("app:handler").ready()
    write_config(app, "upgrade = 'manual'\n" + OTHERS)
    if how == "not able to boot":
        (app / "app.py").write_text("def handler(")
    new = upgrade(server)
    if how == "backed out of":
        server.wait_for(f"master {new}: ready")
        os.kill(new, signal.SIGTERM)
    server.wait_for("the upgrade failed, this program goes on")
    assert left(app) == ["a.sock", "run.pid"]
    assert pid_of(server) == server.pid
    assert len(workers(server.pid)) == 2
    assert server.stop() == 0
    assert not left(app)


def test_a_reload_of_the_new_master_lets_go_of_files_too(serve: Serve, app: Path) -> None:
    """Before it has taken over they are the old one's; then they go."""
    write_config(app, "upgrade = 'manual'\nbind = 'unix:a.sock'\n")
    server = serve("app:handler").ready()
    new = upgrade(server)
    server.wait_for(f"master {new}: ready")
    write_config(app, "upgrade = 'manual'\nbind = 'unix:b.sock'\n")
    os.kill(new, signal.SIGHUP)
    server.wait_for(f"master {new}: reload done")
    assert left(app) == ["a.sock", "b.sock", "run.pid", "run.pid.2"]
    server.send(signal.SIGTERM)
    wait_gone(server.pid)
    wait_until(lambda: left(app) == ["b.sock", "run.pid"], "the files of the new one only")
    os.kill(new, signal.SIGTERM)
    wait_gone(new)
    assert not left(app)
