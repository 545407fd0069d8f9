"""Users of an SMTP server for locust: smtplib's blocking client, which locust's gevent makes cooperative.

    locust -f loadtest/locustfile.py --host smtp://127.0.0.1:8025

Environment: LOAD_SMTPS=HOST:PORT of an implicit TLS listener, LOAD_USER and LOAD_PASSWORD; a kind of user whose
listener, extension or password is not there is not spawned. LOAD_LARGE: bytes of a large message (5 MiB).
Each step is a locust event of type SMTP, named after the kind of user and the step. Only loopback hosts are loaded.
"""

from __future__ import annotations

import os
import smtplib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from locust import User, constant, events, task

LARGE = int(os.environ.get("LOAD_LARGE", "5242880"))
PER_CONNECTION = 100
TIMEOUT = 60.0
SENDER, RECIPIENTS = "load@example.com", ["sink@example.com"]


def make_message(size: int) -> bytes:
    line = b"x" * 76 + b"\r\n"
    return b"From: <load@example.com>\r\nSubject: load\r\n\r\n" + line * (size // len(line))


SMALL_MESSAGE, LARGE_MESSAGE = make_message(1024), make_message(LARGE)


def unverified() -> ssl.SSLContext:
    """The certificate of a server under test is its own affair."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@events.init.add_listener
def choose_users(environment, **_: object) -> None:
    """Only the kinds of user that this server can serve, and only against this machine."""
    parts = urlsplit(environment.host or SmtpUser.host)
    if parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise SystemExit(f"--host {environment.host}: only the loopback addresses of this machine are loaded")
    offered = probe(parts.hostname, parts.port or 25)
    missing = {ImplicitTls: not os.environ.get("LOAD_SMTPS"), StartTls: "starttls" not in offered}
    missing[Authenticated] = missing[StartTls] or not os.environ.get("LOAD_USER")
    for user, absent in missing.items():
        if absent and user in environment.user_classes:
            environment.user_classes.remove(user)


def probe(host: str, port: int) -> dict[str, str]:
    """The extensions that the server offers; {} if it is not there yet."""
    try:
        with smtplib.SMTP(host, port, timeout=5) as client:
            client.ehlo()
            return client.esmtp_features
    except OSError:
        return {}


class SmtpUser(User):
    """What the kinds have in common: the server's address, and steps that are timed and reported."""

    abstract = True
    host = "smtp://127.0.0.1:8025"
    wait_time = constant(0)

    @contextmanager
    def step(self, name: str, size: int = 0) -> Iterator[None]:
        """One request for locust's statistics; a failure is reported, and ends the task."""
        begin = time.perf_counter()
        error: Exception | None = None
        try:
            yield
        except (smtplib.SMTPException, OSError) as caught:
            error = caught
            raise
        finally:
            self.environment.events.request.fire(
                request_type="SMTP",
                name=f"{type(self).__name__} {name}",
                response_time=(time.perf_counter() - begin) * 1000,
                response_length=size,
                exception=error,
                context={},
            )

    @contextmanager
    def session(self) -> Iterator[smtplib.SMTP]:
        """From the connection to QUIT."""
        with self.step("connect"):
            client = self.connect()
        try:
            yield client
            with self.step("quit"):
                client.quit()
        finally:
            client.close()

    def connect(self) -> smtplib.SMTP:
        parts = urlsplit(self.host)
        client = smtplib.SMTP(parts.hostname or "127.0.0.1", parts.port or 25, timeout=TIMEOUT)
        client.ehlo()
        return client

    def send(self, client: smtplib.SMTP, content: bytes) -> None:
        with self.step("message", len(content)):
            client.sendmail(SENDER, RECIPIENTS, content)

    @task
    def deliver(self) -> None:
        try:
            with self.session() as client:
                self.send_all(client)
        except (smtplib.SMTPException, OSError):
            pass  # reported by the step

    def send_all(self, client: smtplib.SMTP) -> None:
        self.send(client, SMALL_MESSAGE)


class OneMessage(SmtpUser):
    """A connection for each small message, as most of the world's mail comes."""

    weight = 5


class KeptConnection(SmtpUser):
    """Many small messages on one connection."""

    weight = 3

    def send_all(self, client: smtplib.SMTP) -> None:
        for _ in range(PER_CONNECTION):
            self.send(client, SMALL_MESSAGE)


class LargeMessage(SmtpUser):
    """Bodies that the server keeps in temporary files."""

    def send_all(self, client: smtplib.SMTP) -> None:
        self.send(client, LARGE_MESSAGE)


class StartTls(SmtpUser):
    """A connection that turns to TLS for each small message."""

    weight = 2

    def connect(self) -> smtplib.SMTP:
        client = super().connect()
        client.starttls(context=unverified())
        client.ehlo()
        return client


class Authenticated(StartTls):
    """STARTTLS and AUTH PLAIN before each small message."""

    weight = 2

    def connect(self) -> smtplib.SMTP:
        client = super().connect()
        with self.step("auth"):
            client.login(os.environ["LOAD_USER"], os.environ.get("LOAD_PASSWORD", ""))
        return client


class ImplicitTls(SmtpUser):
    """TLS from the first byte for each small message."""

    weight = 2

    def connect(self) -> smtplib.SMTP:
        host, _, port = os.environ["LOAD_SMTPS"].rpartition(":")
        client = smtplib.SMTP_SSL(host, int(port), timeout=TIMEOUT, context=unverified())
        client.ehlo()
        return client
