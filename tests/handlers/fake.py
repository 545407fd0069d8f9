"""A message without a session, as handlers see it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from preforksmtp import Message
from preforksmtp.mime.entity import Headers
from preforksmtp.mime.source import Memory


@dataclass
class FakeMessage:
    content: bytes = b"Subject: hello\r\n\r\nworld\r\n"
    sender: str = "alice@example.org"
    recipients: list[str] = field(default_factory=lambda: ["bob@example.org"])
    received: str = "Received: from client (client [127.0.0.1])\r\n\tby mx.example.org id 42;\r\n\tMon"
    id: str = "42"

    return_path = Message.return_path  # of the sender, as the real one makes it

    @property
    def headers(self) -> Headers:
        return Headers(Memory(self.content))

    @property
    def size(self) -> int:
        return len(self.content)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


def message(**changes: Any) -> Any:
    """A FakeMessage, typed loosely: handlers take a preforksmtp.Message."""
    return FakeMessage(**changes)
