"""The vitals of a worker: descriptors, temporary files, and an application that says how it is."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import pytest

from preforksmtp.prefork.scoreboard import Scoreboard
from preforksmtp.server import vitals
from preforksmtp.server.vitals import ANSWER, Vitals, spool_folders


class Watched:
    """Vitals with a clock of their own; `lines` is what they have logged."""

    def __init__(self, healthy=None, spools=(), folders=(), least=0):
        self.now = 100.0
        self.records: list[logging.LogRecord] = []
        log = logging.Logger("vitals")
        handler = logging.Handler()
        handler.emit = self.records.append  # type: ignore[method-assign]
        log.addHandler(handler)
        self.slot = Scoreboard(1, 1).slots[0]
        self.vitals = Vitals(self.slot, log, spools, healthy, folders, least, lambda: self.now)

    @property
    def lines(self):
        return [record.getMessage() for record in self.records]


def test_descriptors_and_temporary_files(tmp_path):
    watched = Watched(spools=[str(tmp_path)])
    watched.vitals.look()
    before = watched.slot.descriptors
    assert before > 0
    assert watched.slot.spooled == 0
    with tempfile.TemporaryFile(dir=tmp_path), tempfile.TemporaryFile(dir=tmp_path), Path(tmp_path, "x").open("wb"):
        watched.vitals.look()
        assert (watched.slot.descriptors, watched.slot.spooled) == (before + 3, 2)
    watched.vitals.look()
    assert watched.slot.spooled == 0


def _raise():
    raise ConnectionError("database\nis gone")


@pytest.mark.parametrize(
    "healthy, fault",
    [
        (lambda: True, ""),
        (lambda: None, ""),  # nothing was said against it
        (lambda: False, "Handler.healthy returned False"),
        (lambda: "no", "Handler.healthy returned 'no'"),
        (_raise, "Handler.healthy raised ConnectionError: database is gone"),
    ],
)
def test_what_the_application_answers(healthy, fault):
    watched = Watched(healthy)
    watched.vitals.ask()
    assert watched.vitals.unwell == bool(fault)
    assert watched.slot.unwell == bool(fault)
    wanted = [f"the application is not healthy: {fault}; new sessions are answered 421"] if fault else []
    assert watched.lines == wanted


def test_a_change_is_said_once():
    answers = [False, False, True, True, False]
    watched = Watched(lambda: answers.pop(0))
    seen = []
    for _ in range(5):
        watched.vitals.ask()
        seen.append(watched.vitals.unwell)
    assert seen == [True, True, False, False, True]
    assert len(watched.lines) == 3
    assert watched.lines[1] == "the application is healthy again"


def test_an_application_that_does_not_answer():
    watched = Watched()

    def hang():
        watched.now += ANSWER + 1
        watched.vitals.look()
        assert watched.vitals.unwell
        return True

    watched.vitals._healthy = hang
    watched.vitals.ask()
    assert not watched.vitals.unwell
    assert "has not answered for 10 s" in watched.lines[0]


def test_where_bodies_are_spooled():
    assert spool_folders([None, "/srv/spool", "/srv/spool"]) == sorted(["/srv/spool", tempfile.gettempdir()])


def test_too_little_free_space_is_said_once(monkeypatch):
    free = {"/a": 100, "/b": 50, "/gone": -1}
    monkeypatch.setattr(vitals, "free_bytes", free.__getitem__)
    watched = Watched(folders=list(free), least=60)
    watched.vitals.look()
    watched.vitals.look()
    assert watched.vitals.short
    free["/b"] = 60
    watched.vitals.look()
    assert not watched.vitals.short
    assert watched.lines == [
        "min_free_space: less than 60 bytes are free in /b; MAIL is answered 452",
        "min_free_space: there is room for messages again",
    ]
