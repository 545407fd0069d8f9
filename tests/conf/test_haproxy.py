"""HAProxy in front of two servers: kill one, or stop it, and its clients get through by the other."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import smtplib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforksmtp.config import arguments
from preforksmtp.net.bind import parse_bind
from tests.conf.programs import CONF, LOCAL, free_ports, run
from tests.processes import PATIENCE, Program, wait_until
from tests.program.conftest import LOOPBACK, Server, Talk, need

SAMPLE = CONF / "haproxy-several-hosts.cfg"
NAMES = ("mx1", "mx2")
APP = "def handler(message):\n    return 'by {name}'\n"


def test_haproxy_accepts_it() -> None:
    output = run(need("haproxy"), "-c", "-f", str(SAMPLE))
    assert "WARNING" not in output and "ALERT" not in output, output


def test_its_servers_are_those_of_the_comment() -> None:
    text = SAMPLE.read_text()
    (command,) = re.findall(r"^# +preforksmtp (.*) \.\.\.$", text, re.MULTILINE)
    words = shlex.split(command)
    assert arguments.parse(words)
    ports = {str(parse_bind(word).port) for word in re.findall(r"-b '([^']+)'", command)}
    assert set(re.findall(r"^  server mx\d \S+:(\d+)", text, re.MULTILINE)) == ports
    assert f"check port {parse_bind(words[words.index('--status-bind') + 1]).port} " in text
    names = re.findall(r"^  server (\S+) .* track smtp/(\S+)$", text, re.MULTILINE)
    assert names == [(name, name) for name in NAMES]


class Hosts:
    """Two servers and HAProxy with the sample, whose addresses and ports are the test's."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        haproxy, text = need("haproxy"), SAMPLE.read_text()
        self.servers: dict[str, Server] = {}
        self.port, submissions, *status = free_ports(4)
        self.admin = folder / "admin.sock"
        for name, port in zip(NAMES, status, strict=True):
            (folder / name).mkdir()
            (folder / name / "app.py").write_text(APP.format(name=name))
            options = ["-b", f"{LOOPBACK}?proxy_protocol=127.0.0.1", "--status-bind", f"{LOCAL}:{port}", "app:handler"]
            server = stack.enter_context(Server(folder / name, *options))
            self.servers[name] = server.ready()
            line = rf"(  server {name} )192\.0\.2\.1\d:2525"
            text = re.sub(line, rf"\g<1>127.0.0.1:{server.port()} check addr {LOCAL} port {port}", text)
        text = text.replace("bind :25", f"bind {LOCAL}:{self.port}").replace("bind :465", f"bind {LOCAL}:{submissions}")
        (folder / "haproxy.cfg").write_text(text.replace("/run/haproxy/admin.sock", str(self.admin)))
        self.haproxy = stack.enter_context(Program([haproxy, "-db", "-f", str(folder / "haproxy.cfg")]))
        wait_until(self.admin.exists, "HAProxy runs")

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.admin))
            sock.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def send(self) -> str:
        """A message on a connection of its own: which server took it."""
        with smtplib.SMTP(LOCAL, self.port, timeout=PATIENCE) as client:
            client.ehlo("client.example.com")
            client.mail("a@example.com")
            client.rcpt("b@example.com")
            code, reply = client.data("Subject: x\n\ny")
        assert code == 250
        return reply.decode().rpartition("by ")[2]

    def talks(self) -> dict[str, Talk]:
        """A session in the middle of a message with each server, found by how many of them each has."""
        found: dict[str, Talk] = {}
        while len(found) < len(NAMES):
            before = {name: self.sessions(name) for name in NAMES}
            talk = Talk.over(socket.create_connection((LOCAL, self.port), PATIENCE))
            talk.begin_data()
            (name,) = [name for name in NAMES if self.sessions(name) > before[name]]
            assert name not in found
            found[name] = talk
        return found

    def sessions(self, name: str) -> int:
        (line,) = [line for line in self.ask("show stat").splitlines() if line.startswith(f"smtp,{name},")]
        return int(line.split(",")[4])


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        running = Hosts(tmp_path, stack)
        yield running
        running.haproxy.stop()
        for server in running.servers.values():
            if server.process.poll() is None:
                server.stop()


def kill(server: Server) -> None:
    """As if the host had gone: master, workers and status process at once."""
    for pid in (server.pid, *server.group()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.wait()


def test_a_client_that_tries_again_gets_through_when_a_server_is_killed(hosts: Hosts) -> None:
    """It is in the middle of a message, loses its connection at once, and its second attempt is served."""
    began = time.monotonic()
    hosts.send()
    usual = time.monotonic() - began
    talks = hosts.talks()
    kill(hosts.servers["mx1"])
    began = time.monotonic()
    assert talks["mx1"].read() == ""
    attempts = [hosts.send() for _ in range(4)]
    took = time.monotonic() - began
    assert attempts == ["mx2"] * 4  # each of them at its first attempt: another server is asked for it
    assert took < max(1.0, 20 * usual)  # the latter on a machine that is busy with other things
    hosts.haproxy.wait_for("Server smtp/mx1 is DOWN")
    hosts.haproxy.wait_for("Server submissions/mx1 is DOWN")
    talks["mx2"].send(b"Subject: x\r\n\r\ny\r\n.\r\n")
    assert talks["mx2"].read().endswith("by mx2")
    for talk in talks.values():
        talk.close()


def test_a_server_that_is_stopped_finishes_its_messages(hosts: Hosts) -> None:
    """/readyz says 503: that is no failure, after which HAProxy would close its sessions."""
    talks = hosts.talks()
    hosts.servers["mx1"].send(signal.SIGTERM)
    hosts.haproxy.wait_for("Server smtp/mx1 is stopping")
    assert [hosts.send() for _ in range(3)] == ["mx2"] * 3
    for name, talk in talks.items():
        talk.send(b"Subject: x\r\n\r\ny\r\n.\r\n")
        assert talk.read().endswith(f"by {name}")
        talk.close()
    assert hosts.servers["mx1"].wait() == 0


def test_the_recipe_to_drain(hosts: Hosts) -> None:
    """The orders of the comment, as they stand there."""
    drain, ready = re.findall(r"^#   echo '(.*)' \| socat - /run/haproxy/admin.sock$", SAMPLE.read_text(), re.MULTILINE)
    talks = hosts.talks()
    assert hosts.ask(drain).strip() == ""
    assert [hosts.send() for _ in range(3)] == ["mx2"] * 3
    talks["mx1"].send(b"Subject: x\r\n\r\ny\r\n.\r\n")
    assert talks["mx1"].read().endswith("by mx1")
    talks.pop("mx1").close()
    wait_until(lambda: hosts.sessions("mx1") == 0, "nobody is left")
    assert hosts.ask(ready).strip() == ""
    assert hosts.send() == "mx1"  # it has the fewest sessions
    for talk in talks.values():
        talk.close()
