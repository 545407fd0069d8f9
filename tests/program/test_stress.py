"""What must hold while the server is loaded, stopped or killed: acknowledged mail is stored, once; memory stays flat.

Bounded to a few seconds each. Latencies and memory are printed (pytest -s) beside their assertions.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import smtplib
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.processes import PATIENCE, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

MIB = 1024 * 1024


def memory(pid: int, field: str = "VmRSS") -> int:
    """Bytes of resident memory of a process, now or (VmHWM) at most."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# --- stopping


def test_term_lets_a_slow_message_finish(serve: Serve) -> None:
    server = serve("-b", LOOPBACK).ready()
    with Talk(server.port()) as slow, Talk(server.port()) as idle:
        assert idle.ask("EHLO idle.example.com").startswith("250")
        slow.begin_data()
        slow.send(b"Subject: slow\r\n\r\n")
        server.send(signal.SIGTERM)
        server.wait_for(r"draining")
        assert idle.read().startswith("421 4.3.2")
        assert idle.read() == ""
        for number in range(5):
            slow.send(b"line %d\r\n" % number)
        slow.send(b".\r\n")
        assert slow.read().startswith("250 2.0.0 Ok: queued as")
        assert slow.read().startswith("421 4.3.2")
    assert server.wait() == 0
    assert server.stored() == [b"Subject: slow\r\n\r\n" + b"".join(b"line %d\r\n" % number for number in range(5))]


def test_term_does_not_wait_longer_than_graceful_timeout(serve: Serve) -> None:
    server = serve("-b", LOOPBACK, "--graceful-timeout", "0.5").ready()
    with Talk(server.port()) as stuck:
        stuck.begin_data()
        assert server.stop() == 0
        assert server.stored() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_do_not_wait_for_a_message(serve: Serve, number: int) -> None:
    server = serve("-b", LOOPBACK, "--graceful-timeout", "600").ready()
    with Talk(server.port()) as slow:
        slow.begin_data()
        slow.send(b"Subject: slow\r\n\r\n")
        assert server.stop(number) == 0
    assert server.stored() == []


# --- kill -9


class Sender(threading.Thread):
    """Sends messages, each with a number of its own and never again, until told to stop; keeps what it was promised."""

    def __init__(self, port: int, name: str, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.port = port
        self.stop = stop
        self.acknowledged: list[str] = []
        self.unknown: list[str] = []  # the connection broke and the outcome with it

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE) as client:
                    for _ in range(5):
                        number += 1
                        self.send(client, f"{self.name}-{number}")
            except (smtplib.SMTPException, OSError):
                pass  # the worker was killed: connect again, to another one

    def send(self, client: smtplib.SMTP, mark: str) -> None:
        self.unknown.append(mark)
        client.sendmail("a@example.com", ["b@example.com"], f"Subject: {mark}\r\n\r\nbody\r\n")
        self.acknowledged.append(self.unknown.pop())


def wait_for_progress(senders: list[Sender]) -> None:
    """Until 20 more messages are acknowledged."""
    enough = sum(len(sender.acknowledged) for sender in senders) + 20
    wait_until(lambda: sum(len(sender.acknowledged) for sender in senders) >= enough, "mail goes through", 2 * PATIENCE)


def test_what_was_acknowledged_is_stored_once_whatever_is_killed(serve: Serve) -> None:
    server = serve("-b", LOOPBACK, "-w", "2").ready()
    stop = threading.Event()
    senders = [Sender(server.port(), f"sender{number}", stop) for number in range(4)]
    for sender in senders:
        sender.start()
    for killed in range(4):
        wait_for_progress(senders)
        os.kill(max(server.children()), signal.SIGKILL)
        server.wait_for("SIGKILL", count=killed + 1)
    stop.set()
    for sender in senders:
        sender.join(PATIENCE)
    assert server.stop() == 0
    stored = Counter(content.split(b"\r\n")[0].decode().removeprefix("Subject: ") for content in server.stored())
    acknowledged = {mark for sender in senders for mark in sender.acknowledged}
    unknown = {mark for sender in senders for mark in sender.unknown}
    print(f"{len(acknowledged)} acknowledged, {len(unknown)} cut off, {len(unknown & set(stored))} of them stored")
    assert acknowledged <= set(stored)
    assert set(stored) <= acknowledged | unknown
    assert set(stored.values()) == {1}


