"""Memory that sessions cost, by what they are doing: `python3 loadtest/memory.py [--sessions N]`.

For each state a server with one worker is started, so many sessions are brought into it, and the resident memory of
the worker that came with them is divided by their number: thread, socket and what malloc keeps included.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from target import Target

KIB = 1024
THRESHOLD = 1024 * KIB  # spool_threshold's default
FEW = 64 * KIB  # for messages in pieces of one octet
LINE = b"x" * 76 + b"\r\n"


class Client:
    """One session."""

    def __init__(self, target: Target, scheme: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", target.ports[scheme]), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start_tls(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    def hear(self) -> None:
        """A whole reply."""
        heard = b""
        while not (heard.endswith(b"\n") and heard.splitlines()[-1][3:4] == b" "):
            heard += self.socket.recv(65536)
        if heard[:1] not in b"23":
            raise SystemExit(f"the server refuses: {heard!r}")

    def ask(self, *lines: bytes) -> None:
        for line in lines:
            self.socket.sendall(line + b"\r\n")
            self.hear()

    def begin(self) -> None:
        self.hear()
        self.ask(b"EHLO client.example.com")

    def begin_message(self) -> None:
        self.begin()
        self.ask(b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.com>")

    def begin_data(self, octets: int) -> None:
        self.begin_message()
        self.ask(b"DATA")
        self.socket.sendall(LINE * (octets // len(LINE)))


def silent(client: Client) -> None:
    """Nothing."""


def idle(client: Client) -> None:
    client.begin()


def command(client: Client) -> None:
    client.begin()
    client.socket.sendall(b"x" * 12000)


def auth(client: Client) -> None:
    client.begin()
    client.socket.sendall(b"AUTH LOGIN\r\n")
    client.hear()
    client.socket.sendall(b"A" * 12000)


def recipients(client: Client) -> None:
    client.begin_message()
    for number in range(999):
        client.ask(b"RCPT TO:<%03d%b@%b.example.com>" % (number, b"x" * 60, (b"y" * 60 + b".") * 2 + b"z" * 40))


def small(client: Client) -> None:
    client.begin_data(10 * KIB)


def threshold(client: Client) -> None:
    client.begin_data(THRESHOLD - 4 * KIB)


def spooled(client: Client) -> None:
    client.begin_data(4 * THRESHOLD)


def chunks(client: Client) -> None:
    client.begin_message()
    for _ in range(FEW // 512):
        client.socket.sendall(b"BDAT 1\r\nx" * 512)
        heard = 0
        while heard < 512:
            heard += client.socket.recv(65536).count(b"\n")


def half_hello(client: Client) -> None:
    client.socket.sendall(b"\x16\x03\x01\x3e\x80\x01\x00\x3e\x7c\x03\x03" + bytes(15000))


STATES: dict[str, tuple[str, Callable[[Client], None], str]] = {
    "idle": ("smtp", idle, "after EHLO"),
    "in a command": ("smtp", command, "12,000 octets of a line"),
    "in AUTH": ("smtp", auth, "12,000 octets of a response"),
    "with recipients": ("smtp", recipients, "1,000 of 230 octets"),
    "in a small body": ("smtp", small, "10 KiB"),
    "in a body at the threshold": ("smtp", threshold, "1 MiB, spool_threshold"),
    "the same, BDAT 1 each": ("smtp", chunks, "64 KiB in chunks of one octet"),
    "in a body above it": ("smtp", spooled, "4 MiB, in a file"),
    "before a TLS hello": ("smtps", silent, ""),
    "in a TLS hello": ("smtps", half_hello, "15,000 octets of it"),
    "idle in TLS": ("smtps", idle, "after EHLO"),
    "in AUTH in TLS": ("smtps", auth, "12,000 octets of a response"),
    "in a body at the threshold in TLS": ("smtps", threshold, "1 MiB, spool_threshold"),
}


def resident(target: Target) -> int:
    """Of the worker, in bytes, once it does not change any more."""
    (worker,) = target.workers()
    seen, before = 0, -1
    while seen != before:
        time.sleep(0.3)
        before = seen
        lines = Path(f"/proc/{worker}/status").read_text().splitlines()
        seen = next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS:"))
    return seen


def measure(name: str, sessions: int) -> float:
    """KiB a session."""
    scheme, act, _ = STATES[name]
    arguments = ("--workers", "1", "--threads", str(sessions + 20), "--allow-insecure-auth", "--max-idle-commands", "0")
    with Target(*arguments, tls=True) as target, contextlib.ExitStack() as stack:
        for _ in range(3):  # what is imported late, is
            with enter(target, scheme, idle).socket:
                pass
        before = resident(target)
        clients = [enter(target, scheme, act) for _ in range(sessions)]
        for client in clients:
            stack.enter_context(client.socket)
        return (resident(target) - before) / sessions / KIB


def enter(target: Target, scheme: str, act: Callable[[Client], None]) -> Client:
    client = Client(target, scheme)
    if scheme == "smtps" and act not in (silent, half_hello):
        client.start_tls()
    act(client)
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("states", nargs="*", default=list(STATES), metavar="STATE", help="default: all")
    parser.add_argument("--sessions", type=int, default=100, help="in each state (default: 100)")
    arguments = parser.parse_args()
    print("| a session | KiB | |\n|---|---|---|", flush=True)
    for name in arguments.states:
        if name not in STATES:
            parser.error(f"no state {name!r}; there are {', '.join(STATES)}")
        print(f"| {name} | {measure(name, arguments.sessions):.0f} | {STATES[name][2]} |", flush=True)


if __name__ == "__main__":
    main()
