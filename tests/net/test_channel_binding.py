"""Channel bindings: the hash of a certificate by its signature, as openssl has it; damaged certificates; two ends."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from preforksmtp.net.channel_binding import channel_bindings, server_end_point
from tests.certificates import Certificate, make_certificate
from tests.program.conftest import need

RSA, EC = ["rsa:2048"], ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
PSS = ["-sigopt", "rsa_padding_mode:pss"]


def certificate(folder: Path, kind: list[str], *options: str) -> bytes:
    """A self-signed one, DER."""
    file = folder / "cert.der"
    subprocess.run(
        [need("openssl"), "req", "-x509", "-newkey", *kind, "-nodes", "-subj", "/CN=localhost", *options,
         "-keyout", str(folder / "key.pem"), "-outform", "DER", "-out", str(file)],
        check=True, capture_output=True,
    )  # fmt: skip
    return file.read_bytes()


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (RSA, ["-sha1"], "sha256"),  # RFC 5929 section 4.1
        (RSA, ["-md5"], "sha256"),
        (RSA, ["-sha224"], "sha224"),
        (RSA, ["-sha256"], "sha256"),
        (RSA, ["-sha384"], "sha384"),
        (RSA, ["-sha512"], "sha512"),
        (RSA, ["-sha1", *PSS], "sha256"),  # all its parameters are the default, and left out
        (RSA, ["-sha256", *PSS], "sha256"),
        (RSA, ["-sha384", *PSS], "sha384"),
        (RSA, ["-sha512", *PSS], "sha512"),
        (EC, ["-sha1"], "sha256"),
        (EC, ["-sha256"], "sha256"),
        (EC, ["-sha384"], "sha384"),
        (EC, ["-sha512"], "sha512"),
        (["ed25519"], [], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_the_hash_is_that_of_the_signature(
    tmp_path: Path, kind: list[str], options: list[str], name: str | None
) -> None:
    der = certificate(tmp_path, kind, *options)
    assert server_end_point(der) == (None if name is None else hashlib.new(name, der).digest())


def test_damaged_certificates(tmp_path: Path) -> None:
    """Cut off anywhere, and with any octets changed: a hash or None, and nothing raised."""
    for der in (certificate(tmp_path, EC), certificate(tmp_path, RSA, "-sha384", *PSS)):
        assert server_end_point(der) is not None
        for length in range(len(der)):
            assert server_end_point(der[:length]) is None
        chance = random.Random(5929)
        for _ in range(3000):
            damaged = bytearray(der)
            for _ in range(chance.randrange(1, 5)):
                damaged[chance.randrange(len(der))] = chance.randrange(256)
            server_end_point(bytes(damaged))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Certificate, bytes]:
    need("openssl")
    made = make_certificate(tmp_path_factory.mktemp("binding"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certfile, made.keyfile)
    return context, made, ssl.PEM_cert_to_DER_cert(made.certfile.read_text())


def connect(
    server: tuple[ssl.SSLContext, Certificate, bytes], version: ssl.TLSVersion, session: ssl.SSLSession | None = None
) -> tuple[dict[str, bytes], bytes | None, ssl.SSLSession | None, ssl.SSLContext]:
    """One connection: the server's bindings, the client's tls-unique, its session."""
    context, made, der = server
    client = ssl.create_default_context(cafile=str(made.certfile))
    return connect_with(context, client, der, version, session)


def connect_with(
    context: ssl.SSLContext, client: ssl.SSLContext, der: bytes, version: ssl.TLSVersion, session: ssl.SSLSession | None
) -> tuple[dict[str, bytes], bytes | None, ssl.SSLSession | None, ssl.SSLContext]:
    client.maximum_version = version
    ours, theirs = socket.socketpair()
    found: list[dict[str, bytes]] = []

    def serve() -> None:
        with context.wrap_socket(ours, server_side=True) as sock:
            found.append(channel_bindings(sock, der))
            sock.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(theirs, server_hostname="localhost", session=session) as sock:
        unique, kept = sock.get_channel_binding("tls-unique"), sock.session
        sock.sendall(b"x")
        thread.join()
    return found[0], unique, kept, client


def test_tls_1_3(server: tuple[ssl.SSLContext, Certificate, bytes]) -> None:
    bindings, _, _, _ = connect(server, ssl.TLSVersion.TLSv1_3)
    assert bindings == {"tls-server-end-point": hashlib.sha256(server[2]).digest()}


def test_tls_1_2_has_tls_unique_too_but_not_when_resumed(server: tuple[ssl.SSLContext, Certificate, bytes]) -> None:
    bindings, unique, session, client = connect(server, ssl.TLSVersion.TLSv1_2)
    assert bindings == {"tls-server-end-point": hashlib.sha256(server[2]).digest(), "tls-unique": unique}
    resumed, _, _, _ = connect_with(server[0], client, server[2], ssl.TLSVersion.TLSv1_2, session)
    assert list(resumed) == ["tls-server-end-point"]


def test_a_context_that_does_not_tell_its_certificate(server: tuple[ssl.SSLContext, Certificate, bytes]) -> None:
    context, made, _ = server
    client = ssl.create_default_context(cafile=str(made.certfile))
    assert connect_with(context, client, b"", ssl.TLSVersion.TLSv1_3, None)[0] == {}


@pytest.mark.parametrize(("version", "names"), [("TLSv1.3", {"tls-exporter"}), ("TLSv1.2", {"tls-unique"})])
def test_tls_exporter_where_python_has_it(monkeypatch: pytest.MonkeyPatch, version: str, names: set[str]) -> None:
    """Before TLS 1.3 it needs an extended master secret, of which the ssl module says nothing (RFC 9266 section 4.2)."""

    class Socket:
        session_reused = False

        def version(self) -> str:
            return version

        def get_channel_binding(self, name: str) -> bytes:
            assert name in ssl.CHANNEL_BINDING_TYPES
            return name.encode()

    monkeypatch.setattr(ssl, "CHANNEL_BINDING_TYPES", ["tls-unique", "tls-exporter"])
    assert channel_bindings(Socket(), b"") == {name: name.encode() for name in names}  # type: ignore[arg-type]
