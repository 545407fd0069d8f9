"""A real SMTP server inside the user's own tests: on a free port, in threads of this process, collecting messages.

    with Server() as server:
        smtplib.SMTP(server.host, server.port).sendmail("me@example.com", ["you@example.com"], "Subject: hello")
        [message] = server.messages

Sockets, TLS, dialogue and limits are the program's own; only master and workers are left out, so that a handler sees
what the test has patched. With pytest the fixture `smtp_server` is such a server. A faulty setting or handler raises
ConfigError, AppError, ListenError or TLSError, each with one clear line.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any

from preforksmtp.config.load import make
from preforksmtp.config.model import ConfigError
from preforksmtp.config.settings import BY_NAME, LIMITS, SMTP, TLS
from preforksmtp.connection.journal import Books
from preforksmtp.connection.limits import make_limiter
from preforksmtp.connection.service import Service
from preforksmtp.connection.terms import make_terms
from preforksmtp.logs.access import open_access_log
from preforksmtp.logs.transcript import open_transcript
from preforksmtp.net.listener import Listener, ListenError, open_listeners
from preforksmtp.net.tls import TLSError
from preforksmtp.prefork.scoreboard import Scoreboard
from preforksmtp.prefork.worker.seat import Drain, Seat
from preforksmtp.server.app import AppError, examine_app, load_app, start_handler
from preforksmtp.server.composition import make_contexts
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.message import Message
from preforksmtp.smtp.reply import Reply

__all__ = ["AppError", "ConfigError", "ListenError", "Server", "TLSError"]

DEFAULTS = {"bind": "127.0.0.1:0", "hostname": "localhost"}
# Of the settings those that mean something without a master: all of these sections, and the following.
SECTIONS = (SMTP, LIMITS, TLS)
OTHERS = ("bind", "threads", "backlog", "access_logfile", "access_logformat", "log_format", "transcript", "ssl_context")
STOP_TIMEOUT = 10.0  # seconds that handlers have to return once the server stops
QUIT_TIMEOUT = 0.1  # seconds for the QUIT after a reply
LAST_REPLY = 0.15  # seconds in which a session that is in none gets its last reply out, and then is cut off

log = logging.getLogger("preforksmtp")


class Server:
    """A running server. Use it in `with`, or call `start` and `stop`.

    app       a function of one message, a Handler subclass, or "module:attribute"; None accepts everything
    settings  those of the program by name: max_message_size=1000, require_tls=True, bind="lmtp://127.0.0.1:0"
    messages  those that were accepted, in their order, each before its client has the 250
    host, port, address  where it listens; the address of a unix socket is its path
    """

    def __init__(self, app: str | Callable[[Message], Any] | type[Handler] | None = None, **settings: object) -> None:
        self.messages: list[Message] = []
        self._news = threading.Condition()
        self._settings = make(_checked(DEFAULTS | settings), "argument of Server")
        self._app = app
        self._running: _Running | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> Any:
        """(host, port) as socket.create_connection takes it, or the path of a unix socket; of the first bind."""
        if self._running is None:
            raise RuntimeError("the server does not run: use it in `with`, or call start()")
        name = self._running.listeners[0].name
        return name[:2] if isinstance(name, tuple) else name

    @property
    def addresses(self) -> list[Any]:
        """The same of each bind."""
        if self._running is None:
            raise RuntimeError("the server does not run: use it in `with`, or call start()")
        names = [listener.name for listener in self._running.listeners]
        return [name[:2] if isinstance(name, tuple) else name for name in names]

    @property
    def host(self) -> str:
        return str(self.address[0])

    @property
    def port(self) -> int:
        return int(self.address[1])

    def start(self) -> None:
        """Listen and serve. Returns when clients can connect."""
        if self._running is not None:
            raise RuntimeError("the server runs already")
        app = _accept if self._app is None else self._app
        name = app if isinstance(app, str) else getattr(app, "__qualname__", repr(app))
        hooks = load_app(app) if isinstance(app, str) else examine_app(name, app)
        self._running = _Running(self._settings, name, _collecting(hooks, self._collect))

    def stop(self) -> None:
        """Tell idle sessions 421, cut others off, wait for handlers to return, and close. Safe to call twice.

        Raises TimeoutError if a handler has not returned in ten seconds; its thread is left to itself.
        """
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    def wait_for(self, count: int = 1, timeout: float = 10.0) -> list[Message]:
        """Wait until `count` messages are here, and return all that are. TimeoutError after `timeout` seconds."""
        with self._news:
            if not self._news.wait_for(lambda: len(self.messages) >= count, timeout):
                raise TimeoutError(f"{len(self.messages)} of {count} messages after {timeout:g} s")
            return list(self.messages)

    def clear(self) -> None:
        """Forget the messages so far."""
        with self._news:
            self.messages.clear()

    def _collect(self, message: Message) -> None:
        with self._news:
            self.messages.append(message)
            self._news.notify_all()


class _Running:
    """What is open between start and stop: listeners, a thread that accepts, and one for each session."""

    def __init__(self, settings: Any, name: str, hooks: Hooks) -> None:
        self._drain = Drain()
        self._rows: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()  # None: stop
        self._seats: dict[threading.Thread, Seat] = {}
        self._stopped = False
        self._lock = threading.Lock()  # over the two: whoever is last closes everything
        with contextlib.ExitStack() as stack:
            stack.callback(self._drain.close)
            contexts = make_contexts(settings)
            access = open_access_log(settings)
            stack.callback(access.close)
            transcript = open_transcript(settings)
            if transcript is not None:
                stack.callback(transcript.close)
            self.listeners = open_listeners(settings.binds(), backlog=settings.backlog, environ={})
            for listener in self.listeners:
                stack.callback(listener.close)
            if hooks.handler is not None:
                worker = SimpleNamespace(pid=os.getpid(), slot=0, log=log, config=settings)
                start_handler(name, hooks.handler, worker)
                stack.callback(hooks.handler.stop, worker)
            board = Scoreboard(1, settings.threads)
            for row in board.slots[0].rows:
                self._rows.put(row)
            limiter = functools.partial(make_limiter, clients=board.clients, slot=0, log=log)
            terms = []
            for each in self.listeners:
                view, context = settings.for_bind(each.bind), contexts[each.bind.text]
                terms.append(make_terms(view, each.bind, each.name, context, hooks, limiter))
            self._service = Service(terms, Books(log, access, 0, board.tallies.of(0)), transcript)
            self._resources = stack.pop_all()
        self._acceptor = threading.Thread(target=self._accept, name="smtp-accept", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT
        self._drain.begin(deadline, QUIT_TIMEOUT)
        self._rows.put(None)
        self._acceptor.join()
        for listener in self.listeners:
            listener.close()
        sessions = dict(self._seats)
        for seat in sessions.values():
            _touch(seat, "interrupt")
        resting: set[Seat] = set()  # in no hook when last seen
        while sessions and time.monotonic() < deadline:
            for seat in resting:
                if not seat.hook:
                    _touch(seat, "cut")
            resting = {seat for seat in sessions.values() if not seat.hook}
            next(iter(sessions)).join(LAST_REPLY)
            sessions = {thread: seat for thread, seat in sessions.items() if thread.is_alive()}
        with self._lock:
            self._stopped = True
            late = [seat.hook or "session" for seat in self._seats.values()]
        if late:  # the last of them closes what they use
            raise TimeoutError(f"still running {STOP_TIMEOUT:g} s after the server was stopped: {', '.join(late)}")
        self._resources.close()

    def _accept(self) -> None:
        """In its own thread."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._drain.fd, selectors.EVENT_READ)
            for index, listener in enumerate(self.listeners):
                selector.register(listener.socket, selectors.EVENT_READ, (index, listener))
            while not self._drain.requested:
                for key, _ in selector.select():
                    if key.data is not None:
                        self._welcome(*key.data)

    def _welcome(self, index: int, listener: Listener) -> None:
        """Serve who connects, as soon as there is a thread for it (setting `threads`)."""
        row = self._rows.get()
        if row is None:
            return
        try:
            connection, peer = listener.socket.accept()
            connection.settimeout(None)  # whatever the test has set for all sockets
        except OSError:  # it has gone again
            self._rows.put(row)
            return
        seat = Seat(row, self._drain)
        thread = threading.Thread(target=self._serve, args=(connection, peer, index, seat), daemon=True)
        self._seats[thread] = seat
        thread.start()

    def _serve(self, connection: socket.socket, peer: Any, index: int, seat: Seat) -> None:
        """In the session's thread."""
        try:
            self._service.serve(connection, peer, index, seat)
        except BaseException:  # SystemExit of a handler, too
            log.exception("session %s failed", seat.name)
            connection.close()
        finally:
            self._rows.put(seat.row)
            with self._lock:
                del self._seats[threading.current_thread()]
                last = self._stopped and not self._seats
            if last:
                self._resources.close()


