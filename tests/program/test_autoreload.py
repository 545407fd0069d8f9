"""--reload on the real program: a change is served at once, and a mistake leaves the former code serving."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import Program, descriptors, wait_until
from tests.program.conftest import Server
from tests.program.load import write_app
from tests.program.test_reload import version, write_config


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    write_config(tmp_path)
    return tmp_path


class Impatient(Server):
    """Looks at its files ten times a second."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        program = (
            "import sys, preforksmtp.server.autoreload as d; d.INTERVAL = 0.1; "
            "from preforksmtp.cli import main; sys.exit(main())"
        )
        Program.__init__(self, [sys.executable, "-c", program, "--reload", *arguments], cwd=folder)


Serve = Callable[..., Server]


@pytest.fixture
def serve(app: Path) -> Iterator[Serve]:
    started: list[Server] = []

    def begin(*arguments: str) -> Server:
        started.append(Impatient(app, *arguments, "app:handler"))
        return started[-1]

    yield begin
    for server in started:
        with server:
            if server.process.poll() is None:
                assert server.stop() == 0


def begin(serve: Serve, *arguments: str) -> Server:
    return serve(*arguments).ready()


def test_edit_break_and_mend(serve: Serve, app: Path) -> None:
    server = begin(serve)
    fds = descriptors(server.pid)
    assert version(server) == "1"
    write_app(app, "2")
    server.wait_for(r"reload: changed: app\.py$")
    server.wait_for("reload done")
    assert version(server) == "2"

    wait_until(lambda: len(server.children()) == 2, "old workers gone")
    workers = server.children()
    (app / "app.py").write_text("VERSION = 3\ndef handler(message\n")
    server.wait_for(r"ERROR\] reload: app\.py, line 2: .*; nothing is reloaded$")
    assert version(server) == "2"
    assert server.children() == workers

    write_app(app, "4")
    server.wait_for("reload done", count=2)
    assert version(server) == "4"
    assert len(server.matches("ERROR")) == 1
    wait_until(lambda: len(server.children()) == 2 and not workers & server.children(), "two new workers")
    assert descriptors(server.pid) == fds
    assert not (app / "__pycache__").exists()


def test_code_that_fails_leaves_the_former_one_and_a_new_module_mends_it(serve: Serve, app: Path) -> None:
    server = begin(serve)
    workers = server.children()
    with (app / "app.py").open("a") as file:
        file.write("import package.late\n")
    server.wait_for("reload failed, former configuration and workers go on")
    assert server.matches("app imports 'package', which is not installed|no module named 'package'")
    assert version(server) == "1"
    wait_until(lambda: server.children() == workers, "the old workers and nobody else")
    (app / "package.py").write_text("__path__ = ['elsewhere']\nVERSION = 2\n")
    server.wait_for(r"reload: changed: package\.py$")
    server.wait_for("reload failed", count=2)
    (app / "elsewhere").mkdir()
    (app / "elsewhere" / "late.py").write_text("1 / 0\n")
    write_app(app, "2")
    with (app / "app.py").open("a") as file:
        file.write("import package.late\n")
    server.wait_for("reload failed", count=3)
    (app / "elsewhere" / "late.py").write_text("VERSION = 2\n")  # known by its traceback alone
    server.wait_for(r"reload: changed: elsewhere/late\.py$")
    server.wait_for("reload done")
    assert version(server) == "2"


def test_a_module_that_is_imported_in_a_session(serve: Serve, app: Path) -> None:
    (app / "later.py").write_text("VERSION = '1'\n")
    code = "def handler(message):\n    import later\n    return f'Ok: {later.VERSION}'\n"
    (app / "app.py").write_text(code)
    server = begin(serve, "-w", "1", "--log-level", "debug")
    assert version(server) == "1"
    server.wait_for(r"reload: watching \S*/later\.py$")
    (app / "later.py").write_text("VERSION = 'two'\n")
    server.wait_for(r"reload: changed: later\.py$")
    server.wait_for("reload done")
    assert version(server) == "two"


def test_extra_files_and_the_config_file(serve: Serve, app: Path) -> None:
    (app / "templates" / "deep").mkdir(parents=True)
    (app / "templates" / "one.txt").write_text("1")
    server = begin(serve, "--reload-extra-file", "templates/**/*.txt", "--reload-extra-file", "*.json")
    (app / "templates" / "one.txt").write_text("two")
    server.wait_for(r"reload: changed: templates/one\.txt$")
    server.wait_for("reload done")
    (app / "templates" / "deep" / "two.txt").write_text("new")
    server.wait_for(r"reload: changed: templates/deep/two\.txt$")
    server.wait_for("reload done", count=2)
    write_config(app, "workers = 3\n")
    server.wait_for(r"reload: changed: preforksmtp\.conf\.py$")
    server.wait_for("reload done, 3 workers")
    (app / "settings.json").write_text("{}")
    server.wait_for(r"reload: changed: settings\.json$")
    server.wait_for("reload done", count=4)


def test_hup_still_reloads(serve: Serve, app: Path) -> None:
    server = begin(serve)
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    assert not server.matches("reload: changed")


def test_it_does_not_go_with_preload(serve: Serve, app: Path) -> None:
    server = serve("--preload")
    assert server.wait() == 1
    assert len(server.lines) == 1
    assert server.matches("error: reload: does not go with preload")
