"""A full stop of the running program: who waits anywhere is let go at once, and hears of it where it can."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from pathlib import Path

import pytest

from preforksmtp.prefork.worker.seat import BEGINNING
from tests.certificates import Certificate
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Serve, Talk

HOURS = "3600"  # no test waits so long for a drain
SLOW = """
import os, time

def handler(message):
    os.write(2, b"handling\\n")
    while not os.path.exists("go"):
        time.sleep(0.02)
"""


def test_nobody_is_waited_for_in_a_handshake(serve: Serve, tmp_path: Path, certificate: Certificate) -> None:
    (tmp_path / "app.py").write_text("def handler(message): pass\n")
    (tmp_path / "preforksmtp.conf.py").write_text(
        f"bind = ['smtps://{LOOPBACK}', 'smtp://{LOOPBACK}', 'lmtp://{LOOPBACK}?proxy_protocol=127.0.0.1']\n"
        f"certfile, keyfile = {str(certificate.certfile)!r}, {str(certificate.keyfile)!r}\n"
    )
    server = serve("--graceful-timeout", HOURS, "app").ready()
    with contextlib.ExitStack() as stack:
        for said in (b"", b"\x16\x03\x01\x02\x00\x01"):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port("smtps")), PATIENCE))
            silent.sendall(said)
        proxy = stack.enter_context(socket.create_connection(("127.0.0.1", server.port("lmtp")), PATIENCE))
        proxy.sendall(b"PROXY TCP4 ")
        talk = stack.enter_context(Talk(server.port("smtp")))
        assert talk.ask("EHLO c.example.com").startswith("250")
        assert talk.ask("STARTTLS").startswith("220")
        idle = stack.enter_context(Talk(server.port("smtp")))  # who came before it is being served
        assert server.stop() == 0
        assert idle.read().startswith("421 4.3.2")
        assert talk.read() == ""


def test_idle_sessions_hear_421_at_once_and_others_finish_what_they_are_at(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(message): pass\n")
    server = serve("-b", LOOPBACK, "app").ready()
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk(server.port())) for _ in range(24)]
        fresh, idle, open_, first, once = talks[:4], talks[4:8], talks[8], talks[9], talks[10]
        for talk in (*idle, first, once):
            assert talk.ask("EHLO x").startswith("250")
        for talk in (open_, once):
            talk.begin_data()
        once.send(b"\r\n.\r\n")
        assert once.read().startswith("250")
        began = time.monotonic()
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        # A session that has just begun comes to its first message, and through it.
        for command in ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>"):
            assert first.ask(command).startswith("250")
        # One that had a message gets no second one.
        assert once.ask("MAIL FROM:<a@example.com>").startswith("421 4.3.2")
        for talk in (*fresh, *idle):
            assert talk.read().startswith("421 4.3.2")
            assert talk.read() == ""
        assert time.monotonic() - began < BEGINNING, "they are not made to wait as long as those"
        assert first.ask("DATA").startswith("354")
        for talk in (first, open_):
            talk.send(b"\r\n.\r\n")
            assert talk.read().startswith("250")
            assert talk.ask("QUIT").startswith("221")
            assert talk.read() == ""
    assert server.wait() == 0


def test_a_session_that_goes_on_and_on_is_told_and_quit_is_221_all_the_same(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(message): pass\n")
    server = serve("-b", LOOPBACK, "--graceful-timeout", HOURS, "app").ready()
    with Talk(server.port()) as talk, Talk(server.port()) as other:
        assert other.ask("EHLO x").startswith("250")
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        last = "250"
        while last.startswith("250"):
            assert other.ask("NOOP").startswith("250")
            time.sleep(0.02)
            last = talk.ask("NOOP")
        assert last.startswith("421 4.3.2")
        assert other.ask("QUIT").startswith("221")
    assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_tells_everybody_at_once(serve: Serve, tmp_path: Path, number: int) -> None:
    (tmp_path / "app.py").write_text("def handler(message): pass\n")
    server = serve("-b", LOOPBACK, "app").ready()
    with Talk(server.port()) as talk:
        assert talk.ask("EHLO x").startswith("250")
        server.send(number)
        assert talk.read().startswith("421 4.3.2")
    assert server.wait() == 0


def test_everybody_in_the_queue_hears_421(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SLOW)
    server = serve("-b", LOOPBACK, "--threads", "1", "--graceful-timeout", str(PATIENCE), "app").ready()
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(Talk(server.port()))
        busy.begin_data()
        busy.send(b"x\r\n.\r\n")
        server.wait_for("^handling$")
        queue = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port()), PATIENCE)) for _ in range(40)
        ]
        server.send(signal.SIGTERM)
        wait_until(lambda: server.matches("draining"), "the drain")
        (tmp_path / "go").touch()
        assert busy.read().startswith("250"), "a success is answered"
        for client in queue:  # which all keep their side open
            assert client.recv(100).startswith(b"421 4.3.2")
            assert client.recv(100) == b""
        assert server.wait() == 0


def test_everybody_in_the_queue_hears_421_though_every_thread_hangs(
    serve: Serve, tmp_path: Path, certificate: Certificate
) -> None:
    (tmp_path / "app.py").write_text(SLOW)
    (tmp_path / "preforksmtp.conf.py").write_text(
        f"bind = ['smtp://{LOOPBACK}', 'smtps://{LOOPBACK}']\n"
        f"certfile, keyfile = {str(certificate.certfile)!r}, {str(certificate.keyfile)!r}\n"
    )
    # Time to tell everybody, from a main thread that has to wait for a processor; it ends when nobody is left.
    patch = "from preforksmtp.prefork.master import child; from preforksmtp.prefork.worker import worker; worker.FAREWELL = 5; child.SLACK = child.LIMIT = 10"
    server = serve("--threads", "1", "--graceful-timeout", "0.5", "app", patch=patch).ready()
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(Talk(server.port()))
        busy.begin_data()
        busy.send(b"x\r\n.\r\n")
        server.wait_for("^handling$")
        queue = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port()), PATIENCE)) for _ in range(40)
        ]
        queue[0].sendall(b"EHLO too early\r\n")
        tls = stack.enter_context(socket.create_connection(("127.0.0.1", server.port("smtps")), PATIENCE))
        server.send(signal.SIGTERM)
        for client in queue:
            assert client.recv(100).startswith(b"421 4.3.2")
            assert client.recv(100) == b""
        assert tls.recv(100) == b""
        assert busy.read() == ""
        assert server.wait() == 0
