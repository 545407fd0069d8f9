"""What the service manager hears: over a datagram socket of our own, from a ServiceManager in this process and from the
running program."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.prefork.master import notify
from preforksmtp.prefork.master.notify import ServiceManager
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import Serve, Server, Talk, serve

__all__ = ["serve"]  # a fixture

CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
ADDRESSES = ("path", "abstract")
GATED = """
import os, pathlib, time
names = [name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))]
os.write(1, f"variables {names}\\n".encode())  # at once: two workers write to one pipe
while not pathlib.Path("open").exists():
    time.sleep(0.005)
def handler(message):
    pass
"""


class Systemd:
    """The other end: each message with the process that sent it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[tuple[int, str]] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(address.replace("@", "\0"))

    def receive(self, timeout: float = PATIENCE) -> str:
        self.socket.settimeout(timeout)
        text, ((_, _, credentials),), _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        self.messages.append((CREDENTIALS.unpack(credentials)[0], text.decode()))
        return self.messages[-1][1]

    def pending(self) -> list[str]:
        """What is there now."""
        found = []
        try:
            while True:
                found.append(self.receive(timeout=0))
        except BlockingIOError:
            return found

    def wait_for(self, start: str, sender: int = 0) -> str:
        """The next message that begins so."""
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            try:
                text = self.receive(left)
            except TimeoutError:
                break
            if text.startswith(start) and sender in (0, self.messages[-1][0]):
                return text
        raise AssertionError(f"no {start!r} among {self.messages}")

    def heard(self, start: str) -> int:
        return sum(text.startswith(start) for _, text in self.messages)


@pytest.fixture(params=ADDRESSES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@preforksmtp-test-{os.getpid()}-{id(request)}"


@pytest.fixture
def systemd(address: str) -> Iterator[Systemd]:
    end = Systemd(address)
    yield end
    end.socket.close()


@pytest.fixture
def running(systemd: Systemd, serve: Serve, tmp_path: Path) -> Callable[..., Server]:
    """The program with that socket, its application already allowed to load."""

    def begin(*arguments: str, **variables: str) -> Server:
        (tmp_path / "app.py").write_text(GATED)
        environment = {"NOTIFY_SOCKET": systemd.address, **variables}
        return serve("-b", "127.0.0.1:0", *arguments, "app:handler", env=environment)

    return begin


def idle_master(**attributes: object) -> Any:
    """As much of a master as a ServiceManager looks at."""
    callbacks = ("on_ready", "on_reloading", "on_reloaded", "on_promoted", "on_round")
    facts = {"succession": None, "stopping": False, "children": {}, "wanted": 1, "members": list, "round_every": 1.0}
    return SimpleNamespace(**{name: [] for name in callbacks}, **{**facts, **attributes})


# -- in this process


def test_it_sends_to_the_address(systemd: Systemd) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": systemd.address}).send("READY=1")
    assert systemd.pending() == ["READY=1"]


def test_the_variables_are_taken_and_handed_on_without_the_process(address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1", "PATH": "x"}
    manager = ServiceManager(environ)
    assert environ == {"PATH": "x"}
    assert manager.inheritance == {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}


def test_without_the_variable_it_attends_to_nothing() -> None:
    master = idle_master()
    manager = ServiceManager({"WATCHDOG_USEC": "1000"})
    manager.attend(master)
    assert not any(value for name, value in vars(master).items() if name.startswith("on_"))
    assert master.round_every == 1.0
    assert not manager.send("READY=1")


def test_nobody_at_the_address_is_no_failure(address: str) -> None:
    assert not ServiceManager({"NOTIFY_SOCKET": address}).send("READY=1")


def test_a_full_queue_never_blocks(systemd: Systemd) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.address})

    def fill() -> None:
        while manager.send("x" * 1000):
            pass

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "send blocks"
    assert systemd.pending()
    assert manager.send("READY=1")  # once there is room


