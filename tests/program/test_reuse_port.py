"""--reuse-port on the real program: a queue for each worker, and no client that notices a reload or an upgrade."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, stat, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk
from tests.program.load import Load, write_app

LISTEN = "0A"  # state in /proc/net/tcp


def write_config(folder: Path, text: str = "") -> None:
    (folder / "preforksmtp.conf.py").write_text(
        f"bind = {LOOPBACK!r}\nworkers = 3\nreuse_port = True\ngraceful_timeout = 5\npid = 'run.pid'\n{text}"
    )


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    write_config(tmp_path)
    return tmp_path


def queues(port: int) -> int:
    """Sockets that listen on this port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == LISTEN for row in rows)


def wait_queues(server: Server, number: int) -> None:
    wait_until(lambda: queues(server.port()) == number, f"{number} queues")


def reload(server: Server, app: Path, version: str, text: str = "") -> None:
    write_config(app, text)
    write_app(app, version)
    before = len(server.matches("reload done"))
    server.send(signal.SIGHUP)
    server.wait_for("reload done", count=before + 1)


def test_a_queue_for_each_worker(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    server.wait_for(r"\[WARNING\] reuse_port: a connection waits for one worker")
    assert queues(server.port()) == 3
    for pid in server.children():
        sockets = [name for name in links(pid) if name.startswith("socket:")]
        assert len(sockets) == 1, sockets
    with Load(("127.0.0.1", server.port()), app, clients=20) as load:
        load.progress(300)
    load.assert_sound()
    server.stop()
    ended = server.matches(r"worker \d+ exited with code 0")
    assert len(ended) == 3


def links(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(folder / name) for name in os.listdir(folder)]


def test_off_there_is_one(serve: Serve, app: Path) -> None:
    write_config(app, "reuse_port = False\n")
    server = serve("app:handler").ready()
    assert queues(server.port()) == 1
    assert not server.matches("reuse_port")


def test_another_server_is_still_noticed(serve: Serve, app: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    server = serve("app:handler").ready()
    command = [sys.executable, "-m", "preforksmtp", "--reuse-port", "-w", "2", "-b", f"127.0.0.1:{server.port()}"]
    folder = tmp_path_factory.mktemp("other")
    other = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30
    )
    assert other.returncode == 1
    assert "another program uses it" in other.stderr


def test_reloads_under_load(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    old = server.children()
    with Load(("127.0.0.1", server.port()), app, clients=20) as load:
        for number in range(2, 6):
            reload(server, app, str(number))
            load.progress(50)
    load.assert_sound()
    assert load.versions["5"]
    assert queues(server.port()) == 3
    wait_until(lambda: not old & server.children() and len(server.children()) == 3, "old workers gone")


def test_more_workers_under_load(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    with Load(("127.0.0.1", server.port()), app, clients=20) as load:
        server.send(signal.SIGTTIN)
        wait_queues(server, 4)
        load.progress(50)
        reload(server, app, "2", "workers = 6\n")
        load.progress(50)
    load.assert_sound()
    assert queues(server.port()) == 6


def test_fewer_workers(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    server.send(signal.SIGTTOU)
    wait_queues(server, 2)
    wait_until(lambda: len(server.children()) == 2, "two workers")
    reload(server, app, "2", "workers = 1\n")
    wait_queues(server, 1)
    for _ in range(20):
        with Talk(server.port()) as talk:
            assert talk.ask("NOOP").startswith("250")


def test_on_under_load_and_off_by_reload(serve: Serve, app: Path) -> None:
    """Off without load: it closes queues, and clients there may be lost, as the warning says."""
    write_config(app, "reuse_port = False\n")
    server = serve("app:handler").ready()
    with Load(("127.0.0.1", server.port()), app, clients=20) as load:
        reload(server, app, "2")
        load.progress(50)
    load.assert_sound()
    assert queues(server.port()) == 3
    reload(server, app, "3", "reuse_port = False\n")
    wait_queues(server, 1)
    with Talk(server.port()) as talk:
        assert talk.ask("NOOP").startswith("250")


def test_a_bind_comes_and_goes(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    reload(server, app, "2", f"bind = [{LOOPBACK!r}, 'lmtp://127.0.0.1:0', 'unix:a.sock']\n")
    lmtp = server.port("lmtp")
    assert (queues(server.port()), queues(lmtp)) == (3, 3)
    for _ in range(10):
        with Talk(lmtp) as talk:
            assert talk.ask("NOOP").startswith("250")
    reload(server, app, "3")
    wait_until(lambda: queues(lmtp) == 0, "the removed bind closed")
    assert queues(server.port()) == 3


def test_upgrade_under_load(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    with Load(("127.0.0.1", server.port()), app, clients=20) as load:
        write_app(app, "2")
        server.send(signal.SIGUSR2)
        new = int(server.wait_for(r"upgrading, the new master is (\d+)")[1])
        server.wait_for(f"master {new}: has taken over")
        wait_until(lambda: (stat(server.pid) or "Z")[0] == "Z", "the old master gone")
        load.progress(100)
    load.assert_sound()
    assert load.versions["2"]
    assert queues(server.port()) == 3
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: (stat(new) or "Z")[0] == "Z", "the new master gone")


def test_upgrade_to_fewer_and_to_none(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    master = server.pid
    for count, (text, number) in enumerate([("workers = 2\n", 2), ("reuse_port = False\n", 1)], 1):
        write_config(app, text)
        os.kill(master, signal.SIGUSR2)
        new = int(server.wait_for(r"upgrading, the new master is (\d+)", count=count)[1])
        server.wait_for(f"master {new}: has taken over")
        wait_until(lambda old=master: (stat(old) or "Z")[0] == "Z", "the old master gone")  # type: ignore[misc]
        wait_queues(server, number)
        with Talk(server.port()) as talk:
            assert talk.ask("NOOP").startswith("250")
        master = new
    os.kill(master, signal.SIGTERM)
    wait_until(lambda: (stat(master) or "Z")[0] == "Z", "the new master gone")


def test_workers_killed_under_load(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    with Load(("127.0.0.1", server.port()), app, clients=20, brutal=True) as load:
        for _ in range(3):
            killed = min(server.children())
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: len(server.children() - {killed}) == 3, "replaced")  # noqa: B023
            load.progress(50)
    load.assert_nothing_lost()
    assert queues(server.port()) == 3
