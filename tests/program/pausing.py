"""Clients as people write them, with smtplib, that pause between commands; and an account of what they met.

A client delivers messages one after the other, some on each connection, and tries each again until it is accepted: so a
message whose client was told that it failed, and which was stored all the same, is stored twice. The server's application
is tests/program/load.py's, which appends the id of each message to the file `stored`.
"""

from __future__ import annotations

import collections
import itertools
import random
import smtplib
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

LONGEST = 0.5  # seconds
STUBBORN = 20  # times a message is tried


class Pausing(smtplib.SMTP):
    """It pauses before each command, QUIT included, and before the body."""

    longest = LONGEST

    def putcmd(self, cmd: str, args: str = "") -> None:
        self.pause()
        super().putcmd(cmd, args)

    def send(self, s: Any) -> None:
        if not isinstance(s, str):  # the body; commands come as text, by putcmd
            self.pause()
        super().send(s)

    def pause(self) -> None:
        time.sleep(random.uniform(0.0, self.longest))


class PausingInTLS(Pausing, smtplib.SMTP_SSL):
    pass


class Hasty(Pausing):
    longest = LONGEST / 5


class Clients:
    """`each` messages on a connection by each of `clients` threads, `messages` in all. `connect` opens a connection."""

    def __init__(
        self, connect: Callable[[], smtplib.SMTP], folder: Path, messages: int, clients: int, each: int = 1
    ) -> None:
        self.failures: collections.Counter[str] = collections.Counter()
        self.told = 0  # 421 for a MAIL on a connection that had delivered before: it is opened anew
        self.acked: list[str] = []
        self.given_up: list[str] = []
        self._connect = connect
        self._stored = folder / "stored"
        self._each = each
        self._numbers = itertools.count()
        self._messages = messages
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._messages = 0
        for thread in self._threads:
            thread.join()

    @property
    def over(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def stored(self) -> list[str]:
        return self._stored.read_text().split() if self._stored.exists() else []

    def doubled(self) -> list[str]:
        return [number for number, times in collections.Counter(self.stored()).items() if times > 1]

    def account(self) -> str:
        return (
            f"{len(self.acked)} messages, {sum(self.failures.values())} failed, {len(self.doubled())} doubled, "
            f"{self.told} told 421 between two messages; {dict(self.failures)}"
        )

    def assert_sound(self) -> None:
        """Nobody noticed anything, and nothing is lost or doubled."""
        assert not self.failures, self.account()
        assert not self.given_up, self.account()
        assert not self.doubled(), self.account()
        assert set(self.stored()) == set(self.acked), self.account()

    def _take(self) -> list[str]:
        """The next messages of a connection."""
        numbers = [next(self._numbers) for _ in range(self._each)]
        return [f"<{number}@pausing>" for number in numbers if number < self._messages]

    def _run(self) -> None:
        while waiting := self._take():
            tries = 0
            while waiting and tries < STUBBORN:
                before = len(waiting)
                if self._session(waiting):
                    waiting = []
                tries = 0 if len(waiting) < before else tries + 1
            self.given_up += waiting

    def _session(self, waiting: list[str]) -> bool:
        """Deliver them on one connection, each taken out of the list where the next one can be begun. Whether it ended
        as it should."""
        done, delivered = 0, ""
        try:
            with self._connect() as client:
                while waiting:
                    delivered = ""
                    self._deliver(client, waiting[0])
                    delivered = waiting[0]
                    done += 1
                    if len(waiting) > 1:
                        self._acknowledge(waiting, delivered)
                    else:
                        break
        except (smtplib.SMTPException, OSError) as error:
            if isinstance(error, smtplib.SMTPSenderRefused) and error.smtp_code == 421 and done:
                self.told += 1
            else:
                self.failures[f"{type(error).__name__} {error!s:.80}"] += 1
            return False
        self._acknowledge(waiting, delivered)  # a client that raises has not delivered, whatever came before
        return True

    def _acknowledge(self, waiting: list[str], number: str) -> None:
        self.acked.append(number)
        waiting.remove(number)

    def _deliver(self, client: smtplib.SMTP, number: str) -> None:
        client.sendmail("a@example.com", ["b@example.com"], f"Message-ID: {number}\r\n\r\nhello\r\n")


def in_clear(port: int) -> smtplib.SMTP:
    return Pausing("127.0.0.1", port, timeout=60)


def in_a_hurry(port: int) -> smtplib.SMTP:
    return Hasty("127.0.0.1", port, timeout=60)


def with_starttls(port: int) -> smtplib.SMTP:
    client = Pausing("127.0.0.1", port, timeout=60)
    client.starttls(context=trusting())
    return client


def in_tls(port: int) -> smtplib.SMTP:
    return PausingInTLS("127.0.0.1", port, timeout=60, context=trusting())


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
