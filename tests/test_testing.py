"""preforksmtp/testing.py as a user's tests use it, and its pytest fixtures in a pytest of their own."""

from __future__ import annotations

import logging
import os
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from preforksmtp import Handler, Message, Reject, Reply, testing
from preforksmtp.testing import AppError, ConfigError, ListenError, Server
from tests.certificates import make_certificate
from tests.processes import PATIENCE, ROOT, wait_until

ME, YOU, TEXT = "me@example.com", ["you@example.com"], "Subject: hello\n\nworld"


def connect(server: Server) -> smtplib.SMTP:
    return smtplib.SMTP(server.host, server.port, timeout=PATIENCE)


def send(server: Server, text: str = TEXT) -> None:
    with connect(server) as client:
        client.sendmail(ME, YOU, text)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    before, threads = os.listdir("/proc/self/fd"), threading.active_count()
    yield
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == len(before), "descriptors closed")
    assert threading.active_count() == threads


def test_it_collects_messages() -> None:
    with Server() as server:
        assert server.messages == []
        send(server)
        [message] = server.messages  # at once: the client has its 250 after it
        assert (message.sender, message.recipients) == (ME, YOU)
        assert message.headers["Subject"] == "hello"
        assert message.content == b"Subject: hello\r\n\r\nworld\r\n"
        send(server, "Subject: 2\n\n")
        assert [each.headers["Subject"] for each in server.wait_for(2)] == ["hello", "2"]
        server.clear()
        assert server.messages == []
    assert message.content.endswith(b"world\r\n")  # it may be looked at when the server is gone


def test_a_large_message_outlives_the_server() -> None:
    with Server(spool_threshold=1000) as server:
        send(server, "x" * 5000)
    assert server.messages[0].content == b"x" * 5000 + b"\r\n"
    del server.messages[0]  # and closes its file


def test_addresses() -> None:
    with Server() as server:
        assert server.address == (server.host, server.port)
        assert server.addresses == [server.address]
        assert server.host == "127.0.0.1"
    with pytest.raises(RuntimeError, match="does not run"):
        print(server.port)


