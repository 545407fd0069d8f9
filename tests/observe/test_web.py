"""observe/web.py: what is answered to a request, however it comes; without a process."""

from __future__ import annotations

import logging
import random
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preforksmtp.observe import web
from preforksmtp.observe.web import Answer, StatusServer, _Request
from tests.processes import PATIENCE, wait_until

LOG = logging.getLogger("tests.web")
STATUS = re.compile(rb"HTTP/1\.0 (\d{3}) [ -~]+\r\n")


class Site:
    def answer(self, target: str) -> Answer:
        if target == "/raise":
            raise ZeroDivisionError
        if target == "/long":
            return Answer(200, "text/plain", "x" * 1_000_000)
        return Answer(200 if target == "/livez" else 404, "text/plain", "ok\n")


SITE: Any = Site()


def answer(request: bytes) -> bytes:
    return _Request(request, SITE, LOG).response


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\n\n", 200),
        (b"HEAD /livez HTTP/1.1\r\n\r\n", 200),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
        (b"GET /raise HTTP/1.1\r\n\r\n", 500),
        (b"POST /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 405),
        (b"BREW /livez HTTP/1.1\r\n\r\n", 501),
        (b"GET /livez HTTP/9.9\r\n\r\n", 505),
        (b"GET /livez\tx y z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nX: " + b"y" * 9000, 431),
        (b"x" * 9000, 431),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    ],
)
def test_answers(request_: bytes, status: int) -> None:
    found = answer(request_)
    line = STATUS.match(found)
    assert line is not None
    assert int(line[1]) == status
    assert found.endswith(b"\r\n\r\n") == (request_[:4] in (b"HEAD", b"POST")), "a body, but where there is none"
    assert b"Traceback" not in found


@pytest.mark.parametrize("seed", range(3))
def test_fuzz(seed: int) -> None:
    """An answer with a status, or none; nothing raises."""
    dice = random.Random(seed)
    wanted = [b"GET /livez HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", b"POST / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", b"GET /\r\n\r\n"]
    for _ in range(1500):
        text = bytearray(dice.choice(wanted))
        for _ in range(dice.randrange(1, 8)):
            place = dice.randrange(len(text) + 1)
            text[place : place + dice.randrange(3)] = dice.choice([b"\r\n", b"\0", b" ", b":", b"\xff", bytes([dice.randrange(256)]), b"x" * 3000])
        found = answer(bytes(text))
        assert found == b"" or STATUS.match(found), bytes(text)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[StatusServer, str]]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "status"))
    listener.listen()
    server = StatusServer(listener, SITE, LOG)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server, str(tmp_path / "status")
    server.shutdown()
    for exchange in list(server._exchanges.values()):
        exchange.since = 0.0  # its time is over
    thread.join(PATIENCE)
    listener.close()
    assert not thread.is_alive()


def connect(path: str, said: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    sock.sendall(said)
    return sock


def test_a_long_answer_to_a_slow_reader(served: tuple[StatusServer, str]) -> None:
    server, path = served
    with connect(path, b"GET /long HTTP/1.1\r\n\r\n") as slow:
        with connect(path, b"GET /livez HTTP/1.1\r\n\r\n") as other:
            assert STATUS.match(other.recv(4096))
        heard = b""
        while data := slow.recv(50_000):
            heard += data
    assert heard.endswith(b"\r\n\r\n" + b"x" * 1_000_000)
    wait_until(lambda: not server.busy(), "it is over")


def test_the_one_that_has_been_there_longest_makes_room(served: tuple[StatusServer, str]) -> None:
    server, path = served
    socks = [connect(path, b"GET /livez HTTP/1.1\r\n") for _ in range(web.MOST)]
    wait_until(lambda: len(server._exchanges) == web.MOST, "all are there")
    socks.append(connect(path, b"GET"))
    assert socks[0].recv(1) == b"", "the first one"
    socks[1].sendall(b"\r\n")
    assert STATUS.match(socks[1].recv(4096)), "and no other"
    for sock in socks:
        sock.close()
    wait_until(lambda: not server.busy(), "they have left")


def test_who_was_accepted_is_answered_by_one_that_leaves(served: tuple[StatusServer, str]) -> None:
    server, path = served
    with connect(path, b"GET /livez HTTP/1.1\r\n") as sock:
        wait_until(server.busy, "it is there")
        server.shutdown()
        with connect(path, b"GET /livez HTTP/1.1\r\n\r\n"):  # our successor's
            sock.sendall(b"\r\n")
            assert STATUS.match(sock.recv(4096))
        wait_until(lambda: not server.busy(), "nobody else was accepted")
