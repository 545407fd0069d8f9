"""USR2: a new program on the same sockets, the old one told to stop once the new one serves, or left to the operator."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Program, descriptors, processes, stat, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server
from tests.program.load import Load, write_app
from tests.program.test_reload import version

CONFIG = "workers = 2\ngraceful_timeout = 5\nboot_timeout = 10\npid = 'run.pid'\n"


def write_config(folder: Path, text: str = "") -> None:
    (folder / "preforksmtp.conf.py").write_text(f"bind = {LOOPBACK!r}\n{CONFIG}{text}")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    write_config(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_file_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".sock", ".pid", ".2", ".new"))]


def upgrade(server: Server, count: int = 1) -> int:
    """Begin one; the pid of the new master."""
    os.kill(pid_of(server), signal.SIGUSR2)
    return int(server.wait_for(r"upgrading, the new master is (\d+)", count=count)[1])


def pid_of(server: Server) -> int:
    return int((server.folder / "run.pid").read_text())


def workers(master: int) -> set[int]:
    return {pid for pid, (state, parent, _) in processes().items() if parent == master and state != "Z"}


def alive(pid: int) -> bool:
    found = stat(pid)
    return found is not None and found[0] != "Z"


def wait_gone(pid: int) -> None:
    wait_until(lambda: not alive(pid), f"process {pid} gone")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_automatic_under_load(serve: Serve, app: Path, kind: str) -> None:
    if kind == "unix":
        write_config(app, "bind = ['unix:a.sock', '127.0.0.1:0']\n")
    server = serve("app:handler").ready()
    address: tuple[str, int] | str = str(app / "a.sock") if kind == "unix" else ("127.0.0.1", server.port())
    port = server.port()
    with Load(address, app, clients=20) as load:
        write_app(app, "2")
        new = upgrade(server)
        server.wait_for(f"master {new}: has taken over")
        wait_gone(server.pid)
        load.progress(100)
        assert pid_of(server) == new
    load.assert_sound()
    assert load.versions["2"]
    assert version(server, port) == "2"
    if kind == "unix":
        assert (app / "a.sock").exists()
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def test_again_and_again(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    master, fds, port = server.pid, descriptors(server.pid), server.port()
    with Load(("127.0.0.1", port), app) as load:
        for number in range(3):
            write_app(app, str(number))
            new = upgrade(server, count=number + 1)
            server.wait_for(f"master {new}: has taken over")
            wait_gone(master)
            master = new
            wait_until(lambda master=master: len(workers(master)) == 2, "its workers")  # type: ignore[misc]
            wait_until(lambda master=master: descriptors(master) == fds, "as many descriptors")  # type: ignore[misc]
            load.progress()
    load.assert_sound()
    os.kill(master, signal.SIGTERM)
    wait_gone(master)


def test_manual_to_the_end(serve: Serve, app: Path) -> None:
    write_config(app, "upgrade = 'manual'\n")
    server = serve("app:handler").ready()
    port = server.port()
    with Load(("127.0.0.1", port), app) as load:
        write_app(app, "2")
        new = upgrade(server)
        server.wait_for(f"master {new}: ready")
        assert pid_of(server) == server.pid
        assert int((app / "run.pid.2").read_text()) == new
        old = workers(server.pid) - {new}
        server.send(signal.SIGWINCH)
        wait_until(lambda: not any(map(alive, old)), "old workers gone")
        assert alive(server.pid)
        load.progress()
        server.send(signal.SIGTERM)
        wait_gone(server.pid)
        server.wait_for(f"master {new}: has taken over: the old master is gone")
        wait_until(lambda: pid_of(server) == new, "the pid file")
        assert not (app / "run.pid.2").exists()
        load.progress()
    load.assert_sound()
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def test_manual_and_back(serve: Serve, app: Path) -> None:
    write_config(app, "upgrade = 'manual'\nbind = ['unix:a.sock', '127.0.0.1:0']\n")
    server = serve("app:handler").ready()
    with Load(("127.0.0.1", server.port()), app) as load:
        new = upgrade(server)
        server.wait_for(f"master {new}: ready")
        old = workers(server.pid) - {new}
        server.send(signal.SIGWINCH)
        wait_until(lambda: not any(map(alive, old)), "old workers gone")
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        os.kill(new, signal.SIGTERM)  # QUIT would do, but it cuts sessions
        wait_until(lambda: stat(new) is None, "reaped by the old master")
        load.progress()
        assert (app / "a.sock").exists()
        assert pid_of(server) == server.pid
        assert not (app / "run.pid.2").exists()
    load.assert_sound()
    assert len(server.children()) == 2
    new = upgrade(server, count=2)  # the slot is free again
    server.wait_for(f"master {new}: ready")
    os.kill(new, signal.SIGQUIT)
    wait_gone(new)
    assert (app / "a.sock").exists()
    assert pid_of(server) == server.pid


BROKEN = {
    "app": ("", "def handler(message:"),
    "app exits": ("", "import os\nos._exit(0)"),
    "config": ("workers = = 2\n", None),
    "certificate": ("certfile = 'absent.pem'\n", None),
    "another bind in use": ("BUSY", None),
    "a log that nobody reads": ("error_logfile = 'pipe'\n", None),
    "program": ("", None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_program_leaves_the_old_one(serve: Serve, app: Path, name: str) -> None:
    config, code = BROKEN[name]
    os.mkfifo(app / "pipe")
    if name == "program":
        write_config(app, "def pre_exec(server):\n    import sys\n    sys.orig_argv[0] = '/nonexistent/python'\n")
    server = serve("app:handler").ready()
    before, fds = server.children(), descriptors(server.pid)
    with socket.create_server(("127.0.0.1", 0)) as busy, Load(("127.0.0.1", server.port()), app, clients=4) as load:
        if config:
            config = config.replace("BUSY", f"bind = ['127.0.0.1:0', '127.0.0.1:{busy.getsockname()[1]}']\n")
            write_config(app, config)
        if code is not None:
            (app / "app.py").write_text(code)
        new = upgrade(server)
        server.wait_for(r"the upgrade failed, this program goes on: the new master exited with code \d")
        assert not alive(new)
        load.progress()
    load.assert_sound()
    assert not load.turned_away
    assert server.children() == before
    assert descriptors(server.pid) == fds
    assert pid_of(server) == server.pid
    assert not (app / "run.pid.2").exists()
    if name != "program":
        write_config(app)
        write_app(app, "3")
        new = upgrade(server, count=2)
        server.wait_for(f"master {new}: has taken over")
        wait_gone(server.pid)
        assert version(server, server.port()) == "3"
        os.kill(new, signal.SIGTERM)
        wait_gone(new)


def test_twice_and_in_the_child_is_refused(serve: Serve, app: Path) -> None:
    write_config(app, "upgrade = 'manual'\n")
    server = serve("app:handler").ready()
    new = upgrade(server)
    server.wait_for(f"master {new}: ready")
    server.send(signal.SIGUSR2)
    server.wait_for(f"no upgrade: one is under way, the new master is {new}")
    os.kill(new, signal.SIGUSR2)
    server.wait_for(f"master {new}: no upgrade: this is a new master itself, {server.pid} still runs")
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def test_process_1_of_a_container_refuses(serve: Serve, app: Path) -> None:
    """It also takes its signals, and ends with its workers."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no pid namespaces for this user")
    with Contained(app, *unshare) as server:
        server.ready()
        (first,) = server.children()
        os.kill(first, signal.SIGUSR2)
        server.wait_for("no upgrade: as process 1 of a container it could not be replaced; start a new container")
        os.kill(first, signal.SIGHUP)
        server.wait_for("reload done")
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 0


