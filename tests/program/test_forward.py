"""Two real servers, one behind the other: what the back stores is what the client sent, and what it says is heard."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

BACK = """
from preforksmtp import Handler, Reject
from preforksmtp.handlers import Maildir

STORE = Maildir("Maildir")


class Mail(Handler):
    def rcpt(self, recipient, params):
        if recipient.startswith("nobody"):
            raise Reject(550, ["5.1.1 Nobody of that name", "lives here"])

    def message(self, message):
        full = [recipient for recipient in message.recipients if recipient.startswith("full")]
        for recipient in full:
            message.reject(recipient, Reject(452, "4.2.2 The mailbox is full"))
        if len(full) < len(message.recipients):
            STORE(message)
        session = message.session
        print("GOT", session.tls and session.tls.version, session.user, message.params, flush=True)
        return "2.6.0 stored at the back"


class Login(Mail):
    def authenticate(self, username, password):
        return (username, password) == ("front", "secret wörd")
"""
STORED = "250 2.6.0 stored at the back"
RECEIVED = re.compile(rb"Received: [^\r]*(?:\r\n\t[^\r]*)*\r\n")
HEAD = b"From: <a@example.com>\r\nSubject: end to end\r\n\r\n"
CONTENTS = [
    b"\r\n",
    HEAD + b".\r\n..\r\n.dot\r\n...\r\n\r\n.\r\n",
    HEAD + b"x" * 990 + b"\r\n" + b"y" * 20_000 + b"\r\n",
    HEAD + "Grüße, 世界\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    HEAD + b"a\0b\x1b\x7f\r\n \r\n\t\r\n\r\n\r\n",
    HEAD + b"".join(b"." * (number % 90) + b"\r\n" for number in range(60_000)),  # 3 MB, dots at every border of blocks
    HEAD + b"".join(random.Random(1).randbytes(63).translate(None, b"\r\n\0") + b"\r\n" for _ in range(50_000)),
]


@pytest.fixture
def back_app(tmp_path: Path) -> Path:
    (tmp_path / "back.py").write_text(BACK)
    (tmp_path / "password").write_text("secret wörd\n")
    return tmp_path


def start_front(serve: Serve, arguments: str, *options: str) -> Server:
    return serve("-b", LOOPBACK, "--hostname", "front.test", *options, f"preforksmtp.handlers:Forward({arguments})").ready()


def send(talk: Talk, content: bytes, params: str = " BODY=8BITMIME", recipients: tuple[str, ...] = ("b@example.com",)) -> str:
    assert talk.ask(f"MAIL FROM:<a@example.com>{params}")[:3] == "250"
    for recipient in recipients:
        assert talk.ask(f"RCPT TO:<{recipient}>")[:3] == "250"
    assert talk.ask("DATA")[:3] == "354"
    talk.send((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
    return talk.read()


def contents(back: Server) -> list[bytes]:
    """What is stored, without the trace fields of both servers."""
    found = []
    for stored in back.stored():
        trace = RECEIVED.match(stored)
        assert trace is not None and b"by front.test" in trace[0], stored[:300]
        found.append(stored[trace.end() :])
    return found


def assert_same(back: Server, sent: list[bytes]) -> None:
    assert [len(content) for content in sorted(contents(back))] == [len(content) for content in sorted(sent)]
    assert sorted(contents(back)) == sorted(sent)


def send_all(front: Server) -> None:
    with Talk(front.port()) as talk:
        talk.ask("EHLO client.test")
        for content in CONTENTS:
            assert send(talk, content) == STORED
        talk.ask("QUIT")


@pytest.mark.parametrize("way", ["smtp", "lmtp", "tls", "login", "smtps"])
def test_every_content_arrives_byte_for_byte(way: str, serve: Serve, back_app: Path, certificate: Certificate) -> None:
    trust = f"cafile={str(certificate.certfile)!r}"
    login = "username='front', password_file='password'"
    if way == "smtp":
        back = serve("-b", LOOPBACK, "back:Mail").ready()
        front = start_front(serve, f"'127.0.0.1', {back.port()}")
    elif way == "lmtp":
        back = serve("-b", f"lmtp://unix:{back_app}/lmtp.sock", "back:Mail").ready()
        front = start_front(serve, f"'{back_app}/lmtp.sock', lmtp=True")
    elif way == "smtps":
        back = serve("-b", f"smtps://{LOOPBACK}", *certificate.options, "back:Mail").ready()
        front = start_front(serve, f"'localhost', {back.port('smtps')}, tls='implicit', {trust}")
    else:
        extra = ["--require-tls", "--require-auth"] if way == "login" else ["--require-tls"]
        back = serve("-b", LOOPBACK, *certificate.options, *extra, "back:Login").ready()
        more = login if way == "login" else "tls='require'"
        front = start_front(serve, f"'127.0.0.1', {back.port()}, {more}, {trust}")
    send_all(front)
    assert_same(back, CONTENTS)
    wanted = r"None None" if way in ("smtp", "lmtp") else r"TLSv1\.\d " + ("front" if way == "login" else "None")
    back.wait_for(rf"^GOT {wanted} \{{'BODY': '8BITMIME'\}}$", count=len(CONTENTS))
    for server in (front, back):
        assert "Traceback" not in server.output and "[ERROR]" not in server.output, server.output
        assert "next hop" not in server.output, server.output


def test_binary_in_chunks(serve: Serve, back_app: Path) -> None:
    content = HEAD + b"\n.\n\r.\r\n.\r\n\0" + bytes(range(256)) * 9000 + b"no end"
    back = serve("-b", LOOPBACK, "back:Mail").ready()
    front = start_front(serve, f"'127.0.0.1', {back.port()}")
    with Talk(front.port()) as talk:
        talk.ask("EHLO client.test")
        talk.ask("MAIL FROM:<a@example.com> BODY=BINARYMIME")
        talk.ask("RCPT TO:<b@example.com>")
        half = len(content) // 2
        talk.send(b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (half, content[:half], len(content) - half, content[half:]))
        assert talk.read()[:3] == "250"
        assert talk.read() == STORED
    assert_same(back, [content])


def test_refused_recipients_are_heard(serve: Serve, back_app: Path) -> None:
    back = serve("-b", LOOPBACK, "back:Mail").ready()
    front = start_front(serve, f"'127.0.0.1', {back.port()}")
    with Talk(front.port()) as talk:
        talk.ask("EHLO client.test")
        talk.ask("MAIL FROM:<a@example.com>")
        assert talk.ask("RCPT TO:<b@example.com>") == "250 2.1.5 Recipient ok"
        assert talk.ask("RCPT TO:<nobody@example.com>") == "550-5.1.1 Nobody of that name\n550 5.1.1 lives here"
        assert talk.ask("DATA")[:3] == "354"
        assert talk.ask("\r\nx\r\n.") == STORED


def test_lmtp_recipients_are_told_apart(serve: Serve, back_app: Path) -> None:
    back = serve("-b", f"lmtp://unix:{back_app}/lmtp.sock", "back:Mail").ready()
    app = f"preforksmtp.handlers:Forward('{back_app}/lmtp.sock', lmtp=True)"
    front = serve("-b", f"lmtp://{LOOPBACK}", "-b", LOOPBACK, "--hostname", "front.test", app).ready()
    both = ("full@example.com", "b@example.com")
    with Talk(front.port("lmtp")) as talk:
        talk.ask("LHLO client.test")
        assert [send(talk, HEAD, recipients=both), talk.read()] == ["452 4.2.2 The mailbox is full", STORED]
    with Talk(front.port()) as talk:  # and plain SMTP by one transaction for each
        talk.ask("EHLO client.test")
        assert send(talk, HEAD, recipients=both[1:]) == STORED
        assert send(talk, HEAD, recipients=both[:1]) == "452 4.2.2 The mailbox is full"
        talk.ask("MAIL FROM:<a@example.com>")
        talk.ask("RCPT TO:<b@example.com>")
        assert talk.ask("RCPT TO:<full@example.com>")[:9] == "452 4.5.3"
    assert_same(back, [HEAD, HEAD])


def test_a_back_that_is_away_costs_a_retry_and_nothing_else(serve: Serve, back_app: Path) -> None:
    back = serve("-b", LOOPBACK, "back:Mail").ready()
    port = back.port()
    front = start_front(serve, f"'127.0.0.1', {port}")
    with Talk(front.port()) as talk:
        talk.ask("EHLO client.test")
        assert send(talk, HEAD + b"1\r\n") == STORED
        talk.ask("MAIL FROM:<a@example.com>")
        talk.ask("RCPT TO:<b@example.com>")
        back.stop(signal.SIGQUIT)  # in the middle of a transaction
        assert talk.ask("DATA")[:3] == "451"
        talk.ask("RSET")
        assert talk.ask("MAIL FROM:<a@example.com>") == "451 4.4.1 The next hop cannot be reached"
        front.wait_for(rf"\[WARNING\] session \S+: next hop 127.0.0.1:{port}: cannot connect: Connection refused")
        again = serve("-b", f"127.0.0.1:{port}", "back:Mail").ready()
        assert send(talk, HEAD + b"2\r\n") == STORED
    assert_same(again, [HEAD + b"1\r\n", HEAD + b"2\r\n"])
    assert "Traceback" not in front.output


def test_a_back_killed_in_the_middle_of_the_content(serve: Serve, back_app: Path) -> None:
    """The front has all of it, the back has a part: nobody may take that for a message."""
    back = serve("-b", LOOPBACK, "-w", "1", "back:Mail").ready()
    front = start_front(serve, f"'127.0.0.1', {back.port()}")
    worker = back.worker()
    with Talk(front.port()) as talk:
        talk.ask("EHLO client.test")
        assert talk.ask("MAIL FROM:<a@example.com>")[:3] == "250"
        assert talk.ask("RCPT TO:<b@example.com>")[:3] == "250"
        os.kill(worker, signal.SIGSTOP)  # nobody reads there: more than the kernel takes does not get through
        try:
            assert talk.ask("DATA")[:3] == "354"
            content = HEAD + (b"x" * 998 + b"\r\n") * 30_000
            talk.send(content + b".\r\n")
        finally:
            os.kill(worker, signal.SIGKILL)
        # All of it or nothing: where the front notices before it has begun, it tells another worker all again.
        whole = talk.read()[:3]
        assert whole in ("451", "250")
        back.wait_for(r"worker \S+ .*(killed|SIGKILL)|SIGKILL")
        wait_until(lambda: back.children() - {worker}, "another worker")
        assert send(talk, HEAD) == STORED
    assert_same(back, [content, HEAD] if whole == "250" else [HEAD])


def test_require_tls_is_promised_over_a_verified_connection_only(
    serve: Serve, back_app: Path, certificate: Certificate
) -> None:
    import smtplib
    import ssl

    back = serve("-b", LOOPBACK, *certificate.options, "back:Mail").ready()
    trust = ssl.create_default_context(cafile=str(certificate.certfile))
    for more, code in ((f"tls='require', cafile={str(certificate.certfile)!r}", 250), ("tls='opportunistic'", 550)):
        front = start_front(serve, f"'127.0.0.1', {back.port()}, {more}", *certificate.options)
        with smtplib.SMTP("127.0.0.1", front.port(), timeout=15) as client:
            client.starttls(context=trust)
            client.ehlo()
            answer, text = client.mail("a@example.com", ["REQUIRETLS"])
            assert answer == code, text
            if code == 250:
                client.rcpt("b@example.com")
                assert client.data(HEAD)[0] == 250
            else:
                assert text.startswith(b"5.7.30 ")
    assert len(back.matches(r"^GOT TLSv1\.\d None \{'REQUIRETLS': True\}$")) == 1, back.output


def test_a_certificate_that_nobody_vouches_for(serve: Serve, back_app: Path, certificate: Certificate) -> None:
    back = serve("-b", LOOPBACK, *certificate.options, "back:Mail").ready()
    front = start_front(serve, f"'127.0.0.1', {back.port()}, tls='require'")
    with Talk(front.port()) as talk:
        talk.ask("EHLO client.test")
        assert talk.ask("MAIL FROM:<a@example.com>") == "451 4.7.5 No TLS connection to the next hop"
        front.wait_for(r"next hop \S+: TLS: .*certificate verify failed")
    opportunistic = start_front(serve, f"'127.0.0.1', {back.port()}")
    with Talk(opportunistic.port()) as talk:
        talk.ask("EHLO client.test")
        assert send(talk, HEAD, "") == STORED
    back.wait_for(r"^GOT TLSv1\.\d None")


def test_a_name_that_is_not_in_the_certificate(serve: Serve, back_app: Path, certificate: Certificate) -> None:
    back = serve("-b", LOOPBACK, *certificate.options, "back:Mail").ready()
    trust = f"tls='require', cafile={str(certificate.certfile)!r}"
    for name, heard in (("other.example.com", "451 4.7.5"), ("localhost", "250 2.1.0")):
        front = start_front(serve, f"'127.0.0.1', {back.port()}, {trust}, server_name='{name}'")
        with Talk(front.port()) as talk:
            talk.ask("EHLO client.test")
            assert talk.ask("MAIL FROM:<a@example.com>")[:9] == heard


def test_wrong_arguments_stop_the_start(serve: Serve, back_app: Path) -> None:
    front = serve("-b", LOOPBACK, "preforksmtp.handlers:Forward('127.0.0.1', 'smtp')")
    assert front.wait() != 0
    assert "Forward: port 'smtp' is not within 1 to 65535" in front.output
    assert "Traceback" not in front.output
