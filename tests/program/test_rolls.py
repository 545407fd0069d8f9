"""A roll that no client notices: HUP, USR2, TTOU, recycling, `worker drain`, and what sessions see of each.

`ROLLS=20000` in the environment makes the clients of each of the first tests deliver so many messages.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import select
import signal
import smtplib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preforksmtp.prefork.worker.seat import GRACE, SILENCE
from preforksmtp.smtp.pace import HEADER
from tests.certificates import Certificate
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk
from tests.program.load import write_app
from tests.program.pausing import Clients, in_a_hurry, in_clear, in_tls, trusting, with_starttls

MESSAGES = int(os.environ.get("ROLLS", "0"))
EVERY = 1.0  # seconds from one roll to the next
BODY = b"Message-ID: <one@test>\r\n\r\n.\r\n"
HELD = GRACE + SILENCE  # for so long a session is kept where it must not be told


def say_quit(talk: Talk) -> None:
    assert talk.ask("QUIT").startswith("221 ")
    assert talk.read() == ""


def deliver(talk: Talk) -> None:
    """What a session does from its EHLO on."""
    talk.begin_data()
    talk.send(BODY)
    assert talk.read().startswith("250 ")
    say_quit(talk)


def told(talk: Talk, seconds: float = PATIENCE) -> float:
    """When the 421 comes, unasked."""
    assert select.select([talk.socket], [], [], seconds)[0], "no 421"
    now = time.monotonic()
    assert talk.read().startswith("421 4.3.2")
    assert talk.read() == ""
    return now


def roll_until(over: Callable[[], bool], roll: Callable[[], object]) -> None:
    at = time.monotonic()
    while not over():
        if time.monotonic() >= at:
            at += EVERY
            roll()
        time.sleep(0.02)


# -- clients that pause between commands (lifecycle.md, scenarios 48 to 50)


@pytest.mark.parametrize(
    ("connect", "messages", "each", "options"),
    [
        (in_clear, 400, 1, ()),
        (in_clear, 400, 5, ()),
        (in_a_hurry, 800, 100, ("--graceful-timeout", "6")),
        (with_starttls, 200, 1, ()),
        (in_tls, 200, 5, ()),
    ],
    ids=["one message", "5 messages", "100 messages", "STARTTLS", "TLS"],
)
def test_rolls_every_second(
    serve: Serve,
    tmp_path: Path,
    certificate: Certificate,
    connect: Callable[[int], smtplib.SMTP],
    messages: int,
    each: int,
    options: tuple[str, ...],
) -> None:
    write_app(tmp_path)
    binds = ("-b", LOOPBACK, "-b", f"smtps://{LOOPBACK}", *certificate.options)
    server = serve(*binds, "-w", "4", "--threads", "100", *options, "app:handler").ready()
    port = server.port("smtps" if connect is in_tls else "smtp")
    with Clients(functools.partial(connect, port), tmp_path, MESSAGES or messages, 250 if MESSAGES else 80, each) as clients:
        roll_until(lambda: clients.over, lambda: server.send(signal.SIGHUP))
    sys.stderr.write(f"{clients.account()}, {len(server.matches('reload done'))} rolls\n")
    clients.assert_sound()
    assert len(server.matches("reload done")) >= 3
    assert each == 100 or not clients.told


WAYS: dict[str, tuple[str, ...]] = {
    "TTIN and TTOU": (),
    "USR2": (),
    "worker drain": ("--control-socket", "ctl"),
    "max_sessions": ("--max-sessions", "20"),
    "TERM to a worker": (),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_roll(serve: Serve, tmp_path: Path, way: str) -> None:
    write_app(tmp_path)
    server = serve("-b", LOOPBACK, "-w", "2", "--threads", "60", *WAYS[way], "app:handler").ready()
    with Clients(functools.partial(in_clear, server.port()), tmp_path, MESSAGES or 150, 40) as clients:
        roll_until(lambda: clients.over, functools.partial(roll, server, way))
    clients.assert_sound()
    assert not clients.told
    assert len(server.matches(r"worker \d+ exited with code 0")) >= 2, server.output
    if way == "USR2":
        last = int(server.matches(r"the new master is (\d+)")[-1][1])
        server.wait_for(rf"master {last}: has taken over")
        os.kill(last, signal.SIGTERM)
        wait_until(lambda: not server.group(), "nobody left")


def roll(server: Server, way: str) -> None:
    if way == "TTIN and TTOU":
        one_more = len(server.matches("workers wanted")) % 2 == 0
        server.send(signal.SIGTTIN if one_more else signal.SIGTTOU)
    elif way == "USR2":
        masters = [int(found[1]) for found in server.matches(r"master (\d+): ready")]
        with contextlib.suppress(ProcessLookupError):
            os.kill(masters[-1], signal.SIGUSR2)
    elif way == "worker drain":
        order = json.dumps({"order": ["worker", "drain", str(max(server.children()))]})
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(os.path.relpath(server.folder / "ctl"))
            sock.sendall(f"{order}\n".encode())
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(PATIENCE)
            sock.recv(100)
    elif way == "TERM to a worker":
        os.kill(max(server.children()), signal.SIGTERM)


# -- what a session sees


@pytest.fixture
def server(serve: Serve, tmp_path: Path, certificate: Certificate) -> Server:
    """Binds of every kind, one worker. AUTH in clear, and a proxy's header on LMTP."""
    write_app(tmp_path)
    (tmp_path / "mail.py").write_text(
        "from preforksmtp import Handler\n"
        "class Mail(Handler):\n"
        "    def authenticate(self, name, password): return True\n"
        "    def message(self, message): pass\n"
    )
    binds = [LOOPBACK, f"{LOOPBACK}?proxy_protocol=127.0.0.1", f"smtps://{LOOPBACK}", f"lmtp://{LOOPBACK}"]
    arguments = [word for bind in binds for word in ("-b", bind)]
    options = [*certificate.options, "--allow-insecure-auth", "--graceful-timeout", "30"]
    return serve(*arguments, *options, "mail:Mail").ready()


