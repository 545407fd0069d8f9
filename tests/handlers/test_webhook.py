"""handlers/webhook.py: what is posted, over a real connection, and how each answer is translated."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import hmac
import io
import json
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from preforksmtp import Reject, Reply
from preforksmtp.handlers import Webhook
from preforksmtp.handlers import webhook as module
from preforksmtp.smtp.parameters import DeliverBy, ValidSince
from preforksmtp.smtp.transaction import Recipient
from tests.certificates import make_certificate
from tests.handlers.envelope import PATIENCE, Envelope, Large, message, session
from tests.program.conftest import need

JSON = "application/json"
Log = pytest.LogCaptureFixture


def answer(hook: Webhook, **changes: Any) -> Reply | None:
    """The reply it comes to; None is the standard one."""
    try:
        return hook(message(**changes))
    except Reject as refusal:
        return refusal.reply


class Receiver(ThreadingHTTPServer):
    """Notes each request, and answers as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any, bytes]] = []
        self.status, self.type, self.body = 200, "text/plain", b"thanks"
        self.headers: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers, content))
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.type)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def raw_server(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """One that speaks no proper HTTP: `serve` has the first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_what_is_posted(receiver: Receiver) -> None:
    moment = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)
    recipients = [Recipient("bob@x", {"NOTIFY": ("FAILURE", "DELAY"), "RRVS": ValidSince(moment, "R")}), Recipient("ü@x", {})]
    facts = session(user="alice", tls=SimpleNamespace(version="TLSv1.3"), reverse_dns="h.example.org")
    params = {"SIZE": 12, "SMTPUTF8": True, "HOLDUNTIL": moment, "BY": DeliverBy(60, "N", False)}
    hook = Webhook(f"{receiver.url}/a%20b?c=d")
    assert answer(hook, recipients=recipients, params=params, session=facts, content=b"\xff\0\r\n") is None
    [(path, headers, body)] = receiver.requests
    assert path == "/a%20b?c=d"
    assert headers["Host"] == receiver.url.partition("://")[2]
    assert headers["Content-Type"] == JSON
    assert "X-Preforksmtp-Signature" not in headers and "Authorization" not in headers
    assert json.loads(body) == {
        "id": "42",
        "time": 1_000_000_000.0,
        "sender": "alice@example.org",
        "recipients": [
            {"address": "bob@x", "params": {"NOTIFY": ["FAILURE", "DELAY"], "RRVS": {"since": moment.isoformat(), "action": "R"}}},
            {"address": "ü@x", "params": {}},
        ],
        "params": {
            "SIZE": 12, "SMTPUTF8": True, "HOLDUNTIL": moment.isoformat(), "BY": {"seconds": 60, "mode": "N", "trace": False},
        },
        "size": 4,
        "session": {
            "id": "s1", "peer": {"host": "192.0.2.7", "port": 4711}, "helo": "client.example.org", "esmtp": True,
            "tls": "TLSv1.3", "user": "alice", "reverse_dns": "h.example.org", "bind": "127.0.0.1:25",
        },
        "received": Envelope.received,
        "content": base64.b64encode(b"\xff\0\r\n").decode(),
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 2, 3, module.BLOCK - 1, module.BLOCK, module.BLOCK + 1, 3 * module.BLOCK + 2])
def test_content_and_signature(receiver: Receiver, size: int) -> None:
    content = os.urandom(size)
    assert answer(Webhook(receiver.url, secret="geheim"), content=content) is None
    [(path, headers, body)] = receiver.requests
    assert path == "/"
    assert base64.b64decode(json.loads(body)["content"]) == content
    assert headers["X-Preforksmtp-Signature"] == "sha256=" + hmac.new(b"geheim", body, hashlib.sha256).hexdigest()


def test_large_message_is_never_in_memory(receiver: Receiver) -> None:
    large: Any = Large(module.BLOCK, 20)
    assert Webhook(receiver.url, secret=b"s")(large) is None
    assert large.asked == {module.BLOCK}
    assert base64.b64decode(json.loads(receiver.requests[0][2])["content"]) == b"x" * large.size


def test_half_a_surrogate_pair_is_still_json(receiver: Receiver) -> None:
    answer(Webhook(receiver.url), sender="a\udcff\ud800@x")
    assert json.loads(receiver.requests[0][2])["sender"] == "a??@x"


def test_headers_and_user(receiver: Receiver) -> None:
    url = receiver.url.replace("//", "//us%40er:p%3Aß@".replace("ß", "%C3%9F"))
    answer(Webhook(url, headers={"X-Tenant": "a b", "user-agent": "me"}))
    headers = receiver.requests[0][1]
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == "us@er:p:ß"
    assert (headers["X-Tenant"], headers.get_all("User-Agent")) == ("a b", ["me"])
    assert "@" not in headers["Host"]


@pytest.mark.parametrize(
    ("status", "answered", "reply"),
    [
        (200, None, None),
        (204, None, None),
        (201, {}, None),
        (200, [], None),
        (200, {"code": 250}, None),
        (200, {"text": "stored as 7"}, Reply(250, "stored as 7")),
        (200, {"code": 252, "text": "x\r\n250 y\x1b"}, Reply(252, "x 250 y?")),
        (200, {"code": 550, "text": "5.7.1 Not wanted"}, Reply(550, "5.7.1 Not wanted")),
        (202, {"code": 450}, Reply(450, "The message was refused")),
        (200, {"text": "x" * 5000}, Reply(250, "x" * module.TEXT_LIMIT)),
        (406, None, Reply(550, "5.6.0 The message was refused")),
        (410, None, Reply(550, "5.1.1 No such mailbox")),
        (413, None, Reply(552, "5.3.4 Message too large")),
        (422, None, Reply(550, "5.6.0 The message was refused")),
        (422, {"detail": "x"}, Reply(550, "5.6.0 The message was refused")),
        (422, {"text": "no such thing"}, Reply(550, "5.6.0 no such thing")),
        (422, {"text": "5.7.1 spam"}, Reply(550, "5.7.1 spam")),
        (422, {"code": 451, "text": "later"}, Reply(451, "later")),
    ],
)
def test_answers(caplog: Log, receiver: Receiver, status: int, answered: object, reply: Reply | None) -> None:
    receiver.status = status
    if answered is not None:
        receiver.type, receiver.body = f"{JSON}; charset=utf-8", json.dumps(answered).encode()
    elif status == 204:
        receiver.body = b""
    assert answer(Webhook(receiver.url)) == reply
    assert caplog.records == []


@pytest.mark.parametrize("status", [300, 301, 302, 307, 400, 401, 403, 404, 405, 408, 409, 415, 429, 500, 502, 503, 504])
def test_every_other_status_is_temporary(caplog: Log, receiver: Receiver, status: int) -> None:
    receiver.status, receiver.type, receiver.body = status, JSON, b'{"code": 550, "text": "gone"}'
    receiver.headers["Location"] = f"{receiver.url}/elsewhere"
    url = receiver.url.replace("//", "//user:password@") + "/secret-path?token"
    assert answer(Webhook(url, secret="hidden")) == Reply(451, module._NOT_ACCEPTED)
    assert len(receiver.requests) == 1
    assert [record.getMessage() for record in caplog.records] == [f"message 42: webhook {receiver.url}: status {status}"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{"),
        (200, b"\xff"),
        (200, b"[" * 60_000),
        (200, b'{"text": "' + b"x" * module.ANSWER_LIMIT + b'"}'),
        (200, b'{"code": true}'),
        (200, b'{"code": "550"}'),
        (200, b'{"code": null}'),
        (200, b'{"code": 354}'),
        (200, b'{"code": 600}'),
        (200, b'{"code": 99}'),
        (200, b'{"code": 550, "text": 1}'),
        (422, b'{"code": 250}'),
    ],
)
def test_nonsense_is_temporary(caplog: Log, receiver: Receiver, status: int, body: bytes) -> None:
    receiver.status, receiver.type, receiver.body = status, JSON, body
    assert answer(Webhook(receiver.url)) == Reply(451, module._NOT_ACCEPTED)
    [record] = caplog.records
    assert record.levelno == logging.ERROR


def test_empty_json_answer_is_a_yes(receiver: Receiver) -> None:
    receiver.type, receiver.body, receiver.headers = JSON, b"", {"Content-Length": "0"}
    assert answer(Webhook(receiver.url)) is None


def test_json_answer_of_unknown_length_that_is_empty_may_have_been_cut_off(receiver: Receiver, caplog: Log) -> None:
    receiver.type, receiver.body = JSON, b""
    assert answer(Webhook(receiver.url)) == Reply(451, module._NOT_ACCEPTED)
    assert "is empty or was cut off" in caplog.records[0].getMessage()


def test_nobody_listens(caplog: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert answer(Webhook(url)) == Reply(451, module._NO_CONNECTION)
    assert [record.getMessage() for record in caplog.records] == [
        f"message 42: webhook {url}: cannot connect: Connection refused"
    ]


CUT_OFF = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


HALVES = (b"", b"HTTP/1.1 20", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Type: applic", CUT_OFF[:-2], CUT_OFF, CUT_OFF + b"{}")


@pytest.mark.parametrize("said", [b"220 mx.example.org ESMTP\r\n", *HALVES])
def test_broken_answer(caplog: Log, said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.sendall(said)

    with raw_server(serve) as url:
        reply = answer(Webhook(url, timeout=PATIENCE))
    assert reply == Reply(451, module._BROKEN)
    assert len(caplog.records) == 1


def drip(connection: socket.socket) -> None:
    """A byte now and then: each single read is soon done."""
    connection.recv(1 << 20)
    pause = threading.Event()
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000:
        connection.sendall(bytes([byte]))
        pause.wait(0.02)


@pytest.mark.parametrize(
    ("serve", "size"), [(drip, 10), (lambda connection: connection.recv(1, socket.MSG_PEEK) and threading.Event().wait(3), 50_000_000)]
)
def test_timeout_bounds_all_of_it(caplog: Log, serve: Callable[[socket.socket], object], size: int) -> None:
    with raw_server(serve) as url:
        hook = Webhook(url, timeout=0.7)
        begun = time.monotonic()
        assert answer(hook, content=b"x" * size) == Reply(451, module._BROKEN)
        assert 0.7 <= time.monotonic() - begun < PATIENCE
    assert caplog.records[0].getMessage().endswith(": timed out")


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"HTTP/1.1 413 Too Large\r\n\r\n", Reply(552, "5.3.4 Message too large")),
        (b"HTTP/1.1 200 OK\r\n\r\n", Reply(451, module._BROKEN)),
    ],
)
def test_answer_before_all_was_sent(said: bytes, reply: Reply) -> None:
    """A no counts, a yes does not: the message was not read."""

    class Pausing(Envelope):
        def open(self) -> BinaryIO:
            return Body(self.content)

    answered = threading.Event()

    class Body(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                assert answered.wait(PATIENCE)
            return super().read(size)

    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_RDWR)
        answered.set()

    pausing: Any = Pausing(content=b"x" * 40_000_000)
    with raw_server(serve) as url, pytest.raises(Reject) as caught:
        Webhook(url, timeout=PATIENCE)(pausing)
    assert caught.value.reply in (reply, Reply(451, module._BROKEN))  # a reset may overtake the answer
    assert caught.value.reply.code != 250


def test_https_is_verified(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: Log) -> None:
    need("openssl")
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    url = f"https://localhost:{receiver.server_port}/"
    assert answer(Webhook(url, timeout=PATIENCE)) == Reply(451, module._NO_CONNECTION)
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert receiver.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certfile))  # for its own issuer
    assert answer(Webhook(url, timeout=PATIENCE)) is None
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"url": ""}, "percent-encoded"),
        ({"url": "http://x/a b"}, "percent-encoded"),
        ({"url": "http://x/\n"}, "percent-encoded"),
        ({"url": "http://grüße.example/"}, "percent-encoded"),
        ({"url": "example.org/hook"}, "must begin with http:// or https://"),
        ({"url": "ftp://example.org/"}, "must begin with http:// or https://"),
        ({"url": "http:///path"}, "has no host"),
        ({"url": "http://x:99999/"}, "the url is wrong"),
        ({"url": "http://x:y/"}, "the url is wrong"),
        ({"url": "http://x:0/"}, "port 0"),
        ({"url": "http://[::1/"}, "the url is wrong"),
        ({"url": "http://x/", "secret": ""}, "the secret is empty"),
        ({"url": "http://x/", "timeout": 0}, "timeout"),
        ({"url": "http://x/", "timeout": float("nan")}, "timeout"),
        ({"url": "http://x/", "headers": {"a b": "c"}}, "not a name"),
        ({"url": "http://x/", "headers": {"a": "b\r\nc: d"}}, "must be printable ASCII"),
        ({"url": "http://x/", "headers": {"content-LENGTH": "1"}}, "set by Webhook itself"),
        ({"url": "http://u:p@x/", "headers": {"authorization": "Bearer x"}}, "not both"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        Webhook(**arguments)


def test_descriptors_are_not_leaked(receiver: Receiver) -> None:
    hook = Webhook(receiver.url)
    threads = [threading.Thread(target=answer, args=(hook,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.requests) == 20
    receiver.shutdown()
    receiver.server_close()
    gc.collect()  # what tests before this one have left to the collector
    connections = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
    before = sum(name.startswith("socket:") for name in connections)
    for _ in range(5):
        assert answer(hook) == Reply(451, module._NO_CONNECTION)
    connections = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
    assert sum(name.startswith("socket:") for name in connections) <= before
