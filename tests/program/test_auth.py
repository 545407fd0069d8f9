"""Every AUTH mechanism with a client of somebody else's, in a real server: the identity that the handler sees."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import signal
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import ROOT
from tests.program.conftest import LOOPBACK, Serve, Server, Talk, need
from tests.scram import ScramClient

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
    binds += ["-b", f"smtps://{LOOPBACK}?channel_binding=always", "-b", f"smtps://{LOOPBACK}?channel_binding=never"]
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


@pytest.mark.parametrize("method", ["XOAUTH2", "OAUTHBEARER", "PLAIN", "LOGIN", "CRAM-MD5"])
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


@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "STARTTLS"])
@pytest.mark.parametrize("method", ["auth_plain", "auth_login", "auth_cram_md5"])
def test_smtplib(server: Server, certificate: Certificate, method: str, encrypted: bool) -> None:
    before = len(server.matches("^GOT "))
    with smtplib.SMTP("127.0.0.1", server.port(), timeout=30) as client:
        if encrypted:
            client.starttls(context=ssl.create_default_context(cafile=str(certificate.certfile)))
        client.ehlo()
        client.user, client.password = "bob", "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError) as refusal:
            client.auth(method.removeprefix("auth_").replace("_", "-"), getattr(client, method))
        assert refusal.value.smtp_code == 535
        client.password = "secret"
        assert client.auth(method.removeprefix("auth_").replace("_", "-"), getattr(client, method))[0] == 235
        client.sendmail("me@example.com", ["you@example.com"], b"Subject: x\r\n\r\ny\r\n")
    assert got(server, before).startswith("bob TLSv1." if encrypted else "bob None")


TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
AUTO, ALWAYS, NEVER = range(3)  # the binds smtps, in their order


def connect(server: Server, certificate: Certificate, version: ssl.TLSVersion, bind: int = AUTO) -> smtplib.SMTP_SSL:
    context = ssl.create_default_context(cafile=str(certificate.certfile))
    context.minimum_version = context.maximum_version = version
    client = smtplib.SMTP_SSL("localhost", server.port("smtps", bind), timeout=30, context=context)
    client.ehlo()
    return client


@pytest.mark.parametrize(
    ("version", "bind", "offered"),
    [(TLS12, AUTO, True), (TLS13, AUTO, False), (TLS13, ALWAYS, True), (TLS12, NEVER, False), (TLS13, NEVER, False)],
)
def test_where_plus_is_offered(
    server: Server, certificate: Certificate, version: ssl.TLSVersion, bind: int, offered: bool
) -> None:
    """Where usual clients can complete it: with TLS 1.3 they want tls-exporter, and gave up with the right password."""
    if "tls-exporter" in ssl.CHANNEL_BINDING_TYPES:
        offered = bind != NEVER
    with connect(server, certificate, version, bind) as client:
        mechanisms = client.esmtp_features["auth"].split()
        assert ("SCRAM-SHA-256-PLUS" in mechanisms) is ("SCRAM-SHA-1-PLUS" in mechanisms) is offered
        assert "SCRAM-SHA-256" in mechanisms
        user = ScramClient("secret", "bob", gs2="y,,")
        assert exchange(client, "SCRAM-SHA-256", user) == (535 if offered else 235), "y: you do not offer it"
        user = ScramClient("secret", "bob", gs2="n,,")
        assert not offered or exchange(client, "SCRAM-SHA-256", user) == 235


@pytest.mark.parametrize(("version", "bind"), [(TLS12, AUTO), (TLS13, ALWAYS)], ids=["TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize("binding", ["tls-server-end-point", "tls-unique"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_scram_plus(
    server: Server, certificate: Certificate, algorithm: str, binding: str, version: ssl.TLSVersion, bind: int
) -> None:
    """With the channel's own data it succeeds, with other data it does not; tls-unique is not for TLS 1.3."""
    mechanism = f"SCRAM-SHA-{algorithm.removeprefix('sha')}-PLUS"
    with connect(server, certificate, version, bind) as client:
        assert mechanism in client.esmtp_features["auth"].split()
        assert isinstance(client.sock, ssl.SSLSocket)
        ours = client.sock.getpeercert(True)
        assert ours is not None
        data = {"tls-server-end-point": hashlib.sha256(ours).digest(), "tls-unique": client.sock.get_channel_binding()}
        for name, expected in ((b"somebody else's", 535), (data[binding], 235)):
            user = ScramClient("secret", "bob", algorithm, f"p={binding},,")
            user.binding = name or b""
            refused = binding == "tls-unique" and version is ssl.TLSVersion.TLSv1_3
            assert exchange(client, mechanism, user) == (535 if refused else expected)


def exchange(client: smtplib.SMTP, mechanism: str, user: ScramClient) -> int:
    """The last reply's code, once the server has proven itself if it is 235."""
    code, text = client.docmd("AUTH", f"{mechanism} {base64.b64encode(user.first).decode()}")
    while code == 334:
        code, text = client.docmd(base64.b64encode(user(base64.b64decode(text))).decode())
    if code == 235:
        assert user.said[-1] == b"v=" + base64.b64encode(user.signature)
    return code


