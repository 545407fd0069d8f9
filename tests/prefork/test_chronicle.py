"""The chronicle: the last events, and the last reload."""

from __future__ import annotations

import time

import pytest

from preforksmtp.prefork.chronicle import EVENTS, Chronicle


def test_events_come_in_order():
    chronicle = Chronicle()
    assert chronicle.events() == []
    assert chronicle.reload is None
    before = time.time()
    chronicle.note("started", "4 workers")
    chronicle.note("worker died", "worker 77 was killed by signal 9")
    first, second = chronicle.events()
    assert (first.kind, first.text) == ("started", "4 workers")
    assert (second.kind, second.text) == ("worker died", "worker 77 was killed by signal 9")
    assert before - 1 < first.time <= second.time <= time.time()


def test_the_last_reload_outlives_many_other_events():
    chronicle = Chronicle()
    chronicle.note("reloaded")
    chronicle.note("reload failed", "app.py, line 3: NameError")
    for number in range(EVENTS + 5):
        chronicle.note("worker died", str(number))
    assert [event.text for event in chronicle.events()] == [str(number) for number in range(5, EVENTS + 5)]
    assert chronicle.reload is not None
    assert (chronicle.reload.kind, chronicle.reload.text) == ("reload failed", "app.py, line 3: NameError")


@pytest.mark.parametrize("text", ["x" * 1000, "\u00fc" * 1000, "\udcff"])
def test_any_text_fits(text):
    chronicle = Chronicle()
    chronicle.note("reload failed", text)
    (event,) = chronicle.events()
    assert event.text
    assert len(event.text) <= 240
    assert text.startswith(event.text) or event.text == "\\udcff"
