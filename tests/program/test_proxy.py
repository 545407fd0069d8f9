"""Behind HAProxy, and peers that play one: the PROXY protocol and TLS of the real server."""

from __future__ import annotations

import os
import re
import smtplib
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.certificates import Certificate, make_certificate
from tests.processes import PATIENCE, Program, wait_until
from tests.program.conftest import LOOPBACK, Server, Talk, need

APP = """
from preforksmtp import Handler

class Facts(Handler):
    def verify(self, argument):
        session = self.session
        tls = f"{session.tls.version} {session.tls.sni}" if session.tls else "clear"
        return f"peer {session.peer} local {session.local} proxy {session.proxy} {tls}"

    def message(self, message):
        return "Ok: thank you"
"""

EVERYBODY = "proxy_protocol=127.0.0.0/8,::1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Server]:
    """Binds: smtp 0 with a proxy, smtp 1 whose proxies are elsewhere; smtps with a proxy; lmtp on a unix socket."""
    folder = tmp_path_factory.mktemp("proxied")
    (folder / "app.py").write_text(APP)
    (folder / "other").mkdir()
    other = make_certificate(folder / "other")
    binds = [f"{LOOPBACK}?{EVERYBODY}", f"{LOOPBACK}?proxy_protocol=192.0.2.0/24"]
    binds += [f"smtps://{LOOPBACK}?{EVERYBODY}", "lmtp://unix:lmtp.sock?proxy_protocol=unix"]
    arguments = [word for bind in binds for word in ("-b", bind)]
    sni = ["--sni", f"mx.example.org={other.certfile},{other.keyfile}"]
    with Server(folder, *arguments, "--log-level", "debug", *sni, *certificate.options, "app:Facts") as running:
        yield running.ready()
        assert running.stop() == 0
        assert "Traceback" not in running.output, running.output
        assert "[ERROR]" not in running.output, running.output


def trusting() -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return client


# --- HAProxy

WAYS = {
    "v1": ("smtp", "send-proxy"),
    "v2": ("smtp", "send-proxy-v2"),
    "v2-crc": ("smtp", "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
    "tls-v1": ("smtps", "send-proxy"),
    "tls-v2": ("smtps", "send-proxy-v2"),
}


class HAProxy:
    """One running HAProxy with a frontend for each of WAYS, on ports that the test opened for it."""

    def __init__(self, server: Server, folder: Path, stack: ExitStack) -> None:
        sockets = {way: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for way in WAYS}
        self.addresses = {way: sock.getsockname() for way, sock in sockets.items()}
        lines = [
            "global", "  maxconn 1000", "defaults", "  mode tcp", "  timeout connect 5s",
            "  timeout client 30s", "  timeout server 30s",
        ]  # fmt: skip
        for way, (scheme, options) in WAYS.items():
            lines += [
                f"listen {way}",
                f"  bind fd@{sockets[way].fileno()}",
                "  unique-id-format %pid-%rt",
                f"  server one 127.0.0.1:{server.port(scheme)} {options}",
            ]
        for name, options in (("bare", ""), ("one", "check-send-proxy"), ("two", "check-send-proxy send-proxy-v2")):
            check = f"  server checked 127.0.0.1:{server.port()} check inter 20ms {options}"
            lines += [f"backend {name}", "  option tcp-check" if name == "two" else "", check]
        config = folder / "haproxy.cfg"
        config.write_text("\n".join(lines) + "\n")
        command = [need("haproxy"), "-db", "-f", str(config)]
        self.program = stack.enter_context(Program(command, pass_fds=[sock.fileno() for sock in sockets.values()]))


@pytest.fixture(scope="module")
def haproxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    with ExitStack() as stack:
        running = HAProxy(server, tmp_path_factory.mktemp("haproxy"), stack)
        yield running
        running.program.stop()


@pytest.mark.parametrize("way", WAYS)
def test_through_haproxy(server: Server, haproxy: HAProxy, way: str) -> None:
    """The client's own address and the one it came to are seen, and mail passes."""
    scheme, _ = WAYS[way]
    host, port = haproxy.addresses[way]
    tls = scheme == "smtps"
    if tls:
        client: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=PATIENCE, context=trusting())
    else:
        client = smtplib.SMTP(host, port, timeout=PATIENCE)
    try:
        client.ehlo("client.example.com")
        assert client.sock is not None
        mine = client.sock.getsockname()
        code, facts = client.verify("x")
        assert code == 250
        words = facts.decode().split()[1:]  # behind the enhanced status code
        assert words[:4] == ["peer", f"127.0.0.1:{mine[1]}", "local", f"127.0.0.1:{port}"]
        assert words[4] == "proxy"
        assert words[5].startswith("127.0.0.1:")
        assert words[5] != words[1]
        assert words[6] == ("TLSv1.3" if tls else "clear")
        if not tls:  # and STARTTLS behind the header
            client.starttls(context=trusting())
            assert b" TLSv1.3" in client.verify("x")[1]
        assert client.sendmail("a@example.com", ["b@example.com"], b"Subject: x\r\n\r\ny\r\n") == {}
    finally:
        client.close()


def test_health_checks_are_debug_lines_only(server: Server, haproxy: HAProxy) -> None:
    """HAProxy's checks connect and reset, without a header or with one."""
    quiet = r"\[DEBUG\].*(left without QUIT|reset before a command)"
    start, before = len(server.lines), len(server.matches(quiet))
    server.wait_for(quiet, count=before + 30)
    lines = [line for line in server.lines[start:] if "session " in line]
    assert not [line for line in lines if "[DEBUG]" not in line]


