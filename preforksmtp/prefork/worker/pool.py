"""The pool: a worker's session threads. Each blocks in accept() on the shared listener and serves what it
gets.

No acceptor, no hand-over, no lock on the way of a connection. The kernel serves waiting threads of all
workers first come, first served; a worker whose threads are all busy has nobody in that queue, so it never
takes a connection it cannot serve. The listener carries SO_RCVTIMEO: accept() raises BlockingIOError about
twice a second, which is when an idle thread looks round. Nobody may call settimeout or setblocking on it:
O_NONBLOCK would be seen by every process that shares it.

`idle` of each post holds the seats waiting there. set.add and set.discard are atomic, so the last thread to
leave a post sees it empty, and has another one come. With several listeners a waiting thread picks the posts
nobody watches, all at once by poll() if there are many (always so when there are fewer threads than listeners).

Where SPARE wait already the others sit on the bench. A worker's share of the connections is its share of the
threads in the kernel's queue: without a bench it would be that of its busiest moment, and stay so (1.7 times as
many for the luckiest of 4 workers as for the last, 24 clients; 1.2 with it, at the same cost). Who leaves a post
empty calls one from the bench, or starts one more thread while the limit allows. Threads that nobody called for a
whole period leave again.

What escapes `serve` is logged with its traceback; what accept() may fail with is named below, errno by errno.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from socket import socket as Socket  # whatever the application puts in its place (PySocks)
from typing import Any

from preforksmtp.prefork.reclaim import lift
from preforksmtp.prefork.scoreboard import ERRORS, SESSIONS, SINCE, Scoreboard, Slot
from preforksmtp.prefork.worker.post import FORGIVEN, Post
from preforksmtp.prefork.worker.seat import Drain, Seat

Serve = Callable[[socket.socket, Any, int, Seat], None]
TurnAway = Callable[[socket.socket, int], None]  # a connection, which it closes, and the index of its listener

SPARE = 3  # waiting threads kept per listener: with 2 every other session calls one from the bench (5 % of CPU in A)
WAKING = signal.SIGURG  # the worker has a handler for it, and where it has none it is ignored
PATIENCE = 500  # ms a thread polls several listeners, or sits on the bench; the listeners' SO_RCVTIMEO does it for one
# A handler may recurse deeply in C (sorted, json, ==): with 1 MiB CPython 3.10 to 3.13 die of a
# segmentation fault where 8 MiB give RecursionError. It is address space, not memory: 20 KiB are resident.
STACK_SIZE = 8 << 20
TOO_SOON = 0.05  # seconds after which no accept() gives up by itself
REPORT_EVERY = 10.0  # seconds between two lines about the same trouble

class Pool:
    """The session threads of one worker. Main thread calls start, tick, wake_sessions and the questions."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        limit: int,
        scoreboard: Scoreboard,
        slot: Slot,
        drain: Drain,
        log: logging.Logger,
        wake: Callable[[], None],
    ) -> None:
        self._posts = [Post(index, listener) for index, listener in enumerate(listeners)]
        self._scoreboard = scoreboard
        self._slot = slot
        self._drain = drain
        self.log = log
        self._wake = wake  # rings the main thread while draining
        self._lock = threading.Lock()  # guards the three below, and _surplus; taken at growth and leave only
        self._free = list(reversed(slot.rows[:limit]))
        self._seats: set[Seat] = set()
        self._started = 0
        self._bench: list[Seat] = []  # append, pop and remove are atomic
        self._low = 0  # fewest on the bench in this period
        self._surplus = 0  # how many threads may leave
        self._reported = -REPORT_EVERY
        self._nudged = time.monotonic()
        self._closed = False  # the listeners, towards the end of a drain
        self._accepting = True
        self._served = itertools.count(1)  # next() of it needs no lock
        self._serve: Serve

    # -- worker, main thread

    def start(self, serve: Serve, quota: int = 0) -> None:
        """`quota`: ring the main thread at this session."""
        self._serve = serve
        self._quota = quota
        for number in range(min(len(self._free), SPARE * len(self._posts))):
            self._grow(self._posts[number % len(self._posts)])
        if not self._seats:
            raise RuntimeError("no session thread can be started")

    def alive(self) -> int:
        return len(self._seats)

    def busy(self) -> bool:
        return self._slot.active() > 0

    def tick(self) -> None:
        """Once a period: threads that nobody called in it may go. The fewest seen on the bench are those."""
        if self._accepting:
            self._surplus = self._low
            self._low = len(self._bench)

    def seats(self) -> list[Seat]:
        with self._lock:
            return list(self._seats)

    def stop_accepting(self) -> None:
        """Without draining: every thread leaves once it is idle, by the way of those that are not needed."""
        self._accepting = False
        self._surplus = sys.maxsize

    def close_if_deserted(self) -> None:
        """While draining: once no thread accepts, let go of the listeners, so that a bind nobody serves
        refuses clients instead of queueing them until our last session ends. Who came at the last moment, and
        would be served by nobody else, gets one more thread; if there is none, one of those still busy."""
        if self._closed or len(self._seats) != self._slot.active():
            self._nudge()
            return
        if self._is_last() and self._queued():
            self._grow(self._posts[0])
        else:
            self._closed = True  # a thread that ends its session right now finds this, or EBADF and then this
            for post in self._posts:
                post.listener.close()

    def _nudge(self) -> None:
        """Once a second, have accept() begin anew: another worker may have taken SO_RCVTIMEO off the listener."""
        if time.monotonic() - self._nudged >= 1.0:
            self._nudged = time.monotonic()
            with self._lock:  # whose seat is here has not ended
                for seat in self._seats:
                    if seat.thread and not seat.row[SINCE]:
                        signal.pthread_kill(seat.thread, signal.SIGURG)

    def turn_away(self, farewell: TurnAway, seconds: float) -> None:
        """At the end of a full stop, for at most so long: our threads hang in handlers, and who still waits in the
        queue would be reset. No session is counted."""
        if self._closed or not self._is_last():
            return
        end = time.monotonic() + seconds
        with contextlib.suppress(OSError):  # another worker was faster, and empties the queue itself; or no descriptor
            while time.monotonic() < end and (waiting := self._queued()):
                for post in self._posts:
                    if post.listener.fileno() in waiting:
                        fd, _ = post.accept()
                        farewell(Socket(*post.kind, fd), post.index)

    def wake_sessions(self) -> None:
        """The drain has news: every session that is idle in recv() looks at it, at a signal that does nothing else."""
        with self._lock:  # a thread whose seat is here has not ended
            for seat in self._seats:
                line = seat.line
                with contextlib.suppress(OSError):  # its socket: the session has just ended
                    if line is not None and line.wake():
                        signal.pthread_kill(seat.thread, WAKING)

    def interrupt_sessions(self) -> None:
        """Whoever is still there: the application has taken the signal away."""
        for seat in self.seats():
            line = seat.line
            with contextlib.suppress(OSError):
                if line is not None:
                    line.interrupt()

    # -- any session thread

    def _grow(self, post: Post) -> None:
        """Start one more thread, if the limit allows."""
        with self._lock:
            if not self._free:
                return
            seat = Seat(self._free.pop(), self._drain)
            self._seats.add(seat)
            self._started += 1
            name = f"session-{self._started}"
            self._slot.threads = len(self._seats)
        applications = threading.stack_size(STACK_SIZE)
        try:
            threading.Thread(target=self._run, args=(seat, post), name=name, daemon=True).start()
        except RuntimeError as error:  # the system's limit, or address space
            self._remove(seat)
            self._report("cannot start a session thread: %s", error)
        finally:
            threading.stack_size(applications)

    def _remove(self, seat: Seat) -> None:
        with self._lock:
            self._seats.discard(seat)
            self._free.append(seat.row)
            self._slot.threads = len(self._seats)

    def _run(self, seat: Seat, post: Post) -> None:
        """A session thread's life."""
        seat.thread, seat.native = threading.get_ident(), threading.get_native_id()
        try:
            while True:
                found = self._wait(seat, post)
                if found is None:
                    return
                post, connection, peer = found
                self._attend(seat, post, connection, peer)
        finally:
            for post in self._posts:
                post.idle.discard(seat)
            self._remove(seat)
            if self._drain.leaving:
                self._wake()

    def _attend(self, seat: Seat, post: Post, connection: socket.socket, peer: Any) -> None:
        """One accepted connection, which `serve` owns."""
        row = seat.row
        row[SESSIONS] += 1
        row[SINCE] = time.monotonic_ns()
        if next(self._served) == self._quota:
            self._wake()
        try:
            self._serve(connection, peer, post.index, seat)
        except BaseException:  # SystemExit of a handler, too, ends neither thread nor process
            row[ERRORS] += 1
            self.log.exception("session %s of %s failed", seat.name, peer)
            connection.close()
        seat.line = None
        seat.session = seat.dialogue = None
        seat.hook = ""
        seat.since = 0.0
        row[SINCE] = 0
        if self._drain.leaving:
            self._wake()

    def _wait(self, seat: Seat, post: Post) -> tuple[Post, socket.socket, Any] | None:
        """Until a connection is ours. None: leave."""
        pause, rested = 0.1, 0.0
        drain = self._drain
        while True:
            if drain.leaving and self._drained(post):
                return None
            if self._surplus and self._dismissed(seat):
                return None
            if len(post.idle) >= SPARE and self._sit(seat, post):
                continue
            try:
                if len(self._posts) == 1:
                    fd, peer = self._accept(seat, post)
                else:
                    post, fd, peer = self._accept_any(seat, post)
                if fd < 3:
                    fd = lift(fd)
                connection = Socket(*post.kind, fd)
                if connection.gettimeout() is not None:  # the application has called socket.setdefaulttimeout()
                    connection.settimeout(None)
                return post, connection, peer
            except BlockingIOError:  # SO_RCVTIMEO: look round
                pause = 0.1
                if time.monotonic() - rested < TOO_SOON:  # another worker has set O_NONBLOCK: do not spin
                    drain.wait(TOO_SOON)
                rested = time.monotonic()
            except OSError as error:
                if self._closed:
                    return None
                if error.errno in FORGIVEN:
                    continue
                self._report("cannot accept: %s; retrying", error)
                drain.wait(pause)
                pause = min(2 * pause, 1.0)

    def _accept(self, seat: Seat, post: Post) -> tuple[int, Any]:
        """Wait at one post. The hot path: nothing here but what growth needs. An accept() that raises leaves us
        in `idle`: we come back at once, and a thread that leaves meanwhile need not call another."""
        idle = post.idle
        idle.add(seat)
        accepted = post.accept()
        idle.discard(seat)
        if not idle:
            self._call(post)
        return accepted

    def _call(self, post: Post) -> None:
        """Nobody waits at this post any more."""
        try:
            seat = self._bench.pop()
        except IndexError:
            self._low = 0
            if self._free:
                self._grow(post)
        else:
            self._low = min(self._low, len(self._bench))
            seat.called.release()

    def _sit(self, seat: Seat, post: Post) -> bool:
        """Sit on the bench until called, or until it is time to look round. False: a post needs us."""
        post.idle.discard(seat)
        if len(post.idle) < SPARE or self._unwatched():
            return False
        self._bench.append(seat)
        seconds = 0.0 if self._unwatched() else PATIENCE / 1000  # deserted just now, before we could be called
        if not seat.called.acquire(timeout=seconds):
            try:
                self._bench.remove(seat)
            except ValueError:
                seat.called.acquire()  # called at this very moment
        return True

    def _unwatched(self) -> list[Post]:
        return [post for post in self._posts if not post.idle]

    def _accept_any(self, seat: Seat, post: Post) -> tuple[Post, int, Any]:
        """Wait where nobody does; at our own post if all are watched."""
        for other in self._posts:
            other.idle.discard(seat)
        unwatched = self._unwatched() or [post]
        if len(unwatched) == 1:
            fd, peer = self._accept(seat, unwatched[0])
            return unwatched[0], fd, peer
        post = self._poll(seat, unwatched)
        fd, peer = self._accept(seat, post)  # if another took it, this returns within SO_RCVTIMEO
        for other in unwatched:
            if not other.idle:
                self._call(other)  # which we watched up to now
        return post, fd, peer

    def _poll(self, seat: Seat, posts: list[Post]) -> Post:
        """The first of these where a client waits."""
        poll = select.poll()
        for post in posts:
            post.idle.add(seat)
            poll.register(post.listener.fileno(), select.POLLIN)
        ready = {fd for fd, _ in poll.poll(PATIENCE)}
        for post in posts:
            post.idle.discard(seat)
        for post in posts:
            if post.listener.fileno() in ready:
                return post
        raise BlockingIOError

    def _dismissed(self, seat: Seat) -> bool:
        """May this thread leave? Not the last one that waits somewhere, unless all are to leave."""
        with self._lock:
            if self._surplus <= 0 or (self._accepting and not all(post.idle - {seat} for post in self._posts)):
                return False
            for post in self._posts:
                post.idle.discard(seat)
            self._surplus -= 1
            return True

    def _drained(self, post: Post) -> bool:
        """While draining: may this thread stop accepting? Yes if only this worker retires: others serve the
        queue. Where nobody does after us it would be reset, so it is emptied; when the whole server stops, serve()
        tells each client 421."""
        if self._closed or not self._is_last() or time.monotonic() > self._drain.deadline:
            return True
        return not self._queued()

    def _is_last(self) -> bool:
        """Any thread: does nobody serve our queue after us?"""
        return self._scoreboard.stopping or bool(self._slot.closing)

    def _queued(self) -> list[int]:
        """Any thread: the listeners at which a client waits, by descriptor."""
        poll = select.poll()
        for post in self._posts:
            poll.register(post.listener, select.POLLIN)
        # One that somebody has shut down is ready for ever, and nobody waits there.
        return [fd for fd, event in poll.poll(0) if not event & (select.POLLHUP | select.POLLERR | select.POLLNVAL)]

    def _report(self, text: str, error: Exception) -> None:
        """One line, not one for every thread and turn."""
        now = time.monotonic()
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self.log.error(text, error)
