"""prefork/seat.py: who waits for a drain is woken, whatever else holds its pipe."""

from __future__ import annotations

import os
import select
import time

from preforksmtp.prefork.seat import Drain


def readable(drain: Drain) -> bool:
    poll = select.poll()
    poll.register(drain.fd, select.POLLIN)
    return bool(poll.poll(0))


def test_a_drain_is_seen_for_ever_after() -> None:
    drain = Drain()
    assert not readable(drain)
    drain.begin(1.0)
    assert readable(drain)
    drain.begin(2.0)
    assert readable(drain)
    assert drain.deadline == 1.0
    drain.close()


def test_a_process_that_the_application_has_forked_does_not_hide_it() -> None:
    drain = Drain()
    held = os.dup(drain._write)  # as its child would
    drain.begin(time.monotonic())
    assert readable(drain)
    drain.close()
    os.close(held)