@pytest.mark.parametrize(("pid", "pings"), [("", True), (str(os.getpid()), True), ("1", False)])
def test_watchdog(systemd: Systemd, monkeypatch: pytest.MonkeyPatch, pid: str, pings: bool) -> None:
    """At half the time, from rounds of the loop; not if it is another process that is watched."""
    environ = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "400000", "WATCHDOG_PID": pid}
    manager, master = ServiceManager(environ), idle_master()
    manager.attend(master)
    assert master.round_every == (0.2 if pings else 1.0)
    assert systemd.pending() == []
    heard = []
    for now in (100.0, 100.125, 100.25, 100.375, 100.5):
        monkeypatch.setattr(notify, "time", SimpleNamespace(monotonic=lambda now=now: now))
        master.on_round[0]()
        heard.append(systemd.pending().count("WATCHDOG=1"))
    assert heard == ([1, 0, 1, 0, 1] if pings else [0] * 5)


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "1.5"])
def test_no_watchdog(systemd: Systemd, text: str) -> None:
    manager, master = ServiceManager({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": text}), idle_master()
    manager.attend(master)
    master.on_round[0]()
    assert master.round_every == 1.0
    assert systemd.pending() == ["STATUS=0/1 workers, 0 sessions"]


def test_a_ping_that_was_not_sent_is_tried_in_the_next_round(address: str) -> None:
    manager, master = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3600000000"}), idle_master()
    manager.attend(master)
    master.on_round[0]()
    end = Systemd(address)
    with end.socket:
        master.on_round[0]()
        master.on_round[0]()
        assert end.pending().count("WATCHDOG=1") == 1


def test_a_new_master_that_is_not_promoted_pings_only(systemd: Systemd) -> None:
    master = idle_master(succession=object())
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000000"})
    manager.attend(master)
    master.on_ready[0]()
    master.on_round[0]()
    assert systemd.pending() == ["WATCHDOG=1"]
    master.succession = None
    master.on_promoted[0]()
    assert systemd.pending() == [f"MAINPID={os.getpid()}\nREADY=1"]


def test_a_reload_before_the_first_ready_is_not_told(systemd: Systemd) -> None:
    """READY would be taken for that of the start."""
    manager, master = ServiceManager({"NOTIFY_SOCKET": systemd.address}), idle_master()
    manager.attend(master)
    master.on_reloading[0]()
    master.on_reloaded[0]("a fault")
    master.on_reloading[0]()
    assert systemd.pending() == []
    master.on_ready[0]()
    master.on_reloaded[0]("")  # the second one, begun before
    assert systemd.pending() == ["READY=1"]
    master.on_reloading[0]()
    master.on_reloaded[0]("")
    assert [text[:9] for text in systemd.pending()] == ["RELOADING", "READY=1"]


@pytest.mark.parametrize(("reloading", "said"), [(False, "MAINPID=4711"), (True, "MAINPID=4711\nREADY=1")])
def test_the_old_master_of_an_upgrade_names_the_new_one(systemd: Systemd, reloading: bool, said: str) -> None:
    """And ends the reload, where that is what the upgrade was for: who is not the main process yet may not be heard."""
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.address})
    master = idle_master()
    manager.attend(master)
    manager.ready(master)
    if reloading:
        manager.reloading()
    systemd.pending()
    master.stopping, master.upgrade = True, SimpleNamespace(pid=4711)
    manager.round(master)
    assert systemd.pending()[0] == said


# -- the running program


def test_a_state_waits_for_room(systemd: Systemd) -> None:
    """A manager that is busy does not read, and its socket holds but a few messages."""
    manager = ServiceManager({"NOTIFY_SOCKET": systemd.address})
    master = idle_master()
    manager.attend(master)
    while manager.send("WATCHDOG=1"):
        pass
    manager.ready(master)
    manager.reloading()
    manager.reloaded("")
    assert not [text for text in systemd.pending() if text != "WATCHDOG=1"]
    manager.round(master)
    states = [text.partition("\n")[0] for text in systemd.pending()]
    assert states[:3] == ["READY=1", "RELOADING=1", "READY=1"]


