"""The heap of a worker: when its holes go back to the kernel."""

from __future__ import annotations

from preforksmtp.prefork.worker.heap import EVERY, GROWTH, IDLE_EVERY, IDLE_GROWTH, Heap


class Trims:
    def __init__(self) -> None:
        self.heap = Heap(self._trim)
        self.count = 0

    def _trim(self, pad: int) -> int:
        assert pad == 0
        self.count += 1
        return 1

    def after(self, *looks: tuple[int, float]) -> int:
        for resident, now in looks:
            self.heap.look(resident, now, busy=True)
        return self.count


def test_a_worker_that_does_not_grow_is_left_alone():
    assert Trims().after((100, 0), (100 + GROWTH - 1, 100), (100, 200)) == 0


def test_one_that_has_grown_is_trimmed():
    trims = Trims()
    assert trims.after((100, 0)) == 0
    assert trims.heap.look(100 + GROWTH, 1, busy=True)
    assert trims.count == 1


def test_the_least_it_has_had_counts():
    assert Trims().after((GROWTH, 0), (100, 1), (100 + GROWTH, 2)) == 1


def test_not_again_at_once():
    grown = 100 + GROWTH
    assert Trims().after((100, 0), (grown, 1), (grown + GROWTH, 2), (grown, 0.9 + EVERY)) == 1


def test_what_is_left_after_a_trim_is_the_new_measure():
    kept = 100 + GROWTH
    trims = Trims()
    assert trims.after((100, 0), (kept, 1), (kept, 2 + EVERY), (kept, 3 + EVERY)) == 1
    assert trims.after((kept + GROWTH, 4 + EVERY)) == 2


def test_one_that_serves_nobody_returns_more_and_sooner():
    trims = Trims()
    trims.after((100, 0))
    assert not trims.heap.look(100 + IDLE_GROWTH, 1, busy=True)
    assert trims.heap.look(100 + IDLE_GROWTH, 1, busy=False)
    assert not trims.heap.look(100 + GROWTH, 1 + IDLE_EVERY / 2, busy=False)


def test_where_the_library_has_no_such_thing():
    heap = Heap(None)
    assert not heap.look(100, 0, busy=True)
    assert not heap.look(100 + GROWTH, 100, busy=True)
