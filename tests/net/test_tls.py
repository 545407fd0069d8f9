"""net/tls.py: contexts that work, one clear line for each mistake, resumption across forked workers."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from preforksmtp.net.tls import TLSError, server_context

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@dataclass(frozen=True)
class Settings:
    certfile: str | None = None
    keyfile: str | None = None
    keyfile_password_file: str | None = None
    ca_certs: str | None = None
    cert_reqs: str = "none"
    ciphers: str | None = None
    tls_min_version: str = "1.2"
    sni: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two self-signed certificates and one key in several shapes."""
    folder = tmp_path_factory.mktemp("pki")
    for name in ("server", "other"):
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
        )  # fmt: skip
    key = folder / "server.key"
    openssl("pkcs8", "-topk8", "-in", key, "-out", folder / "encrypted.key", "-passout", "pass:secret")
    openssl("ec", "-in", key, "-aes128", "-out", folder / "traditional.key", "-passout", "pass:secret")
    (folder / "both.pem").write_bytes((folder / "server.pem").read_bytes() + key.read_bytes())
    (folder / "password").write_text("secret\n")
    (folder / "wrong").write_text("guess\n")
    (folder / "empty").write_text("\n")
    (folder / "long").write_text("x" * 1025)
    (folder / "text").write_text("nothing here\n")
    lines = (folder / "server.pem").read_text().splitlines(keepends=True)
    (folder / "damaged.pem").write_text("".join([lines[0], "AAAA\n", *lines[2:]]))
    lines = key.read_text().splitlines(keepends=True)
    (folder / "damaged.key").write_text("".join([lines[0], "AAAA\n", *lines[2:]]))
    return folder


@pytest.fixture
def good(pki: Path) -> Settings:
    return Settings(certfile=str(pki / "server.pem"), keyfile=str(pki / "server.key"))


