"""service.py: one connection to its end, over real sockets: counters, logs, and whatever a client may do to it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import ssl
import threading
from pathlib import Path

import pytest

from preforksmtp import Handler, Reject
from preforksmtp.prefork import calls
from preforksmtp.prefork.scoreboard import CALL
from preforksmtp.smtp import pace
from tests.certificates import Certificate, make_certificate
from tests.fakes import recording
from tests.processes import PATIENCE
from tests.program.conftest import need
from tests.sessions import Sessions, hear, reset

EHLO = b"EHLO c.test\r\n"
OPEN = EHLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"
MESSAGE = OPEN + b"Subject: x\r\n\r\nhello\r\n.\r\n"
SESSION = MESSAGE + b"QUIT\r\n"
INSECURE = "--allow-insecure-auth"


def run(sessions: Sessions, sent: bytes) -> str:
    """All that the server says to one session, and its end."""
    with sessions.begin() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        said = hear(client)
    sessions.over()
    return said


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    need("openssl")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


# --- counters


@pytest.mark.parametrize(
    ("handler", "sent", "counts"),
    [
        ({}, SESSION, {"messages": 1, "recipients": 2, "bytes": 21}),
        ({}, EHLO + b"QUIT\r\n", {}),
        ({}, MESSAGE + b"RSET\r\n" + MESSAGE, {"messages": 2, "recipients": 4, "bytes": 42}),
        ({"message": Reject(550, "5.7.1 no")}, SESSION, {"rejected": 1}),
        ({"message": Reject(450, "4.7.1 later")}, SESSION, {"deferred": 1}),
        ({"message": OSError("x")}, SESSION, {"deferred": 1, "errors": 1}),
        ({"rcpt": OSError("x")}, SESSION, {"errors": 2}),
        ({}, OPEN + b"a\nb\r\n.\r\n", {"rejected": 1}),
        ({}, OPEN + b"not complete\r\n", {}),
        ({"authenticate": True}, EHLO + b"AUTH PLAIN AHUAcA==\r\n", {"auth_ok": 1}),
        ({"authenticate": False}, EHLO + b"AUTH PLAIN AHUAcA==\r\n" * 2, {"auth_failed": 2}),
    ],
)
def test_counters(handler, sent, counts):
    with Sessions(recording(**{"message": None, **handler}), INSECURE, "--auth-failure-delay", "0") as sessions:
        run(sessions, sent)
        assert sessions.counts() == counts


def test_a_timeout_is_counted_and_one_line():
    with Sessions(lambda message: None, "--command-timeout", "0.05") as sessions:
        with sessions.begin() as client:
            assert hear(client).endswith("421 4.4.2 Timeout, closing the connection\r\n")
        sessions.over()
        assert sessions.counts() == {"timeouts": 1}
        (line,) = sessions.logged()
        assert re.fullmatch(r"session \w+: 127\.0\.0\.1:\d+: timed out", line)


# --- the access log


def test_one_access_record_for_each_message(tmp_path):
    accepting = iter([None, Reject(550, "5.7.1 no"), OSError("x")])

    def message(self, message):
        act = next(accepting)
        if act is not None:
            raise act
        return "thank you"

    with Sessions(
        recording(message=message, authenticate=True), INSECURE, "--log-format", "json", folder=tmp_path
    ) as sessions:
        with sessions.begin() as client:
            client.sendall(EHLO + b"AUTH PLAIN AHVzZXIAcA==\r\n" + MESSAGE * 3 + b"MAIL FROM:<x@y>\r\nRSET\r\nQUIT\r\n")
            hear(client)
            port = client.getsockname()[1]
        sessions.over()
        records = [json.loads(line) for line in sessions.access_lines()]
    assert [(record["code"], record["enhanced"]) for record in records] == [
        (250, "2.0.0"),
        (550, "5.7.1"),
        (451, "4.3.0"),
    ]
    first = records[0]
    told = ("helo", "user", "sender", "recipients", "size", "command", "text", "tls", "worker")
    assert {name: first[name] for name in told} == {
        "helo": "c.test", "user": "user", "sender": "a@b", "recipients": ["c@d", "e@f"], "size": 21, "command": "DATA",
        "text": "thank you", "tls": "", "worker": 3,
    }  # fmt: skip
    assert (first["peer"], first["port"]) == ("127.0.0.1", port)
    assert first["message"] == f"{first['session']}-1"
    assert first["seconds"] >= 0
    assert records[1]["session"] == first["session"]


def test_what_a_client_says_cannot_forge_a_line(tmp_path):
    with Sessions(lambda message: None, folder=tmp_path) as sessions:
        run(sessions, "EHLO c.test\r\nMAIL FROM:<\"a b\\\" > to=<x\"@y> SMTPUTF8\r\nRCPT TO:<ü\u2028@b>\r\n".encode()
            + b"RCPT TO:<c@d>\r\nDATA\r\n.\r\n")  # fmt: skip
        (line,) = sessions.access_lines()
    assert line.isprintable()
    assert line.count("from=<") == 1
    assert re.search(r"from=<[^ <>]*> to=<c@d> nrcpt=1 ", line)


def test_the_names_of_sessions_and_messages():
    names = []
    with Sessions(lambda message: names.append((message.session.id, message.id))) as sessions:
        run(sessions, MESSAGE + b"RSET\r\n" + MESSAGE)
        run(sessions, MESSAGE)
    ids = [name for name, _ in names]
    assert ids[0] == ids[1] != ids[2]
    assert [message for _, message in names] == [f"{ids[0]}-1", f"{ids[0]}-2", f"{ids[2]}-1"]
    assert all(re.fullmatch(r"[0-9a-z]{6,20}", name) for name in ids)


# --- the facts of a session


def test_what_a_handler_sees_of_the_connection():
    seen = []
    with Sessions(lambda message: seen.append(message.session)) as sessions:
        with sessions.begin() as client:
            client.sendall(SESSION)
            hear(client)
            here = client.getsockname()
        sessions.over()
        (session,) = seen
        assert (tuple(session.peer), tuple(session.local)) == (here, sessions.address)
    assert (session.bind, session.hostname, session.helo, session.esmtp, session.tls) == (
        "smtp://127.0.0.1:0", "mx.test", "c.test", True, None,
    )  # fmt: skip


def test_the_seat_tells_the_watchdog_what_runs():
    entered, leave = threading.Event(), threading.Event()

    def message(self, message):
        entered.set()
        leave.wait(PATIENCE)

    with Sessions(recording(message=message)) as sessions, sessions.begin() as client:
        client.sendall(SESSION)
        assert entered.wait(PATIENCE)
        (seat,) = sessions.seats
        assert (seat.hook, seat.name != "", seat.since > 0, seat.line is not None) == (
            "message",
            True,
            True,
            True,
        )
        call = calls.read(sessions.row[CALL:])
        assert call is not None
        assert (call.hook, call.client, call.name) == ("message", "127.0.0.1", f"{seat.name}-1")
        assert call.envelope == "from <a@b> to ['c@d', 'e@f']"
        leave.set()
        hear(client)
        sessions.over()
        assert (seat.hook, seat.since, seat.line) == ("", 0.0, None)
        assert calls.read(sessions.row[CALL:]) is None


def test_handler_errors_are_logged_with_traceback_and_session():
    seen = []

    class Failing(Handler):
        def message(self, message):
            seen.append(message.session.id)
            raise KeyError("on purpose")

    with Sessions(Failing) as sessions:
        assert "451 4.3.0" in run(sessions, SESSION)
        (record,) = [record for record in sessions.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == f"session {seen[0]}: the handler's message raised KeyError"
    assert record.exc_info is not None
    assert "on purpose" in str(record.exc_info[1])


# --- TLS


def connect_tls(sessions: Sessions, certificate: Certificate, implicit: bool) -> ssl.SSLSocket:
    client = sessions.begin()
    if not implicit:
        hear(client, "220")
        client.sendall(b"STARTTLS\r\n")
        hear(client, "220")
    context = ssl.create_default_context(cafile=str(certificate.certfile))
    return context.wrap_socket(client, server_hostname="localhost")


@pytest.mark.parametrize("implicit", [False, True])
def test_tls(certificate, implicit, tmp_path):
    bind = "smtps://127.0.0.1:0" if implicit else "smtp://127.0.0.1:0"
    seen = []
    with Sessions(
        lambda message: seen.append(message.session.tls), *certificate.options, bind=bind, folder=tmp_path
    ) as sessions:
        with connect_tls(sessions, certificate, implicit) as client:
            if implicit:
                hear(client, "220")
            client.sendall(EHLO)
            offered = hear(client, "250")
            client.sendall(MESSAGE)
            hear(client, "250")
            version = client.version()
        sessions.over()
        assert sessions.counts() == {"messages": 1, "recipients": 2, "bytes": 21, "tls": 1}
        assert sessions.logged() == []
        (line,) = sessions.access_lines()
    assert "STARTTLS" not in offered
    assert "REQUIRETLS" in offered
    (tls,) = seen
    assert (tls.version, tls.sni, tls.peer_certificate) == (version, "localhost", None)
    assert line.endswith(f"tls={version}")


@pytest.mark.parametrize(
    "sent", [b"", b"EHLO in clear\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 500]
)
def test_no_tls_where_it_is_implicit(certificate, sent):
    with Sessions(lambda message: None, *certificate.options, bind="smtps://127.0.0.1:0") as sessions:
        with sessions.begin() as client:
            said = b""
            with contextlib.suppress(OSError):  # the server may be faster, and close before all is sent
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                said = client.recv(1000)
            assert b"220" not in said
        sessions.over()
        assert len(sessions.logged()) <= 1
        assert sessions.logged(logging.WARNING) == []
        assert sessions.counts() == {}


def test_a_handshake_that_fails_is_one_line(certificate):
    with Sessions(lambda message: None, *certificate.options) as sessions:
        with sessions.begin() as client:
            hear(client, "220")
            client.sendall(b"STARTTLS\r\n")
            hear(client, "220")
            with contextlib.suppress(OSError):  # the server may be faster, and close before all is sent
                client.sendall(b"EHLO x\r\n" * 100)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
        sessions.over()
        (line,) = sessions.logged()
        assert re.fullmatch(r"session \w+: 127\.0\.0\.1:\d+: TLS handshake failed: .+", line)
        assert sessions.logged(logging.WARNING) == []


# --- clients that leave


def test_leaving_without_quit_is_no_news():
    with Sessions(lambda message: None) as sessions:
        for sent in (b"", EHLO, OPEN, OPEN + b"abc", MESSAGE, EHLO + b"NOO"):
            run(sessions, sent)
        assert sessions.logged() == []
        assert sessions.count("messages") == 1


def test_a_reset_at_every_byte_of_a_dialogue():
    """One info line at most, no traceback, and the next client is served."""
    got = []
    with Sessions(recording(message=lambda self, message: got.append(message.content), close=None)) as sessions:
        complete = SESSION.index(b"\r\n.\r\n") + 5
        for place in range(len(SESSION)):
            before = len(sessions.records)
            client = sessions.begin()
            client.sendall(SESSION[:place])
            sessions.consumed()
            reset(client)
            sessions.over()
            news = sessions.records[before:]
            assert len(news) <= 1, [record.getMessage() for record in news]
            assert all(record.levelno <= logging.INFO and not record.exc_info for record in news)
            assert got == [b"Subject: x\r\n\r\nhello\r\n"] * (place >= complete), "a message is whole or none"
            got.clear()
        assert "250 2.0.0 Ok: queued" in run(sessions, SESSION)
    assert len(got) == 1


def test_a_reset_before_and_while_tls(certificate):
    with Sessions(lambda message: None, *certificate.options, bind="smtps://127.0.0.1:0") as sessions:
        for sent in (b"", b"\x16", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"):
            client = sessions.begin()
            client.sendall(sent)
            reset(client)
            sessions.over()
        client = connect_tls(sessions, certificate, implicit=True)
        hear(client, "220")
        reset(client)
        sessions.over()
        assert sessions.logged(logging.WARNING) == []
        assert len(sessions.logged()) <= 4
        with connect_tls(sessions, certificate, implicit=True) as client:
            hear(client, "220")


def test_a_client_that_does_not_read(monkeypatch):
    """Its replies fill the socket; the session ends, and nobody waits for it."""
    monkeypatch.setattr(pace, "REPLIES", 0.05)
    with Sessions(lambda message: None, "--max-idle-commands", "0") as sessions:
        sessions.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with sessions.begin() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(PATIENCE)
            try:
                for _ in range(100):
                    client.sendall(b"HELP\r\n" * 10000)
            except (ConnectionError, TimeoutError):
                pass
            sessions.over()
        assert sessions.count("timeouts") == 1
        assert sessions.logged(logging.WARNING) == []


# --- the server ends it


@pytest.mark.parametrize("sent", [b"", EHLO, EHLO + b"MAIL FROM:<a@b>\r\nRSET\r\n", MESSAGE])
def test_a_drain_between_transactions(sent):
    with Sessions(lambda message: None) as sessions, sessions.begin() as client:
        client.sendall(sent)
        hear(client, {b"": "220", EHLO: "250", MESSAGE: "250"}.get(sent, "250"))
        if sent:
            client.sendall(b"NOOP\r\nVRFY x\r\n")
            hear(client, "252")
        sessions.begin_drain()
        assert hear(client) == "421 4.3.2 Service shutting down, try again later\r\n"
        client.close()  # or the server would wait for it, a little
        sessions.over()
        assert sessions.logged() == []


def test_a_drain_lets_a_transaction_finish():
    got = []
    with Sessions(lambda message: got.append(message.content)) as sessions, sessions.begin() as client:
        client.sendall(OPEN + b"hel")
        hear(client, "354")
        sessions.begin_drain()
        client.sendall(b"lo\r\n.\r\n")
        said = hear(client)
        assert "250 2.0.0 Ok: queued" in said
        assert said.endswith("421 4.3.2 Service shutting down, try again later\r\n")
    assert got == [b"hello\r\n"]


def test_a_client_accepted_while_draining():
    with Sessions(lambda message: None) as sessions:
        sessions.drain.begin(0.0)
        with sessions.begin() as client:
            assert hear(client) == "421 4.3.2 Service shutting down, try again later\r\n"


@pytest.mark.parametrize(
    ("sent", "last"),
    [
        (b"GET / HTTP/1.1\r\n" + b"x" * 300_000, "554 5.5.1 This is an SMTP server, closing the connection\r\n"),
        (b"FOO\r\n" * 50_000, "421 4.7.0 Too many errors, closing the connection\r\n"),
        (OPEN + b"a\n.\nMAIL FROM:<evil@x>\r\n" + b"x" * 300_000,
         "550 5.6.0 Message ended by other than <CR><LF>.<CR><LF>, closing the connection\r\n"),
    ],
)  # fmt: skip
def test_why_it_was_ended_is_readable_though_the_client_still_sends(sent, last):
    with Sessions(lambda message: None) as sessions, sessions.begin() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert hear(client).endswith(last)


def test_the_end_of_the_session():
    rules = ("--session-timeout", "0.1", "--max-idle-commands", "0")
    with Sessions(lambda message: None, *rules) as sessions, sessions.begin() as client:
        said = ""
        while not said.startswith("421"):
            client.sendall(b"NOOP\r\n")
            said = client.recv(1000).decode().splitlines()[-1]
        assert said == "421 4.4.2 Session lasted too long, closing the connection"
        client.close()
        sessions.over()
        assert sessions.logged()[0].endswith("timed out (session_timeout)")


# --- unix sockets


def test_a_unix_socket(tmp_path: Path):
    seen = []
    with Sessions(lambda message: seen.append(message)) as sessions:
        client, accepted = socket.socketpair()
        from preforksmtp.prefork.worker.seat import Seat

        thread = threading.Thread(
            target=sessions.service.serve, args=(accepted, "", 0, Seat(sessions.row, sessions.drain))
        )
        thread.start()
        with client:
            client.sendall(SESSION)
            hear(client)
        thread.join(PATIENCE)
    (message,) = seen
    assert str(message.session.peer) == "unix"
    assert message.received.startswith("Received: from c.test\r\n\tby mx.test")
