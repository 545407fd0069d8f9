"""Limits on a running server with two workers: what each says, that both keep it together, and who is exempt.

One server has a bind for each limit of a bind; each test comes from loopback addresses of its own, so none counts for
another.
"""

from __future__ import annotations

import base64
import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE, Client, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server

APP = """
import os
from preforksmtp import Handler, Reply


class Mail(Handler):
    def rcpt(self, recipient, params):
        return Reply(550, "5.1.1 No such user") if recipient.startswith("nobody") else None

    def verify(self, argument):
        return Reply(252, f"2.5.0 {os.getpid()}")

    def authenticate(self, username, password):
        return password == "right"

    def message(self, message):
        return message.session.reverse_dns or "unnamed"
"""

BINDS = {
    "sessions": "max_connections_per_ip=4&trusted_clients=127.1.1.1,127.1.2.0/24",
    "connections": "max_connection_rate=3",
    "messages": "max_message_rate=4",
    "recipients": "max_recipient_rate=5",
    "auth": "max_auth_failure_rate=3&allow_insecure_auth",
    "session": "max_messages=2&max_idle_commands=3",
    "early": "greeting_delay=1",
    "slow": "min_data_rate=100000&min_data_rate_grace=1",
    "deadline": "session_timeout=2&max_idle_commands=0",
    "tarpit": "error_delay=0.2&max_errors=100",
    "names": "reverse_dns",
    "guesses": "max_refused_recipients=3&address_syntax=strict&trusted_clients=127.1.1.1",
}
HOSTS = itertools.count(1)


