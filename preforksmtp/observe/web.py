"""The web side of the status process: /metrics, /livez, /readyz, /stats and the page for people.

One thread a listener, which waits for all of its connections at once: who sends half a request, or does not read the
answer, keeps nobody waiting. Where there are too many, the one that has been there longest makes room. Clients are
programs and people of the house, and still nothing they send is trusted: what is not GET or HEAD of a known path is
refused by its status code, and who is slow is cut off.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from preforksmtp.observe import metrics, page, style
from preforksmtp.observe.history import History
from preforksmtp.observe.snapshot import Facts, Snapshot, as_json
from preforksmtp.prefork.worker.post import EXHAUSTED

MOST = 128  # connections at once
MOST_OCTETS = 8192  # of a request; browsers send 500
PATIENCE = 1.0  # seconds for the thread to see that it must leave
DEADLINE = 10.0  # seconds for all of a request and its answer

Take = Callable[[], Snapshot]


class Answer(NamedTuple):
    status: int
    type: str
    body: str
    headers: tuple[tuple[str, str], ...] = ()


class Site:
    """What there is to see."""

    def __init__(self, take: Take, facts: Facts, history: History) -> None:
        self._take = take
        self._facts = facts
        self._history = history
        self._pages: dict[str, Callable[[Snapshot], Answer]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/livez": self._alive,
            "/readyz": self._ready,
            "/healthz": self._ready,
            "/stats": self._stats,
        }

    def answer(self, target: str) -> Answer:
        """`target`: a path, or a whole address, as proxies have it (RFC 9112 section 3.2.2)."""
        asked = urlsplit(target)
        show = self._pages.get(asked.path or "/")
        if show is None:
            return _text(404, f"there are {', '.join(self._pages)}")
        snapshot = self._take()
        if show == self._ready and snapshot.saturated and parse_qs(asked.query).get("busy") == ["503"]:
            return _text(503, "all session threads are busy")
        return show(snapshot)

    def _page(self, snapshot: Snapshot) -> Answer:
        body = page.render(snapshot, self._facts, self._history.samples())
        return Answer(200, "text/html; charset=utf-8", body, (("Content-Security-Policy", style.POLICY),))

    def _metrics(self, snapshot: Snapshot) -> Answer:
        return Answer(200, metrics.CONTENT_TYPE, metrics.exposition(snapshot, self._facts))

    def _stats(self, snapshot: Snapshot) -> Answer:
        return Answer(200, "application/json", json.dumps(as_json(snapshot, self._facts), indent=1) + "\n")

    def _alive(self, snapshot: Snapshot) -> Answer:
        if snapshot.alive:
            return _text(200, "ok")
        return _text(503, f"the master has been silent for {snapshot.silent:.1f} s")

    def _ready(self, snapshot: Snapshot) -> Answer:
        return _text(503, snapshot.unready) if snapshot.unready else _text(200, "ok")


def _text(status: int, line: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", line + "\n")


class _Request(BaseHTTPRequestHandler):
    """One request that is all here; `response` is what the client is to get."""

    server_version = "preforksmtp"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # a status line also for what is no HTTP
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def __init__(self, octets: bytes, site: Site, log: logging.Logger) -> None:
        self._octets = octets
        self._site = site
        self._log = log
        super().__init__(None, ("client", 0), None)  # type: ignore[arg-type]

    def setup(self) -> None:
        self.rfile = BytesIO(self._octets)
        self.wfile = self._written = BytesIO()

    def finish(self) -> None:
        self.response = self._written.getvalue()

    def handle(self) -> None:
        self.requestline, self.request_version, self.command = "", "HTTP/1.0", "GET"
        if len(self._octets) > MOST_OCTETS:
            self.send_error(431)
        elif self._octets.count(b"\r") != self._octets.count(b"\r\n"):  # a line end for some, not for all
            self.send_error(400)
        else:
            self.handle_one_request()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Without what the client sent."""
        super().send_error(code)

    def do_GET(self) -> None:
        try:
            answer = self._site.answer(self.path)
        except Exception:
            self._log.exception("status process: cannot answer %r", self.path)
            answer = _text(500, "see the error log")
        body = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.send_response(405)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every second: none of them is news."""


class _Exchange:
    """A connection: a request that arrives, then a response that leaves. Raises OSError where the client is gone."""

    def __init__(self, sock: socket.socket, answer: Callable[[bytes], bytes]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.since = time.monotonic()
        self.events = select.POLLIN
        self._answer = answer
        self._request = bytearray()
        self._response = b""

    def advance(self) -> bool:
        """As far as it goes without waiting for the client. Whether there is more to do."""
        with suppress(BlockingIOError):
            return self._receive() if self.events == select.POLLIN else self._send()
        return True

    def _receive(self) -> bool:
        data = self.sock.recv(MOST_OCTETS + 1 - len(self._request))
        if not data and not self._request:
            return False
        self._request += data
        if data and len(self._request) <= MOST_OCTETS and not _is_whole(self._request):
            return True
        self._response = self._answer(bytes(self._request))
        self.events = select.POLLOUT
        return self._send()

    def _send(self) -> bool:
        self._response = self._response[self.sock.send(self._response) :]
        if self._response:
            return True
        self.sock.shutdown(socket.SHUT_WR)
        with suppress(BlockingIOError):
            self.sock.recv(65536)  # what is unread at the close would reset the connection, and the response with it
        return False


def _is_whole(request: bytearray) -> bool:
    return b"\r\n\r\n" in request or b"\n\n" in request


class StatusServer:
    """Answers what comes to one listening socket, which is open already."""

    def __init__(self, sock: socket.socket, site: Site, log: logging.Logger) -> None:
        sock.setblocking(False)  # our predecessor or successor may be faster
        self._listener = sock
        self._site = site
        self._log = log
        self._exchanges: dict[int, _Exchange] = {}  # by descriptor, the oldest first
        self._poll = select.poll()
        self._leaving = False
        self._left = threading.Event()

    def serve_forever(self, pause: float) -> None:
        """In a thread of its own. `pause`: seconds between two looks at the clock, and whether to leave."""
        self._poll.register(self._listener, select.POLLIN)
        while not self._leaving:
            self._turn(pause)
        self._poll.unregister(self._listener)
        self._left.set()
        while self._exchanges:
            self._turn(pause)

    def _turn(self, pause: float) -> None:
        for fd, _ in self._poll.poll(pause * 1000):
            exchange = self._exchanges.get(fd)
            if exchange is not None:
                self._advance(exchange)
            elif fd == self._listener.fileno():
                self._accept(pause)
        self._cut_off()

    def _accept(self, pause: float) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in EXHAUSTED and not self._make_room():
                time.sleep(pause)  # the connection stays in the queue
            return  # otherwise another process was faster, or the client has left
        if len(self._exchanges) >= MOST:
            self._make_room()
        exchange = self._exchanges[sock.fileno()] = _Exchange(sock, self._answer)
        self._poll.register(sock, exchange.events)
        self._advance(exchange)

    def _advance(self, exchange: _Exchange) -> None:
        try:
            more = exchange.advance()
        except OSError:
            more = False  # it went away: its own affair
        if more:
            self._poll.modify(exchange.sock, exchange.events)
        else:
            self._drop(exchange)

    def _answer(self, request: bytes) -> bytes:
        return _Request(request, self._site, self._log).response

    def _make_room(self) -> bool:
        """The one that has been here longest must go, if there is one."""
        for exchange in self._exchanges.values():
            self._drop(exchange)
            return True
        return False

    def _drop(self, exchange: _Exchange) -> None:
        del self._exchanges[exchange.sock.fileno()]
        self._poll.unregister(exchange.sock)
        exchange.sock.close()

    def _cut_off(self) -> None:
        """Who has taken too long."""
        end = time.monotonic() - DEADLINE
        for exchange in list(self._exchanges.values()):
            if exchange.since > end:
                return
            self._drop(exchange)

    def shutdown(self) -> None:
        """From another thread: accept nobody more. Returns once that is so."""
        self._leaving = True
        self._left.wait(PATIENCE)

    def busy(self) -> bool:
        """From another thread: whether somebody waits for an answer."""
        return bool(self._exchanges)
