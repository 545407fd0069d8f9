"""A message without a server, with all that a handler may ask of it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, BinaryIO

from preforksmtp.smtp.session import Endpoint
from tests.handlers.fake import FakeMessage

PATIENCE = 30.0  # seconds until a wait is a failure; no test gets near it when all is well


def session(**changes: Any) -> SimpleNamespace:
    facts = {
        "id": "s1", "peer": Endpoint("192.0.2.7", 4711), "helo": "client.example.org", "esmtp": True, "tls": None,
        "user": None, "reverse_dns": "", "bind": "127.0.0.1:25",
    }  # fmt: skip
    return SimpleNamespace(**{**facts, **changes})


@dataclass
class Envelope(FakeMessage):
    time: float = 1_000_000_000.0  # Sun Sep  9 01:46:40 2001
    params: dict[str, Any] = field(default_factory=dict)
    session: SimpleNamespace = field(default_factory=session)


class Large(Envelope):
    """So many blocks, not all of which may be read at once: how much each read wanted is in `asked`."""

    def __init__(self, block: int, blocks: int, octet: bytes = b"x") -> None:
        super().__init__(content=b"not to be used")
        self._body = octet * (block * blocks)
        self.asked: set[int | None] = set()

    @property
    def size(self) -> int:
        return len(self._body)

    def open(self) -> BinaryIO:
        asked = self.asked

        class Body(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                asked.add(size)
                return super().read(size)

        return Body(self._body)


def message(**changes: Any) -> Any:
    return Envelope(**changes)