# --- who must, and who need not


def connect(server: Server, index: int = 0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port("smtp", index)), PATIENCE)


def told(server: Server, sock: socket.socket, line: str) -> None:
    """The connection ends without a word, and one line says why."""
    port = sock.getsockname()[1]
    try:
        assert sock.recv(100) == b""
    except ConnectionResetError:
        pass  # closed with our octets unread
    found = server.wait_for(rf"\[INFO\].* session (\w+): 127\.0\.0\.1:{port}: (.*)$")
    assert found[2] == line
    assert len(server.matches(rf"session {found[1]}\b")) == 1  # not the port: checks of HAProxy's may have had it


def test_a_trusted_peer_must_send_the_header(server: Server) -> None:
    with connect(server) as sock:
        sock.sendall(b"EHLO client.example.com\r\n")
        told(server, sock, r"no PROXY header, but 'EHLO client.'")
    with connect(server) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\nEHLO x\r\n")
        told(server, sock, r"malformed PROXY header 'PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n'")
    with connect(server) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.1")
        sock.shutdown(socket.SHUT_WR)
        told(server, sock, "closed after 20 octets of the PROXY header")


def test_others_need_none_and_may_send_none(server: Server) -> None:
    with Talk(server.port("smtp", 1)) as talk:
        assert talk.greeting.startswith("220 ")
        assert talk.ask("PROXY TCP4 192.0.2.1 192.0.2.2 1 2").startswith("500 ")
        talk.ask("EHLO client.example.com")
        port = talk.socket.getsockname()[1]
        assert f"peer 127.0.0.1:{port} local 127.0.0.1:" in talk.ask("VRFY x")
        assert " proxy None " in talk.ask("VRFY x")


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x05\r\n\xff\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x20\xf3\x00\x04junk",
    ],
    ids=["v1", "LOCAL", "AF_UNSPEC", "LOCAL of no family"],
)  # fmt: skip
def test_without_addresses_the_connections_own_count(server: Server, header: bytes) -> None:
    with connect(server) as sock, sock.makefile("rb") as file:
        sock.sendall(header)
        assert file.readline().startswith(b"220 ")
        sock.sendall(b"EHLO x\r\nVRFY x\r\n")
        port = sock.getsockname()[1]
        while not (line := file.readline()).startswith(b"250 2."):
            assert line
        mine = f"127.0.0.1:{port}"
        assert f"peer {mine} local 127.0.0.1:{server.port()} proxy {mine} clear" in line.decode()


def test_the_header_is_split_from_what_follows_in_the_same_segment(server: Server) -> None:
    """A pipelining client, and a version 6 one."""
    with connect(server) as sock, sock.makefile("rb") as file:
        sock.sendall(b"PROXY TCP6 2001:db8::1 2001:db8::2 51000 25\r\nEHLO x\r\nVRFY x\r\nQUIT\r\n")
        lines = file.read().decode()
        assert "peer [2001:db8::1]:51000 local [2001:db8::2]:25 proxy 127.0.0.1:" in lines
        assert "\r\n221 " in lines


def test_a_unix_socket(server: Server) -> None:
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as file:
        sock.settimeout(PATIENCE)
        sock.connect(os.fspath(server.folder / "lmtp.sock"))
        sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 51000 24\r\n")
        assert file.readline().startswith(b"220 ")
        sock.sendall(b"LHLO x\r\nVRFY x\r\nQUIT\r\n")
        assert "peer 192.0.2.1:51000 local 192.0.2.2:24 proxy unix clear" in file.read().decode()


# --- TLS from the first octet


def test_names_behind_a_proxy(server: Server) -> None:
    """The header comes before the handshake, and the name of the handshake chooses the certificate."""
    for name, certificate in (("mx.example.org", "other/cert.pem"), ("localhost", None)):
        sock = socket.create_connection(("127.0.0.1", server.port("smtps")), PATIENCE)
        sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 51000 465\r\n")
        with trusting().wrap_socket(sock, server_hostname=name) as tls, tls.makefile("rb") as file:
            assert file.readline().startswith(b"220 ")
            tls.sendall(b"EHLO x\r\nVRFY x\r\nQUIT\r\n")
            answer = file.read().decode()
            assert "peer 192.0.2.1:51000 local 192.0.2.2:465 proxy 127.0.0.1:" in answer
            assert f"TLSv1.3 {name}\r\n" in answer
            seen = tls.getpeercert(True)
        wanted = ssl.PEM_cert_to_DER_cert((server.folder / "other" / "cert.pem").read_text())
        assert (seen == wanted) == (certificate is not None)


def test_clear_text_on_a_tls_port(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port("smtps")), PATIENCE) as sock:
        sock.sendall(b"PROXY UNKNOWN\r\nEHLO x\r\n")
        told(server, sock, r"TLS handshake failed: the client speaks no TLS, it sent 'EHLO x\r\n'")


def test_who_leaves_without_an_octet_is_a_debug_line(server: Server) -> None:
    for scheme in ("smtp", "smtps"):
        for reset in (False, True):
            before = len(server.lines)  # a check of HAProxy's may have had the same port
            with socket.create_connection(("127.0.0.1", server.port(scheme)), PATIENCE) as sock:
                port = sock.getsockname()[1]
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

            def lines(before: int = before, port: int = port) -> list[str]:
                return [line for line in server.lines[before:] if re.search(rf"127\.0\.0\.1:{port}\b", line)]

            wait_until(lines, "the session's line")
            (line,) = lines()
            assert "[DEBUG]" in line
