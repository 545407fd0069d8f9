"""`start(**options)`: program.py with these Options, stopped and proven gone at the end of the test."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import Client, Program

PROGRAM = Path(__file__).with_name("program.py")


class Server(Program):
    """program.py under a master."""

    def __init__(self, **options: object) -> None:
        super().__init__([sys.executable, str(PROGRAM), json.dumps(options)])

    def port(self, index: int = 0) -> int:
        return int(self.wait_for(r"^listening on (\d+)", count=index + 1)[1])

    def connect(self, index: int = 0) -> Client:
        return Client(("127.0.0.1", self.port(index)))

    def ask(self, line: str, index: int = 0) -> str:
        with self.connect(index) as client:
            return client.ask(line)

    def ready(self) -> Server:
        self.wait_for("^INFO serving$")
        return self

    def totals(self) -> dict[str, int]:
        before = len(self.matches("^INFO totals"))
        self.send(signal.SIGUSR1)
        found = self.wait_for(r"^INFO totals (\{.*\})$", count=before + 1)
        counters: dict[str, int] = json.loads(found[1])
        return counters


Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:
        started: list[Server] = []

        def begin(**options: object) -> Server:
            server = stack.enter_context(Server(**options))
            started.append(server)
            return server

        yield begin
        for server in started:
            if server.process.poll() is None:
                assert server.stop(signal.SIGINT) == 0, server.output
            assert "Traceback" not in server.output or server.matches("as asked"), server.output
