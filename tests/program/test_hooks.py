"""The hooks of the config file: which process runs each, in what order, and that a bad one does no harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import ROOT, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk
from tests.program.load import write_app

RECORDER = """
import os as _os

def _note(name, *rest):
    fd = _os.open(_os.path.join(_os.path.dirname(__file__), "calls"), _os.O_WRONLY | _os.O_APPEND | _os.O_CREAT, 0o600)
    _os.write(fd, (" ".join([name, str(_os.getpid()), *map(str, rest)]) + "\\n").encode())
    _os.close(fd)

def on_starting(server): _note("on_starting")
def on_reload(server): _note("on_reload")
def when_ready(server): _note("when_ready")
def pre_fork(server, worker): _note("pre_fork", worker.pid)
def post_fork(server, worker): _note("post_fork", worker.pid)
def post_worker_init(worker): _note("post_worker_init", worker.pid)
def worker_int(worker): _note("worker_int", worker.pid)
def worker_abort(worker): _note("worker_abort", worker.pid)
def child_exit(server, worker): _note("child_exit", worker.pid, worker.status)
def worker_exit(server, worker): _note("worker_exit", worker.pid)
def nworkers_changed(server, new_value, old_value): _note("nworkers_changed", new_value, old_value)
def pre_exec(server): _note("pre_exec")
def on_exit(server): _note("on_exit")
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    return tmp_path


def write_config(folder: Path, text: str) -> None:
    (folder / "preforksmtp.conf.py").write_text(f"bind = {LOOPBACK!r}\n{text}\n")


def calls(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "calls").read_text().splitlines()]


def names(folder: Path, pid: int | None = None) -> list[str]:
    return [call[0] for call in calls(folder) if pid is None or call[1] == str(pid)]


def test_order_and_process(serve: Serve, app: Path) -> None:
    write_config(app, RECORDER)
    server = serve("app:handler").ready()
    worker = server.worker()
    assert server.stop() == 0
    assert names(app, server.pid) == [
        *("on_starting", "nworkers_changed", "pre_fork", "when_ready", "child_exit", "on_exit"),
    ]
    assert names(app, worker) == ["post_fork", "post_worker_init", "worker_exit"]
    assert ["nworkers_changed", str(server.pid), "1", "None"] in calls(app)
    assert ["post_fork", str(worker), str(worker)] in calls(app)
    assert ["child_exit", str(server.pid), str(worker), "0"] in calls(app)


def test_quick_stop_and_abort(serve: Serve, app: Path) -> None:
    write_config(app, RECORDER)
    server = serve("--log-level", "debug", "app:handler").ready()
    worker = server.worker()
    os.kill(worker, signal.SIGABRT)
    wait_until(lambda: "child_exit" in names(app), "child_exit")
    assert names(app, worker)[-1] == "worker_abort"
    assert ["child_exit", str(server.pid), str(worker)] in [call[:3] for call in calls(app)]
    server.wait_for(r"^(Current thread|Thread) 0x\w+ ")
    server.wait_for(r"worker \d+: ready after", count=2)  # before that a signal ends it without a word
    assert server.stop(signal.SIGINT) == 0
    assert "worker_int" in names(app)


def test_scaling_reload_and_upgrade(serve: Serve, app: Path) -> None:
    write_config(app, RECORDER)
    server = serve("app:handler").ready()
    server.send(signal.SIGTTIN)
    wait_until(lambda: len(server.children()) == 2, "one more")
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    assert [call[2:] for call in calls(app) if call[0] == "nworkers_changed"] == [["1", "None"], ["2", "1"], ["1", "2"]]
    assert names(app, server.pid).count("on_reload") == 1
    server.send(signal.SIGUSR2)
    new = int(server.wait_for(r"upgrading, the new master is (\d+)")[1])
    server.wait_for(f"master {new}: has taken over")
    assert names(app, new)[:2] == ["pre_exec", "on_starting"]
    os.kill(new, signal.SIGTERM)
    server.wait()
    wait_until(lambda: not server.group(), "the end")
    assert names(app, new)[-1] == "on_exit"