class Contained(Server):
    def __init__(self, folder: Path, *command: str) -> None:
        self.folder = folder
        Program.__init__(self, [*command, sys.executable, "-m", "preforksmtp", "app:handler"], cwd=folder)


def test_a_descriptor_given_with_fd_moves_on(serve: Serve, app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        fd, port = given.fileno(), given.getsockname()[1]
        write_config(app, f"bind = 'fd://{fd}'\n")
        server = serve("app:handler", pass_fds=(fd,)).ready()
    assert version(server, port) == "1"
    write_app(app, "2")
    new = upgrade(server)
    server.wait_for(f"master {new}: has taken over")
    wait_gone(server.pid)
    assert version(server, port) == "2"
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def test_the_sockets_of_systemd_move_on(serve: Serve, app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        server = Activated(app, given.fileno())
    with server:
        server.ready()
        assert version(server, port) == "1"
        write_app(app, "2")
        new = upgrade(server)
        server.wait_for(f"master {new}: has taken over")
        wait_gone(server.pid)
        assert version(server, port) == "2"
        os.kill(new, signal.SIGHUP)
        server.wait_for("reload done")
        assert version(server, port) == "2"
        os.kill(new, signal.SIGTERM)
        wait_gone(new)


class Activated(Server):
    """Started as systemd would: with descriptor 3, and LISTEN_PID naming the process that becomes the server."""

    def __init__(self, folder: Path, fd: int) -> None:
        self.folder = folder
        become = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.executable, [sys.executable, '-m', 'preforksmtp', 'app:handler'])"
        )
        Program.__init__(self, [sys.executable, "-c", become, str(fd)], cwd=folder, pass_fds=(fd,))
