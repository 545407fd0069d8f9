"""Guessing on a running server: no delay is skipped, no connection beside another one gains a guess, nobody is told who
exists, and what it cost is gone."""

from __future__ import annotations

import base64
import os
import random
import re
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from preforksmtp.smtp.sasl import MECHANISMS
from tests.certificates import Certificate
from tests.hostile_auth import exchanges
from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

APP = """
import time
from preforksmtp import Handler, ScramSecret

STORED = ScramSecret.make("secret")
TRIED = open("tried", "a", buffering=1)


class Mail(Handler):
    def authenticate(self, username, password):
        TRIED.write("x\\n")
        time.sleep(0.02)
        return password == "secret"

    def password(self, username):
        return {"bob": "secret", "stored": STORED}.get(username)

    def token(self, username, token):
        return False

    def message(self, message):
        pass
"""
DELAY = 1.0  # the default


def plain(user: str, password: str) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()) + b"\r\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def tried(app: Path) -> int:
    return (app / "tried").read_text().count("x")


# --- delays


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guessing")
    (folder / "app.py").write_text(APP)
    binds = ["-b", f"{LOOPBACK}?allow_insecure_auth", "-b", f"smtps://{LOOPBACK}"]
    binds += ["-b", f"unix:{folder}/sock?allow_insecure_auth", "-b", f"{LOOPBACK}?error_delay={DELAY}"]
    settings = ["--max-auth-failure-rate", "0", *certificate.options]
    with Server(folder, *binds, *settings, "app:Mail") as running:
        yield running.ready()
        assert running.stop() == 0
        assert "Traceback" not in running.output, running.output


def connect(server: Server, kind: str) -> socket.socket:
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(f"{server.folder}/sock")
        return sock
    sock = socket.create_connection(("127.0.0.1", server.port("smtps" if kind == "TLS" else "smtp")), PATIENCE)
    if kind != "TLS":
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock)


def half_close(sock: socket.socket) -> None:
    """Of TCP: the TLS layer of Python knows no half of a connection."""
    socket.socket.shutdown(sock, socket.SHUT_WR)


def nothing(sock: socket.socket) -> None:
    pass


def pipeline(sock: socket.socket) -> None:
    sock.sendall(b"NOOP\r\n" * 50)


def both(sock: socket.socket) -> None:
    pipeline(sock)
    half_close(sock)


def until(sock: socket.socket, *codes: bytes) -> float:
    """When a reply with one of these codes comes, or the end."""
    heard = b""
    while not any(re.search(rb"^" + code, heard, re.MULTILINE) for code in codes):
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            break
        heard += data
    return time.monotonic()


FAILURES = {
    "unknown": plain("nobody", "x"),
    "wrong": plain("bob", "x"),
    "LOGIN": b"AUTH LOGIN Ym9i\r\neA==\r\n",
    "token": b"AUTH XOAUTH2 " + base64.b64encode(b"user=bob\1auth=Bearer x\1\1") + b"\r\n",
    "no token": b"AUTH OAUTHBEARER " + base64.b64encode(b"n,,\1host=x\1\1") + b"\r\n",
    "name too long": plain("b" * 5000, "x"),
}


@pytest.mark.parametrize("trick", [nothing, half_close, pipeline, both])
@pytest.mark.parametrize("kind", ["TCP", "TLS", "unix"])
def test_a_failure_is_told_in_its_time_whatever_the_client_does(
    server: Server, kind: str, trick: Callable[[socket.socket], None]
) -> None:
    """Closing half the connection once made it four thousand guesses a second. That the session ends is a verdict too."""

    def guess(failure: bytes) -> float:
        with closing(connect(server, kind)) as sock:
            until(sock, b"220 ")
            sock.sendall(b"EHLO c.test\r\n")
            until(sock, b"250 ")
            began = time.monotonic()
            sock.sendall(failure)
            trick(sock)
            return until(sock, b"535", b"421", b"334 ey") - began

    with ThreadPoolExecutor(len(FAILURES)) as pool:
        waits = dict(zip(FAILURES, pool.map(guess, FAILURES.values()), strict=True))
    assert all(wait >= DELAY for wait in waits.values()), waits


