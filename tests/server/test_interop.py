"""Real clients against the real server: whatever sends a message, it is stored exactly once, byte for byte."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import smtplib
import ssl
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import Program, wait_until
from tests.server.conftest import LOOPBACK, Server, need

SENDER, RECIPIENT = "me@example.com", "you@example.com"
USER, PASSWORD = "alice", "pass word=%+/"

APP = f"""
from preforksmtp import Handler
from preforksmtp.handlers import Maildir

STORE = Maildir("Maildir")


class Mail(Handler):
    def authenticate(self, username, password):
        return (username, password) == ({USER!r}, {PASSWORD!r})

    def message(self, message):
        return STORE(message)
"""

# In clear AUTH is possible because the bind of the clear listener allows it.
TRANSPORTS = ("clear", "starttls", "tls")
AUTHS = ("", "PLAIN", "LOGIN")
every_way = pytest.mark.parametrize("auth", AUTHS, ids=lambda auth: auth or "no auth")
every_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("interop")
    (folder / "app.py").write_text(APP)
    binds = ["-b", f"{LOOPBACK}?allow_insecure_auth", "-b", f"smtps://{LOOPBACK}", "-b", f"lmtp://{LOOPBACK}"]
    with Server(folder, "-w", "2", *binds, *certificate.options, "app:Mail") as running:
        yield running.ready()
        assert running.stop() == 0
        assert "Traceback" not in running.output, running.output
        assert "[ERROR]" not in running.output, running.output


def port(server: Server, transport: str) -> int:
    return server.port("smtps" if transport == "tls" else "smtp")


def new_message(line_end: str = "\r\n") -> bytes:
    """Complete, so that no client adds a field, and with the lines that go wrong: dots, 8 bits, blanks, a long one."""
    lines = [
        f"From: <{SENDER}>", f"To: <{RECIPIENT}>", "Date: Tue, 24 Nov 2026 08:00:00 +0000",
        f"Message-ID: <{uuid.uuid4()}@example.com>", "Subject: interoperation", "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "",
        ".", "..", ".dot", "...three", "", "Grüße, 世界", " leading and trailing ", "\ttab", "x" * 990,
        "From here", "", "end",
    ]  # fmt: skip
    return "".join(line + line_end for line in lines).encode()


def assert_stored_once(server: Server, content: bytes) -> None:
    """Under the trace fields exactly this content, in exactly one file."""
    marker = re.search(rb"Message-ID: (\S+)", content)
    assert marker is not None
    found = [stored for stored in server.stored() if marker[1] in stored]
    assert found == [content]


def run(arguments: list[str], content: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        arguments, input=content, capture_output=True, timeout=30, env=os.environ | env, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
    return done


# --- smtplib


def smtplib_client(server: Server, transport: str, certificate: Certificate) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=str(certificate.certfile))
    if transport == "tls":
        return smtplib.SMTP_SSL("127.0.0.1", port(server, transport), timeout=15, context=context)
    client = smtplib.SMTP("127.0.0.1", port(server, transport), timeout=15)
    if transport == "starttls":
        client.starttls(context=context)
    return client


@every_way
@every_transport
def test_smtplib(server: Server, certificate: Certificate, transport: str, auth: str) -> None:
    content = new_message()
    with smtplib_client(server, transport, certificate) as client:
        client.ehlo()
        if auth:
            client.esmtp_features["auth"] = auth
            client.login(USER, PASSWORD)
        refused = client.sendmail(SENDER, [RECIPIENT, "other@example.com"], content, ["BODY=8BITMIME"])
    assert refused == {}
    assert_stored_once(server, content)


def test_smtplib_many_messages_with_utf8_addresses_on_one_connection(server: Server, certificate: Certificate) -> None:
    contents = [new_message() for _ in range(20)]
    with smtplib_client(server, "starttls", certificate) as client:
        for content in contents:
            client.sendmail("jürgen@example.com", ["用户@例子.example"], content, ["SMTPUTF8", "BODY=8BITMIME"])
    for content in contents:
        assert_stored_once(server, content)


def test_smtplib_is_refused_with_a_wrong_password(server: Server, certificate: Certificate) -> None:
    with smtplib_client(server, "starttls", certificate) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(USER, "guess")
        assert client.noop()[0] == 250


def test_smtplib_with_ten_megabytes(server: Server, certificate: Certificate) -> None:
    content = new_message() + (b"y" * 76 + b"\r\n") * (10 * 1024 * 1024 // 78)
    with smtplib_client(server, "tls", certificate) as client:
        client.sendmail(SENDER, [RECIPIENT], content)
    assert_stored_once(server, content)


def test_smtplib_over_lmtp(server: Server) -> None:
    content = new_message()
    with smtplib.LMTP("127.0.0.1", server.port("lmtp"), timeout=15) as client:
        refused = client.sendmail(SENDER, [RECIPIENT], content, ["BODY=8BITMIME"])
    assert refused == {}
    assert_stored_once(server, content)


# --- curl


@every_way
@every_transport
def test_curl(server: Server, certificate: Certificate, tmp_path: Path, transport: str, auth: str) -> None:
    content = new_message()
    file = tmp_path / "message"
    file.write_bytes(content)
    url = f"{'smtps' if transport == 'tls' else 'smtp'}://127.0.0.1:{port(server, transport)}/client.example.com"
    arguments = [need("curl"), "-sS", "--url", url, "--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "-T", str(file)]
    if transport != "clear":
        arguments += ["--ssl-reqd", "--cacert", str(certificate.certfile)]
    if auth:
        arguments += ["--user", f"{USER}:{PASSWORD}", "--login-options", f"AUTH={auth}"]
    run(arguments)
    assert_stored_once(server, content)


# --- swaks


@every_way
@every_transport
def test_swaks(server: Server, tmp_path: Path, transport: str, auth: str) -> None:
    content = new_message()
    file = tmp_path / "message"
    file.write_bytes(content.replace(b"\r\n", b"\n").removesuffix(b"\n"))  # swaks ends the last line itself
    arguments = [
        need("swaks"), "--server", "127.0.0.1", "--port", str(port(server, transport)), "--helo", "client.example.com",
        "--from", SENDER, "--to", RECIPIENT, "--data", f"@{file}", "--timeout", "15",
    ]  # fmt: skip
    arguments += {"clear": [], "starttls": ["--tls"], "tls": ["--tls-on-connect"]}[transport]
    if auth:
        arguments += ["--auth", auth, "--auth-user", USER, "--auth-password", PASSWORD]
    done = run(arguments)
    if auth:
        assert b"235 2.7.0" in done.stdout
    assert_stored_once(server, content)


def test_swaks_over_lmtp(server: Server, tmp_path: Path) -> None:
    content = new_message()
    file = tmp_path / "message"
    file.write_bytes(content.replace(b"\r\n", b"\n").removesuffix(b"\n"))
    recipients = f"{RECIPIENT},other@example.com"
    done = run([
        need("swaks"), "--protocol", "LMTP", "--server", "127.0.0.1", "--port", str(server.port("lmtp")),
        "--from", SENDER, "--to", recipients, "--data", f"@{file}", "--timeout", "15",
    ])  # fmt: skip
    assert b"250 2.0.0 Ok: queued as" in done.stdout
    assert_stored_once(server, content)


# --- msmtp


@every_way
@every_transport
def test_msmtp(server: Server, certificate: Certificate, tmp_path: Path, transport: str, auth: str) -> None:
    content = new_message()
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    arguments = [
        need("msmtp"), "--file=/dev/null", "--host=127.0.0.1", f"--port={port(server, transport)}", f"--from={SENDER}",
        "--timeout=15", "--tls=" + ("off" if transport == "clear" else "on"),
    ]  # fmt: skip
    if transport != "clear":
        arguments += [
            f"--tls-trust-file={certificate.certfile}",
            "--tls-starttls=" + ("on" if transport == "starttls" else "off"),
        ]
    if auth:
        arguments += [f"--auth={auth.lower()}", f"--user={USER}", f"--passwordeval=cat {password}"]
    run([*arguments, "--", RECIPIENT], content.replace(b"\r\n", b"\n"))
    assert_stored_once(server, content)


# --- Postfix


@pytest.mark.parametrize("connections", [1, 10], ids="{} connections".format)
def test_smtp_source(server: Server, tmp_path: Path, connections: int) -> None:
    content = new_message()
    file = tmp_path / "message"
    file.write_bytes(content.replace(b"\r\n", b"\n").removesuffix(b"\n"))
    count = 50
    run([
        need("smtp-source"), "-s", str(connections), "-m", str(count), "-f", SENDER, "-t", RECIPIENT, "-F", str(file),
        f"127.0.0.1:{port(server, 'clear')}",
    ])  # fmt: skip
    marker = content.split(b"\r\n")[3]
    # smtp-source adds an empty line.
    assert [stored for stored in server.stored() if marker in stored] == [content + b"\r\n"] * count


SENT = "status=sent (250 2.0.0 Ok: queued as "

MASTER_CF = """\
pickup    unix  n  -  n  1  1  pickup
cleanup   unix  n  -  n  -  0  cleanup
qmgr      unix  n  -  n  1  1  qmgr
rewrite   unix  -  -  n  -  -  trivial-rewrite
bounce    unix  -  -  n  -  0  bounce
defer     unix  -  -  n  -  0  bounce
trace     unix  -  -  n  -  0  bounce
flush     unix  n  -  n  1000?  0  flush
proxymap  unix  -  -  n  -  -  proxymap
tlsmgr    unix  -  -  n  1000?  1  tlsmgr
smtp      unix  -  -  n  -  -  smtp
lmtp      unix  -  -  n  -  -  lmtp
error     unix  -  -  n  -  -  error
retry     unix  -  -  n  -  -  error
scache    unix  -  -  n  -  1  scache
postlog   unix-dgram  n  -  n  -  1  postlogd
"""


class Postfix(Program):
    """A Postfix of its own, apart from the system's: its folders below `folder`, no listener, everything goes to the
    relay host."""

    def __init__(self, folder: Path, relay: str, **settings: str) -> None:
        self.folder = folder
        self.config = folder / "config"
        self.log = folder / "log"
        for name in ("config", "queue", "data"):
            (folder / name).mkdir()
        os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
        main = {
            "compatibility_level": "3.6",
            "queue_directory": folder / "queue",
            "data_directory": folder / "data",
            "maillog_file": self.log,
            "maillog_file_prefixes": folder,
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "postfix.example.com",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "relayhost": relay,
            "smtp_host_lookup": "native",
            "smtputf8_enable": "yes",
            "mailbox_size_limit": "0",
        } | settings
        (self.config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
        (self.config / "master.cf").write_text(MASTER_CF)
        self._sbin = Path(need("postfix")).parent
        run([str(self._sbin / "postfix"), "-c", str(self.config), "check"])  # it makes the folders of the queue
        asked = run([str(self._sbin / "postconf"), "-c", str(self.config), "-h", "daemon_directory"])
        # Not "postfix start-fg": TERM would end its shell and leave the master.
        super().__init__([f"{asked.stdout.decode().strip()}/master", "-c", str(self.config), "-s"])

    def submit(self, content: bytes, *recipients: str) -> None:
        """Through its sendmail, as a local program does."""
        run([str(self._sbin / "sendmail"), "-i", "-f", SENDER, *recipients], content, MAIL_CONFIG=str(self.config))

    def queued(self) -> list[Path]:
        folders = ("maildrop", "incoming", "active", "deferred")
        return [file for name in folders for file in (self.folder / "queue" / name).rglob("*") if file.is_file()]

    def assert_nothing_left(self) -> None:
        """Its master ends before its children do."""
        wait_until(lambda: not self.group(), "the end of Postfix's processes")
        super().assert_nothing_left()

    def read_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@pytest.fixture
def postfix_folder() -> Iterator[Path]:
    """Not below tmp_path, which only root may enter: Postfix drops its privileges."""
    need("postfix")
    if os.getuid() != 0:
        pytest.skip("starting a Postfix of its own needs root")
    with tempfile.TemporaryDirectory(prefix="postfix") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("transport", ["clear", "starttls", "tls", "lmtp"])
def test_a_postfix_relays_to_the_server(
    server: Server, certificate: Certificate, postfix_folder: Path, transport: str
) -> None:
    settings = {
        "clear": {"smtp_tls_security_level": "none"},
        "starttls": {"smtp_tls_security_level": "verify", "smtp_tls_verify_cert_match": "127.0.0.1, localhost"},
        "tls": {"smtp_tls_security_level": "encrypt", "smtp_tls_wrappermode": "yes"},
        "lmtp": {"relayhost": "", "default_transport": f"lmtp:inet:127.0.0.1:{server.port('lmtp')}"},
    }[transport] | {"smtp_tls_CAfile": str(certificate.certfile)}
    contents = [new_message() for _ in range(10)]
    deliveries = sum(range(1, len(contents) + 1))  # the first message has one recipient, the last ten
    with Postfix(postfix_folder, f"[127.0.0.1]:{port(server, transport)}", **settings) as postfix:
        try:
            wait_until(lambda: "daemon started" in postfix.read_log(), "Postfix starts")
            for number, content in enumerate(contents):
                others = [f"other{i}@example.com" for i in range(number)]
                postfix.submit(content.replace(b"\r\n", b"\n"), RECIPIENT, *others)
            wait_until(lambda: postfix.read_log().count(SENT) >= deliveries, "all is delivered")
            wait_until(lambda: not postfix.queued(), "Postfix's queue is empty")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{postfix.output}\n{postfix.read_log()}\n{server.output}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                postfix.stop()
        log = postfix.read_log()
    assert log.count(SENT) == deliveries, log
    for content in contents:
        # Postfix puts its own trace field on top; nothing else may differ.
        (stored,) = [stored for stored in server.stored() if content.split(b"\r\n")[3] in stored]
        assert re.fullmatch(rb"Received: by postfix\.example\.com [^\r]*(?:\r\n\t[^\r]*)*\r\n", stored[: -len(content)])
        assert stored.endswith(content)
