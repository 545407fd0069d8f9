"""Clients that are slow, endless or silent, many at once: what they cost, and that nobody else waits for them.

The figures are printed (pytest -s) beside their assertions.
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import PATIENCE
from tests.program.conftest import LOOPBACK, Serve, Talk
from tests.program.test_stress import memory, one_exchange
from tests.tlsclient import Sealer

KIB = 1024
MIB = 1024 * KIB

# --- memory

ROUNDS = 16  # pieces that each client sends, all clients in turn
LINE = b"x" * (64 * KIB)
BODIES = ((b"y" * 78 + b"\r\n") * (160 * KIB // 80), b"y" * (160 * KIB))  # ordinary lines, and one endless line
CLIENTS = 100  # of each kind

# What it may take, in all workers and at any moment; 42 MiB were measured (CPython 3.11), whatever the number of
# rounds. A session costs 40 KiB, as in test_stress. A body that is collected or dropped costs a few blocks of 64 KiB:
# the one that is read, the one before it and what is made of that, the spool's, and what malloc does not give back.
# Were the excess kept, lines would add 100 MiB and bodies 150 MiB; were bodies not spooled, 75 MiB.
MOST = 2 * CLIENTS * 40 * KIB + CLIENTS * 6 * 64 * KIB + 16 * MIB


def open_files(pid: int) -> list[Path]:
    """Also those that have no name any more."""
    found = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # a session has just ended
            found.append(Path(os.readlink(f"/proc/{pid}/fd/{descriptor}")))
    return found


def test_200_endless_lines_and_bodies_cost_little_memory_and_stall_nobody(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(message):\n    return 'taken'\n")
    spool = tmp_path / "spool"
    spool.mkdir()
    limits = ["--max-message-size", "1MiB", "--spool-threshold", "64KiB", "--spool-dir", str(spool)]
    server = serve("-b", LOOPBACK, "-w", "2", "--threads", "150", *limits, "app").ready()
    port, workers = server.port(), server.children()
    for _ in range(10):
        one_exchange(port)  # what is imported late, is
    before = {pid: memory(pid) for pid in workers}
    latencies = []
    with ExitStack() as stack:
        lines = [stack.enter_context(Talk(port)) for _ in range(CLIENTS)]
        bodies = [stack.enter_context(Talk(port)) for _ in range(CLIENTS)]
        for client in bodies:
            client.begin_data()
        for _ in range(ROUNDS):
            for client in lines:
                client.send(LINE)
            for number, client in enumerate(bodies):
                client.send(BODIES[number % len(BODIES)])
            latencies.append(one_exchange(port))
        for client in lines:
            client.send(b"\r\n")
        for client in bodies:
            client.send(b"\r\n.\r\n")
        assert {client.read() for client in lines} == {"500 5.5.2 Line too long"}
        assert {client.read()[:9] for client in bodies} == {"552 5.3.4"}
        assert [file for pid in workers for file in open_files(pid) if file.is_relative_to(spool)] == []
        for client in (*lines, *bodies):
            assert client.ask("NOOP").startswith("250"), "in sync"
            assert client.ask("QUIT").startswith("221")
    growth = sum(memory(pid, "VmHWM") - before[pid] for pid in workers)
    latency = statistics.median(latencies)
    print(f"growth {growth / MIB:.1f} MiB of {MOST / MIB:.1f}, median {latency * 1e3:.1f} ms, most {max(latencies) * 1e3:.1f} ms")
    assert server.children() == workers
    assert growth < MOST
    assert latency < 3  # who waits for others here does it for longer


PIECES = 40_000  # of one octet; in a list they would take 2.2 MiB
COLLECTING = """
from preforksmtp import Handler


class Mail(Handler):
    def message(self, message):
        return str(message.size)


class Streaming(Mail):
    def stream(self, message, body):
        return str(len(body.read()))