@pytest.mark.parametrize("trick", [half_close, both])
def test_error_delay_is_not_skipped_either(server: Server, trick: Callable[[socket.socket], None]) -> None:
    with socket.create_connection(("127.0.0.1", server.port(index=1)), PATIENCE) as sock:
        until(sock, b"220 ")
        began = time.monotonic()
        sock.sendall(b"FOO\r\n" * 4)
        trick(sock)
        file = sock.makefile("rb")
        replies = [file.readline()[:3] for _ in range(4)]
        assert replies == [b"500"] * 4
        assert time.monotonic() - began >= DELAY


def test_a_client_that_resets_frees_its_thread(serve: Serve, app: Path) -> None:
    server = serve("-b", f"{LOOPBACK}?allow_insecure_auth", "--threads", "2", "--auth-failure-delay", "3600", "app:Mail")
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.ready().port()), PATIENCE) as sock:
            until(sock, b"220 ")
            sock.sendall(b"EHLO c.test\r\n" + plain("bob", "x"))
            until(sock, b"250 HELP")
            wait_until(lambda: (app / "tried").exists() and tried(app) > 0, "it was tried")
            (app / "tried").write_text("")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.wait_for("reset by the client while it had to wait", count=5)


@pytest.mark.parametrize("kind", ["TCP", "TLS"])
def test_a_drain_ends_a_delay_without_the_verdict(
    serve: Serve, app: Path, certificate: Certificate, kind: str
) -> None:
    """Also of one who has closed half the connection, or waits for the reply to a token."""
    binds = ["-b", f"{LOOPBACK}?allow_insecure_auth", "-b", f"smtps://{LOOPBACK}"]
    server = serve(*binds, *certificate.options, "--auth-failure-delay", "3600", "app:Mail").ready()
    socks = []
    for failure in FAILURES.values():
        sock = connect(server, kind)
        socks.append(sock)
        until(sock, b"220 ")
        sock.sendall(b"EHLO c.test\r\n" + failure)
        half_close(sock)
    server.wait_for("auth failed", count=len(FAILURES))
    server.send(signal.SIGTERM)
    for sock in socks:
        with closing(sock):
            heard = b""
            while data := sock.recv(65536):
                heard += data
            assert b"421 4.3.2" in heard and b"535" not in heard and b"334 ey" not in heard
    assert server.wait() == 0


# --- many at once


def login(port: int, user: str, password: str) -> str:
    with Talk(port) as client:
        client.ask("EHLO c.test")
        return client.ask(plain(user, password).decode().strip())[:3]


def test_guesses_at_once_are_bounded_by_default(serve: Serve, app: Path) -> None:
    server = serve("-w", "2", "-b", f"{LOOPBACK}?allow_insecure_auth", "--auth-failure-delay", "0", "app:Mail").ready()
    with ThreadPoolExecutor(40) as pool:
        codes = list(pool.map(lambda n: login(server.port(), "bob", str(n)), range(200)))
    assert set(codes) == {"535", "454"}
    # A sliding window: of those in the minute before, some are forgiven if this took long.
    assert 60 <= tried(app) <= 70, "and not one more, over both workers"
    assert codes.count("535") == tried(app)
    assert login(server.port(), "bob", "secret") == "454", "the right one is not told either"
    server.wait_for(r"max_auth_failure_rate \(60\) reached")


def test_right_passwords_at_once_are_not(serve: Serve, app: Path) -> None:
    """More at once than may fail: they wait for their turn, which comes soon."""
    bind = f"{LOOPBACK}?allow_insecure_auth&max_auth_failure_rate=5"
    server = serve("-w", "2", "-b", bind, "app:Mail").ready()
    with ThreadPoolExecutor(30) as pool:
        codes = list(pool.map(lambda _: login(server.port(), "bob", "secret"), range(120)))
    assert set(codes) == {"235"}
    assert tried(app) == 120


