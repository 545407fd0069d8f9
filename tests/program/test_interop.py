"""Real clients against the real server: whatever sends a message, it is stored exactly once, byte for byte."""

from __future__ import annotations

import json
import os
import re
import smtplib
import ssl
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.certificates import Certificate
from tests.processes import wait_until
from tests.program.conftest import LOOPBACK, Server, need
from tests.program.postfix import over_lmtp, relaying, run

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

def assert_relayed(stored: bytes, content: bytes) -> None:
    """Postfix puts its own trace field on top; nothing else may differ."""
    assert stored.endswith(content)
    trace = stored.removesuffix(content)
    assert re.fullmatch(rb"Received: by postfix\.example\.com [^\r]*(?:\r\n\t[^\r]*)*\r\n", trace)


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
        "lmtp": over_lmtp(server),
    }[transport] | {"smtp_tls_CAfile": str(certificate.certfile)}
    contents = [new_message() for _ in range(10)]
    deliveries = sum(range(1, len(contents) + 1))  # the first message has one recipient, the last ten
    with relaying(postfix_folder, server, f"[127.0.0.1]:{port(server, transport)}", **settings) as postfix:
        for number, content in enumerate(contents):
            postfix.submit(content, RECIPIENT, *(f"other{i}@example.com" for i in range(number)), sender=SENDER)
        wait_until(lambda: postfix.read_log().count(SENT) >= deliveries, "all is delivered")
    log = postfix.read_log()
    assert log.count(SENT) == deliveries, log
    for content in contents:
        (stored,) = [stored for stored in server.stored() if content.split(b"\r\n")[3] in stored]
        assert_relayed(stored, content)


RECORDER = """
import json

def handler(message):
    recipients = [(recipient, recipient.params) for recipient in message.recipients]
    line = json.dumps([message.sender, message.params, recipients, message.content.decode("latin-1")])
    with open("messages", "a") as file:
        file.write(line + "\\n")
"""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that writes down each message with its envelope and all parameters."""
    folder = tmp_path_factory.mktemp("recorder")
    (folder / "app.py").write_text(RECORDER)
    with Server(folder, "-w", "2", "-b", LOOPBACK, "-b", f"lmtp://{LOOPBACK}", "app") as running:
        yield running.ready()
        assert running.stop() == 0
        assert "[ERROR]" not in running.output, running.output


def recorded_once(server: Server, marker: bytes) -> tuple[str, dict[str, Any], dict[str, dict[str, Any]], bytes]:
    """Sender, parameters, recipients with theirs, and content of the only message that has `marker`."""
    rows = [json.loads(line) for line in (server.folder / "messages").read_text().splitlines()]
    (found,) = [row for row in rows if marker in row[3].encode("latin-1")]
    sender, params, recipients, content = found
    assert len(dict(recipients)) == len(recipients)
    return sender, params, dict(recipients), content.encode("latin-1")


def seven_bit_message() -> bytes:
    return re.sub(rb"[^\x00-\x7f]+", b"?", new_message()).replace(b": 8bit", b": 7bit")


def utf8_message() -> bytes:
    """One that needs SMTPUTF8 for its header, whatever its envelope is (RFC 6532)."""
    return new_message().replace(b"Subject: ", "Subject: Grüße, 世界: ".encode())


class Relayed(NamedTuple):
    """What is given to Postfix's sendmail, and the parameters that must come with it."""

    options: tuple[str, ...]
    sender: str
    make: Callable[[], bytes]
    params: dict[str, Any]
    recipients: dict[str, dict[str, Any]]


# Postfix adds ORCPT by itself. RFC 3461 section 4: on the wire it and ENVID are xtext, "+" is "+2B" and "=" "+3D".
YOU = {"ORCPT": f"rfc822;{RECIPIENT}"}
UTF8, EIGHT_BITS = {"SMTPUTF8": True}, {"BODY": "8BITMIME"}
RELAYED = [
    Relayed((), SENDER, seven_bit_message, {}, {RECIPIENT: YOU}),
    Relayed((), SENDER, new_message, EIGHT_BITS, {RECIPIENT: YOU}),
    Relayed(
        ("-N", "success,failure", "-V", "envelope+1=2", "-R", "hdrs"),
        SENDER,
        seven_bit_message,
        {"ENVID": "envelope+1=2", "RET": "HDRS"},
        {
            RECIPIENT: YOU | {"NOTIFY": ["SUCCESS", "FAILURE"]},
            "you+tag=1@example.com": {"ORCPT": "rfc822;you+tag=1@example.com", "NOTIFY": ["SUCCESS", "FAILURE"]},
        },
    ),
    Relayed(("-N", "never"), "", seven_bit_message, {}, {RECIPIENT: YOU | {"NOTIFY": ["NEVER"]}}),
    Relayed(
        ("-N", "success,delay", "-V", "envelope-2", "-R", "full"),
        "jürgen@example.com",
        utf8_message,
        UTF8 | EIGHT_BITS | {"ENVID": "envelope-2", "RET": "FULL"},
        {
            RECIPIENT: YOU | {"NOTIFY": ["SUCCESS", "DELAY"]},
            # RFC 6533 section 3
            "用户@例子.example": {"ORCPT": "utf-8;用户@例子.example", "NOTIFY": ["SUCCESS", "DELAY"]},
        },
    ),
    Relayed((), SENDER, utf8_message, UTF8 | EIGHT_BITS, {RECIPIENT: YOU}),
]


@pytest.mark.parametrize("transport", ["smtp", "lmtp"])
def test_a_postfix_relays_with_parameters(recorder: Server, postfix_folder: Path, transport: str) -> None:
    """DSN, 8BITMIME and SMTPUTF8; CHUNKING not: Postfix takes BDAT, but its client sends none."""
    settings = over_lmtp(recorder) if transport == "lmtp" else {}
    contents = [row.make() for row in RELAYED]
    deliveries = sum(len(row.recipients) for row in RELAYED)
    with relaying(postfix_folder, recorder, f"[127.0.0.1]:{recorder.port()}", **settings) as postfix:
        for row, content in zip(RELAYED, contents, strict=True):
            postfix.submit(content, *row.recipients, sender=row.sender or "<>", options=row.options)
        wait_until(lambda: postfix.read_log().count(SENT) >= deliveries, "all is delivered")
    log = postfix.read_log()
    # Not one more, as Postfix's own notice would be where the server did not take charge of it.
    assert log.count("status=") == log.count(SENT) == deliveries, log
    for row, content in zip(RELAYED, contents, strict=True):
        sender, params, recipients, stored = recorded_once(recorder, content.split(b"\r\n")[3])
        assert_relayed(stored, content)
        assert 0 <= params.pop("SIZE") - len(stored) < 16, "RFC 1870: close to the truth"
        assert (sender, params, recipients) == (row.sender, row.params, row.recipients)
