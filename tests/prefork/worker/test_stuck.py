"""prefork/worker/stuck.py: which calls are found, and that each is found once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from preforksmtp.prefork.worker.seat import Drain, Seat
from preforksmtp.prefork.worker.stuck import StuckHandlers


@pytest.fixture
def seat() -> Iterator[Seat]:
    """A seat whose thread hangs in `dawdle`."""
    seat, here, leave = Seat(memoryview(bytearray(8)), Drain()), threading.Event(), threading.Event()

    def dawdle() -> None:
        seat.thread = threading.get_ident()
        here.set()
        leave.wait()

    thread = threading.Thread(target=dawdle)
    thread.start()
    assert here.wait(10)
    seat.session, seat.hook, seat.since = SimpleNamespace(id="s1"), "message", 100.0
    yield seat
    leave.set()
    thread.join()


def test_found_once_past_the_limit(seat: Seat) -> None:
    handlers = StuckHandlers(5.0)
    assert handlers.look([seat], 104.9) == []
    (found,) = handlers.look([seat], 105.0)
    assert (found.session, found.hook, found.seconds) == ("s1", "message", 5.0)
    assert "in dawdle" in found.stack
    assert handlers.look([seat], 200.0) == []
    seat.since = 150.0  # its next call
    assert len(handlers.look([seat], 200.0)) == 1


def test_idle_seats_and_no_limit(seat: Seat) -> None:
    assert StuckHandlers(0.0).look([seat], 1e9) == []
    seat.since = 0.0
    assert StuckHandlers(5.0).look([seat], 1e9) == []