def test_several_binds_each_with_its_own_terms(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with Server(bind=["127.0.0.1:0", f"lmtp://unix:{path}"]) as server:
        assert server.addresses[1] == path
        with smtplib.LMTP(path) as client:
            client.sendmail(ME, YOU, TEXT)
        assert server.messages[0].session.lmtp
    assert not os.path.exists(path)


def test_a_function_that_refuses() -> None:
    def handler(message: Message) -> str:
        if "no" in message.recipients[0]:
            raise Reject(550, "5.1.1 nobody")
        return "as you like"

    with Server(handler) as server, connect(server) as client:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail(ME, ["no@example.com"], TEXT)
        assert refused.value.smtp_code == 550
        client.helo()
        client.mail(ME)
        client.rcpt("yes@example.com")
        assert client.data(TEXT) == (250, b"2.0.0 as you like")
        assert [message.recipients for message in server.messages] == [["yes@example.com"]]


def test_a_reply_that_refuses_is_not_collected() -> None:
    with Server(lambda message: Reply(450, "4.2.0 later")) as server, pytest.raises(smtplib.SMTPDataError):
        send(server)
    assert server.messages == []


@pytest.mark.parametrize("answer", [1, True, b"250 Ok", "two\r\nlines", ("250", "Ok"), Reply(354, "go on")])
def test_what_is_no_answer_is_not_collected(answer: Any) -> None:
    with Server(lambda message: answer) as server:
        with pytest.raises(smtplib.SMTPDataError) as failed:
            send(server)
        assert failed.value.smtp_code == 451
    assert server.messages == []


class Mail(Handler):
    events: list[str] = []

    @classmethod
    def start(cls, worker: Any) -> None:
        cls.events.append("start")

    @classmethod
    def stop(cls, worker: Any) -> None:
        cls.events.append("stop")

    def authenticate(self, username: str, password: str) -> bool:
        return (username, password) == ("alice", "secret")

    def message(self, message: Message) -> str:
        return f"for {self.session.user}"


def test_a_handler_class() -> None:
    Mail.events.clear()
    with Server(Mail, allow_insecure_auth=True, require_auth=True) as server, connect(server) as client:
        with pytest.raises(smtplib.SMTPSenderRefused):
            client.sendmail(ME, YOU, TEXT)
        client.login("alice", "secret")
        client.sendmail(ME, YOU, TEXT)
        assert server.messages[0].session.user == "alice"
        assert Mail.events == ["start"]
    assert Mail.events == ["start", "stop"]


class Streaming(Handler):
    def stream(self, message: Message, body: Any) -> str:
        return f"{sum(map(len, body))} octets"


def test_a_handler_that_only_streams() -> None:
    with Server(Streaming) as server, connect(server) as client:
        client.ehlo()
        client.mail(ME)
        client.rcpt(YOU[0])
        assert client.data("12345678") == (250, b"2.0.0 10 octets")
        assert server.messages[0].content == b"12345678\r\n"


def test_an_app_by_name() -> None:
    with Server("preforksmtp.handlers:Discard()") as server:
        send(server)
        assert len(server.messages) == 1


def test_a_failing_handler_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with Server(lambda message: 1 // 0) as server, pytest.raises(smtplib.SMTPDataError) as failed:
        send(server)
    assert failed.value.smtp_code == 451
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_settings() -> None:
    with Server(max_message_size=1000, hostname="mx.example.com") as server, connect(server) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "1000"
        assert client.ehlo_resp is not None
        assert client.ehlo_resp.startswith(b"mx.example.com")


def test_limits_on_clients() -> None:
    with Server(max_connections_per_ip=1) as server, connect(server), pytest.raises(smtplib.SMTPConnectError) as error:
        connect(server)
    assert error.value.smtp_code == 421


def test_tls(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(files.certfile))
    binds = ["127.0.0.1:0", "smtps://127.0.0.1:0"]
    with Server(bind=binds, certfile=str(files.certfile), keyfile=str(files.keyfile)) as server:
        with smtplib.SMTP("localhost", server.port, timeout=PATIENCE) as client:
            client.starttls(context=context)
            client.sendmail(ME, YOU, TEXT)
        with smtplib.SMTP_SSL("localhost", server.addresses[1][1], timeout=PATIENCE, context=context) as client:
            client.sendmail(ME, YOU, TEXT)
        assert [message.session.tls is not None for message in server.messages] == [True, True]


def test_as_many_sessions_at_once_as_threads() -> None:
    with Server(threads=2) as server:
        first, second = connect(server), connect(server)
        third = socket.create_connection(server.address, PATIENCE)
        assert (first.noop()[0], second.noop()[0]) == (250, 250)
        first.quit()
        assert third.recv(100).startswith(b"220")
        second.quit()
        third.close()


def test_open_sessions_hear_of_the_end() -> None:
    server = Server()
    server.start()
    client = connect(server)
    client.ehlo()
    server.stop()
    assert client.noop()[0] == 421
    client.close()
    server.stop()  # again
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", client.sock.getpeername()[1] if client.sock else 1))


def test_start_and_stop_again() -> None:
    server = Server()
    for number in range(1, 3):
        server.start()
        with pytest.raises(RuntimeError, match="runs already"):
            server.start()
        send(server)
        assert len(server.messages) == number
        server.stop()


def test_a_handler_that_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "STOP_TIMEOUT", 0.1)
    entered, leave = threading.Event(), threading.Event()

    def handler(message: Message) -> None:
        entered.set()
        leave.wait(PATIENCE)

    server = Server(handler)
    server.start()
    sender = threading.Thread(target=send, args=(server,))
    sender.start()
    assert entered.wait(PATIENCE)
    with pytest.raises(TimeoutError, match=r"still running 0\.1 s after the server was stopped: message"):
        server.stop()
    leave.set()
    wait_until(lambda: server.messages, "it returns after all")
    sender.join(PATIENCE)
    assert not sender.is_alive()


@pytest.mark.parametrize("where", ["DATA", "TLS", "stream"])
def test_who_is_in_no_hook_is_not_waited_for(where: str, tmp_path: Path) -> None:
    class Streaming(Handler):
        def stream(self, message: Message, body: Any) -> None:
            body.read()

    files = make_certificate(tmp_path)
    app = Streaming if where == "stream" else None
    server = Server(app, certfile=str(files.certfile), keyfile=str(files.keyfile))
    server.start()
    client = smtplib.SMTP("localhost", server.port, timeout=PATIENCE)
    if where == "TLS":
        client.starttls(context=ssl.create_default_context(cafile=str(files.certfile)))
    client.ehlo()
    for command in ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA"):
        client.docmd(command)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < testing.STOP_TIMEOUT / 2
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.docmd("x")
    assert not server.messages


def test_waiting_in_vain() -> None:
    with Server() as server, pytest.raises(TimeoutError, match=r"0 of 1 messages after 0\.01 s"):
        server.wait_for(timeout=0.01)


def test_waiting_for_another_thread() -> None:
    with Server() as server:
        sender = threading.Thread(target=send, args=(server,))
        sender.start()
        assert len(server.wait_for()) == 1
        sender.join()


MISTAKES = [
    ({"max_mesage_size": 1}, ConfigError, "max_mesage_size: no such setting; did you mean 'max_message_size'?"),
    ({"max_message_size": "big"}, ConfigError, "max_message_size: .*argument of Server"),
    ({"workers": 2}, ConfigError, "workers: is for master and workers, and there are none here"),
    ({"app": Handler}, AppError, "Handler overrides neither message nor stream"),
    ({"app": 1}, AppError, "is int, not a callable"),
    ({"app": "no_such_module:x"}, AppError, "no module named 'no_such_module'"),
    ({"bind": "192.0.2.1:0"}, ListenError, "192.0.2.1"),
    ({"certfile": "absent.pem"}, Exception, "absent.pem"),
]


@pytest.mark.parametrize(("arguments", "kind", "line"), MISTAKES)
def test_mistakes(arguments: dict[str, Any], kind: type[Exception], line: str) -> None:
    with pytest.raises(kind, match=line), Server(**arguments):
        pass


FIXTURES = """
import smtplib

def test_one(smtp_server):
    smtplib.SMTP(smtp_server.host, smtp_server.port).sendmail("a@example.com", ["b@example.com"], "hi")
    assert len(smtp_server.messages) == 1

def test_another_has_its_own(smtp_server):
    assert smtp_server.messages == []

def test_made(make_smtp_server):
    first, second = make_smtp_server(), make_smtp_server(lambda message: "thanks", max_message_size=1000)
    assert first.port != second.port
    smtplib.SMTP(second.host, second.port).sendmail("a@example.com", ["b@example.com"], "hi")
    assert (len(first.messages), len(second.messages)) == (0, 1)
"""


def test_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["preforksmtp.pytest_plugin"]\n')
    (tmp_path / "test_user.py").write_text(FIXTURES)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_user.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