@contextmanager
def handshake(
    context: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    """Connect to a process forked for this one session; it sends a line, so that its tickets arrive."""
    near, far = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        near.close()
        try:
            far.settimeout(10)
            with context.wrap_socket(far, server_side=True) as tls:
                tls.sendall(b"220 hello\r\n")
                tls.recv(1)
        finally:
            os._exit(0)
    far.close()
    near.settimeout(10)
    try:
        with client.wrap_socket(near, server_hostname="localhost", session=session) as tls:
            assert tls.recv(100) == b"220 hello\r\n"
            yield tls
    finally:
        near.close()
        os.waitpid(pid, 0)


@pytest.fixture
def client(pki: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pki / "server.pem"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_of_one_worker_is_resumed_by_another(
    good: Settings, client: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context = server_context(good)
    client.minimum_version = client.maximum_version = version
    with handshake(context, client) as first:
        assert not first.session_reused
        session = first.session
    with handshake(context, client, session) as second:
        assert second.session_reused


def test_versions_below_the_minimum_are_refused(good: Settings, client: ssl.SSLContext) -> None:
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    context = server_context(replace(good, tls_min_version="1.3"))
    with pytest.raises((ssl.SSLError, ConnectionError)), handshake(context, client):
        pass


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3"])
def test_minimum_version(good: Settings, version: str) -> None:
    context = server_context(replace(good, tls_min_version=version))
    assert context.minimum_version.name == "TLSv" + version.replace("1.0", "1").replace(".", "_")


def test_default_minimum_is_1_2_and_renegotiation_is_off(good: Settings) -> None:
    context = server_context(good)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert not context.options & ssl.OP_NO_TICKET


def test_ciphers_are_the_ones_asked_for(good: Settings) -> None:
    context = server_context(replace(good, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"))
    older = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert older == ["ECDHE-ECDSA-AES128-GCM-SHA256"]


@pytest.mark.parametrize("keyfile", ["encrypted.key", "traditional.key"])
def test_encrypted_key_with_its_password(pki: Path, good: Settings, keyfile: str) -> None:
    server_context(replace(good, keyfile=str(pki / keyfile), keyfile_password_file=str(pki / "password")))


def test_key_in_the_certificate_file(pki: Path, client: ssl.SSLContext) -> None:
    with handshake(server_context(Settings(certfile=str(pki / "both.pem"))), client):
        pass


@pytest.mark.parametrize(
    ("cert_reqs", "mode"),
    [("none", ssl.CERT_NONE), ("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)],
)
def test_client_certificates(pki: Path, good: Settings, cert_reqs: str, mode: ssl.VerifyMode) -> None:
    context = server_context(replace(good, cert_reqs=cert_reqs, ca_certs=str(pki / "other.pem")))
    assert context.verify_mode == mode
    assert len(context.get_ca_certs()) == 1


def test_required_client_certificate_is_verified(pki: Path, good: Settings, client: ssl.SSLContext) -> None:
    context = server_context(replace(good, cert_reqs="required", ca_certs=str(pki / "other.pem")))
    with pytest.raises((ssl.SSLError, ConnectionError)), handshake(context, client):
        pass
    client.load_cert_chain(pki / "other.pem", pki / "other.key")
    with handshake(context, client):
        pass


NO_PEM = "has no certificate in PEM format (-----BEGIN CERTIFICATE-----)"
ENCRYPTED = "is encrypted; put its password in a file and set keyfile_password_file"
UNDECRYPTED = "cannot be decrypted: the password in @wrong is wrong"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"certfile": None}, "certfile is not set; TLS needs a certificate in certfile"),
        ({"certfile": "@gone"}, "certfile @gone does not exist"),
        ({"certfile": "@"}, "certfile @ cannot be read: Is a directory"),
        ({"certfile": "@text"}, f"certfile @text {NO_PEM}"),
        ({"certfile": "@server.key"}, f"certfile @server.key {NO_PEM}"),
        ({"certfile": "@damaged.pem"}, "certfile @damaged.pem is damaged: the certificate cannot be read"),
        ({"keyfile": None}, "certfile @server.pem has no private key in PEM format; set keyfile"),
        ({"keyfile": "@gone"}, "keyfile @gone does not exist"),
        ({"keyfile": "@text"}, "keyfile @text has no private key in PEM format"),
        ({"keyfile": "@damaged.key"}, "keyfile @damaged.key is damaged: the private key cannot be read"),
        ({"keyfile": "@other.key"}, "keyfile @other.key does not belong to the certificate of certfile"),
        ({"keyfile": "@encrypted.key"}, f"keyfile @encrypted.key {ENCRYPTED}"),
        ({"keyfile": "@traditional.key"}, f"keyfile @traditional.key {ENCRYPTED}"),
        (
            {"keyfile": "@encrypted.key", "keyfile_password_file": "@wrong"},
            f"keyfile @encrypted.key {UNDECRYPTED}",
        ),
        (
            {"keyfile": "@traditional.key", "keyfile_password_file": "@wrong"},
            f"keyfile @traditional.key {UNDECRYPTED}",
        ),
        (
            {"keyfile": "@encrypted.key", "keyfile_password_file": "@gone"},
            "keyfile_password_file @gone does not exist",
        ),
        (
            {"keyfile": "@encrypted.key", "keyfile_password_file": "@empty"},
            "keyfile_password_file @empty is empty",
        ),
        (
            {"keyfile": "@encrypted.key", "keyfile_password_file": "@long"},
            "keyfile_password_file @long has more than the 1024 bytes OpenSSL takes",
        ),
        ({"cert_reqs": "maybe"}, "cert_reqs 'maybe' is not one of none, optional, required"),
        ({"cert_reqs": "required"}, "cert_reqs required needs ca_certs, the file of the authorities"),
        ({"ca_certs": "@gone"}, "ca_certs @gone does not exist"),
        ({"ca_certs": "@text"}, f"ca_certs @text {NO_PEM}"),
        ({"ca_certs": "@damaged.pem"}, "ca_certs @damaged.pem is damaged: a certificate cannot be read"),
        ({"ciphers": "nonsense"}, "ciphers 'nonsense': OpenSSL knows none of them"),
        ({"tls_min_version": "1.4"}, "tls_min_version '1.4' is not one of 1.0, 1.1, 1.2, 1.3"),
    ],
)
def test_each_mistake_is_one_clear_line(
    pki: Path, good: Settings, changes: dict[str, str | None], line: str
) -> None:
    at = f"{pki}/"
    changed = {name: value.replace("@", at) if value else value for name, value in changes.items()}
    with pytest.raises(TLSError) as caught:
        server_context(replace(good, **changed))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.replace(at, "@").startswith(line)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_key(tmp_path: Path, pki: Path, good: Settings) -> None:
    key = shutil.copy(pki / "server.key", tmp_path / "locked.key")
    os.chmod(key, 0)
    with pytest.raises(TLSError, match=r"^keyfile .*locked\.key cannot be read: Permission denied$"):
        server_context(replace(good, keyfile=str(key)))