@pytest.mark.parametrize("hook", ["when_ready", "pre_fork", "child_exit", "worker_exit", "on_exit", "on_reload"])
def test_one_that_raises_is_named_and_does_no_harm(serve: Serve, app: Path, hook: str) -> None:
    arguments = "server, worker" if hook in ("pre_fork", "child_exit", "worker_exit") else "server"
    write_config(app, f"def {hook}({arguments}):\n    raise KeyError('as asked')")
    server = serve("app:handler").ready()
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    assert server.stop() == 0
    assert server.matches(rf"ERROR\] hook {hook} raised KeyError: 'as asked'")


@pytest.mark.parametrize(("hook", "code"), [("on_starting(server)", 1), ("post_fork(server, worker)", 3)])
def test_one_that_raises_before_anything_serves_ends_the_start(serve: Serve, app: Path, hook: str, code: int) -> None:
    write_config(app, f"def {hook}:\n    raise SystemExit(0)")
    server = serve("app:handler")
    assert server.wait() == code
    assert server.matches(rf"hook {hook.partition('(')[0]} raised SystemExit: 0")


def test_a_slow_one_is_named_and_its_time_told(serve: Serve, app: Path) -> None:
    write_config(app, "import time\ndef pre_fork(server, worker):\n    time.sleep(1.2)")
    server = serve("app:handler").ready()
    assert server.matches("hook pre_fork is running for more than 1 s")
    assert server.matches(r"hook pre_fork took [1-9]\d*\.\d s")


@pytest.mark.parametrize("hook", ["when_ready(server)", "child_exit(server, worker)"])
def test_one_that_never_returns_does_not_keep_the_server_from_stopping(serve: Serve, app: Path, hook: str) -> None:
    write_config(app, f"import time\ndef {hook}:\n    time.sleep(3600)")
    # What its time would be during a stop is not what ends it here.
    server = serve("app:handler", patch="import preforksmtp.prefork.master.workforce as m; m.PATIENCE = 60").ready()
    server.send(signal.SIGTERM)
    if hook.startswith("child_exit"):
        server.wait_for("is running for more than 1 s")
        server.send(signal.SIGTERM)
    assert server.wait() == 0  # which does not wait for 60 s, its time (boot_timeout)
    assert server.matches(r"hook \w+ was interrupted after \d+\.\d s: SIGTERM waits")


def test_ssl_context(serve: Serve, app: Path, certificate: Certificate) -> None:
    text = "def ssl_context(config, default_ssl_context_factory):\n    context = default_ssl_context_factory()\n"
    text += "    context.maximum_version = context.minimum_version\n    return context\n"
    write_config(app, f"certfile = {str(certificate.certfile)!r}\nkeyfile = {str(certificate.keyfile)!r}\n{text}")
    server = serve("app:handler").ready()
    with Talk(server.port()) as talk:
        assert "STARTTLS" in talk.ask("EHLO x.example.com")
    write_config(
        app,
        f"certfile = {str(certificate.certfile)!r}\nkeyfile = {str(certificate.keyfile)!r}\n{text}".replace(
            "return context", "return 1"
        ),
    )
    server.send(signal.SIGHUP)
    server.wait_for("reload failed.*hook ssl_context must return an ssl.SSLContext, not 1")


MISTAKES = {
    "def pre_forck(server, worker): pass": "unknown setting 'pre_forck'; did you mean 'pre_fork'?",
    "def pre_fork(server): pass": "hook pre_fork must be a function of (server, worker), but takes (server)",
    "on_exit = 1": "hook on_exit must be a function of (server), not 1",
    "async def on_exit(server): pass": "hook on_exit must be a function of (server), and not a coroutine",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes(app: Path, text: str) -> None:
    write_config(app, text)
    done = subprocess.run(
        [sys.executable, "-m", "preforksmtp", "--check-config", "app:handler"],
        cwd=app,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert MISTAKES[text] in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_a_hook_imports_is_not_stale_in_new_workers(serve: Serve, app: Path) -> None:
    write_config(app, "def on_starting(server):\n    import app")
    server: Server = serve("app:handler").ready()
    write_app(app, "2")
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    with Talk(server.port()) as talk:
        talk.begin_data()
        talk.send(b"Message-ID: <a@b>\r\n\r\n.\r\n")
        assert talk.read().endswith("version 2")