# --- load


def send_large(port: int, body: bytes, blocks: int) -> str:
    with Talk(port, 60) as client:
        client.begin_data()
        for _ in range(blocks):
            client.send(body)
        client.send(b".\r\n")
        return client.read()


def one_exchange(port: int) -> float:
    """Seconds from EHLO to the reply to NOOP."""
    with Talk(port) as client:
        begin = time.monotonic()
        assert client.ask("EHLO quick.example.com").startswith("250")
        assert client.ask("NOOP").startswith("250")
        return time.monotonic() - begin


def test_ten_large_messages_at_once_cost_little_memory_and_stall_nobody(serve: Serve, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    server = serve("-b", LOOPBACK, "-w", "1", "--spool-dir", str(spool), "preforksmtp.handlers:Discard()").ready()
    port, worker = server.port(), server.worker()
    block = (b"x" * 76 + b"\r\n") * (MIB // 78)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: one_exchange(port), range(10)))  # the threads are there
        before = memory(worker)
        large = [pool.submit(send_large, port, block, 20) for _ in range(10)]
        latencies = []
        while not latencies or not all(future.done() for future in large):
            latencies.append(one_exchange(port))
        answers = [future.result() for future in large]
    growth = memory(worker, "VmHWM") - before
    latency = statistics.median(latencies)
    print(f"growth {growth / MIB:.1f} MiB, median {latency * 1e3:.1f} ms, most {max(latencies) * 1e3:.1f} ms")
    assert [answer[:3] for answer in answers] == ["250"] * 10
    assert growth < 60 * MIB
    assert latency < 3  # 20 ms and less where nobody else needs the machine
    assert list(spool.iterdir()) == []


def open_sessions(server: Server, stack: ExitStack, count: int) -> list[Talk]:
    sessions = [stack.enter_context(Talk(server.port())) for _ in range(count)]
    for session in sessions:
        assert session.ask("EHLO idle.example.com").startswith("250")
    return sessions


def test_an_idle_session_costs_at_most_40_kib(serve: Serve) -> None:
    server = serve("-b", LOOPBACK, "-w", "1", "--threads", "400", "preforksmtp.handlers:Discard()").ready()
    worker = server.worker()
    with ExitStack() as stack:
        open_sessions(server, stack, 10)
        before = memory(worker)
        open_sessions(server, stack, 300)
        cost = (memory(worker) - before) / 300
        print(f"{cost / 1024:.1f} KiB per idle session")
        assert cost <= 40 * 1024


def test_out_of_descriptors_the_worker_lives_and_serves_again(serve: Serve) -> None:
    server = serve("-b", LOOPBACK, "-w", "1", "preforksmtp.handlers:Discard()").ready()
    worker = server.worker()
    used = len(os.listdir(f"/proc/{worker}/fd"))
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 10, limits[1]))
    with ExitStack() as stack:
        sessions = open_sessions(server, stack, 9)
        waiting = [stack.enter_context(Waiting(server.port())) for _ in range(10)]
        server.wait_for(r"\[(ERROR|WARNING)\].*(descriptors|Too many open files)")
        assert sessions[0].ask("NOOP").startswith("250")
        for session in sessions:
            session.close()
        for late in waiting[:5]:
            assert late.read().startswith("220")
            assert late.ask("QUIT").startswith("221")
    assert server.worker() == worker
    assert "Traceback" not in server.output
    assert server.stop() == 0


class Waiting(Talk):
    """A client that is in the queue of the kernel: its greeting may come much later."""

    def read(self) -> str:
        return super().read() if hasattr(self, "greeting") else ""
