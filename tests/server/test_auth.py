"""Every AUTH mechanism with a client of somebody else's, in a real server: the identity that the handler sees."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.server.conftest import LOOPBACK, Server, Talk, need

APP = """
from preforksmtp import Handler, ScramSecret

STORED = ScramSecret.make("secret")


class Mail(Handler):
    def password(self, username):
        return {"bob": "secret", "stored": STORED}.get(username)

    def token(self, username, token):
        return token == "dG9rZW4="

    def certificate(self, certificate):
        names = dict(pair for part in certificate["subject"] for pair in part)
        return names["commonName"]

    def message(self, message):
        print("GOT", message.session.user, message.session.tls and message.session.tls.version, flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("auth")
    (folder / "app.py").write_text(APP)
    binds = ["-b", f"{LOOPBACK}?allow_insecure_auth", "-b", f"smtps://{LOOPBACK}"]
    client = ["--cert-reqs", "optional", "--ca-certs", str(certificate.certfile)]
    settings = ["--require-auth", "--auth-failure-delay", "0.01", *client]
    with Server(folder, *binds, *settings, *certificate.options, "app:Mail") as running:
        yield running.ready()
        assert running.stop() == 0
        assert "Traceback" not in running.output, running.output


def got(server: Server, before: int) -> str:
    return server.wait_for("^GOT (.*)", count=before + 1)[1]


MSMTP = """account default
host 127.0.0.1
port {port}
from me@example.com
tls on
tls_starttls off
tls_trust_file {certificate}
auth {method}
user {user}
passwordeval "printf %s '{password}'"
"""


@pytest.mark.parametrize("user", ["bob", "stored"])
@pytest.mark.parametrize(
    "method", ["plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256", "oauthbearer", "xoauth2"]
)
def test_msmtp(server: Server, certificate: Certificate, tmp_path: Path, method: str, user: str) -> None:
    password = "dG9rZW4=" if "oauth" in method or method == "oauthbearer" else "secret"
    for attempt, given in (("right", password), ("wrong", "wrong")):
        file = tmp_path / f"{attempt}.rc"
        file.touch(0o600)
        file.write_text(
            MSMTP.format(
                port=server.port("smtps"), certificate=certificate.certfile, method=method, user=user, password=given
            )
        )
        before = len(server.matches("^GOT "))
        done = subprocess.run(
            [need("msmtp"), "-C", str(file), "you@example.com"],
            input=b"Subject: x\n\ny\n",
            capture_output=True,
            timeout=30,
        )
        # a ScramSecret of SHA-256 does not do for these
        if attempt == "right" and not (user == "stored" and method in ("cram-md5", "scram-sha-1")):
            assert done.returncode == 0, done.stderr
            assert got(server, before).startswith(f"{user} TLSv1.")
        else:
            assert done.returncode != 0 and len(server.matches("^GOT ")) == before


def test_msmtp_with_a_client_certificate(server: Server, certificate: Certificate, tmp_path: Path) -> None:
    file = tmp_path / "rc"
    file.touch(0o600)
    text = MSMTP.format(
        port=server.port("smtps"), certificate=certificate.certfile, method="external", user="localhost", password="x"
    )
    file.write_text(text + f"tls_cert_file {certificate.certfile}\ntls_key_file {certificate.keyfile}\n")
    before = len(server.matches("^GOT "))
    done = subprocess.run(
        [need("msmtp"), "-C", str(file), "you@example.com"], input=b"Subject: x\n\ny\n", capture_output=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert got(server, before).startswith("localhost TLSv1.")


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_swaks_in_clear(server: Server, method: str) -> None:
    before = len(server.matches("^GOT "))
    command = [need("swaks"), "--server", "127.0.0.1", "--port", str(server.port()), "--to", "you@example.com"]
    login = ["--auth", method, "--auth-user", "bob", "--auth-password", "secret"]
    done = subprocess.run([*command, *login], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stdout
    assert got(server, before) == "bob None"


@pytest.mark.parametrize("method", ["XOAUTH2", "OAUTHBEARER", "PLAIN", "LOGIN"])
def test_curl(server: Server, certificate: Certificate, method: str) -> None:
    before = len(server.matches("^GOT "))
    secret = ["--oauth2-bearer", "dG9rZW4=", "--user", "bob"] if "OAUTH" in method else ["--user", "bob:secret"]
    url = f"smtps://localhost:{server.port('smtps')}"
    command = [need("curl"), "-sS", "--url", url, "--cacert", str(certificate.certfile), "--resolve"]
    command += [f"localhost:{server.port('smtps')}:127.0.0.1", "--login-options", f"AUTH={method}", *secret]
    command += ["--mail-from", "me@example.com", "--mail-rcpt", "you@example.com", "-T", "-"]
    done = subprocess.run(command, input=b"Subject: x\r\n\r\ny\r\n", capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert got(server, before).startswith("bob TLSv1.")


def test_what_is_offered(server: Server) -> None:
    with Talk(server.port()) as client:
        offered = client.ask("EHLO client.example.com")
    assert "AUTH SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 OAUTHBEARER XOAUTH2 PLAIN LOGIN\n" in offered


def test_failures_end_the_session(server: Server) -> None:
    """Three wrong passwords: 535, 535, 421; an unknown user is told the same."""
    with Talk(server.port()) as client:
        client.ask("EHLO client.example.com")
        unknown = client.ask("AUTH PLAIN AG5vYm9keQB4")
        wrong = client.ask("AUTH PLAIN AGJvYgB4")
        assert unknown == wrong == "535 5.7.8 Authentication credentials invalid"
        assert client.ask("AUTH PLAIN AGJvYgB4").startswith("421 4.7.0")
        assert client.read() == ""
