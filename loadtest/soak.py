"""Hostile sessions, very many of each kind, and whether the server's memory stays flat: `python3 loadtest/soak.py`.

    python3 loadtest/soak.py --sessions 1000000            # a night
    python3 loadtest/soak.py --kinds auth-malformed,resets

For each kind a server is started on 127.0.0.1, warmed up with a tenth of the sessions, and then measured ten times: the
resident memory of its workers, and their descriptors. A line a kind is printed; the end is 1 where memory has grown by
more than `--most`, or by more a session than noise does, where descriptors are left, or where the server has logged an
error. Client addresses are chosen at random from 127.0.0.0/8, so no limit on one client hides anything.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import random
import socket
import ssl
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from target import Target

KIB = 1024
APP = """
from preforksmtp import Handler, Reject


class Sink(Handler):
    def authenticate(self, username, password):
        return False

    def password(self, username):
        return "secret" if username == "u" else None

    def token(self, username, token):
        return False

    def rcpt(self, recipient, params):
        if recipient.startswith("no"):
            raise Reject(550, "5.1.1 no such user")

    def message(self, message):
        if b"fail" in message.content[:1000]:
            raise ValueError(message)
"""
ARGUMENTS = (
    "--workers", "2", "--threads", "8", "--allow-insecure-auth", "--auth-failure-delay", "0",
    "--max-auth-failures", "0", "--max-idle-commands", "50",
    "--max-message-size", "200000", "--spool-threshold", "50000",
)  # fmt: skip
BINDS = ("smtp://127.0.0.1:0", "smtps://127.0.0.1:0", "lmtp://127.0.0.1:0?proxy_protocol=127.0.0.0/8")
PATIENCE = 30.0
MARKS = 10  # measurements of one kind
SETTLE = 1.2  # seconds in which a worker with free memory returns it


class Hostile:
    """One session of a client that means harm."""

    def __init__(self, ports: dict[str, int], chance: random.Random) -> None:
        self.ports = ports
        self.chance = chance
        self.socket: socket.socket | None = None

    def connect(self, scheme: str = "smtp") -> None:
        source = ".".join(["127", *(str(self.chance.randrange(1, 255)) for _ in range(3))])
        address = ("127.0.0.1", self.ports[scheme])
        self.socket = socket.create_connection(address, PATIENCE, source_address=(source, 0))

    def send(self, octets: bytes) -> None:
        assert self.socket is not None
        self.socket.sendall(octets)

    def hear(self) -> bytes:
        """One read: enough to know that the server has got so far."""
        assert self.socket is not None
        return self.socket.recv(65536)

    def ask(self, *lines: bytes) -> None:
        for line in lines:
            self.send(line + b"\r\n")
            self.hear()

    def begin(self, *lines: bytes) -> None:
        self.connect()
        self.hear()
        self.ask(b"EHLO client.example.com", *lines)

    def begin_message(self) -> None:
        self.begin(b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.com>")

    def octets(self, count: int) -> bytes:
        return self.chance.randbytes(count)

    def read_out(self) -> None:
        while self.hear():
            pass

    def reset(self) -> None:
        assert self.socket is not None
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def encode(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def auth_malformed(client: Hostile) -> None:
    """What is no message of the mechanism, as long as a line may be."""
    client.begin()
    long = b"x" * client.chance.choice((10, 9000))
    for mechanism, octets in (
        (b"SCRAM-SHA-256", b"n,,n=" + long), (b"SCRAM-SHA-1", b"p=x,," + long), (b"SCRAM-SHA-256", long),
        (b"PLAIN", long), (b"PLAIN", b"\0" + long + b"\0\xff"), (b"XOAUTH2", long), (b"OAUTHBEARER", b"n,a=" + long),
        (b"CRAM-MD5", long), (b"LOGIN", b"\xff" + long),
    ):  # fmt: skip
        client.ask(b"AUTH " + mechanism + b" " + encode(octets))
    client.ask(b"AUTH PLAIN", b"=" + long, b"AUTH LOGIN", b"*")


def auth_failing(client: Hostile) -> None:
    """Well-formed, and wrong."""
    client.begin()
    name = b"u%d" % client.chance.randrange(10**9)
    client.ask(b"AUTH PLAIN " + encode(b"\0" + name + b"\0wrong"), b"AUTH LOGIN " + encode(name), encode(b"wrong"))
    client.ask(b"AUTH SCRAM-SHA-256 " + encode(b"n,,n=" + client.chance.choice((b"u", name)) + b",r=abc"))
    client.ask(encode(b"c=biws,r=abc,p=" + encode(bytes(32))))
    client.ask(b"AUTH XOAUTH2 " + encode(b"user=%b\1auth=Bearer x\1\1" % name), b"")
    client.ask(b"AUTH CRAM-MD5", encode(name + b" 00"))


def tls_broken(client: Hostile) -> None:
    """Garbage, half a hello, a hello and then nonsense, a reset in the middle."""
    how = client.chance.randrange(6)
    if client.chance.random() < 0.5:
        client.connect("smtps")
    else:
        client.begin(b"STARTTLS")
    hello = first_flight()
    if how == 0:
        client.send(client.octets(200))
    elif how == 1:
        client.send(hello[: client.chance.randrange(1, len(hello))])
    elif how == 2:
        client.send(b"\x16\x03\x01\0\0" * 10)
    elif how == 3:
        client.send(b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03" + client.octets(237))
    else:
        client.send(hello)
        client.hear()
        client.send(b"\x17\x03\x03\x00\x20" + client.octets(32) if how == 4 else b"\x15\x03\x03\x00\x02\x02\x28")
    if client.chance.random() < 0.5:
        client.reset()
    else:
        assert client.socket is not None
        client.socket.shutdown(socket.SHUT_WR)
        client.read_out()


CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def first_flight() -> bytes:
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        CLIENT.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def proxy_broken(client: Hostile) -> None:
    client.connect("lmtp")
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    client.send(
        client.chance.choice((
            client.octets(100), b"PROXY TCP4 1.2.3.4 nonsense\r\n", b"PROXY TCP4 192.0.2.1", b"PROXY " + b"x" * 200,
            b"PROXY TCP6 ::1 ::1 1 99999\r\n", signature + b"\x21\x11\x00\x04abcd", signature + b"\x99\x11\x00\x00",
            signature + b"\x21\x11\x00\x20" + bytes(12) + client.octets(20),
            signature + b"\x21\x11\xff\xff" + client.octets(5000),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nLHLO x\r\nFOO\r\n" * 2,
        ))
    )  # fmt: skip
    if client.chance.random() < 0.5:
        client.reset()
    else:
        assert client.socket is not None
        client.socket.shutdown(socket.SHUT_WR)
        client.read_out()


def bdat(client: Hostile) -> None:
    """Chunks out of order, too large, empty, given up, left half sent."""
    how = client.chance.randrange(6)
    client.begin_message()
    if how == 0:
        client.ask(*[b"BDAT 0"] * 60)
    elif how == 1:
        client.send(b"BDAT 100000\r\n" + bytes(50000))
        client.reset()
    elif how == 2:
        client.ask(b"BDAT 10\r\n0123456789", b"NOOP", b"RSET", b"BDAT 3\r\nabc", b"BDAT x")
        client.ask(b"BDAT 9999999999 LAST\r\nabc")
    elif how == 3:
        client.ask(b"BDAT 300000\r\n" + bytes(300000), b"BDAT 5\r\nabcde")
    elif how == 4:
        client.send(b"BDAT 1\r\nx" * 500 + b"BDAT 0 LAST\r\n")
        client.reset()
    else:
        client.ask(b"BDAT 70000\r\n" + bytes(70000), b"EHLO again.example.com", b"BDAT 70000 LAST\r\n" + bytes(70000))


def oversize(client: Hostile) -> None:
    """Messages, lines, recipients without end; handlers that fail at them."""
    how = client.chance.randrange(5)
    client.begin_message()
    if how == 0:
        client.ask(b"DATA", b"x" * 300000 + b"\r\n.")
    elif how == 1:
        client.ask(b"x" * 100000, b"NOOP " + b"y" * 5000, b"MAIL FROM:<" + b"z" * 30000)
    elif how == 2:
        client.send(b"RCPT TO:<no@example.com>\r\n" * 200)
        client.read_out()
    elif how == 3:
        client.ask(b"DATA", b"fail" + b"x" * client.chance.randrange(100000) + b"\r\n.")
    else:
        client.ask(b"DATA", b"bare\nnewline" * 5000 + b"\r\n.")


def resets(client: Hostile) -> None:
    """Anywhere in a message that goes well."""
    lines = client.chance.choice(((b"x" * 76 + b"\r\n") * 10, (b"x" * 76 + b"\r\n") * 1100, b"\r\n" * 40000))
    script = (
        b"EHLO client.example.com\r\n", b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.com>\r\n", b"DATA\r\n",
        b"Subject: x\r\n\r\n" + lines, b".\r\n", b"QUIT\r\n",
    )  # fmt: skip
    client.connect()
    client.hear()
    cut = client.chance.randrange(len(script))
    for part in script[:cut]:
        client.send(part)
        if part[:7] != b"Subject":
            client.hear()
    client.send(script[cut][: client.chance.randrange(len(script[cut]))])
    client.reset()


KINDS: dict[str, Callable[[Hostile], None]] = {
    "auth-malformed": auth_malformed,
    "auth-failing": auth_failing,
    "tls-broken": tls_broken,
    "proxy-broken": proxy_broken,
    "bdat": bdat,
    "oversize": oversize,
    "resets": resets,
}


def attack(kind: str, ports: dict[str, int], count: int, seed: int) -> None:
    """In a process of its own: so many sessions, one after the other."""
    chance = random.Random(seed)
    for _ in range(count):
        client = Hostile(ports, chance)
        try:
            KINDS[kind](client)
        except TimeoutError:
            raise  # the server hangs
        except OSError:
            pass  # it has had enough of this client
        if client.socket is not None:
            client.socket.close()


def attack_in_threads(kind: str, ports: dict[str, int], count: int, seed: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        shares = [count // threads + (number < count % threads) for number in range(threads)]
        for future in [pool.submit(attack, kind, ports, share, seed * 100 + n) for n, share in enumerate(shares)]:
            future.result()


class Measure(NamedTuple):
    """Of all workers: bytes resident, and open descriptors."""

    memory: int
    descriptors: int


def measure(target: Target, *, settled: bool = False) -> Measure:
    """Once their sessions are over; `settled`: and they have returned what is free (prefork/worker/heap.py)."""
    workers = target.workers()
    end = time.monotonic() + PATIENCE
    while any(connections(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    memory, before = sum(map(resident, workers)), 0
    while settled and memory != before:
        time.sleep(SETTLE)
        before, memory = memory, sum(map(resident, workers))
    return Measure(memory, sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in workers))


def resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS:"))


def connections(pid: int) -> int:
    """Sockets that are no listeners of ours."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return found - len(BINDS)


