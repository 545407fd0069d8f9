"""Messages that kill their worker (scenario 47), and a second in which a process is stopped (scenario 55): nobody fails
but who was in that worker at that instant, nobody waits, and the log says which message it was."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.processes import stat, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk
from tests.program.load import Load, write_app
from tests.program.test_observation import Status, status_pid

APP = """
import ctypes, os, signal, sys
from preforksmtp import Handler

KINDS = {
    "abort": os.abort,
    "segv": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sys.exit": lambda: sys.exit(1),
}

class Mail(Handler):
    def connect(self):
        return f"worker {os.getpid()}"

    def rcpt(self, recipient, params):
        if recipient == "die@example.com":
            os.abort()

    def message(self, message):
        kind = message.content.decode().strip()
        if kind in KINDS:
            KINDS[kind]()
"""
SECONDS = float(os.environ.get("PREFORKSMTP_POISON_SECONDS", "8"))
GAP = 2.0  # seconds; measured 0.2 with one worker, and less than 0.1 with four
DEADLY = {"abort": "SIGABRT", "segv": "SIGSEGV", "exit": "", "kill": "SIGKILL"}


@pytest.fixture
def begin(serve: Serve, tmp_path: Path):
    (tmp_path / "app.py").write_text(APP)
    return lambda *arguments: serve("-b", LOOPBACK, *arguments, "app:Mail").ready()


def deliver(server: Server, text: str = "Subject: x", sender: str = "good@example.com") -> tuple[str, str]:
    """The process id of the worker, and the last reply; "" where there was none."""
    pid = reply = ""
    try:
        with Talk(server.port()) as talk:
            pid = talk.greeting.rpartition(" ")[2]
            talk.begin_data(sender)
            reply = talk.ask(f"{text}\r\n.")
            talk.ask("QUIT")
    except (OSError, AssertionError):  # it died: an end, or a reset
        pass
    return pid, reply


@pytest.mark.parametrize("workers", [4, 1])
def test_one_poison_message_a_second(begin, workers: int) -> None:
    server = begin("-w", str(workers))
    end = time.monotonic() + SECONDS
    served: list[float] = [time.monotonic()]
    failed: list[str] = []

    def load() -> None:
        while time.monotonic() < end:
            pid, reply = deliver(server)
            if reply.startswith("250"):
                served.append(time.monotonic())
            else:
                failed.append(pid)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    dead, kinds = set(), list(DEADLY)
    while time.monotonic() < end:
        kind = kinds[len(dead) % len(kinds)]
        pid, reply = deliver(server, kind, "poison@example.com")
        if pid:  # or it was the one before that it met
            assert reply == ""
            dead.add(pid)
        time.sleep(0.8)  # between two of them
    for thread in threads:
        thread.join()
    assert len(dead) >= SECONDS / 2
    assert set(failed) - {""} <= dead, "of a worker that was not poisoned"
    assert failed.count("") <= len(dead), "accepted in its last instant, and never greeted"
    served.sort()
    assert max(later - earlier for earlier, later in itertools.pairwise(served)) < GAP
    assert len(served) > 20 * SECONDS
    assert not server.matches("next attempt")
    wait_until(lambda: len(server.children()) == workers, "all there again")
    assert {found[1] for found in server.matches(r"worker (\d+) died in the handler's message: client 127.0.0.1, message ")} >= dead


@pytest.mark.parametrize("kind", DEADLY)
def test_the_log_says_which_message_it_was(begin, kind: str, tmp_path: Path) -> None:
    server = begin("--status-bind", "unix:status", "--log-format", "text")
    with Talk(server.port()) as idle:
        pid, reply = deliver(server, kind, "poison@example.com")
        assert reply == ""
        assert idle.read() == ""
    found = server.wait_for(
        rf"worker {pid} died in the handler's message: client 127.0.0.1, "
        r"message (\S+) from <poison@example.com> to \['b@example.com'\]$"
    )
    assert re.fullmatch(r"\w+-1", found[1])
    server.wait_for(rf"worker {pid} had 2 sessions, 1 of them in the handler")
    how = f"was killed by {DEADLY[kind]}" if DEADLY[kind] else "exited with code 3"
    server.wait_for(rf"worker {pid} {how}")
    if kind in ("abort", "segv"):
        server.wait_for(r'File "\S+app.py", line \d+ in')
    status = Status(str(tmp_path / "status"))
    wait_until(lambda: deliver(server)[1].startswith("250"), "a message is taken")
    assert status.metrics()["preforksmtp_messages_interrupted_total"] == 1


def test_sys_exit_in_a_handler_kills_nobody(begin) -> None:
    server = begin()
    assert deliver(server, "sys.exit")[1].startswith("451 4.3.0")
    assert server.worker() == int(deliver(server)[0])


def test_a_hook_before_the_body(begin, tmp_path: Path) -> None:
    server = begin("--status-bind", "unix:status")
    with Talk(server.port()) as talk:
        assert talk.ask("EHLO x").startswith("250")
        assert talk.ask("MAIL FROM:<a@example.com>").startswith("250")
        assert talk.ask("RCPT TO:<die@example.com>") == ""
    server.wait_for(r"died in the handler's rcpt: client 127.0.0.1, message \S+ from <a@example.com> to \[\]$")
    wait_until(lambda: deliver(server)[1].startswith("250"), "a message is taken")
    metrics = Status(str(tmp_path / "status")).metrics()
    assert metrics["preforksmtp_messages_interrupted_total"] == 0, "it was no message yet"


def test_who_sends_it_again_and_again_is_refused(begin) -> None:
    """By client and envelope, and before the body; after a reload, and on a bigger scoreboard as well."""
    server = begin("-w", "2", "--poison-limit", "2")
    for number in (1, 2):
        assert deliver(server, "kill", "poison@example.com")[1] == ""
        server.wait_for("was killed by SIGKILL", count=number)
    for turn in range(3):
        with Talk(server.port()) as talk:
            for line in ("EHLO x", "MAIL FROM:<poison@example.com>", "RCPT TO:<b@example.com>"):
                assert talk.ask(line).startswith("250")
            assert talk.ask("DATA") == "451 4.3.0 This message has failed here several times, try again in an hour"
            assert talk.ask("BDAT 6 LAST\r\nkill").startswith("451 4.3.0")
            assert talk.ask("RCPT TO:<c@example.com>").startswith("250")
            assert talk.ask("DATA").startswith("354"), "another envelope"
            assert talk.ask("kill not\r\n.").startswith("250")
        assert deliver(server)[1].startswith("250")
        server.wait_for(r"poison_limit \(2\) reached", count=turn + 1)
        if turn == 0:
            server.send(signal.SIGHUP)
            server.wait_for("reload done")
        if turn == 1:
            (server.folder / "preforksmtp.conf.py").write_text("threads = 300\n")
            server.send(signal.SIGHUP)
            server.wait_for("reload done", count=2)
    assert len(server.matches("was killed by")) == 2


def test_without_the_limit_nobody_is_refused(begin) -> None:
    server = begin()
    for number in range(1, 4):
        assert deliver(server, "kill", "poison@example.com")[1] == ""
        server.wait_for("was killed by SIGKILL", count=number)
        wait_until(lambda: deliver(server)[1].startswith("250"), "a message is taken")


def test_a_second_in_which_any_process_is_stopped(serve: Serve, tmp_path: Path) -> None:
    """Nobody is taken for dead, and nothing is lost; in the middle of a reload, too."""
    write_app(tmp_path)
    server = serve("-b", LOOPBACK, "-w", "3", "--timeout", "5", "--status-bind", "unix:status", "app").ready()
    status = status_pid(server)

    def pause(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: (stat(pid) or "?")[0] == "T", "stopped")
        time.sleep(1.0)  # the time that is tested
        os.kill(pid, signal.SIGCONT)

    with Load(("127.0.0.1", server.port()), tmp_path) as load:
        before = server.children()
        for pid in (server.pid, *sorted(before - {status}), status):
            pause(pid)
            load.progress()
        assert server.children() == before
        server.send(signal.SIGHUP)
        pause(server.pid)
        pause(min(server.children()))
        server.wait_for("reload done")
        load.progress()
    load.assert_sound()
    assert not server.matches("SIGABRT|SIGKILL|heartbeat|hangs|was killed|silent|reload failed")
