"""net/handshake.py and net/client_hello.py through Wire.start_tls: names, protocols, facts, and why a handshake failed."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from preforksmtp.net import client_hello as hello_module
from preforksmtp.net.client_hello import MOST_RECORDS, ClientHello, HelloReader, NotTLS
from preforksmtp.net.handshake import TLS, explain
from preforksmtp.net.pace import Wait
from preforksmtp.net.tls import ServerContext, server_context
from preforksmtp.net.wire import Wire
from preforksmtp.prefork.worker.seat import Drain
from tests.net.pacing import within

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")

Client = Callable[[socket.socket], object]


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


NO_DRAIN = Drain()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates, each with its key in the same file; one in OpenSSL's TRUSTED format."""
    folder = tmp_path_factory.mktemp("pki")
    for name in ("default", "mx", "wild", "client"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt"],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        (folder / f"{name}.pem").write_text((folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text())
    trusted = ["openssl", "x509", "-in", "mx.crt", "-trustout", "-addtrust", "serverAuth", "-out", "trusted.pem"]
    subprocess.run(trusted, check=True, capture_output=True, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def settings(pki: Path) -> Settings:
    names = {
        "mx.example.org": (str(pki / "trusted.pem"), str(pki / "mx.key")),
        "*.example.org": (str(pki / "wild.pem"), None),
        "other.example.org": (str(pki / "wild.pem"), None),
    }
    return Settings(certfile=str(pki / "default.pem"), sni=names)


@pytest.fixture(scope="module")
def context(settings: Settings) -> ServerContext:
    return server_context(settings)


def der(pki: Path, name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert((pki / f"{name}.crt").read_text())


def trusting() -> ssl.SSLContext:
    """A client that takes any certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


def tls_client(client: ssl.SSLContext, name: str | None = None) -> Client:
    """Shakes hands, reads a line, and returns the server's certificate."""

    def connect(sock: socket.socket) -> bytes | None:
        with client.wrap_socket(sock, server_hostname=name) as tls:
            tls.recv(1)
            return tls.getpeercert(True)

    return connect


def shake(context: ssl.SSLContext, client: Client, timeout: float = 10.0) -> tuple[TLS, object]:
    """The server's facts, or its exception; and what the client returned, its exceptions included."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        theirs = socket.create_connection(listener.getsockname(), 10)
        ours, _ = listener.accept()
        wire = Wire(ours, NO_DRAIN, within(timeout), context)

        def run() -> object:
            with theirs:
                try:
                    return client(theirs)
                except OSError as error:
                    return error

        answer = pool.submit(run)
        try:
            facts = wire.start_tls()
            wire.write(b"2")
            wire.flush()
            return facts, answer.result(20)
        finally:
            wire.close(False)


def failure(context: ssl.SSLContext, client: Client, timeout: float = 10.0) -> str:
    with pytest.raises(ConnectionError) as caught:
        shake(context, client, timeout)
    line = str(caught.value)
    assert line.isprintable()
    return line


# --- names (SNI)


@pytest.mark.parametrize(
    ("name", "certificate"),
    [
        (None, "default"),
        ("mx.example.org", "mx"),
        ("MX.Example.ORG", "mx"),
        ("mx.example.org.", "mx"),
        ("a.example.org", "wild"),
        ("other.example.org", "wild"),
        ("a.b.example.org", "default"),
        ("example.org", "default"),
        ("localhost", "default"),
    ],
)
def test_the_name_chooses_the_certificate(pki: Path, context: ServerContext, name: str, certificate: str) -> None:
    facts, seen = shake(context, tls_client(trusting(), name))
    assert seen == der(pki, certificate)
    assert facts.server_certificate == seen
    assert facts.sni == (name or "")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mx.example.org\\", "mx.example.org\\\\"),
        ("*.example.org", "*.example.org"),
        ("..", ".."),
        ("a\nb", "a\\nb"),
        ("m\u00fcx.example.com", "m\\xc3\\xbcx.example.com"),
        ("x" * 255, "x" * 255),
    ],
)
def test_odd_names_get_a_certificate(context: ServerContext, name: str, shown: str) -> None:
    def client(sock: socket.socket) -> bytes:
        """openssl sends what Python's client will not; its connection is relayed to ours."""
        with socket.create_server(("127.0.0.1", 0)) as relay:
            address = f"127.0.0.1:{relay.getsockname()[1]}"
            arguments = ["openssl", "s_client", "-connect", address, "-servername", name, "-quiet"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(arguments, **pipes) as run, relay.accept()[0] as inner:  # type: ignore[call-overload]
                for ends in ((inner, sock), (sock, inner)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()
                line: bytes = run.stdout.read(1)
                run.kill()
                return line

    facts, _ = shake(context, client)
    assert facts.sni == shown
    assert facts.server_certificate == context.for_name(name.encode()).certificate


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_names_of_one_certificate_share_its_context(context: ServerContext) -> None:
    assert context.for_name(b"other.example.org") is context.for_name(b"some.example.org")
    assert context.for_name(b"\xff\\.") is context.for_name(b"") is context


def test_each_name_asks_for_client_certificates_too(pki: Path, settings: Settings) -> None:
    context = server_context(replace(settings, cert_reqs="required", ca_certs=str(pki / "client.crt")))
    for name in ("mx.example.org", "localhost"):
        line = failure(context, tls_client(trusting(), name))
        assert line == "TLS handshake failed: the client sent no certificate, and cert_reqs requires one"


def test_a_context_of_the_users_own(pki: Path) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(pki / "default.pem")
    client = trusting()
    client.set_alpn_protocols(["h2"])  # its protocols are the user's affair
    facts, seen = shake(own, tls_client(client, "mx.example.org"))
    assert (facts.sni, facts.server_certificate) == ("mx.example.org", b"")
    assert seen == der(pki, "default")


# --- facts


def test_facts(pki: Path, settings: Settings) -> None:
    context = server_context(replace(settings, cert_reqs="optional", ca_certs=str(pki / "client.crt")))
    facts, _ = shake(context, tls_client(trusting()))
    assert (facts.version, facts.peer_certificate, facts.peer_certificate_der) == ("TLSv1.3", None, None)
    client = trusting()
    client.load_cert_chain(pki / "client.pem")
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    facts, _ = shake(context, tls_client(client))
    assert facts.version == "TLSv1.2"
    assert "ECDHE" in facts.cipher
    assert facts.peer_certificate["subject"] == ((("commonName", "client"),),)
    assert facts.peer_certificate_der == der(pki, "client")


# --- protocols (ALPN)


@pytest.mark.parametrize(("offered", "selected"), [([], None), (["smtp"], "smtp"), (["h2", "smtp"], "smtp")])
def test_smtp_is_selected_where_it_is_offered(context: ServerContext, offered: list[str], selected: str | None) -> None:
    client = trusting()
    if offered:
        client.set_alpn_protocols(offered)

    def connect(sock: socket.socket) -> str | None:
        with client.wrap_socket(sock) as tls:
            tls.recv(1)
            return tls.selected_alpn_protocol()

    assert shake(context, connect)[1] == selected


def test_a_client_of_another_protocol_is_refused(context: ServerContext) -> None:
    """RFC 7301 section 3.2: the alert no_application_protocol; against ALPACA (CVE-2021-3618)."""
    heard: list[bytes] = []

    def connect(sock: socket.socket) -> None:
        sock.sendall(first_flight(protocols=["h2", "http/1.1"]))
        while data := sock.recv(100):  # to a clean end: a reset would destroy the alert
            heard.append(data)

    line = failure(context, connect)
    assert line == "TLS handshake failed: the client speaks h2, http/1.1, not smtp (ALPN)"
    assert b"".join(heard) == b"\x15\x03\x03\x00\x02\x02\x78"


# --- failures


def say(data: bytes) -> Client:
    def client(sock: socket.socket) -> None:
        sock.sendall(data)
        while sock.recv(65536):
            pass

    return client


def leave_after(data: bytes, *, reset: bool = False) -> Client:
    def client(sock: socket.socket) -> None:
        sock.sendall(data)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return client


NO_TLS = "TLS handshake failed: the client speaks no TLS, it sent "


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"EHLO client.example.com\r\n", NO_TLS + r"'EHLO client.example.com\r\n'"),
        (b"GET / HTTP/1.1\r\nHost: a.very.long.name.example.com\r\n\r\n",
         NO_TLS + r"'GET / HTTP/1.1\r\nHost: a.very.long.name.e'..."),
        (b"\x80\x2e\x01\x03\x01", NO_TLS + r"'\x80.\x01\x03\x01'"),  # SSL 2
        (b"\x16\x16\x16", NO_TLS + r"'\x16\x16\x16'"),
        (b"\x15\x03\x01\x00\x02\x02\x28", NO_TLS + r"'\x15\x03\x01\x00\x02\x02('"),
    ],
)  # fmt: skip
def test_a_client_without_tls(context: ServerContext, data: bytes, line: str) -> None:
    assert failure(context, say(data)) == line


def test_a_client_that_waits_for_a_greeting(context: ServerContext) -> None:
    line = failure(context, lambda sock: sock.recv(1), timeout=0.05)
    assert line == "TLS handshake not begun within 0.05 s: does the client speak in clear?"


def test_a_client_with_old_versions_only(settings: Settings) -> None:
    client = trusting()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    line = failure(server_context(replace(settings, tls_min_version="1.3")), tls_client(client))
    assert line == "TLS handshake failed: the client offers no version of TLS that tls_min_version allows"


def test_a_client_without_a_common_cipher(settings: Settings) -> None:
    client = trusting()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    line = failure(server_context(replace(settings, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")), tls_client(client))
    assert line.startswith("TLS handshake failed: no cipher in common with the client")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_certificates_that_are_not_trusted(pki: Path, settings: Settings, version: ssl.TLSVersion) -> None:
    client = ssl.create_default_context(cafile=str(pki / "client.crt"))
    client.check_hostname = False
    client.maximum_version = version
    line = failure(server_context(settings), tls_client(client))
    assert line == "TLS handshake failed: the client does not trust our certificate (alert unknown ca)"
    client = trusting()
    client.maximum_version = version
    client.load_cert_chain(pki / "mx.pem")
    ours = server_context(replace(settings, cert_reqs="optional", ca_certs=str(pki / "client.crt")))
    line = failure(ours, tls_client(client))
    assert line.startswith("TLS handshake failed: the client's certificate is not accepted: self")


def first_flight(name: str | None = None, protocols: list[str] | None = None) -> bytes:
    """A ClientHello, in its record."""
    client = trusting()
    if protocols:
        client.set_alpn_protocols(protocols)
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_leaves_after_any_octet(context: ServerContext, reset: bool) -> None:
    hello = first_flight("mx.example.org")
    for octets in (*range(8), len(hello) - 1, len(hello)):
        with pytest.raises((EOFError, ConnectionError)) as caught:
            shake(context, leave_after(hello[:octets], reset=reset))
        line = str(caught.value)
        if octets == 0:
            assert isinstance(caught.value, EOFError)
        elif reset and isinstance(caught.value, EOFError):
            assert line == "closed before the TLS handshake"
        else:
            assert line == "TLS handshake failed: the client left in the middle of it"


def test_a_hello_that_comes_slowly(pki: Path, context: ServerContext) -> None:
    """Cut anywhere: the name is still seen."""
    client = trusting()

    def connect(sock: socket.socket) -> bytes | None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="mx.example.org")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in outgoing.read():
            sock.sendall(bytes([octet]))
        for step in (tls.do_handshake, lambda: tls.read(1)):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
        return tls.getpeercert(True)

    assert shake(context, connect)[1] == der(pki, "mx")


@pytest.mark.skipif(sys.platform != "linux", reason="what SO_RCVLOWAT does for poll()")
def test_a_hello_that_comes_slowly_wakes_us_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is parsed once, not twenty times a second, nor once an octet."""
    peeks: list[int] = []
    peek = hello_module._peek
    monkeypatch.setattr(hello_module, "_peek", lambda sock: (peeks.append(1), peek(sock))[1])
    sent = first_flight("mx.example.org", ["smtp"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 10)
        server = listener.accept()[0]
    with client, server, ThreadPoolExecutor(1) as pool:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = pool.submit(hello_module.await_hello, server, Wait(within(10).hello, NO_DRAIN))
        for octet in sent:
            client.sendall(bytes([octet]))
        assert found.result(10) == ClientHello(b"mx.example.org", (b"smtp",))
        assert len(peeks) <= 4
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1, "what follows is read as ever"


def test_a_hello_through_a_unix_socket() -> None:
    """poll() knows no SO_RCVLOWAT there."""
    sent = first_flight("mx.example.org")
    client, server = socket.socketpair()
    with client, server, ThreadPoolExecutor(1) as pool:
        client.sendall(sent[:7])
        found = pool.submit(hello_module.await_hello, server, Wait(within(10).hello, NO_DRAIN))
        client.sendall(sent[7:])
        assert found.result(10) == ClientHello(b"mx.example.org", ())
        client.sendall(sent[:7])
        drain = Drain()
        drain.begin(0.0)
        server.recv(10_000)
        client.sendall(sent[:7])
        with pytest.raises(InterruptedError):
            hello_module.await_hello(server, Wait(within(10).hello, drain))
        with pytest.raises(TimeoutError):
            hello_module.await_hello(server, Wait(within(0.1).hello, NO_DRAIN))
        drain.close()


def test_a_client_that_stops_in_the_middle(context: ServerContext) -> None:
    line = failure(context, say(first_flight()), timeout=1.0)
    assert line == "TLS handshake failed: the client stopped in the middle of it"
    line = failure(context, say(first_flight()[:9]), timeout=0.05)
    assert line == "TLS handshake not begun within 0.05 s: does the client speak in clear?"


def test_reasons_unknown_to_us_are_shown() -> None:
    error = ssl.SSLError(1, "[SSL: STRANGE_NEWS] strange news (_ssl.c:1)")
    error.reason = "STRANGE_NEWS"
    assert explain(error) == "strange news"
    error.reason = "TLSV1_ALERT_INTERNAL_ERROR"
    assert explain(error) == "the client gave up (alert internal error)"


# --- after the handshake


@pytest.fixture
def session(context: ServerContext) -> Iterator[tuple[Wire, ssl.SSLSocket, socket.socket]]:
    """A connection over TLS: the server's wire, the client, and a second handle on the client's TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        theirs = socket.create_connection(listener.getsockname(), 10)
        ours, _ = listener.accept()
        raw = theirs.dup()
        wire = Wire(ours, NO_DRAIN, within(10.0), context)
        answer = pool.submit(trusting().wrap_socket, theirs)
        wire.start_tls()
        with answer.result(10) as client, raw:
            yield wire, client, raw
        wire.close(False)


@pytest.mark.parametrize("read", [lambda wire: wire.read_line(512), lambda wire: wire.read_block(512)])
@pytest.mark.parametrize("notify", [True, False], ids=["close_notify", "cut"])
def test_nothing_is_read_in_clear_after_tls(
    session: tuple[Wire, ssl.SSLSocket, socket.socket], read: Callable[[Wire], bytes | None], notify: bool
) -> None:
    """TLS ends inside a command or a body and clear text follows (CVE-2026-45185): the session ends."""
    wire, client, raw = session
    client.sendall(b"RSE")
    if notify:
        client.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()  # sends close_notify, and would wait for ours
    raw.sendall(b"T\r\nQUIT\r\n")
    with pytest.raises((EOFError, ConnectionError)):
        while True:
            assert b"T" not in (read(wire) or b"")
    with pytest.raises((EOFError, ConnectionError)):
        read(wire)


# --- the parser alone


def parse_hello(data: bytes) -> ClientHello | None:
    return HelloReader().read(data)


def in_records(hello: bytes, size: int) -> bytes:
    """The same hello in records of so many octets."""
    parts = [hello[start : start + size] for start in range(5, len(hello), size)]
    return b"".join(hello[:3] + struct.pack("!H", len(part)) + part for part in parts)


def test_what_a_hello_tells() -> None:
    assert parse_hello(first_flight()) == ClientHello(b"", ())
    assert parse_hello(first_flight("mx.example.org")) == ClientHello(b"mx.example.org", ())
    hello = first_flight("mx.example.org", ["h2", "smtp"])
    assert parse_hello(hello) == ClientHello(b"mx.example.org", (b"h2", b"smtp"))
    assert parse_hello(hello + b"\x16\x03\x03\x00\x01x") == ClientHello(b"mx.example.org", (b"h2", b"smtp"))
    for size in (50, 100, 300):
        assert parse_hello(in_records(hello, size)) == parse_hello(hello)


def test_every_beginning_of_a_hello_is_incomplete() -> None:
    hello = first_flight("mx.example.org", ["smtp"])
    for sent in (hello, in_records(hello, 50)):
        assert [size for size in range(1, len(sent)) if parse_hello(sent[:size]) is not None] == []


def test_an_empty_record_is_refused() -> None:
    """RFC 8446 section 5.1: and they would cost us more than the client."""
    hello = first_flight()
    for sent in (b"\x16\x03\x01\0\0", hello[:5] + hello[5:100], in_records(hello, 50)[:55] + b"\x16\x03\x01\0\0"):
        if sent.endswith(b"\0\0"):
            with pytest.raises(NotTLS, match="an empty TLS record"):
                parse_hello(sent)
        else:
            assert parse_hello(sent) is None


def test_a_hello_in_very_many_records_is_refused() -> None:
    hello = first_flight("mx.example.org")
    size = -(-(len(hello) - 5) // MOST_RECORDS)
    assert parse_hello(in_records(hello, size)) is not None
    with pytest.raises(NotTLS, match="more than 32 TLS records"):
        parse_hello(in_records(hello, size // 2))


def test_what_is_no_hello_is_left_to_openssl_at_once() -> None:
    for sent in (b"\x16\x03\x01\0\4\2\0\0\1", b"\x16\x03\x01\0\4\1\xff\0\0", b"\x16\x03\x01\0\1\1\x15\x03\x01\0\2"):
        assert parse_hello(sent) == ClientHello()


@pytest.mark.parametrize("size", [50, 100, 20000])
def test_a_hello_that_trickles_in_is_looked_at_once_a_step(size: int) -> None:
    """`needed` is never what is there already, and never more than makes a difference."""
    hello = in_records(first_flight("mx.example.org", ["smtp"]), size)
    reader, looks, here = HelloReader(), 0, 1
    while reader.read(hello[:here]) is None:
        assert here < reader.needed <= len(hello)
        here, looks = reader.needed, looks + 1
    assert here == len(hello)
    assert looks <= 2 * len(hello) / size + 3
    assert HelloReader().read(hello) == parse_hello(hello)


@pytest.mark.parametrize("seed", range(4))
def test_a_mutant_hello_is_parsed_or_left_to_openssl(seed: int) -> None:
    """In one piece, and in pieces as `needed` has it: with the same outcome."""
    dice = random.Random(seed)
    whole = first_flight("mx.example.org", ["h2", "smtp"])
    for _ in range(3000):
        mutant = bytearray(dice.choice((whole, in_records(whole, dice.randint(20, 200)))))
        for _ in range(dice.randint(1, 6)):
            mutant[dice.randrange(len(mutant))] = dice.choice((0, 1, 255, dice.randrange(256)))
        del mutant[dice.randint(1, 2 * len(mutant)) :]
        found = outcome(bytes(mutant), len(mutant))
        assert found == outcome(bytes(mutant), 1), bytes(mutant).hex()
        if isinstance(found, str):
            assert found.isprintable()
        elif found is not None:
            assert len(found.server_name) < len(whole)
            assert all(len(name) < 256 for name in found.protocols)


def outcome(data: bytes, here: int) -> ClientHello | str | None:
    reader = HelloReader()
    while True:
        try:
            found = reader.read(data[:here])
        except NotTLS as refusal:
            return str(refusal).partition(", it sent")[0]
        if found is not None or reader.needed > len(data) or here == len(data):
            return found
        assert reader.needed > here
        here = reader.needed


@pytest.mark.parametrize(("count", "known"), [(2, True), (128, True), (129, False), (4000, False)])
def test_more_protocols_than_anybody_offers_are_left_to_openssl(count: int, known: bool) -> None:
    names = b"\x02h2" * (count - 1) + b"\x04smtp"
    content = struct.pack("!H", len(names)) + names
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + struct.pack("!HHH", len(content) + 4, 16, len(content)) + content
    message = b"\x01" + struct.pack("!I", len(body))[1:] + body
    found = parse_hello(b"\x16\x03\x01" + struct.pack("!H", len(message)) + message)
    assert found is not None
    assert (b"smtp" in found.protocols) == known
    assert len(found.protocols) in (count, 0)
