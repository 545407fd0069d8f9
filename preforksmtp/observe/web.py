"""The web side of the status process: /metrics, /livez, /readyz, /stats and the page for people.

One thread a request, a bounded number of them; each answers from a snapshot and closes its connection. Clients are
programs and people of the house, and still nothing they send is trusted: what is not GET or HEAD of a known path is
refused by its status code, and who is slow is cut off.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from preforksmtp.observe import metrics, page
from preforksmtp.observe.history import History
from preforksmtp.observe.snapshot import Facts, Snapshot, as_json

MOST = 32  # requests at once
SLOW = 5.0  # seconds for one read or write
DEADLINE = 10.0  # seconds for all of a request

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
        show = self._pages.get(target.partition("?")[0])
        if show is None:
            return _text(404, f"there are {', '.join(self._pages)}")
        return show(self._take())

    def _page(self, snapshot: Snapshot) -> Answer:
        body = page.render(snapshot, self._facts, self._history.samples())
        return Answer(200, "text/html; charset=utf-8", body, (("Content-Security-Policy", page.POLICY),))

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
    """One request."""

    server: StatusServer
    timeout = SLOW
    server_version = "preforksmtp"
    sys_version = ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def do_GET(self) -> None:
        try:
            answer = self.server.site.answer(self.path)
        except Exception:
            self.server.log.exception("status process: cannot answer %r", self.path)
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


class StatusServer(ThreadingHTTPServer):
    """On one listening socket that is open already."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, sock: socket.socket, site: Site, log: logging.Logger) -> None:
        socketserver.BaseServer.__init__(self, sock.getsockname(), _Request)
        self.socket = sock
        self.site = site
        self.log = log
        self._lock = threading.Lock()
        self._open: dict[Any, float] = {}  # connection -> when it was accepted

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = self.socket.accept()
        return sock, address or ("unix", 0)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """False: one too many, its connection is closed."""
        with self._lock:
            if len(self._open) >= MOST:
                return False
            self._open[request] = time.monotonic()
            return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """It went away, or was too slow: its own affair."""

    def busy(self) -> bool:
        return bool(self._open)

    def cut_off(self) -> None:
        """From another thread, now and then: who has taken too long."""
        with self._lock:
            late = [request for request, since in self._open.items() if time.monotonic() - since > DEADLINE]
        for request in late:
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has just ended
