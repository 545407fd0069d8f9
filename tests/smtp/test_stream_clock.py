"""The clock of handler_timeout stands still while a handler's `stream` waits for the client."""

from __future__ import annotations

from typing import Any

from preforksmtp.smtp.delivery import BodyStream


def test_waiting_for_the_client_is_not_the_handlers_time() -> None:
    events: list[str] = []

    class Journal:
        def handling(self, hook: str, since: float) -> None:
            assert bool(hook) == bool(since)
            events.append(hook or "stopped")

    class Reader:
        fault = None

        def __init__(self) -> None:
            self.blocks = [b"one\r\n", b"two\r\n", b""]

        def read_block(self) -> bytes:
            events.append("client")
            return self.blocks.pop(0)

    journal: Any = Journal()
    reader: Any = Reader()
    body = BodyStream(reader, None, journal)
    assert body.read() == b"one\r\ntwo\r\n"
    assert events == ["stopped", "client", "stream"] * 3
