"""Signals that come before the master's loop runs: none kills the starting server, and each is acted on afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.processes import stat, wait_until
from tests.program.conftest import LOOPBACK, Serve
from tests.program.load import write_app
from tests.program.test_upgrade import pid_of, upgrade, wait_gone

HOLD = "import os, time\nos.write(2, b'loading\\n')\nwhile not os.path.exists('go'):\n    time.sleep(0.005)\n"


def write_config(folder: Path, text: str = "") -> None:
    (folder / "preforksmtp.conf.py").write_text(
        f"bind = {LOOPBACK!r}\nworkers = 2\npid = 'run.pid'\nboot_timeout = 30\npreload = True\n{text}"
    )


def hold(folder: Path) -> None:
    """Loading the application waits for the file "go"."""
    (folder / "app.py").write_text(HOLD + (folder / "app.py").read_text())


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    write_config(tmp_path)
    return tmp_path


LATER = {
    signal.SIGHUP: r"master \d+: reload done",
    signal.SIGUSR1: "",
    signal.SIGUSR2: r"master \d+: upgrading, the new master is",
    signal.SIGWINCH: r"no workers wanted any more \(SIGWINCH\)",
    signal.SIGTTIN: "3 workers wanted, was 2",
    signal.SIGTTOU: "1 workers wanted, was 2",
}


@pytest.mark.parametrize("number", LATER, ids=lambda number: signal.Signals(number).name)
def test_it_is_remembered(serve: Serve, app: Path, number: signal.Signals) -> None:
    hold(app)
    write_config(app, "upgrade = 'manual'\nbind = 'unix:mail.sock'\nerror_logfile = 'error.log'\n")
    server = serve("app:handler")
    server.wait_for("^loading$")
    assert pid_of(server) == server.pid
    os.rename(app / "error.log", app / "error.log.1")  # as logrotate does it
    server.send(number)
    (app / "go").touch()

    def log() -> str:
        return "".join(file.read_text() for file in app.glob("error.log*"))

    if number == signal.SIGUSR1:
        wait_until((app / "error.log").exists, "the log opened anew")
    else:
        wait_until(lambda: server_said(LATER[number], log()), LATER[number])
    if number != signal.SIGWINCH:
        wait_until(lambda: server_said(r"master \d+: ready", log()), "ready")
    if number == signal.SIGUSR2:
        new = int((server_said(r"the new master is (\d+)", log()) or "0").split()[-1])
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: stat(new) is None, "the new master gone")
    assert server.stop() == 0
    assert sorted(name for name in os.listdir(app) if name.endswith((".pid", ".sock", ".2"))) == []


def server_said(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_new_master_stopped_while_it_loads_leaves_the_files_to_the_old_one(
    serve: Serve, app: Path, number: int
) -> None:
    write_config(app, "bind = 'unix:a.sock'\n")
    server = serve("app:handler").ready()
    write_config(app, "bind = ['unix:a.sock', 'unix:b.sock']\n")
    hold(app)
    new = upgrade(server)
    server.wait_for("^loading$")
    assert (app / "run.pid.2").exists()
    os.kill(new, number)
    server.wait_for("the upgrade failed, this program goes on: the new master exited with code 0")
    assert sorted(name for name in os.listdir(app) if name.endswith((".pid", ".sock", ".2"))) == ["a.sock", "run.pid"]
    assert pid_of(server) == server.pid
    write_app(app, "2")
    new = upgrade(server, count=2)
    server.wait_for(f"master {new}: has taken over")
    wait_gone(server.pid)
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def test_stopped_while_it_waits_for_an_address_it_leaves_nothing(serve: Serve, app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        write_config(app, f"bind = ['unix:a.sock', '127.0.0.1:{busy.getsockname()[1]}']\n")
        server = serve("app:handler")
        server.wait_for("is in use, trying again")
        assert server.stop() == 0
    assert sorted(name for name in os.listdir(app) if name.endswith((".pid", ".sock", ".2"))) == []