class Talk:
    """An SMTP client with an address of its own choice."""

    def __init__(self, port: int, host: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(host, 0))
        self.file = self.socket.makefile("rb")

    def read(self) -> str:
        lines = [self.file.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(self.file.readline())
        return lines[-1].decode().rstrip()

    def ask(self, *lines: str) -> str:
        """The answer to the last line."""
        for line in lines:
            self.socket.sendall(line.encode() + b"\r\n")
            answer = self.read()
        return answer

    def begin(self) -> Talk:
        assert self.read().startswith("220"), "greeting"
        assert self.ask("EHLO client.example.com").startswith("250")
        return self

    def closed(self) -> bool:
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def host() -> str:
    """A client nobody has heard of."""
    number = next(HOSTS)
    return f"127.2.{number // 250}.{number % 250 + 1}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "app.py").write_text(APP)
    binds = [part for options in BINDS.values() for part in ("-b", f"{LOOPBACK}?{options}")]
    with Server(folder, "-w", "2", *binds, "app:Mail") as running:
        yield running.ready()
        assert running.stop() == 0
        assert "Traceback" not in running.output, running.output


class Clients:
    """Connections that end with the test."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.open: list[Talk] = []

    def __call__(self, bind: str, host: str) -> Talk:
        self.open.append(Talk(self._server.port(index=list(BINDS).index(bind)), host))
        return self.open[-1]

    def begin(self, bind: str, host: str) -> Talk:
        return self(bind, host).begin()

    def of_both_workers(self, bind: str, host: str) -> tuple[Talk, Talk]:
        """A session in each worker."""
        found: dict[str, Talk] = {}
        for _ in range(60):
            talk = self.begin(bind, host)
            found.setdefault(talk.ask("VRFY x"), talk)
            if len(found) == 2:
                one, two = found.values()
                return one, two
        raise AssertionError(f"60 sessions, all in one worker: {found}")


@pytest.fixture
def clients(server: Server) -> Iterator[Clients]:
    opened = Clients(server)
    yield opened
    for talk in opened.open:
        talk.close()


def logged(server: Server, host: str, what: str) -> None:
    server.wait_for(rf"session \w+: {host}:\d+: {what}")


def test_sessions_at_once(server: Server, clients: Clients, host: str) -> None:
    talks = [clients.begin("sessions", host) for _ in range(4)]
    for _ in range(4):
        refused = clients("sessions", host)
        assert refused.read() == "421 4.7.0 Too many sessions from your address, try again later"
        assert refused.closed()
    logged(server, host, r"max_connections_per_ip \(4\) reached")
    assert clients("sessions", "127.3.0.1").read().startswith("220"), "another client"
    assert talks[0].ask("QUIT").startswith("221")
    assert clients("sessions", host).read().startswith("220"), "at once after the goodbye"
    talks[1].close()
    wait_until(lambda: clients("sessions", host).read().startswith("220"), "room after one has only left")


@pytest.mark.parametrize("trusted", ["127.1.1.1", "127.1.2.7"])
def test_trusted_clients_are_exempt(clients: Clients, trusted: str) -> None:
    for _ in range(12):
        clients.begin("sessions", trusted)


def test_who_guesses_at_recipients(server: Server, clients: Clients, host: str) -> None:
    """On a bind with a grammar of its own: what it refuses is a guess as well."""
    talk = clients.begin("guesses", host)
    assert talk.ask("MAIL FROM:a@b.example") == "501 5.1.7 Bad sender address syntax"
    assert talk.ask("MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>").startswith("250")
    assert talk.ask("RCPT TO:<nobody@b.example>", "RCPT TO:<a..b@b.example>").startswith("501 5.1.3")
    assert talk.ask("RCPT TO:<nobody2@b.example>").startswith("550 5.1.1")
    assert talk.ask("RCPT TO:<nobody3@b.example>") == "421 4.7.0 Too many recipients refused, closing the connection"
    assert talk.closed()
    logged(server, host, r"max_refused_recipients \(3\) reached")
    talk = clients.begin("guesses", "127.1.1.1")
    assert talk.ask("MAIL FROM:<a@b.example>", *["RCPT TO:<nobody@b.example>"] * 20).startswith("550"), "trusted"
    talk = clients.begin("sessions", host)
    assert talk.ask("MAIL FROM:a@b.example", *["RCPT TO:<nobody@b.example>"] * 20).startswith("550"), "off by default"


def test_connections_per_minute(server: Server, clients: Clients, host: str) -> None:
    for _ in range(3):
        assert clients.begin("connections", host).ask("QUIT").startswith("221")
    assert clients("connections", host).read() == "421 4.7.0 Too many connections from your address, try again later"
    logged(server, host, r"max_connection_rate \(3\) reached")


def test_messages_per_minute_over_both_workers(server: Server, clients: Clients, host: str) -> None:
    for talk in clients.of_both_workers("messages", host):
        assert talk.ask("MAIL FROM:<a@example.com>", "RSET", "MAIL FROM:<a@example.com>").startswith("250")
    last = clients.begin("messages", host)
    assert last.ask("MAIL FROM:<a@example.com>") == "450 4.7.1 Too many messages from your address, try again later"
    assert last.ask("QUIT").startswith("221")
    logged(server, host, r"max_message_rate \(4\) reached")


def test_recipients_per_minute_over_both_workers(server: Server, clients: Clients, host: str) -> None:
    talks = clients.of_both_workers("recipients", host)
    for talk in talks:
        assert talk.ask("MAIL FROM:<a@example.com>", *["RCPT TO:<b@example.com>"] * 2).startswith("250")
    assert talks[0].ask("RCPT TO:<b@example.com>").startswith("250")
    for talk in talks:
        assert talk.ask("RCPT TO:<b@example.com>") == "450 4.7.1 Too many recipients from your address, try again later"
        assert talk.ask("DATA", ".").startswith("250"), "those before it are served"
    logged(server, host, r"max_recipient_rate \(5\) reached")


def test_authentication_failures_per_minute_over_both_workers(server: Server, clients: Clients, host: str) -> None:
    def plain(password: str) -> str:
        return "AUTH PLAIN " + base64.b64encode(f"\0user\0{password}".encode()).decode()

    # What was counted weighs less once the minute is over, and three failures take their time.
    wait_until(lambda: time.monotonic() % 60 < 48, "a minute with room for the test")
    one, two = clients.of_both_workers("auth", host)
    for _ in range(5):
        assert clients.begin("auth", host).ask(plain("right")).startswith("235")
    assert [talk.ask(plain("wrong"))[:3] for talk in (one, two, one)] == ["535"] * 3
    for talk in (one, two):
        answer = talk.ask(plain("right"))
        assert answer == "454 4.7.0 Too many authentication failures from your address, try again later"
    logged(server, host, r"max_auth_failure_rate \(3\) reached")


def test_messages_of_one_session(server: Server, clients: Clients, host: str) -> None:
    talk = clients.begin("session", host)
    for _ in range(2):
        assert talk.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA", ".").startswith("250")
    assert talk.ask("MAIL FROM:<a@example.com>") == "421 4.7.0 Too many messages in this session, open another one"
    assert talk.closed()
    logged(server, host, "max_messages reached")


def test_commands_without_a_message(server: Server, clients: Clients, host: str) -> None:
    talk = clients.begin("session", host)
    assert talk.ask("NOOP", "RSET", "HELP").startswith("214")
    assert talk.ask("NOOP") == "421 4.7.0 Too many commands without a message, closing the connection"
    assert talk.closed()
    logged(server, host, "max_idle_commands reached")


def test_early_talkers(server: Server, clients: Clients, host: str) -> None:
    talk = clients("early", host)
    talk.socket.sendall(b"EHLO client.example.com\r\n")
    assert talk.read() == "554 5.5.1 You spoke before the greeting, closing the connection"
    assert talk.closed()
    logged(server, host, r"spoke before the greeting \(greeting_delay\)")
    started = time.monotonic()
    clients.begin("early", host)
    assert time.monotonic() - started >= 1


def test_slow_bodies(server: Server, clients: Clients, host: str) -> None:
    talk = clients.begin("slow", host)
    assert talk.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA").startswith("354")
    talk.socket.sendall(b"x\r\n")
    assert talk.read() == "421 4.4.2 Data comes too slowly, closing the connection"
    assert talk.closed()
    logged(server, host, r"timed out \(min_data_rate\)")
    fast = clients.begin("slow", host)
    body = b"x" * 998 + b"\r\n"
    assert fast.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA").startswith("354")
    fast.socket.sendall(body * 2000 + b".\r\n")
    assert fast.read().startswith("250")


def test_the_deadline_of_a_session(server: Server, clients: Clients, host: str) -> None:
    silent, talking = (clients.begin("deadline", host) for _ in range(2))
    answer = ""
    while not answer.startswith("421"):  # talking does not help
        answer = talking.ask("NOOP")
    for last in (answer, silent.read()):
        assert last == "421 4.4.2 Session lasted too long, closing the connection"
    for talk in (silent, talking):
        server.wait_for(rf"{host}:{talk.socket.getsockname()[1]}: timed out \(session_timeout\)")


def test_errors_are_delayed(clients: Clients, host: str) -> None:
    talk = clients.begin("tarpit", host)
    talk.ask("FOO", "FOO", "FOO")
    started = time.monotonic()
    assert talk.ask("FOO").startswith("500")
    assert time.monotonic() - started >= 0.2


def test_the_confirmed_name_of_the_client(clients: Clients) -> None:
    talk = clients.begin("names", "127.0.0.1")
    answer = talk.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA", ".")
    try:
        name = socket.getnameinfo(("127.0.0.1", 0), socket.NI_NAMEREQD)[0]
    except OSError:
        name = "unnamed"
    assert answer == f"250 2.0.0 {name}"


# --- one server a test: settings of the whole server, and signals


def start(serve: Serve, folder: Path, *arguments: str) -> Server:
    (folder / "app.py").write_text(APP)
    return serve("-b", LOOPBACK, *arguments, "app:Mail").ready()


def test_all_sessions_together(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, "-w", "2", "--max-connections", "3")
    talks = [Talk(server.port(), f"127.0.0.{n}").begin() for n in (1, 2, 3)]
    refused = Talk(server.port(), "127.0.0.4")
    assert refused.read() == "421 4.3.2 Too many sessions, try again later"
    logged(server, "127.0.0.4", r"max_connections \(3\) reached")
    for talk in (*talks, refused):
        talk.close()


def test_busy_reply(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, "-w", "2", "--threads", "2", "--busy-reply")
    talks = [Talk(server.port(), "127.0.0.1").begin() for _ in range(3)]
    for _ in range(3):
        refused = Talk(server.port(), "127.0.0.1")
        assert refused.read() == "421 4.3.2 Too many sessions, try again later"
        refused.close()
    for talk in talks:
        talk.close()


def test_stress(serve: Serve, tmp_path: Path) -> None:
    stress = ("--stress-threshold", "75%", "--stress-command-timeout", "0.2", "--stress-data-timeout", "0.2")
    server = start(serve, tmp_path, "-w", "2", "--threads", "2", *stress)
    talks = [Talk(server.port(), f"127.0.0.{n}").begin() for n in (1, 2)]
    time.sleep(0.5)  # what is proved is that nothing happens
    assert talks[0].ask("NOOP").startswith("250"), "half full: as patient as ever"
    talks.append(Talk(server.port(), "127.0.0.3"))
    assert talks[2].read().startswith("220")  # and no more: it has little time, too
    assert talks[1].read() == "421 4.4.2 Timeout, closing the connection"
    logged(server, r"127\.0\.0\.\d", r"timed out \(stress_command_timeout\)")
    for talk in talks:
        talk.close()


def test_a_killed_worker_takes_its_sessions_with_it(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, tmp_path, "-w", "2", "--max-connections-per-ip", "4", "--max-message-rate", "4")
    talks = [Talk(server.port(), "127.0.0.1").begin() for _ in range(4)]
    pids = [int(talk.ask("VRFY x").split()[-1]) for talk in talks]
    for talk in talks:
        assert talk.ask("MAIL FROM:<a@example.com>").startswith("250")
    assert Talk(server.port(), "127.0.0.1").read().startswith("421 4.7.0")
    os.kill(pids[0], signal.SIGKILL)
    server.wait_for(rf"worker {pids[0]} .*(killed|SIGKILL)")
    lost = pids.count(pids[0])
    new = [Talk(server.port(), "127.0.0.1").begin() for _ in range(lost)]
    assert Talk(server.port(), "127.0.0.1").read().startswith("421 4.7.0"), "and not one more"
    assert new[0].ask("MAIL FROM:<a@example.com>").startswith("450"), "what it did in this minute is not forgotten"
    for talk in (*talks, *new):
        talk.close()


@pytest.mark.parametrize("options", ["greeting_delay=30", "error_delay=30&max_errors=100"])
def test_a_drain_does_not_wait_for_a_delay(serve: Serve, tmp_path: Path, options: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    server = serve("-b", f"{LOOPBACK}?{options}", "app:Mail").ready()
    with Client(("127.0.0.1", server.port())) as client:
        if options.startswith("error"):
            assert client.read().startswith("220")
            client.send("FOO\r\nFOO\r\nFOO\r\nFOO\r")
            for _ in range(3):
                assert client.read().startswith("500")
        else:
            server.wait_for("listening")
            wait_until(lambda: len(os.listdir(f"/proc/{server.worker()}/task")) >= 3, "the worker serves")
        started = time.monotonic()
        server.send(signal.SIGTERM)
        assert client.read().startswith("421 4.3.2"), "and no 500: it would have come too early"
    assert server.wait() == 0
    assert time.monotonic() - started < 10


def test_a_silent_client_of_a_unix_socket_is_timed_out(serve: Serve, tmp_path: Path) -> None:
    """Unlike one of TCP such a connection has no timeout of its listener."""
    server = serve("-b", "unix:smtp.sock?pipelined_body=accept", "--command-timeout", "0.7", "--data-timeout", "0.7").ready()
    for words in (b"", b"EHLO a\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nhalf a line"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(tmp_path / "smtp.sock"))
            sock.sendall(words)
            heard = b""
            while data := sock.recv(4096):
                heard += data
        assert heard.splitlines()[-1].startswith(b"421 4.4.2"), heard
    assert "timed out" in server.output
