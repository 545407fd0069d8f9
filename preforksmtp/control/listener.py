"""The control socket: orders over a unix socket, in the master's own loop, and never a wait in it.

A connection is one line of JSON, {"order": ["worker", "drain", "4711"]}, and one line back when the order is carried
out: {"ok": true, "result": ...} or {"ok": false, "error": "one line"}. The socket has mode 0600; besides, the kernel
names the peer, and only root and the master's own user are heard. What is malformed, too long, too slow or one too
many costs that connection and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import selectors
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

from preforksmtp.control.orders import Orders, Refused, Steps
from preforksmtp.prefork.worker.post import EXHAUSTED

if TYPE_CHECKING:
    from preforksmtp.prefork.master.master import Master

MOST = 16  # connections at once
LINE = 4096  # bytes of an order
PAUSE = 1.0  # seconds until the next accept() after one for which there was no descriptor
SLOW = 5.0  # seconds for the line to come, and for the answer to be taken
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class Control:
    """Master. One listening socket, and those who came to it."""

    def __init__(self, listener: socket.socket, orders: Orders) -> None:
        self._listener = listener
        self._orders = orders
        self._connections: list[_Connection] = []
        self._registered = False  # at the selector; not while it would only ring for want of descriptors
        self._register_at = 0.0

    def attend(self, master: Master) -> None:
        """Before the master runs."""
        self._master = master
        self._listener.setblocking(False)
        master.on_round.append(self._round)
        master.on_child.append(self._close_in_child)
        master.on_end.append(self._end)

    def _round(self) -> None:
        if not self._registered and time.monotonic() >= self._register_at:
            self._registered = True
            self._master.wakeup.selector.register(self._listener, selectors.EVENT_READ)
        if self._registered:
            self._accept()
        for connection in list(self._connections):
            try:
                connection.advance(self._orders)
            except OSError:  # it went away
                connection.over = True
            self._listen_to(connection)
            if connection.over:
                self._connections.remove(connection)
                connection.close()

    def _listen_to(self, connection: _Connection) -> None:
        """Have the selector ring for what this connection waits for."""
        wanted, selector = connection.waits_for(), self._master.wakeup.selector
        if connection.events and not wanted:
            selector.unregister(connection.socket)
        elif wanted and not connection.events:
            selector.register(connection.socket, wanted)
        elif wanted != connection.events:
            selector.modify(connection.socket, wanted)
        connection.events = wanted

    def _accept(self) -> None:
        for _ in range(MOST):  # the rest at the next round: others wait for the master as well
            try:
                sock, _address = self._listener.accept()
            except OSError as error:
                if error.errno in EXHAUSTED:  # it stays in the queue, and the selector would ring all the time
                    self._master.log.error("control: cannot accept: %s", error.strerror)
                    self._registered, self._register_at = False, time.monotonic() + PAUSE
                    self._master.wakeup.selector.unregister(self._listener)
                return  # none is left, or it is gone already
            if len(self._connections) >= MOST or not _is_heard(sock):
                sock.close()
                continue
            sock.setblocking(False)
            self._connections.append(_Connection(sock))

    def _close_in_child(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.socket.close()

    def _end(self) -> None:
        """The server is gone: so ends an order to stop. The connections stay open until this process is gone too."""
        for connection in self._connections:
            connection.end()


class _Connection:
    """One order. Over when it is answered, or when its client is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.over = False
        self.deaf = False  # it says nothing more, but may still wait for the answer
        self.events = 0  # for which the selector rings
        self._line = b""
        self._steps: Steps | None = None
        self._stops = False  # the order is to stop
        self._answer: bytes | None = None
        self._deadline = time.monotonic() + SLOW

    def advance(self, orders: Orders) -> None:
        """Each round. OSError: it went away."""
        if not self.deaf:
            self._read()
        elif _is_gone(self.socket):
            self.over = True
        if self.over:
            return
        if self._steps is None and self._answer is None:
            if b"\n" in self._line:
                self._begin(orders)
            elif self.deaf:
                self.over = True
            elif len(self._line) > LINE:
                self._refuse(f"an order has at most {LINE} bytes")
        if self._steps is not None:
            self._go_on(orders.master.log)
        if self._answer is not None:
            self._send()
        if self._steps is None and time.monotonic() >= self._deadline:
            self.over = True

    def waits_for(self) -> int:
        if self.over:
            return 0
        reads = 0 if self.deaf else selectors.EVENT_READ
        return reads | (selectors.EVENT_WRITE if self._answer else 0)

    def close(self) -> None:
        if self._steps is not None:
            self._steps.close()
        self.socket.close()

    def end(self) -> None:
        """The loop has ended."""
        if self._steps is not None:
            if self._stops:
                self._reply({"ok": True, "result": "stopped"})
            else:
                self._refuse("the server has stopped")
            with contextlib.suppress(OSError):
                self._send()

    def _read(self) -> None:
        """What has come, so that the selector is quiet again. An end of file is no more than that: `nc -N` waits."""
        with contextlib.suppress(BlockingIOError):
            data = self.socket.recv(LINE + 1)
            self.deaf = not data
            if self._answer is None and self._steps is None:
                self._line += data

    def _begin(self, orders: Orders) -> None:
        line = self._line.partition(b"\n")[0]
        try:
            words = json.loads(line)["order"]
            if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            self._refuse('an order is one line of JSON, {"order": ["show", "workers"]}')
            return
        try:
            order, argument = orders.find(words)
            self._stops = order.words.startswith("shutdown")
            level = logging.DEBUG if words[0] in ("show", "top") else logging.INFO
            orders.master.log.log(level, "control: %s", " ".join(words))
            self._steps = order.run(orders, argument)
        except Refused as refused:
            self._refuse(str(refused))

    def _go_on(self, log: logging.Logger) -> None:
        assert self._steps is not None
        try:
            next(self._steps)
        except StopIteration as done:
            self._reply({"ok": True, "result": done.value})
        except Refused as refused:
            self._refuse(str(refused))
        except Exception:  # a fault of ours costs this order, and no other one
            log.exception("control: an order failed")
            self._refuse("it failed; see the error log")

    def _refuse(self, why: str) -> None:
        self._reply({"ok": False, "error": why})

    def _reply(self, answer: dict[str, object]) -> None:
        self._steps = None
        self._answer = json.dumps(answer).encode() + b"\n"
        self._deadline = time.monotonic() + SLOW

    def _send(self) -> None:
        assert self._answer is not None
        with contextlib.suppress(BlockingIOError):
            while self._answer:
                self._answer = self._answer[self.socket.send(self._answer) :]
                self._deadline = time.monotonic() + SLOW
            self.over = True


def _is_gone(sock: socket.socket) -> bool:
    """Both directions are closed."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def _is_heard(sock: socket.socket) -> bool:
    """Root and our own user. Elsewhere than on Linux the mode of the file has to do."""
    if sys.platform != "linux":
        return True
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return False
    return _CREDENTIALS.unpack(credentials)[1] in (0, os.geteuid())
