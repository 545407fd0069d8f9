"""--preload on the real program: APP is loaded once, in the master, and HUP is an upgrade."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.processes import descriptors, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk
from tests.program.load import Load
from tests.program.test_reload import version
from tests.program.test_upgrade import alive, upgrade, wait_gone, workers

APP = """\
import gc
import os
from preforksmtp import Handler

os.write(2, b"imported by %d, frozen %d\\n" % (os.getpid(), gc.get_freeze_count()))
STORE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stored")
IMPORTER = os.getpid()


class Mail(Handler):
    @classmethod
    def start(cls, worker):
        os.write(2, b"started in %d, frozen %d, gc %d\\n" % (os.getpid(), gc.get_freeze_count() > 1000, gc.isenabled()))

    @classmethod
    def stop(cls, worker):
        os.write(2, b"stopped in %d\\n" % os.getpid())

    def message(self, message):
        fd = os.open(STORE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, (message.headers["Message-ID"] + "\\n").encode())
        os.close(fd)
        return f"Ok: importer {IMPORTER} version VERSION"
"""


def write_app(folder: Path, version: str = "1") -> None:
    (folder / "app.py").write_text(APP.replace("VERSION", version) + "#" * (len(version) + int(version)) + "\n")


def write_config(folder: Path, text: str = "") -> None:
    (folder / "preforksmtp.conf.py").write_text(
        f"bind = {LOOPBACK!r}\nworkers = 2\ngraceful_timeout = 5\nboot_timeout = 10\npid = 'run.pid'\n{text}"
    )


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    write_config(tmp_path)
    return tmp_path


def begin(serve: Serve) -> Server:
    return serve("--preload", "app:Mail").ready()


def importer(server: Server, port: int) -> int:
    """The process in which the code that serves a new session was imported."""
    with Talk(port) as talk:
        talk.begin_data()
        talk.send(b"Message-ID: <importer@test>\r\n\r\n.\r\n")
        return int(talk.read().split("importer ")[1].split()[0])


def test_loaded_once_by_the_master_and_started_in_each_worker(serve: Serve, app: Path) -> None:
    server = serve("--preload", "--log-level", "debug", "app:Mail").ready()
    assert [found[1] for found in server.matches(r"imported by (\d+)")] == [str(server.pid)]
    first = server.children()
    assert importer(server, server.port()) == server.pid
    started = {int(found[1]) for found in server.matches(r"started in (\d+), frozen 1, gc 1")}
    assert started == first
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.children() and len(server.children()) == 2, "a replacement")
    (new,) = server.children() - first
    server.wait_for(rf"started in {new}, frozen 1, gc 1")
    server.wait_for(f"worker {new}: ready")  # TERM before that ends it without a word
    assert server.stop() == 0
    assert len(server.matches("imported by")) == 1
    assert {int(found[1]) for found in server.matches(r"stopped in (\d+)")} == {new, max(first)}


def test_hup_is_an_upgrade_without_a_lost_message(serve: Serve, app: Path) -> None:
    server = begin(serve)
    port, fds, master = server.port(), descriptors(server.pid), server.pid
    with Load(("127.0.0.1", port), app) as load:
        for number in (2, 3):
            write_app(app, str(number))
            os.kill(master, signal.SIGHUP)
            new = int(server.wait_for(r"upgrading, the new master is (\d+)", count=number - 1)[1])
            server.wait_for(f"master {new}: has taken over")
            wait_gone(master)
            assert server.matches(f"imported by {new}")
            master = new
            load.progress()
    load.assert_sound()
    assert load.versions["2"] and load.versions["3"]
    assert importer(server, port) == master
    assert len(server.matches(r"reloading by an upgrade, because of preload")) == 2
    assert int((app / "run.pid").read_text()) == master
    wait_until(lambda: len(workers(master)) == 2, "its workers and nobody else")
    wait_until(lambda: descriptors(master) == fds, "as many descriptors as the first one")
    os.kill(master, signal.SIGTERM)
    wait_gone(master)


@pytest.mark.parametrize("fault", ["does not compile", "exits", "hangs"])
def test_hup_with_an_app_that_cannot_be_loaded_changes_nothing(serve: Serve, app: Path, fault: str) -> None:
    code = {"does not compile": "def handler(", "exits": "raise SystemExit(0)", "hangs": "import time\ntime.sleep(60)"}
    line = {"does not compile": "syntax error in", "exits": "SystemExit", "hangs": "it took more than boot_timeout 1 s"}
    server = begin(serve)
    before, fds = server.children(), descriptors(server.pid)
    if fault == "hangs":
        write_config(app, "boot_timeout = 1\n")  # of the new master: the first one and its workers need theirs
    (app / "app.py").write_text(code[fault])
    server.send(signal.SIGHUP)
    server.wait_for("the upgrade failed, this program goes on: the new master exited with code 4")
    assert len(server.matches(f"ERROR.*app 'app:Mail': .*{line[fault]}")) == 1
    wait_until(lambda: server.children() == before, "the old workers and nobody else")
    assert descriptors(server.pid) == fds
    assert version(server) == "1"
    write_config(app)
    write_app(app, "3")
    server.send(signal.SIGHUP)
    new = int(server.wait_for(r"master (\d+): has taken over")[1])
    wait_gone(server.pid)
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


def test_an_app_that_cannot_be_loaded_is_exit_code_4(serve: Serve, app: Path) -> None:
    (app / "app.py").write_text("import absent\n")
    server = serve("--preload", "app:Mail")
    assert server.wait() == 4
    assert len(server.matches("ERROR.*app 'app:Mail': app imports 'absent', which is not installed")) == 1
    assert not (app / "run.pid").exists()


def test_a_daemon_that_cannot_load_its_app_says_so(serve: Serve, app: Path) -> None:
    (app / "app.py").write_text("import absent\n")
    server = serve("--preload", "-D", "--error-logfile", "error.log", "app:Mail")
    assert server.wait() == 4
    assert server.matches("app 'app:Mail': app imports 'absent', which is not installed")


def test_hup_with_manual_upgrades_is_a_reload_that_warns(serve: Serve, app: Path) -> None:
    write_config(app, "upgrade = 'manual'\n")
    server = begin(serve)
    write_app(app, "2")
    write_config(app, "upgrade = 'manual'\nworkers = 3\n")
    server.send(signal.SIGHUP)
    server.wait_for("reload done, 3 workers")
    assert len(server.matches(r"WARNING.*but NOT THE APPLICATION \(preload\); for new code send USR2")) == 1
    assert version(server) == "1"
    assert len(server.matches("imported by")) == 1


def test_threads_that_loading_began_are_warned_of(serve: Serve, app: Path) -> None:
    with (app / "app.py").open("a") as file:
        file.write("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    server = begin(serve)
    assert server.matches("WARNING.*preload: loading app 'app:Mail' began threads")


def test_usr2_takes_new_code_as_well(serve: Serve, app: Path) -> None:
    server = begin(serve)
    port = server.port()
    write_app(app, "2")
    new = upgrade(server)
    server.wait_for(f"master {new}: has taken over")
    wait_gone(server.pid)
    assert version(server, port) == "2"
    assert alive(new)
    os.kill(new, signal.SIGTERM)
    wait_gone(new)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stopped_while_the_application_loads_it_leaves_nothing(serve: Serve, app: Path, number: int) -> None:
    (app / "app.py").write_text(
        "import os, time\nos.write(2, b'loading\\n')\nwhile True:\n    try:\n        time.sleep(3600)\n"
        "    except BaseException:\n        pass\n"
    )
    write_config(app, "bind = 'unix:mail.sock'\n")
    server = serve("--preload", "app:Mail")
    server.wait_for("^loading$")
    assert (app / "run.pid").exists()
    assert server.stop(number) == 0
    assert server.matches("stopped by SIG.* before it was ready")
    assert not (app / "run.pid").exists()
    assert not (app / "mail.sock").exists()