def test_the_log_names_the_binding_that_was_asked_for(server: Server, certificate: Certificate) -> None:
    with connect(server, certificate, TLS13, ALWAYS) as client:
        assert exchange(client, "SCRAM-SHA-256-PLUS", ScramClient("secret", "bob", gs2="p=tls-exporter,,")) == 535
        server.wait_for(
            r'auth failed .*mechanism=SCRAM-SHA-256-PLUS user=\S+ binding="tls-exporter, which this connection lacks"'
        )


@pytest.mark.parametrize(
    ("options", "mechanism"),
    [
        (["--priority", "NORMAL:-VERS-TLS1.3"], "SCRAM-SHA-256-PLUS"),
        # With a binding at hand, and no -PLUS offered, gsasl 2.2.0 gives up before it says a word.
        (["--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3", "--no-cb"], "SCRAM-SHA-256"),
        (["--no-starttls"], "SCRAM-SHA-256"),
        *((["--no-cb", "-m", name], name) for name in ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")),
    ],
)
def test_gsasl(server: Server, certificate: Certificate, options: list[str], mechanism: str) -> None:
    command = [need("gsasl"), "--smtp", f"--connect=localhost:{server.port()}", "--verbose", "-a", "bob", *options]
    command += [f"--x509-ca-file={certificate.certfile}", "--hostname=localhost", "-z", "bob"]
    for password, code in (("secret", b"235"), ("wrong", b"535")):
        done = subprocess.run([*command, "-p", password], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
        said = done.stdout + done.stderr
        assert re.search(rf"^AUTH {mechanism}\s*$".encode(), said, re.MULTILINE), said
        assert re.search(b"^" + code + b" ", said, re.MULTILINE), said


def test_curl_with_a_client_certificate(server: Server, certificate: Certificate) -> None:
    before = len(server.matches("^GOT "))
    url = f"smtps://localhost@localhost:{server.port('smtps')}"
    command = [need("curl"), "-sS", "--url", url, "--login-options", "AUTH=EXTERNAL"]
    command += ["--cacert", str(certificate.certfile), "--resolve", f"localhost:{server.port('smtps')}:127.0.0.1"]
    command += ["--cert", str(certificate.certfile), "--key", str(certificate.keyfile)]
    command += ["--mail-from", "me@example.com", "--mail-rcpt", "you@example.com", "-T", "-"]
    done = subprocess.run(command, input=b"Subject: x\r\n\r\ny\r\n", capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert got(server, before).startswith("localhost TLSv1.")


@pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "TLS"])
def test_a_drain_ends_the_delay(serve: Serve, certificate: Certificate, tmp_path: Path, encrypted: bool) -> None:
    (tmp_path / "app.py").write_text(APP)
    bind = f"{'smtps' if encrypted else 'smtp'}://{LOOPBACK}?allow_insecure_auth"
    server = serve("-b", bind, "--auth-failure-delay", "3600", *certificate.options, "app:Mail").ready()
    client: smtplib.SMTP
    if encrypted:
        context = ssl.create_default_context(cafile=str(certificate.certfile))
        client = smtplib.SMTP_SSL("localhost", server.port("smtps"), timeout=30, context=context)
    else:
        client = smtplib.SMTP("127.0.0.1", server.port(), timeout=30)
    with contextlib.closing(client):
        client.ehlo()
        client.putcmd("AUTH", "PLAIN AGJvYgB4")
        server.wait_for("auth failed .* mechanism=PLAIN")
        begun = time.monotonic()
        server.send(signal.SIGTERM)
        assert client.getreply()[0] == 421, "without the verdict"
        assert server.wait() == 0
        assert time.monotonic() - begun < 25, "neither the delay nor --graceful-timeout was waited for"


def test_require_auth_where_nobody_can(serve: Serve) -> None:
    server = serve("-b", f"{LOOPBACK}?require_auth&allow_insecure_auth").ready()
    server.wait_for("require_auth, but nobody can authenticate")


def test_the_command_that_makes_a_secret(serve: Serve, tmp_path: Path) -> None:
    """What it prints for a password lets in with that password."""
    command = [sys.executable, "-m", "preforksmtp.scram", "--iterations", "5000"]
    done = subprocess.run(command, input="secret\n", capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert done.returncode == 0 and done.stdout.startswith("SCRAM-SHA-256$5000:"), done
    (tmp_path / "users").write_text(f"bob {done.stdout}")
    (tmp_path / "app.py").write_text("""
from preforksmtp import Handler, ScramSecret


class Mail(Handler):
    scram_iterations = 5000

    def password(self, username):
        for line in open("users"):
            name, secret = line.split(" ", 1)
            if name == username:
                return ScramSecret.parse(secret)

    def message(self, message):
        pass
""")
    server = serve("-b", f"{LOOPBACK}?allow_insecure_auth", "app:Mail").ready()
    with smtplib.SMTP("127.0.0.1", server.port(), timeout=30) as client:
        client.ehlo()
        assert exchange(client, "SCRAM-SHA-256", ScramClient("secret", "bob")) == 235


@pytest.mark.parametrize(("password", "why"), [("", "empty"), ("\n", "empty"), ("a\u0627\n", "direction")])
def test_the_command_with_what_is_no_password(password: str, why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "preforksmtp.scram"], input=password.encode(), capture_output=True, cwd=ROOT, timeout=30
    )
    assert done.returncode == 1 and done.stdout == b"" and why.encode() in done.stderr
    assert done.stderr.count(b"\n") == 1
