"""Logs of the real program: syslog, the user's logging configuration, the transcript."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import smtplib
import socket
import ssl
from pathlib import Path

from tests.certificates import Certificate
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Serve, Talk

DISCARD = "preforksmtp.handlers:Discard()"

APP = """
from preforksmtp import Handler


class Mail(Handler):
    def authenticate(self, username, password):
        return (username, password) == ("bob", "hush-hush")

    def message(self, message):
        pass
"""


def open_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(link))
    return found


def send(port: int) -> None:
    with Talk(port) as talk:
        talk.begin_data()
        talk.send(b"Subject: x\r\n\r\nhello\r\n.\r\n")
        assert talk.read().startswith("250")
        assert talk.ask("QUIT").startswith("221")


def bound(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    server.settimeout(PATIENCE)
    return server


def hear(server: socket.socket, pattern: str) -> str:
    """The next message that matches."""
    while True:
        message = server.recv(9999).decode()
        if re.search(pattern, message):
            return message


# -- syslog


def test_syslog(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    arguments = ["--log-syslog", "--log-syslog-to", f"unix://{path}", "--name", "mx1", "--log-syslog-facility", "local3"]
    with bound(path) as syslog:
        server = serve("-b", LOOPBACK, *arguments, DISCARD).ready()
        assert re.match(r"<158>\w+ [ \d]\d [\d:]+ mx1\[\d+\]: \[INFO\] ", hear(syslog, "ready"))
        send(server.port())
        line = hear(syslog, "from=<a@example.com>")
        assert f" mx1[{server.worker()}]: " in line
    path.unlink()
    with bound(path) as syslog:
        server.send(signal.SIGUSR1)
        send(server.port())
        assert "reply=" in hear(syslog, "from=<a@example.com>")
    send(server.port())  # nobody is there, and nobody minds
    assert "Traceback" not in server.output


def test_no_syslog(serve: Serve, tmp_path: Path) -> None:
    server = serve("-b", LOOPBACK, "--log-syslog", "--log-syslog-to", f"unix://{tmp_path}/none", DISCARD)
    assert server.wait() == 1
    (line,) = server.lines
    assert line.endswith(f"log_syslog_to: cannot reach unix://{tmp_path}/none: No such file or directory")


# -- log_config


def write_log_config(folder: Path, name: str = "own.log") -> None:
    handler = {"class": "logging.FileHandler", "filename": name, "formatter": "short"}
    (folder / "log.json").write_text(json.dumps({
        "formatters": {"short": {"format": "%(levelname)s|%(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"preforksmtp": {"handlers": ["file"], "propagate": False}},
    }))  # fmt: skip


def test_log_config_and_a_broken_one(serve: Serve, tmp_path: Path) -> None:
    write_log_config(tmp_path)
    server = serve("-b", LOOPBACK, "--log-config", "log.json", DISCARD)

    def logged(name: str = "own.log") -> str:
        path = tmp_path / name
        return path.read_text() if path.exists() else ""

    wait_until(lambda: re.search(r"INFO\|master \d+: ready", logged()), "ready")
    old = server.worker()
    (tmp_path / "log.json").write_text('{"handlers": {"x": {"class": "no.such.Class"}}}')
    server.send(signal.SIGHUP)
    wait_until(lambda: "Unable to configure handler 'x'" in logged(), "the error")
    wait_until(lambda: server.children() == {old}, "the old worker and nobody else")
    os.kill(old, signal.SIGKILL)  # its replacement has what was good
    wait_until(lambda: server.children() - {old}, "another worker")
    write_log_config(tmp_path, "new.log")
    server.send(signal.SIGHUP)
    wait_until(lambda: "reload done" in logged("new.log"), "reloaded")
    wait_until(lambda: len(server.children()) == 1, "one worker")
    os.kill(server.worker(), signal.SIGABRT)
    server.wait_for("Fatal Python error: Aborted")
    assert server.stop() == 0
    assert "Traceback" not in server.output


def test_a_broken_log_config_at_the_start(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "log.ini").write_text("[loggers]\n")
    server = serve("-b", LOOPBACK, "--log-config", "log.ini", DISCARD)
    assert server.wait() == 1
    (line,) = server.lines
    assert "error: log_config: log.ini: KeyError: 'formatters'" in line


# -- transcript


def test_transcript_of_auth_over_starttls(serve: Serve, tmp_path: Path, certificate: Certificate) -> None:
    (tmp_path / "app.py").write_text(APP)
    server = serve("-b", LOOPBACK, "--transcript", "dialogue", *certificate.options, "app:Mail").ready()
    context = ssl.create_default_context(cafile=certificate.certfile)
    with smtplib.SMTP("127.0.0.1", server.port(), "client.test", PATIENCE) as client:
        client._host = "localhost"  # the name that the certificate has
        client.starttls(context=context)
        client.ehlo("client.test")
        assert client.docmd("AUTH", "LOGIN")[0] == 334
        assert client.docmd(base64.b64encode(b"bob").decode())[0] == 334
        assert client.docmd(base64.b64encode(b"guess").decode())[0] == 535
        client.login("bob", "hush-hush")
        client.sendmail("a@b.test", "c@d.test", "Subject: confidential\r\n\r\nconfidential\r\n")
    wait_until(lambda: "[closed]" in (tmp_path / "dialogue").read_text(), "the end")
    text = (tmp_path / "dialogue").read_text()
    assert "confidential" not in text
    for secret in (b"\0bob\0hush-hush", b"hush-hush", b"guess", b"bob"):
        assert base64.b64encode(secret).decode() not in text
    assert "hush" not in text
    said = [line.split(" ", 4)[4] for line in text.splitlines()]
    assert "C: AUTH LOGIN" in said
    assert "C: AUTH PLAIN ********" in said
    assert any(line.startswith("*: [TLS: TLSv1.3 ") for line in said)
    assert any(re.fullmatch(r"C: \[\d+ octets of data\]", line) for line in said)
    assert [said[-3], said[-1]] == ["C: QUIT", "*: [closed]"]
    assert len({line.split(" ")[3] for line in text.splitlines()}) == 1, "one session id"

    os.rename(tmp_path / "dialogue", tmp_path / "old")
    server.send(signal.SIGUSR1)
    wait_until(lambda: (tmp_path / "dialogue").exists(), "reopened")
    worker = server.worker()
    wait_until(lambda: any(link.endswith("/dialogue") for link in open_files(worker)), "reopened by the worker")
    with Talk(server.port()) as talk:
        assert talk.ask("NOOP").startswith("250")
        assert "C: NOOP" in (tmp_path / "dialogue").read_text()