def _touch(seat: Seat, method: str) -> None:
    """Its connection, unless the session has just ended."""
    line = seat.line
    with contextlib.suppress(OSError):
        if line is not None:
            getattr(line, method)()


def _checked(settings: dict[str, object]) -> dict[str, object]:
    """ConfigError for settings that would have no effect."""
    known = [name for name in settings if name not in OTHERS and name in BY_NAME]
    idle = [name for name in known if BY_NAME[name].section not in SECTIONS]
    if idle:
        raise ConfigError([f"{name}: is for master and workers, and there are none here" for name in idle])
    return settings


def _accept(message: Message) -> None:
    """The handler where the test has none of its own."""


def _collecting(hooks: Hooks, collect: Callable[[Message], None]) -> Hooks:
    """The same application, each message that it accepts shown to `collect`."""
    if hooks.shared is not None:
        hooks.shared.message = _then(hooks.shared.message, collect)
        return hooks
    new = hooks.new
    assert new is not None
    hooks.message = True

    def make_handler(session: Any) -> Any:
        handler = new(session)
        handler.message = _then(handler.message, collect)
        return handler

    hooks.new = make_handler
    return hooks


def _then(message: Callable[[Message], Any], collect: Callable[[Message], None]) -> Callable[[Message], Any]:
    def handle(received: Message) -> Any:
        answer = message(received)
        if _accepts(answer):
            collect(received)
        return answer

    return handle


def _accepts(answer: object) -> bool:
    """Whether the session will make a 2xx of what the handler has returned, or 451 for it is no answer."""
    if isinstance(answer, str):
        try:
            answer = Reply(250, answer)
        except ValueError:
            return False
    return answer is None or (isinstance(answer, Reply) and answer.code < 300)
