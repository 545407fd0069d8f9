"""prefork/poison.py: who is refused, for how long, and that the table does not grow."""

from __future__ import annotations

import os

import pytest

from preforksmtp.prefork.poison import ENTRIES, FORGOTTEN, REFUSED, WINDOW, Poison


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_message_is_refused_from_the_limit_on(clock: Clock) -> None:
    poison = Poison(clock)
    key = poison.key(b"a")
    refused = [poison.refuses(key, 2)]
    for _ in range(3):
        poison.record(key)
        refused.append(poison.refuses(key, 2))
    assert refused == [False, False, True, True]
    assert not poison.refuses(poison.key(b"b"), 1)


def test_it_may_try_again_after_an_hour_and_is_forgotten_after_a_day(clock: Clock) -> None:
    poison = Poison(clock)
    key = poison.key(b"a")
    poison.record(key)
    poison.record(key)
    clock.seconds += REFUSED - 1
    assert poison.refuses(key, 2)
    clock.seconds += 1
    assert not poison.refuses(key, 2)
    poison.record(key)
    assert poison.refuses(key, 3), "the third death counts with the first two"
    clock.seconds += FORGOTTEN
    poison.record(key)
    assert not poison.refuses(key, 2), "a day later it is the first one again"


def test_the_oldest_of_a_full_window_gives_way(clock: Clock) -> None:
    poison = Poison(clock)
    keys = [5 + n * ENTRIES for n in range(1, WINDOW + 2)]
    for key in keys:
        clock.seconds += 1
        poison.record(key)
    assert [poison.refuses(key, 1) for key in keys] == [False] + [True] * WINDOW
    poison.record(keys[0])
    assert not poison.refuses(keys[0], 2), "it comes back with a count of its own"


def test_a_child_reads_it_and_its_keys_are_the_masters() -> None:
    poison = Poison()
    poison.record(poison.key(b"a"))
    pid = os.fork()
    if pid == 0:
        os._exit(int(not poison.refuses(poison.key(b"a"), 1)))
    assert os.waitpid(pid, 0)[1] == 0
    assert Poison().key(b"a") != poison.key(b"a")
