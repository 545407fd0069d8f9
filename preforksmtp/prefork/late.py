"""The late session: one that a thread of a retiring worker accepted because it was waiting in accept() already.

Others serve the queue, so its client must not be turned away for having met this worker. It is served as if nothing
were going on, with a drain of its own that begins GRACE later: then an idle session is told 421, and an open
transaction finishes, as with the worker's drain. Runs in a session thread; nothing here fails.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from preforksmtp.prefork.seat import Drain, Seat

GRACE = 2.0  # seconds in which a client that just connected begins its transaction


def is_late(drain: Drain, stopping: bool) -> bool:
    """Was a connection accepted just now by a worker that retires, while the server as a whole goes on?"""
    return drain.requested and not stopping and drain.deadline - time.monotonic() > GRACE


@contextlib.contextmanager
def late_session(seat: Seat) -> Iterator[None]:
    """Within it the seat's drain is the session's own."""
    worker = seat.drain
    drain = Drain()
    lock = threading.Lock()  # the session's end and the beginning of its drain exclude each other
    over = False

    def begin() -> None:
        with lock:
            if not over:
                drain.begin(worker.deadline)
                if seat.interrupt is not None:
                    with contextlib.suppress(OSError):  # its socket: the session has just ended
                        seat.interrupt()

    timer = threading.Timer(GRACE, begin)
    timer.daemon = True
    seat.drain = drain
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over = True
        seat.drain = worker
        drain.close()