def test_states_that_nobody_reads_are_not_kept_for_ever(address: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    for _ in range(100):
        manager.promoted()
    assert len(manager._unsent) == notify.STATES


def test_ready_after_the_first_generation_and_stopping(
    running: Callable[..., Server], systemd: Systemd, tmp_path: Path
) -> None:
    server = running("-w", "2", WATCHDOG_USEC="1000000")
    server.wait_for(r"variables \[\]$", count=2)  # in both workers; they wait
    systemd.wait_for("STATUS=0/2 workers, 0 sessions")
    for _ in range(3):
        systemd.wait_for("WATCHDOG=1")
    assert not systemd.heard("READY")
    (tmp_path / "open").touch()
    assert systemd.wait_for("READY") == "READY=1"
    systemd.wait_for("STATUS=2/2 workers, 0 sessions")
    with Talk(server.port()) as talk:
        systemd.wait_for("STATUS=2/2 workers, 1 sessions")
        talk.begin_data()
        server.send(signal.SIGTERM)
        assert systemd.wait_for("STOPPING") == "STOPPING=1"
        for _ in range(2):  # again and again, as long as it drains
            assert systemd.wait_for("EXTEND") == "EXTEND_TIMEOUT_USEC=10000000"
        if not systemd.heard("STATUS=stopping, 1 workers, 1 sessions"):  # it may have come between the two
            systemd.wait_for("STATUS=stopping, 1 workers, 1 sessions")
        assert talk.ask("Subject: x\r\n\r\n.").startswith("250")
    assert server.wait() == 0
    systemd.pending()
    assert (systemd.heard("READY"), systemd.heard("STOPPING")) == (1, 1)
    assert {pid for pid, _ in systemd.messages} == {server.pid}


def test_no_pings_for_another_process(running: Callable[..., Server], systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    server = running(WATCHDOG_USEC="1000", WATCHDOG_PID="1")
    systemd.wait_for("READY")
    assert server.stop() == 0
    systemd.pending()
    assert systemd.heard("STOPPING") == 1
    assert not systemd.heard("WATCHDOG")


def test_reload(running: Callable[..., Server], systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    server = running()
    systemd.wait_for("READY")
    before = time.monotonic_ns() // 1000
    server.send(signal.SIGHUP)
    first, second = systemd.wait_for("RELOADING").split("\n")
    name, _, clock = second.partition("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(clock) <= time.monotonic_ns() // 1000
    assert systemd.wait_for("READY") == "READY=1"
    server.wait_for("reload done")
    # One that fails: serving goes on, and the status says why.
    (tmp_path / "app.py").write_text("import absent_module")
    server.send(signal.SIGHUP)
    systemd.wait_for("RELOADING=1\nMONOTONIC_USEC=")
    assert systemd.wait_for("READY") == "READY=1"
    assert "\n" not in systemd.wait_for("STATUS=1/1 workers, 0 sessions; the last reload failed: ")
    assert server.stop() == 0


def test_upgrade(running: Callable[..., Server], systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    server = running(WATCHDOG_USEC="200000", WATCHDOG_PID="")
    systemd.wait_for("READY")
    server.send(signal.SIGUSR2)
    new = int(server.wait_for(r"upgrading, the new master is (\d+)")[1])
    systemd.wait_for(f"MAINPID={new}\nREADY=1", sender=new)
    wait_until(lambda: server.process.poll() is not None, "the old master gone")
    said = systemd.pending()
    assert f"MAINPID={new}" in [text for pid, text in systemd.messages if pid == server.pid]  # before it left
    assert "STOPPING=1" not in said
    systemd.wait_for("WATCHDOG=1", sender=new)
    os.kill(new, signal.SIGTERM)
    systemd.wait_for("STOPPING=1", sender=new)
    wait_until(lambda: not server.group(), "the new master gone")