"""


@pytest.mark.parametrize(("app", "scheme"), [("Mail", "smtp"), ("Streaming", "smtp"), ("Mail", "lmtp")])
def test_messages_in_pieces_of_one_octet_take_no_more_memory(
    serve: Serve, tmp_path: Path, certificate: Certificate, app: str, scheme: str
) -> None:
    """As chunks, and as TLS records."""
    (tmp_path / "app.py").write_text(COLLECTING)
    server = serve("-b", f"{scheme}://{LOOPBACK}", "-w", "1", *certificate.options, f"app:{app}").ready()
    before = memory(server.worker())
    greeting = "LHLO" if scheme == "lmtp" else "EHLO"
    envelope = (f"{greeting} c.example.com", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>")
    with ExitStack() as stack:
        clients = [stack.enter_context(Talk(server.port(scheme))) for _ in range(4)]
        for client in clients:
            assert all(client.ask(line).startswith("250") for line in envelope)
            for _ in range(PIECES // 500):
                client.send(b"BDAT 1\r\nx" * 500)
                for _ in range(500):
                    assert client.read() == "250 2.0.0 1 octets received"
        sealers = []
        for _ in range(2):
            client = stack.enter_context(Talk(server.port(scheme)))
            assert client.ask(envelope[0]).startswith("250")
            assert client.ask("STARTTLS").startswith("220")
            sealer = Sealer()
            sealer.shake(client.socket)
            for line in (*envelope, "DATA"):
                client.send(sealer.seal(line.encode() + b"\r\n"))
                hear(client, sealer, b"\n")
            client.send(b"".join(sealer.seal(b"x") for _ in range(PIECES)))
            sealers.append((client, sealer))
        for client in clients:
            client.send(b"BDAT 0 LAST\r\n")
            assert client.read() == f"250 2.0.0 {PIECES}"
        for client, sealer in sealers:
            client.send(sealer.seal(b"\r\n.\r\n"))
            assert b"250 2.0.0 %d\r\n" % (PIECES + 2) in hear(client, sealer, b"\n")
    growth = memory(server.worker(), "VmHWM") - before
    print(f"growth {growth / MIB:.1f} MiB")
    assert growth < 10 * MIB  # 5 were measured, and 31 with a list of octets


def hear(client: Talk, sealer: Sealer, end: bytes) -> bytes:
    heard = b""
    while not heard.endswith(end):
        heard += sealer.open(client.socket.recv(65536))
    return heard


# --- the end of TLS


class SecureTalk(Talk):
    """A client in TLS. Where the connection ends without the server's close_notify, reading is an error."""

    def __init__(self, port: int, context: ssl.SSLContext, starttls: bool) -> None:
        if starttls:
            super().__init__(port)
            assert self.ask("EHLO client.example.com").startswith("250")
            assert self.ask("STARTTLS").startswith("220")
        else:
            self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost", suppress_ragged_eofs=False)
        self.file = self.socket.makefile("rb")
        if not starttls:
            self.greeting = self.read()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.parametrize("starttls", [False, True], ids=["implicit", "starttls"])
def test_a_tls_session_ends_without_the_clients_close_notify(
    serve: Serve, certificate: Certificate, starttls: bool, version: ssl.TLSVersion
) -> None:
    """A client that says QUIT and then neither reads nor closes keeps no thread: here it would be the only one."""
    context = ssl.create_default_context(cafile=str(certificate.certfile))
    context.minimum_version = context.maximum_version = version
    scheme = "smtp" if starttls else "smtps"
    # So long would a client in clear keep its thread, and the following one's patience would not last.
    patch = "import preforksmtp.net.closing as closing; closing.LINGER = 60"
    server = serve(
        "-b", f"{scheme}://{LOOPBACK}", "-w", "1", "--threads", "1", *certificate.options, patch=patch
    ).ready()
    port = server.port(scheme)
    with SecureTalk(port, context, starttls) as silent:
        silent.send(b"QUIT\r\n")
        started = time.monotonic()
        with SecureTalk(port, context, starttls) as following:
            took = time.monotonic() - started
            assert following.ask("NOOP").startswith("250")
        print(f"{took * 1e3:.1f} ms until the next client was served")
        # All that was to be said to it is there, with the server's close_notify and without a reset.
        assert silent.read().startswith("221")
        assert silent.read() == ""
