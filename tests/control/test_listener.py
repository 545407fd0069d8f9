"""control/listener.py without a server: whatever comes over a connection, it ends with one line of JSON or without a word."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import socket
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.control import listener as control
from preforksmtp.control.listener import LINE, _Connection
from preforksmtp.control.orders import ORDERS, Order, Orders, Refused, Steps


class Obedient(Orders):
    """Does nothing that it is told, in two rounds. Notes the words."""

    def __init__(self, log: logging.Logger) -> None:
        master: Any = SimpleNamespace(log=log)
        super().__init__(master, lambda: None, lambda: ())  # type: ignore[arg-type,return-value]
        self.done: list[str] = []

    def find(self, words: Sequence[str]) -> tuple[Order, str]:
        order, argument = super().find(words)

        def run(_: Orders, argument: str) -> Steps:
            yield
            self.done.append(order.words)
            if argument == "refuse":
                raise Refused("as asked")
            return argument

        return replace(order, run=run), argument


def converse(orders: Orders, pieces: Sequence[bytes], *, closes: bool) -> bytes:
    """What the client hears."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(10)
    connection = _Connection(ours)
    with ours, theirs:
        for piece in pieces:
            with contextlib.suppress(BrokenPipeError):
                theirs.sendall(piece)
            if not connection.over:
                connection.advance(orders)
        if closes:
            theirs.shutdown(socket.SHUT_WR)
        for _ in range(10):
            if not connection.over:
                connection.advance(orders)
        assert connection.waits_for() & 2 == 0
        if not connection.over:
            assert not closes, "a client that says no more is not waited for"
            assert connection._answer is None
            connection._deadline = 0.0
            connection.advance(orders)
            assert connection.over, "nor one that is slow"
        connection.close()
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while data := theirs.recv(65536):
                heard += data
    return heard


def whole(order: Order) -> bytes:
    return json.dumps({"order": [*order.words.split(), *(["refuse"] if order.argument else [])]}).encode() + b"\n"


def test_every_order_in_pieces(caplog: pytest.LogCaptureFixture) -> None:
    orders = Obedient(logging.getLogger("preforksmtp"))
    for order in ORDERS:
        line = whole(order)
        answer = json.loads(converse(orders, [line[n : n + 3] for n in range(0, len(line), 3)], closes=False))
        assert answer == ({"ok": False, "error": "as asked"} if order.argument else {"ok": True, "result": ""})
    assert orders.done == [order.words for order in ORDERS]


@pytest.mark.parametrize("seed", range(8))
def test_mutants_of_orders(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    orders = Obedient(logging.getLogger("preforksmtp"))
    with caplog.at_level(logging.DEBUG):
        for _ in range(300):
            line = bytearray(whole(rng.choice(ORDERS)))
            for _ in range(rng.randrange(6)):
                place = rng.randrange(len(line))
                what = rng.randrange(4)
                if what == 0:
                    line[place] = rng.randrange(256)
                elif what == 1:
                    del line[place:]
                    line += b"\n"
                elif what == 2:
                    line[place:place] = rng.choice([b"[" * 500, b'{"order":', b"\0", b"\\u0000", b"\\ud800", b"9" * 5000, b"\r"])
                else:
                    line += bytes(line)
            cuts = sorted(rng.randrange(len(line) + 1) for _ in range(rng.randrange(4)))
            pieces = [bytes(line[a:b]) for a, b in zip([0, *cuts], [*cuts, len(line)], strict=True)]
            heard = converse(orders, [piece for piece in pieces if piece], closes=rng.random() < 0.5)
            if heard:
                assert heard.count(b"\n") == 1
                assert heard.endswith(b"\n")
                assert isinstance(json.loads(heard)["ok"], bool)
    assert not [record for record in caplog.records if record.exc_info], "no order failed for a fault of ours"


@pytest.mark.parametrize("size", [LINE - 1, LINE, LINE + 1, 20 * LINE])
def test_no_more_of_a_line_is_kept_than_it_may_have(size: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    connection = _Connection(ours)
    orders = Obedient(logging.getLogger("preforksmtp"))
    with ours, theirs:
        sent = 0
        while sent < size and not connection.over:
            with contextlib.suppress(BlockingIOError):
                sent += theirs.send(b"x" * min(1000, size - sent))
            connection.advance(orders)
            assert len(connection._line) <= 2 * LINE + 1
        assert connection.over == (size > LINE)
    assert control.MOST * 2 * LINE < 1 << 20, "and so of all connections"
