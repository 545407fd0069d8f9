"""prefork/master/wakeup.py: how the master learns that it was stopped."""

from __future__ import annotations

import os
import threading
import time

from preforksmtp.prefork.master.wakeup import BURST, RATE


def test_an_ordinary_round_is_no_stop(wakeup):
    assert wakeup.wait(0) == 0.0
    assert wakeup.wait(0.01) == 0.0


def test_being_stopped_between_two_waits_is_noticed_once(wakeup):
    wakeup.wait(0)
    wakeup._woke -= 10  # as if the process had been stopped for 10 s after the last wake-up, outside of wait()
    assert 10 <= wakeup.wait(0) < 11
    assert wakeup.wait(0) == 0.0


def test_who_rings_without_end_is_heard_at_a_rate(wakeup):
    enough = threading.Event()

    def ring():
        while not enough.is_set():
            try:
                os.write(wakeup.bell, bytes(65536))
            except BlockingIOError:
                time.sleep(0)

    ringer = threading.Thread(target=ring)
    ringer.start()
    began, cpu, rounds = time.monotonic(), time.thread_time(), 0
    while time.monotonic() - began < 1.0:
        wakeup.wait(1.0)
        rounds += 1
    spent = time.thread_time() - cpu
    enough.set()
    ringer.join()
    assert rounds <= BURST + 1.1 * RATE + 1
    assert spent < 0.5


def test_a_worker_has_flags_of_its_own(wakeup):
    bell, lifeline = wakeup.bell, wakeup.lifeline
    before = os.dup(bell), os.dup(lifeline)  # what the master, and other workers, have
    wakeup.part()
    os.set_blocking(wakeup.bell, True)
    os.set_blocking(wakeup.lifeline, False)
    assert [os.get_blocking(fd) for fd in before] == [False, True]
    os.write(wakeup.bell, b"x")
    assert os.read(wakeup._bell, 10) == b"x"
    for fd in before:
        os.close(fd)