# --- who is there


def salt(port: int, user: str, mechanism: str) -> bytes:
    with Talk(port) as client:
        client.ask("EHLO c.test")
        first = base64.b64encode(f"n,,n={user},r=x".encode()).decode()
        challenge = base64.b64decode(client.ask(f"AUTH {mechanism} {first}").removeprefix("334 "))
    return challenge.split(b",", 1)[1]


def test_salts_of_nobody_last(serve: Serve, app: Path) -> None:
    """Over workers, restarts and hosts: those that share a secret, or this machine."""
    (app / "secret").write_bytes(os.urandom(32))
    (app / "other").write_bytes(os.urandom(32))
    seen = []
    for options in ([], [], ["--auth-secret-file", "secret"], ["--auth-secret-file", "secret", "-w", "3"],
                    ["--auth-secret-file", "other"]):  # fmt: skip
        server = serve("-b", f"{LOOPBACK}?allow_insecure_auth", *options, "app:Mail").ready()
        salts = [tuple(salt(server.port(), "nobody", name) for name in ("SCRAM-SHA-256", "SCRAM-SHA-1")) for _ in range(9)]
        assert len(set(salts)) == 1, "the same in each worker, and after each reload"
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        assert salt(server.port(), "nobody", "SCRAM-SHA-256") == salts[0][0]
        stored, nobody = salt(server.port(), "stored", "SCRAM-SHA-256"), salts[0][0]
        assert len(stored) == len(nobody) and stored.rpartition(b",")[2] == nobody.rpartition(b",")[2], "no other in form"
        seen.append(salts[0])
        assert server.stop() == 0
    assert seen[2] == seen[3] and len({seen[0], seen[2], seen[4]}) == 3
    if Path("/etc/machine-id").exists():
        assert seen[0] == seen[1]


@pytest.mark.parametrize("check", [False, True])
def test_a_secret_that_will_not_do(serve: Serve, app: Path, check: bool) -> None:
    (app / "short").write_bytes(b"x")
    server = serve(*(["--check-config"] if check else []), "-b", LOOPBACK, "--auth-secret-file", "short", "app:Mail")
    assert server.wait() == 1
    assert "auth_secret_file: short has 1 bytes, at least 16 are needed" in server.output.replace(f"{app}/", "")


# --- memory


def resident(pid: int) -> int:
    """KiB of a process that are in memory and its own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(found) for found in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE))


def attack(port: int, chance: random.Random, sessions: int) -> None:
    """Malformed and failing exchanges of each mechanism, and the one that once filled the memory."""
    long = b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=" + b"x" * 9000) + b"\r\n"
    for _ in range(sessions):
        lines = b"".join(line for name in MECHANISMS for line in exchanges(chance, name))
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(b"EHLO c.test\r\n" + lines + long * 10 + b"QUIT\r\n")
            while sock.recv(65536):
                pass


def test_memory_is_flat(serve: Serve, app: Path) -> None:
    """Thousands of attempts: before, each kept what the client had sent, 39 KiB for the longest."""
    bind = f"{LOOPBACK}?allow_insecure_auth&max_errors=1000000&max_auth_failures=0&max_idle_commands=0"
    settings = ["--auth-failure-delay", "0", "--max-auth-failure-rate", "0", "--threads", "4"]
    server = serve("-b", bind, *settings, "app:Mail").ready()
    port, pid, sizes = server.port(), server.worker(), []
    for turn in range(4):
        threads = [threading.Thread(target=attack, args=(port, random.Random(f"{turn} {n}"), 25)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sizes.append(resident(pid))
    assert server.worker() == pid, "it lives"
    print(sizes)
    assert sizes[-1] - sizes[0] < 2000, f"{sizes} KiB after each hundred sessions"
