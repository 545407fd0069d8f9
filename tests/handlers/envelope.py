"""A message without a server, with all that a handler may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

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


def message(**changes: Any) -> Any:
    return Envelope(**changes)
