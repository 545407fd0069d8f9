"""What whoever starts the server leaves it, and what of that workers have: streams, descriptors, variables, a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE, ROOT, descriptors, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

APP = """
import json, os, sys

def handler(message):
    print("printed by the handler", flush=True)
    print("complained by the handler", file=sys.stderr, flush=True)
    os.system("echo said by a program")
    with open("facts", "w") as file:
        links = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if
                 os.path.islink(f"/proc/self/fd/{fd}")}
        json.dump({"fds": links, "environ": dict(os.environ)}, file)
"""


@pytest.fixture(autouse=True)
def app(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)


def close_streams() -> None:
    for fd in (0, 1, 2):
        os.close(fd)


def logged(path: Path, pattern: str) -> re.Match[str]:
    wait_until(lambda: path.exists() and re.search(pattern, path.read_text()), pattern)
    found = re.search(pattern, path.read_text())
    assert found is not None
    return found


def converse(port: int) -> str:
    """All that the server says to a message."""
    with Talk(port) as talk:
        talk.begin_data()
        said = [talk.greeting, talk.ask("Subject: x\r\n\r\n."), talk.ask("QUIT"), talk.file.read().decode()]
    return "\n".join(said)


@pytest.mark.parametrize("more", [[], ["--daemon"]])
def test_no_standard_streams(serve: Serve, tmp_path: Path, more: list[str]) -> None:
    """What is printed goes nowhere: not to a client, a listener or a log that has got such a number."""
    options = ["--error-logfile", "error.log", "--access-logfile", "access.log", "-p", "pid"]
    server = serve("-b", LOOPBACK, *options, *more, "app", preexec_fn=close_streams)
    port = int(logged(tmp_path / "error.log", r"listening on smtp://\S+:(\d+)")[1])
    said = converse(port)
    assert "by" not in said
    assert said.count("\n") == 3
    facts = json.loads((tmp_path / "facts").read_text())
    assert [facts["fds"][fd] for fd in "012"] == ["/dev/null"] * 3
    assert "printed" not in (tmp_path / "error.log").read_text() + (tmp_path / "access.log").read_text()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    logged(tmp_path / "error.log", "stopping")
    assert server.wait() == 0
    wait_until(lambda: not (tmp_path / "pid").exists(), "all of it is gone")


def test_check_config_without_streams(serve: Serve) -> None:
    assert serve("--check-config", "-w", "many", preexec_fn=close_streams).wait() == 2
    assert serve("--check-config", "--spool-dir", "absent", "app", preexec_fn=close_streams).wait() == 1


def test_descriptors_of_who_starts_it(serve: Serve, tmp_path: Path) -> None:
    """The master keeps them (a lock that hangs on one is held over an upgrade too); nobody else has them."""
    (tmp_path / "lock").touch()
    lock = os.open(tmp_path / "lock", os.O_RDWR)
    server = serve("-b", LOOPBACK, "--status-bind", LOOPBACK, "app", pass_fds=[lock])
    os.close(lock)
    server.ready()
    wait_until(lambda: len(server.children()) == 2, "worker and status process")

    def holders() -> set[int]:
        group = {server.pid, *server.group()}
        return {pid for pid in group if str(tmp_path / "lock") in open_files(pid)}

    wait_until(lambda: holders() == {server.pid}, "nobody else has it")
    converse(server.port())
    assert str(tmp_path / "lock") not in json.loads((tmp_path / "facts").read_text())["fds"].values()
    server.send(signal.SIGUSR2)
    new = int(server.wait_for(r"the new master is (\d+)")[1])
    server.wait_for("has taken over")
    wait_until(lambda: holders() == {new}, "the old one is gone, and the new one has it")
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not server.group(), "all of it is gone")


def open_files(pid: int) -> list[str]:
    found = []
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            found.append(os.readlink(link))
    except FileNotFoundError:
        pass
    return found


def test_variables_of_the_service_manager(serve: Serve, tmp_path: Path) -> None:
    names = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    environ = dict.fromkeys(names, "1") | {"NOTIFY_SOCKET": str(tmp_path / "none"), "FOO": "bar"}
    server = serve("-b", LOOPBACK, "app", env=environ).ready()
    converse(server.port())
    environ = json.loads((tmp_path / "facts").read_text())["environ"]
    assert environ["FOO"] == "bar"
    assert not [name for name in environ if name in names or re.match("PREFORKSMTP_(FD|PID|STATUS)", name)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_roots_terminal_is_not_the_workers(tmp_path: Path) -> None:
    """It could read what root types, and type in root's name."""
    tmp_path.chmod(0o755)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = ["-m", "preforksmtp", "-b", LOOPBACK, "-u", "nobody", "preforksmtp.handlers:Discard()"]
        os.execve(sys.executable, [sys.executable, *command], environ)
    output = b""
    while not re.search(rb"listening on ", output):
        output += os.read(terminal, 4096)
    (worker,) = (int(entry) for entry in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    stat = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    assert (int(stat[3]), int(stat[4])) == (worker, 0)  # a session of its own, without a terminal
    assert os.readlink(f"/proc/{worker}/fd/0") == "/dev/null"
    for fd in (1, 2):
        flags = re.search(r"flags:\s+(\d+)", Path(f"/proc/{worker}/fdinfo/{fd}").read_text())
        assert flags is not None
        assert int(flags[1], 8) & os.O_ACCMODE == os.O_WRONLY
        assert os.readlink(f"/proc/{worker}/fd/{fd}").startswith("/dev/pts/")
    os.write(terminal, b"\x03")  # Control-C still stops all of it
    while b"stopping" not in output:
        output += os.read(terminal, 4096)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"), "the worker is gone")


def test_no_descriptor_is_left_by_it(serve: Serve) -> None:
    """Reload after reload."""
    server = serve("-b", LOOPBACK, "-b", "lmtp://unix:lmtp.sock", "--access-logfile", "access.log", "app").ready()
    before = descriptors(server.pid)
    for number in range(3):
        server.send(signal.SIGHUP)
        server.wait_for("reload done", number + 1, PATIENCE)
    wait_until(lambda: descriptors(server.pid) <= before, "as many as at first")
    assert isinstance(server, Server)
