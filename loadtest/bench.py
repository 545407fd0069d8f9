"""Throughput and the server's CPU time, with the standard library: `python3 loadtest/bench.py --help`.

Starts preforksmtp with Discard on 127.0.0.1, drives it with client processes that speak over plain sockets, and prints
a line for each scenario: messages and megabytes a second, and CPU seconds of the server (master and workers, user
and system) for 1000 messages. Client and server share this machine's CPUs, so compare lines of one run only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from target import Target

KIB = 1024
ENVELOPE = (b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.com>\r\n", b"DATA\r\n")


class Scenario(NamedTuple):
    title: str
    messages: int  # by each client
    per_connection: int
    size: int
    pipelined: bool = False


SCENARIOS = {
    "A": Scenario("1 message a connection, 1 KiB", 400, 1, KIB),
    "B": Scenario("100 messages a connection, 1 KiB", 1000, 100, KIB),
    "C": Scenario("B with PIPELINING", 2000, 100, KIB, True),
    "D": Scenario("10 MiB messages", 8, 4, 10 * KIB * KIB),
}


def body(size: int) -> bytes:
    line = b"x" * 76 + b"\r\n"
    return b"Subject: load\r\n\r\n" + line * (size // len(line)) + b".\r\n"


def expect(replies: BinaryIO, code: bytes) -> None:
    line = replies.readline()
    while line[3:4] == b"-":
        line = replies.readline()
    if line[:3] != code:
        raise SystemExit(f"expected {code!r}, got {line!r}")


def drive(port: int, scenario: Scenario, ready: Callable[[], object]) -> None:
    """One client process: its share of the messages of a scenario."""
    content = body(scenario.size)
    ready()
    for begin in range(0, scenario.messages, scenario.per_connection):
        with socket.create_connection(("127.0.0.1", port), 60) as sock, sock.makefile("rb") as replies:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            expect(replies, b"220")
            sock.sendall(b"EHLO client.example.com\r\n")
            expect(replies, b"250")
            for _ in range(min(scenario.per_connection, scenario.messages - begin)):
                send(sock, replies, content, scenario.pipelined)
            sock.sendall(b"QUIT\r\n")
            expect(replies, b"221")


def send(sock: socket.socket, replies: BinaryIO, content: bytes, pipelined: bool) -> None:
    codes = (b"250", b"250", b"354")
    if pipelined:
        sock.sendall(b"".join(ENVELOPE))
        for code in codes:
            expect(replies, code)
    else:
        for command, code in zip(ENVELOPE, codes, strict=True):
            sock.sendall(command)
            expect(replies, code)
    sock.sendall(content)
    expect(replies, b"250")


def run(target: Target, name: str, scenario: Scenario, clients: int) -> None:
    barrier = multiprocessing.Barrier(clients + 1)
    arguments = (target.ports["smtp"], scenario, barrier.wait)
    workers = [multiprocessing.Process(target=drive, args=arguments) for _ in range(clients)]
    for worker in workers:
        worker.start()
    barrier.wait()
    cpu, begin = target.cpu_seconds(), time.perf_counter()
    for worker in workers:
        worker.join()
    seconds, cpu = time.perf_counter() - begin, target.cpu_seconds() - cpu
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"scenario {name}: a client failed")
    count = clients * scenario.messages
    print(
        f"| {name} | {scenario.title} | {count / seconds:.0f} | {count * scenario.size / seconds / 1e6:.0f} "
        f"| {1000 * cpu / count:.3f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), metavar="A|B|C|D", help="default: all")
    parser.add_argument("--workers", default="4", help="of the server (default: 4)")
    parser.add_argument("--threads", default="20", help="of each worker (default: 20)")
    parser.add_argument("--clients", type=int, default=8, help="processes (default: 8)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    print("| | scenario | messages/s | MB/s | server CPU s per 1000 |\n|---|---|---|---|---|", flush=True)
    with Target("--workers", arguments.workers, "--threads", arguments.threads) as target:
        for name in arguments.scenarios:
            run(target, name, SCENARIOS[name], arguments.clients)


if __name__ == "__main__":
    main()
