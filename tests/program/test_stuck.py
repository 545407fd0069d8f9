"""Handlers that do not return: what the log says, and that only their own session suffers."""

from __future__ import annotations

import os
from pathlib import Path

from tests.processes import Program, wait_until
from tests.program.conftest import Serve, Talk

# `stuck` blocks, letting others run; `loop` is a regular expression that takes for ever and holds the interpreter.
APP = """
import re, threading
from preforksmtp import Handler

def block():
    threading.Event().wait()

def loop():
    re.match("(a|aa)+$", "a" * 200 + "b")

class Mail(Handler):
    def message(self, message):
        name = message.recipients[0].partition("@")[0]
        {"stuck": block, "loop": loop}.get(name, lambda: None)()
"""


def write_app(folder: Path) -> None:
    (folder / "app.py").write_text(APP)


def is_gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def deliver(talk: Talk, recipient: str) -> str:
    talk.begin_data(recipient=f"{recipient}@example.com")
    return talk.ask("Subject: x\r\n\r\n.")


def wait_for_replacement(server: Program, old: int) -> None:
    server.wait_for(rf"worker {old}: handler_timeout reached, starting its replacement")
    wait_until(lambda: server.children() and old not in server.children(), f"worker {old} gone")


def test_stuck_handler_is_named_and_its_worker_replaced(serve: Serve, tmp_path: Path) -> None:
    write_app(tmp_path)
    server = serve("-b", "127.0.0.1:0", "app:Mail", "--handler-timeout", "0.3", "--graceful-timeout", "4").ready()
    old, port = server.worker(), server.port()
    with Talk(port) as other, Talk(port) as stuck:
        assert other.ask("EHLO x").startswith("250")
        assert other.ask("MAIL FROM:<a@example.com>").startswith("250")
        stuck.begin_data(recipient="stuck@example.com")
        stuck.send(b"Subject: x\r\n\r\n.\r\n")
        server.wait_for(r"\[ERROR\] session \S+: the handler's message runs for [\d.]+ s, over handler_timeout 0.3 s")
        server.wait_for(r"^  \|   File .*app.py\", line \d+, in block")
        server.wait_for(rf"worker {old}: draining \(SIGTERM\), 2 sessions")
        assert len(server.children()) == 2  # the replacement came first
        # The transaction of another session of that worker finishes.
        assert other.ask("RCPT TO:<b@example.com>").startswith("250")
        assert other.ask("DATA").startswith("354")
        assert other.ask("Subject: x\r\n\r\n.").startswith("250")
        assert other.ask("QUIT").startswith("221")
        wait_for_replacement(server, old)
        assert stuck.read() == ""  # cut off without a reply: the client keeps its mail
    with Talk(port) as talk:
        assert deliver(talk, "b").startswith("250")


def test_handler_that_returns_in_time_is_answered(serve: Serve, tmp_path: Path) -> None:
    """Past handler_timeout, but within graceful_timeout: its 250 is still sent."""
    (tmp_path / "app.py").write_text(
        "import os, time\n"
        "def handler(message):\n"
        "    while not os.path.exists('go'):\n"
        "        time.sleep(0.01)\n"
    )
    server = serve("-b", "127.0.0.1:0", "app", "--handler-timeout", "0.2").ready()
    old = server.worker()
    with Talk(server.port()) as talk:
        talk.begin_data()
        talk.send(b"Subject: x\r\n\r\n.\r\n")
        server.wait_for(rf"worker {old}: draining")
        (tmp_path / "go").touch()
        assert talk.read().startswith("250")
        assert talk.read().startswith("421")
        talk.close()
        wait_for_replacement(server, old)


def test_loop_in_c_that_holds_the_interpreter(serve: Serve, tmp_path: Path) -> None:
    write_app(tmp_path)
    server = serve("-b", "127.0.0.1:0", "app:Mail", "--timeout", "3").ready()
    old, port = server.worker(), server.port()
    with Talk(port) as talk:
        talk.begin_data(recipient="loop@example.com")
        talk.send(b"Subject: x\r\n\r\n.\r\n")
        server.wait_for(rf"worker {old}: no heartbeat for timeout 3 s")
        server.wait_for(r"Fatal Python error: Aborted")
        server.wait_for(r'app.py", line \d+ in loop')
        wait_until(lambda: is_gone(old), "the old worker reaped")
        assert talk.read() == ""
    with Talk(port) as talk:
        assert deliver(talk, "b").startswith("250")
