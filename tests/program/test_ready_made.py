"""The ready-made handlers in the real server: what smtplib sends is where the handler promises it."""

from __future__ import annotations

import base64
import json
import mailbox
import queue
import smtplib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.processes import PATIENCE
from tests.program.conftest import LOOPBACK, Serve

CONTENT = b"Subject: hello\r\n\r\nworld\r\n"


def send(port: int) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("client.example.org")
        client.mail("a@example.org")
        client.rcpt("b@example.org")
        return client.data(CONTENT)


def test_mbox(serve: Serve, tmp_path: Path) -> None:
    server = serve("-b", LOOPBACK, "-w", "2", "preforksmtp.handlers:Mbox('box')").ready()
    for _ in range(4):
        assert send(server.port())[0] == 250
    assert [one["Subject"] for one in mailbox.mbox(tmp_path / "box")] == ["hello"] * 4


def test_pipe(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "deliver").write_text(
        '#!/bin/sh\ncat > "$SENDER.$RECIPIENT"; grep -E "Sig(Blk|Ign)" /proc/self/status >signals\n'
        'echo complaint >&2; echo "2.0.0 stored $SIZE"\n'
    )
    (tmp_path / "deliver").chmod(0o755)
    server = serve("-b", LOOPBACK, "preforksmtp.handlers:Pipe('./deliver', timeout=15)").ready()
    code, text = send(server.port())
    stored = (tmp_path / "a@example.org.b@example.org").read_bytes()
    assert (code, text) == (250, b"2.0.0 stored %d" % len(stored))
    assert stored.startswith(b"Return-Path: <a@example.org>\r\nReceived: from client.example.org")
    assert stored.endswith(CONTENT)
    signals = [line.split()[1] for line in (tmp_path / "signals").read_text().splitlines()]
    assert [int(each, 16) & 0x5000 for each in signals] == [0, 0]  # TERM and PIPE: 15 and 13
    server.wait_for(r"\| complaint")


def test_command_that_is_not_there(serve: Serve) -> None:
    server = serve("-b", LOOPBACK, "preforksmtp.handlers:Pipe('absent-command')")
    assert server.wait() == 4
    assert "'absent-command' is not an executable file" in server.output


def test_webhook(serve: Serve) -> None:
    bodies: queue.Queue[Any] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{receiver.server_port}/mail"
            server = serve("-b", LOOPBACK, f"preforksmtp.handlers:Webhook({url!r}, timeout=15)").ready()
            assert send(server.port())[0] == 250
            body = bodies.get(timeout=PATIENCE)
        finally:
            receiver.shutdown()
    assert base64.b64decode(body["content"]) == CONTENT
    assert body["sender"] == "a@example.org"
    assert body["recipients"] == [{"address": "b@example.org", "params": {}}]
    assert body["session"]["helo"] == "client.example.org"
    assert body["received"].startswith("Received: from client.example.org")