def slope(marks: list[int]) -> float:
    """Bytes a step, by least squares."""
    middle, mean = (len(marks) - 1) / 2, sum(marks) / len(marks)
    width = sum((number - middle) ** 2 for number in range(len(marks)))
    return sum((number - middle) * (mark - mean) for number, mark in enumerate(marks)) / width


def soak(kind: str, sessions: int, most: int, pool: ProcessPoolExecutor, clients: int) -> list[str]:
    """Prints a line; returns what is wrong."""
    errors = ("ValueError",) if kind == "oversize" else ()
    with Target(*ARGUMENTS, source=APP, tls=True, binds=BINDS, expected=errors) as target:

        def send(count: int, seed: int) -> None:
            each: list[Future[None]] = [
                pool.submit(attack_in_threads, kind, target.ports, count // clients + 1, seed * clients + number, 6)
                for number in range(clients)
            ]
            for future in each:
                future.result()

        before = measure(target)
        send(sessions // 10, 0)
        marks = [measure(target, settled=True)]
        began = time.monotonic()
        for number in range(1, MARKS):
            send(sessions // MARKS, number)
            marks.append(measure(target, settled=number == MARKS - 1))
        seconds = time.monotonic() - began
    grown = marks[-1].memory - marks[0].memory
    each = slope([mark.memory for mark in marks[2:]]) / max(sessions / MARKS, 1)
    rate = sessions * (MARKS - 1) / MARKS / seconds
    sizes = " -> ".join(f"{mark.memory / KIB / KIB:.1f}" for mark in (before, marks[0], marks[-1]))
    print(f"{kind:15} {sessions:8} sessions  {sizes} MiB  {each:8.1f} bytes a session  {rate:6.0f}/s", flush=True)
    wrong = []
    if grown > most:
        wrong.append(f"{kind}: memory has grown by {grown / KIB:.0f} KiB in {sessions} sessions")
    if marks[-1].descriptors > marks[0].descriptors:
        wrong.append(f"{kind}: {marks[-1].descriptors - marks[0].descriptors} descriptors are left")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20000, help="of each kind (default: 20000)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"some of {','.join(KINDS)} (default: all)")
    parser.add_argument("--most", type=int, default=8192, metavar="KIB", help="growth after warm-up (default: 8192)")
    parser.add_argument("--clients", type=int, default=2, help="processes, six threads each (default: 2)")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    for kind in kinds:
        if kind not in KINDS:
            parser.error(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    wrong = []
    with ProcessPoolExecutor(arguments.clients, get_context("spawn")) as pool:
        for kind in kinds:
            wrong += soak(kind, arguments.sessions, arguments.most * KIB, pool, arguments.clients)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
