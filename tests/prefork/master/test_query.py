"""prefork/master/query.py: what the master makes of an answer, whoever wrote it."""

from __future__ import annotations

import json
import random
import time
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.prefork.master.query import Inquiry
from preforksmtp.prefork.pages import PAGE
from preforksmtp.prefork.questions import SESSIONS
from preforksmtp.prefork.scoreboard import SINCE, Scoreboard
from preforksmtp.prefork.worker.answer import Respondent
from preforksmtp.prefork.worker.seat import Drain, Seat


class Asked:
    """One worker, and the master's question to it."""

    def __init__(self) -> None:
        board = Scoreboard(1, 2)
        slot = board.claim(1)
        assert slot is not None
        self.slot, self.pages = slot, board.pages
        self.child: Any = SimpleNamespace(
            slot=slot, pid=4711, status=None, generation=SimpleNamespace(board=board), send=lambda number: None
        )
        self.condemned: list[str] = []
        self.inquiry = Inquiry(SESSIONS, [self.child], lambda worker, fault: self.condemned.append(fault))

    def answer(self, text: bytes) -> Any:
        self.pages.write(0, text)
        self.slot.answer = self.slot.question
        assert self.inquiry.over()
        return self.inquiry.answers[4711]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b'{"session": "a", "seconds": 1.5, "sender": null}\n', [{"session": "a", "seconds": 1.5, "sender": None}]),
        (b'{"left_out": 3}\n{"fault": "x"}\n', [{"left_out": 3}, {"fault": "x"}]),
        (b'{"user": {"a": [1]}}\n', [{"user": "{'a': [1]}"}]),
        (b'{"user": "' + 5000 * b"x" + b'"}\n', [{"user": 1000 * "x"}]),
        (b'{"stack": "' + 5000 * b"x" + b'"}\n', [{"stack": 5000 * "x"}]),
        (b'{"helo": "\\ud800\\u001b[2J"}', [{"helo": "\ud800\x1b[2J"}]),
    ],
)
def test_an_answer(text: bytes, lines: list[dict[str, Any]]) -> None:
    asked = Asked()
    assert asked.answer(text) == lines
    assert asked.condemned == []


@pytest.mark.parametrize(
    "text",
    [
        PAGE * b"[",
        b'{"a":' * 40_000,
        b'{"seconds": ' + 200_000 * b"9" + b"}",
        b'{"seconds": 1e999}',
        b'{"seconds": NaN}',
        b'{"seconds": 1e17}',
        b'{"seconds": null}',
        b'{"seconds": "x"}',
        b'{"recipients": [1]}',
        b"[1, 2]",
        b"3",
        b"null",
        b'{"a": 1',
        b"\xff\xfe\x00",
        bytes(PAGE),
        b"{} {}",
    ],
    ids=lambda text: text[:16].decode("latin-1").replace("\0", "0"),
)
def test_one_that_is_none_ends_the_worker_and_nothing_else(text: bytes) -> None:
    asked, began = Asked(), time.process_time()
    assert asked.answer(text) is None
    assert len(asked.condemned) == 1
    assert time.process_time() - began < 1.0


def test_random_answers() -> None:
    rng = random.Random(10)
    whole = json.dumps({"session": "abc", "peer": "[::1]:25", "seconds": 3.25, "recipients": 2, "tls": ""}).encode()
    for _ in range(2000):
        text = bytearray(whole + b"\n" + whole)
        for _ in range(rng.randrange(1, 6)):
            text[rng.randrange(len(text))] = rng.choice(b'"{}[]:,0e\\\x00\xff\n x') if rng.random() < 0.7 else rng.randrange(256)
        asked = Asked()
        found = asked.answer(bytes(text))
        assert (found is None) == bool(asked.condemned)
        for line in found or ():
            assert all(isinstance(line.get(name, 0), (int, float)) for name in ("seconds", "recipients"))
            json.dumps(line)


def test_the_length_in_front_of_a_page_is_not_believed() -> None:
    asked = Asked()
    asked.pages.memory.sections[0][0] = 2**64 - 1
    assert asked.pages.read(0) == bytes(PAGE)


@pytest.mark.parametrize("silly", [RuntimeError("x" * PAGE), type("Mute", (Exception,), {"__repr__": lambda self: 1 / 0})()])
def test_what_a_describe_raises_is_an_answer_that_fits(silly: Exception) -> None:
    asked = Asked()

    def describe(seat: Seat) -> dict[str, Any]:
        raise silly

    row = asked.slot.rows[0]
    row[SINCE] = 1
    drain = Drain()
    seat = Seat(row, drain)
    assert Respondent(asked.slot, asked.pages, describe).respond(lambda: [seat])
    drain.close()
    assert asked.inquiry.over()
    (line,) = asked.inquiry.answers[4711] or ()
    assert 0 < len(line["fault"]) <= 1000
    assert asked.condemned == []
