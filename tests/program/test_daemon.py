"""-D: the command returns when the server serves, or fails with the reason; and -p, -n."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, processes, stat, wait_until
from tests.program.conftest import LOOPBACK
from tests.program.load import write_app

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def alive(pid: int) -> bool:
    found = stat(pid)
    return found is not None and found[0] != "Z"


def ours(folder: Path) -> set[int]:
    """Processes that run in this folder, a test's own."""
    found = set()
    for pid in processes():
        try:
            if os.readlink(f"/proc/{pid}/cwd") == str(folder) and alive(pid):
                found.add(pid)
        except OSError:
            pass  # gone, or not ours to see
    return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """`run(*arguments)`: the command in tmp_path; whatever it leaves behind at the end is a failure."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "preforksmtp", "-b", LOOPBACK, "-p", "run.pid", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
        )

    write_app(tmp_path)
    yield command
    left = ours(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    assert not (tmp_path / "run.pid").exists()


def stop(folder: Path) -> None:
    pid = int((folder / "run.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not ours(folder), "all gone")


def test_it_serves_when_the_command_returns(run: Run, tmp_path: Path) -> None:
    done = run("-D", "-w", "2", "--log-file", "log", "app:handler")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int((tmp_path / "run.pid").read_text())
    found = stat(pid)
    assert found is not None
    assert found[2] != pid  # leads no session
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    log = (tmp_path / "log").read_text()
    assert f"master {pid}: ready, 2 workers" in log
    stop(tmp_path)


def test_reload_and_upgrade_in_the_background(run: Run, tmp_path: Path) -> None:
    assert run("-D", "--log-file", "log", "app:handler").returncode == 0
    log, pid = tmp_path / "log", int((tmp_path / "run.pid").read_text())
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: "reload done" in log.read_text(), "reload")
    os.kill(pid, signal.SIGUSR2)
    wait_until(lambda: "has taken over" in log.read_text() and not alive(pid), "upgrade")
    wait_until(lambda: int((tmp_path / "run.pid").read_text()) != pid, "its pid file")
    stop(tmp_path)


FAILURES = {
    "app": (["absent:handler"], 4, "no module named 'absent'"),
    "log": (["app:handler"], 1, "error_logfile: must be a file, for a daemon has no terminal (command line)"),
    "bind": (["-b", "192.0.2.1:2525", "--log-file", "log", "app:handler"], 1, "cannot listen on 192.0.2.1:2525"),
    "certificate": (["--certfile", "absent.pem", "--log-file", "log"], 1, "certfile absent.pem does not exist"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_shown_where_the_command_was_typed(run: Run, tmp_path: Path, name: str) -> None:
    arguments, code, line = FAILURES[name]
    done = run("-D", *(["--log-file", "log"] if name == "app" else []), *arguments)
    assert done.returncode == code, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    wait_until(lambda: not ours(tmp_path), "all gone")


DEATHS = {"exits": "os._exit(1)", "is killed": "os.kill(os.getpid(), 9)"}


@pytest.mark.parametrize("how", DEATHS)
def test_an_application_that_ends_its_process_is_a_failure(run: Run, tmp_path: Path, how: str) -> None:
    (tmp_path / "app.py").write_text(f"import os\n{DEATHS[how]}\n")
    done = run("-D", "--log-file", "log", "app:handler")
    assert done.returncode == 3
    assert "while booting; no worker could boot, giving up" in done.stderr
    wait_until(lambda: not ours(tmp_path), "all gone")


def test_what_a_worker_wrote_to_the_log_does_not_reach_the_terminal_as_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os\nwith open('log', 'a') as log:\n    log.write('ERROR \\x1b]0;mine\\x07' + 2000 * 'x' + '\\n')\n"
        "    log.write(100_000 * 'ERROR \\x1b[2J\\n')\nos._exit(1)\n"
    )
    done = run("-D", "--log-file", "log", "app:handler")
    assert done.returncode == 3
    assert "giving up" in done.stderr
    assert "\\x1b[2J" in done.stderr and "\x1b" not in done.stderr
    assert len(done.stderr) < 25_000
    wait_until(lambda: not ours(tmp_path), "all gone")


def test_stopped_before_it_is_ready(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os, time\nopen('booting', 'w').close()\ntime.sleep(3600)\n"
    )
    outcome: list[subprocess.CompletedProcess[str]] = []
    command = threading.Thread(target=lambda: outcome.append(run("-D", "--log-file", "log", "app:handler")))
    command.start()
    wait_until(lambda: (tmp_path / "booting").exists(), "the worker boots")
    stop(tmp_path)
    command.join()
    assert outcome[0].returncode == 1
    assert "error: the server was stopped before it was ready" in outcome[0].stderr


def touched(file: Path) -> tuple[int, int, int]:
    """All that writing would change; reading changes the time of access."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def test_a_second_server_leaves_the_pid_file_alone(run: Run, tmp_path: Path) -> None:
    assert run("-D", "--log-file", "log", "app:handler").returncode == 0
    before = touched(tmp_path / "run.pid")
    for daemon in ([], ["-D"]):
        done = run(*daemon, "--log-file", "log2", "app:handler")
        assert done.returncode == 1
        assert "run.pid is held by a running server" in done.stderr
    assert touched(tmp_path / "run.pid") == before
    stop(tmp_path)


def test_pid_file_of_a_killed_master_is_no_obstacle(run: Run, tmp_path: Path) -> None:
    assert run("-D", "--log-file", "log", "app:handler").returncode == 0
    os.kill(int((tmp_path / "run.pid").read_text()), signal.SIGKILL)
    wait_until(lambda: not ours(tmp_path), "the workers notice")
    assert (tmp_path / "run.pid").exists()
    assert run("-D", "--log-file", "log", "app:handler").returncode == 0
    stop(tmp_path)


@pytest.mark.parametrize(
    ("name", "titles"),
    [("mx", {"mx: master", "mx: worker"}), ("a-very-long-name", {"a-very-long-n m", "a-very-long-n w"})],
)
def test_name(run: Run, tmp_path: Path, name: str, titles: set[str]) -> None:
    assert run("-D", "-n", name, "--log-file", "log", "app:handler").returncode == 0
    assert {Path(f"/proc/{pid}/comm").read_text().strip() for pid in ours(tmp_path)} == titles
    stop(tmp_path)


@pytest.mark.parametrize(
    ("fault", "where", "said"),
    [
        ("raise ZeroDivisionError('as asked')", "recycling.advance", "a round failed, the next one follows"),
        ("raise KeyboardInterrupt('as asked')", "recycling.advance", "unexpected end"),
        ("raise ZeroDivisionError('as asked')", "scaling.fit_lanes", "unexpected end"),
    ],
)
def test_what_ends_a_daemon_is_in_its_log(run: Run, tmp_path: Path, fault: str, where: str, said: str) -> None:
    part, name = where.split(".")
    (tmp_path / "preforksmtp.conf.py").write_text(
        f"def fault(*_):\n    {fault}\n\ndef on_starting(server):\n    server.{part}.{name} = fault\n"
    )
    done = run("-D", "--log-file", "log", "app:handler")
    log = tmp_path / "log"
    wait_until(lambda: said in log.read_text() and "as asked" in log.read_text(), "its log says so")
    assert "Traceback" in log.read_text()
    if said == "unexpected end":
        assert done.returncode in (0, 1)
        wait_until(lambda: not ours(tmp_path), "all gone")
    else:
        assert done.returncode == 0
        stop(tmp_path)
