"""Sessions of every kind, as a client that means it: for tests of what holds in all of them."""

from __future__ import annotations

import base64
import contextlib
import hmac
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

from tests.certificates import Certificate
from tests.processes import PATIENCE
from tests.scram import ScramClient

APP = """
from preforksmtp import Handler, Reject
from preforksmtp.handlers import Maildir

STORE = Maildir("Maildir")


class Mail(Handler):
    def authenticate(self, username, password):
        return password in ("pencil", "gew\\u00fcrz")

    def password(self, username):
        return "gew\\u00fcrz" if username == "b\\u00f6b" else "pencil"

    def token(self, username, token):
        return token == "token"

    def certificate(self, certificate):
        return "of the certificate"

    def verify(self, argument):
        return "somebody <a@example.com>"

    def rcpt(self, recipient, params):
        if recipient.startswith("nobody"):
            raise Reject(550, "5.1.1 no such user")

    def message(self, message):
        if message.sender == "broken@example.com":
            raise RuntimeError("as asked")
        list(message.headers.items())
        for part in message.parse().walk():
            if not part.is_multipart():
                part.get_content()
        with message.open() as file:
            file.read()
        STORE(message)
"""

MESSAGE = (
    b"From: =?koi8-r?B?8NLJ18XU?= <a@example.com>\r\nSubject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=\r\n"
    b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
    b"--x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nf=C3=BCr\r\n"
    b"--x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--x--\r\n"
)