def reload(server: Server) -> float:
    """When the old worker began to leave, or a little later."""
    drained = len(server.matches("draining"))
    server.send(signal.SIGHUP)
    server.wait_for("draining", count=drained + 1)
    return time.monotonic()


def test_nobody_is_told_before_the_grace_is_over_and_idle_ones_then(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        fresh, greeted, done = (stack.enter_context(Talk(server.port())) for _ in range(3))
        tls = stack.enter_context(TalkInTLS(server.port("smtps")))
        assert greeted.ask("EHLO x").startswith("250")
        assert tls.ask("EHLO x").startswith("250")
        done.begin_data()
        done.send(BODY)
        assert done.read().startswith("250 ")
        began = reload(server)
        for talk in (fresh, greeted, done, tls):
            assert told(talk) >= began + GRACE - 0.5  # "a little later" may be late here
        wait_until(lambda: len(server.children()) == 1, "the old worker gone")


def test_who_goes_on_is_served_on(server: Server) -> None:
    """For much longer than the grace, as long as no silence is long."""
    with Talk(server.port()) as talk, TalkInTLS(server.port("smtps")) as tls:
        began = reload(server)
        for client in (talk, tls):
            assert client.ask("EHLO x").startswith("250")
        while time.monotonic() < began + 2 * HELD:
            for client in (talk, tls):
                client.begin_data()
                client.send(BODY)
                assert client.read().startswith("250 ")
                assert client.ask("NOOP").startswith("250")
            time.sleep(0.3)
        say_quit(talk)
        say_quit(tls)


@pytest.mark.parametrize("where", ["AUTH", "half a command", "STARTTLS", "TLS", "PROXY", "transaction", "LMTP"])
def test_who_is_in_the_middle_of_something_is_waited_for(server: Server, where: str) -> None:
    """Silent for longer than an idle session would be borne; its first transaction is served like any other."""
    with middle(server, where) as go_on:
        began = reload(server)
        held = HELD if where != "PROXY" else HEADER * 0.8  # which has a limit of its own
        time.sleep(max(0.0, began + held - time.monotonic()))
        go_on()


@contextlib.contextmanager
def middle(server: Server, where: str) -> Iterator[Callable[[], None]]:
    """Bring a session there; what is yielded finishes it."""
    if where in ("TLS", "PROXY"):
        index = int(where == "PROXY")
        port = server.port("smtps" if where == "TLS" else "smtp", index)
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            if where == "PROXY":
                sock.sendall(b"PROXY TCP4 192.0.2.1 ")
                yield lambda: deliver(Talk.over(sock, b"192.0.2.2 4000 25\r\n"))
            else:
                yield lambda: deliver(Talk.over(trusting().wrap_socket(sock)))
        return
    with Talk(server.port("lmtp" if where == "LMTP" else "smtp")) as talk:
        if where == "LMTP":
            assert talk.ask("LHLO x").startswith("250")
            assert talk.ask("MAIL FROM:<a@example.com>").startswith("250")
            yield lambda: finish(talk)
            return
        assert talk.ask("EHLO x").startswith("250")
        if where == "AUTH":
            assert talk.ask("AUTH PLAIN").startswith("334")
            talk.send(base64.b64encode(b"\0me\0secret")[:5])
            yield lambda: (talk.send(base64.b64encode(b"\0me\0secret")[5:] + b"\r\n"), authenticated(talk))[-1]
        elif where == "STARTTLS":
            assert talk.ask("STARTTLS").startswith("220")
            yield lambda: deliver(Talk.over(trusting().wrap_socket(talk.socket), greeted=True))
        elif where == "transaction":
            assert talk.ask("MAIL FROM:<a@example.com>").startswith("250")
            yield lambda: finish(talk)
        else:
            talk.send(b"MAIL FR")
            yield lambda: (talk.send(b"OM:<a@example.com>\r\n"), began(talk))[-1]


def authenticated(talk: Talk) -> None:
    assert talk.read().startswith("235 ")
    deliver(talk)


def began(talk: Talk) -> None:
    assert talk.read().startswith("250 ")
    finish(talk)


def finish(talk: Talk) -> None:
    """A transaction whose MAIL was accepted."""
    assert talk.ask("RCPT TO:<b@example.com>").startswith("250")
    assert talk.ask("DATA").startswith("354")
    talk.send(BODY)
    assert talk.read().startswith("250 ")
    say_quit(talk)


def test_who_never_pauses_hears_it_at_a_boundary_before_the_time_is_up(serve: Serve, tmp_path: Path) -> None:
    """And QUIT is 221 to the last."""
    write_app(tmp_path)
    server = serve("-b", LOOPBACK, "--graceful-timeout", "3", "app:handler").ready()
    with Talk(server.port()) as kept, Talk(server.port()) as other, Talk(server.port()) as open_:
        for talk in (kept, other, open_):
            assert talk.ask("EHLO x").startswith("250")
        assert open_.ask("MAIL FROM:<a@example.com>").startswith("250")
        began, messages = reload(server), 0
        while (answer := kept.ask("MAIL FROM:<a@example.com>")).startswith("250"):
            assert other.ask("NOOP").startswith("250")
            assert kept.ask("RSET").startswith("250")
            messages += 1
            time.sleep(0.01)
        assert answer.startswith("421 4.3.2")
        assert kept.read() == ""
        assert 1.0 < time.monotonic() - began < 3.0
        assert messages > 10
        say_quit(other)
        finish(open_)
    wait_until(lambda: len(server.children()) == 1, "the old worker gone")
    assert not server.matches("cut off")


def test_the_clients_own_pace_decides_when_a_stressed_server_rolls(serve: Serve, tmp_path: Path) -> None:
    """stress_threshold makes sessions wait in another place."""
    write_app(tmp_path)
    server = serve("-b", LOOPBACK, "--stress-threshold", "0.9", "app:handler").ready()
    with Talk(server.port()) as idle, Talk(server.port()) as busy:
        assert idle.ask("EHLO x").startswith("250")
        busy.begin_data()
        began = reload(server)
        assert told(idle) >= began + GRACE - 0.5
        busy.send(BODY)
        assert busy.read().startswith("250 ")
        say_quit(busy)


def test_an_application_that_ignores_the_signal_delays_nothing_for_long(serve: Serve, tmp_path: Path) -> None:
    """Which wakes sessions; a stop finds another way."""
    (tmp_path / "app.py").write_text(
        "import signal\nsignal.signal(signal.SIGURG, signal.SIG_IGN)\ndef handler(message): pass\n"
    )
    server = serve("-b", LOOPBACK, "app:handler").ready()
    with Talk(server.port()) as idle:
        assert idle.ask("EHLO x").startswith("250")
        server.send(signal.SIGTERM)
        told(idle)
    assert server.wait() == 0


# -- a stop in the middle of it


def test_a_stop_tells_those_who_are_left_of_a_roll(server: Server) -> None:
    with Talk(server.port()) as talk:
        assert talk.ask("EHLO x").startswith("250")
        began = reload(server)
        server.send(signal.SIGTERM)
        assert told(talk) < began + GRACE  # which would have been a roll's
    assert server.wait() == 0


def test_winch_is_no_stop(server: Server) -> None:
    """Another master may serve."""
    with Talk(server.port()) as talk:
        assert talk.ask("EHLO x").startswith("250")
        server.send(signal.SIGWINCH)
        server.wait_for("draining")
        deliver(talk)
    wait_until(lambda: not server.children(), "no workers")


class TalkInTLS(Talk):
    def __init__(self, port: int) -> None:
        self.socket = trusting().wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE))
        self.file = self.socket.makefile("rb")
        self.greeting = self.read()
