"""A handler as it is written for aiosmtpd, the lines of a client, and the log of a worker."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

EHLO, MAIL, RCPT, DATA = "EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"
BODY = b"Subject: x\r\n\r\ny\r\n.\r\n"
WHOLE = [EHLO, MAIL, RCPT, DATA, BODY]


class Log:
    """Of a worker: every line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str, *arguments: Any) -> None:
        self.lines.append(line % arguments)

    warning = error = exception = note


class Data:
    """The usual handler: one coroutine."""

    def __init__(self, status: Any = "250 OK") -> None:
        self.status = status
        self.seen: list[Any] = []

    async def handle_DATA(self, server, session, envelope):
        await asyncio.sleep(0)
        self.seen.append((session, envelope, threading.current_thread().name))
        if isinstance(self.status, BaseException):
            raise self.status
        return self.status