class Wire:
    """A client's connection, as far as these sessions need one."""

    def __init__(self, port: int, first: bytes = b"") -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.sendall(first)

    def read(self) -> bytes:
        """One reply; b"" at the end."""
        text = b""
        while True:
            line = b""
            while not line.endswith(b"\n"):
                octet = self.socket.recv(1)
                if not octet:
                    return b""
                line += octet
            text += line
            if line[3:4] != b"-":
                return text

    def ask(self, line: bytes | str) -> bytes:
        self.socket.sendall((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.read()

    def start_tls(self, context: ssl.SSLContext, name: str = "localhost") -> None:
        self.socket = context.wrap_socket(self.socket, server_hostname=name)

    def auth(self, mechanism: str, *responses: bytes | Callable[[bytes], bytes]) -> bytes:
        reply = self.ask(f"AUTH {mechanism}")
        for response in responses:
            if not reply.startswith(b"334"):
                break
            challenge = base64.b64decode(reply[4:].strip() or b"")
            answer = response(challenge) if callable(response) else response
            reply = self.ask(base64.b64encode(answer))
        return reply

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def begun(port: int, first: bytes = b"", hello: str = "EHLO client.example.com") -> Wire:
    wire = Wire(port, first)
    assert wire.read().startswith(b"220")
    assert wire.ask(hello).startswith(b"250")
    return wire


def deliver(wire: Wire, mail: str = "", rcpt: str = "", sender: str = "a@example.com", body: bytes = MESSAGE) -> bytes:
    assert wire.ask(f"MAIL FROM:<{sender}>{mail}").startswith(b"250")
    assert wire.ask(f"RCPT TO:<b@example.com>{rcpt}").startswith(b"250")
    assert wire.ask("DATA").startswith(b"354")
    return wire.ask(body + b".")


def in_clear(port: int, spool_threshold: int) -> None:
    """Commands right and wrong, extensions with their parameters, bodies of each kind."""
    with begun(port) as wire:
        for line in ("NOOP", "HELP", "HELP MAIL", "VRFY \u00fcnknown", "VRFY a", "EXPN list", "RSET", "FROB \u00fc", "MAIL",
                     "RCPT TO:<x>", "ETRN x", "AUTH FROB", "TURN", "MAIL FROM:<\u00fc@example.com>", "XCLIENT NAME=x"):  # fmt: skip
            wire.ask(line)
        wire.ask(b"NOOP \xff\xfe\x00")
        wire.ask(b"NOOP " + b"x" * 5000)
        dsn = " RET=HDRS ENVID=QQ+2B1 BODY=8BITMIME SIZE=100"
        assert deliver(wire, dsn, " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bx@example.com").startswith(b"250")
        utf8 = " ORCPT=utf-8;b\\x{FC}@example.com"
        assert deliver(wire, " SMTPUTF8 BODY=8BITMIME", utf8, "\u00fcser@b\u00fccher.example").startswith(b"250")
        assert deliver(wire, body=MESSAGE + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * (spool_threshold // 64)).startswith(b"250")
        assert deliver(wire, sender="broken@example.com").startswith(b"451")
        assert deliver(wire, body=b"Subject: x\r\n\r\nbare\nnewline\r\n").startswith(b"550")
        assert wire.ask("MAIL FROM:<> BODY=BINARYMIME").startswith(b"250")
        wire.ask("RCPT TO:<nobody@example.com>")
        assert wire.ask("RCPT TO:<postmaster>").startswith(b"250")
        wire.socket.sendall(b"BDAT %d\r\n%s" % (len(MESSAGE), MESSAGE))
        assert wire.read().startswith(b"250")
        assert wire.ask("BDAT 0 LAST").startswith(b"250")
        assert wire.ask("QUIT").startswith(b"221")


def authenticated(port: int, context: ssl.SSLContext) -> None:
    """STARTTLS, with and without a name, and each mechanism, right and wrong."""
    def plus(algorithm: str) -> list[bytes | Callable[[bytes], bytes]]:
        client = ScramClient(algorithm=algorithm)
        return [client.first, client, client]

    cram = lambda word: lambda challenge: b"user " + hmac.new(word, challenge, "md5").hexdigest().encode()  # noqa: E731
    bearer = b"n,a=user,\x01auth=Bearer token\x01\x01"
    attempts: list[tuple[str, bytes, list[bytes | Callable[[bytes], bytes]]]] = [
        ("PLAIN", b"235", [b"\0user\0pencil"]),
        ("PLAIN", b"535", [b"\0user\0wrong"]),
        ("PLAIN", b"235", ["\0b\u00f6b\0gew\u00fcrz".encode()]),
        ("PLAIN", b"5", [b"\xff\xfe\0x\0y"]),
        ("LOGIN", b"235", [b"user", b"pencil"]),
        ("CRAM-MD5", b"235", [cram(b"pencil")]),
        ("CRAM-MD5", b"535", [cram(b"wrong")]),
        ("SCRAM-SHA-256", b"235", plus("sha256")),
        ("SCRAM-SHA-1", b"235", plus("sha1")),
        ("SCRAM-SHA-256", b"5", [b"n,,=" + b"x" * 100]),
        ("XOAUTH2", b"235", [b"user=user\x01auth=Bearer token\x01\x01"]),
        ("XOAUTH2", b"5", [b"user=user\x01auth=Bearer other\x01\x01", b""]),
        ("OAUTHBEARER", b"235", [bearer]),
        ("EXTERNAL", b"", [b""]),
        ("PLAIN =", b"5", []),
        ("PLAIN !!", b"5", []),
    ]
    for number, (mechanism, code, responses) in enumerate(attempts):
        with begun(port) as wire:
            assert wire.ask("STARTTLS").startswith(b"220")
            wire.start_tls(context, "localhost" if number % 2 else "other.example.com")
            wire.ask("EHLO b\u00fccher.example")
            assert wire.ask("EHLO xn--bcher-kva.example").startswith(b"250")
            assert wire.auth(mechanism, *responses).startswith(code), mechanism
            deliver(wire, " REQUIRETLS" if code == b"235" else "")


def broken_tls(port: int) -> None:
    """Handshakes that come to nothing, each in its way."""
    hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"
    for data in (b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100, hello + b"\xff" * 196, hello[:5], b"\x15\x03\x01\x00\x02\x02\x28"):
        with begun(port) as wire, contextlib.suppress(OSError):
            assert wire.ask("STARTTLS").startswith(b"220")
            wire.socket.sendall(data)
            wire.socket.shutdown(socket.SHUT_WR)
            while wire.socket.recv(4096):
                pass
    for change in ("cipher", "trust", "name"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if change == "cipher":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("AES128-SHA")
        elif change == "trust":
            context = ssl.create_default_context()
        with begun(port) as wire, contextlib.suppress(OSError):
            assert wire.ask("STARTTLS").startswith(b"220")
            wire.start_tls(context, "x" * 60 + ".example")
            wire.ask("EHLO x")
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset


def behind_a_proxy(port: int) -> None:
    """PROXY headers, XCLIENT and XFORWARD of a trusted peer."""
    version2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack(">HH", 1234, 25)
    for header in (b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n", b"PROXY TCP4 127.0.0.1 127.0.0.2 1 2\r\n", b"PROXY UNKNOWN\r\n",
                   version2):  # fmt: skip
        with begun(port, header) as wire:
            assert wire.ask("XFORWARD NAME=x.example ADDR=192.0.2.9 PROTO=ESMTP HELO=y IDENT=z SOURCE=LOCAL").startswith(b"250")
            wire.ask("XCLIENT NAME=b+C3+BCcher.example ADDR=IPV6:2001:db8::5 LOGIN=bob HELO=h")
            wire.ask("EHLO x")
            deliver(wire)
    with Wire(port, b"PROXY nonsense\r\n") as wire, contextlib.suppress(OSError):
        while wire.socket.recv(4096):
            pass


def lmtp(port: int) -> None:
    with begun(port, hello="LHLO client.example.com") as wire:
        wire.ask("EHLO x")
        assert deliver(wire).startswith(b"250")


def tls_from_the_first_byte(port: int, context: ssl.SSLContext) -> None:
    wire = Wire.__new__(Wire)
    wire.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE), server_hostname="localhost")
    with wire:
        assert wire.read().startswith(b"220")
        assert wire.ask("EHLO x").startswith(b"250")
        assert deliver(wire).startswith(b"250")


def trusting(certificate: Certificate) -> ssl.SSLContext:
    """A client that has a certificate of its own, the server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate.certfile)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    return context


def options(certificate: Certificate, spool_threshold: int) -> list[str]:
    """Of a server for all of them; its binds in this order: smtp, behind a proxy, smtps, lmtp."""
    place = "127.0.0.1:0"
    proxy = f"{place}?proxy_protocol=127.0.0.1&xclient=0.0.0.0/0&xforward=0.0.0.0/0"
    binds = [place, proxy, f"smtps://{place}", f"lmtp://{place}"]
    return [
        *(word for bind in binds for word in ("-b", bind)),
        *certificate.options,
        *("--sni", f"localhost={certificate.certfile},{certificate.keyfile}"),
        *("--ca-certs", str(certificate.certfile), "--cert-reqs", "optional"),
        *("--spool-threshold", str(spool_threshold), "--max-errors", "100", "--auth-failure-delay", "0"),
        *("--transcript", "transcript", "--access-logfile", "access.log", "--reverse-dns"),
        *("--auth-mechanisms", "PLAIN,LOGIN,CRAM-MD5,SCRAM-SHA-256,SCRAM-SHA-1,XOAUTH2,OAUTHBEARER,EXTERNAL"),
        *("--max-auth-failures", "10", "--max-connections-per-ip", "50"),
    ]


def run_all(ports: list[int], certificate: Certificate, spool_threshold: int, folder: Path) -> None:
    """`ports` in the order of options()."""
    context = trusting(certificate)
    in_clear(ports[0], spool_threshold)
    authenticated(ports[0], context)
    broken_tls(ports[0])
    behind_a_proxy(ports[1])
    tls_from_the_first_byte(ports[2], context)
    lmtp(ports[3])
