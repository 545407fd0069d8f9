"""An application whose handler does what the message tells it: the worker of somebody who has taken it over completely.

Its verbs are functions below, one for each channel by which a worker reaches its master or its siblings. Run in a worker
by test_hostile.py; knows /proc and ctypes, and of the server only what an attacker with the source in hand knows.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import random
import resource
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
libc.mremap.restype = ctypes.c_void_p
EXTREME = (0, 1, 2, 9, 77, 255, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)


def handler(message: Any) -> str:
    verb, *words = message.content.decode().split()
    return str(globals()[verb](*words))


def mappings() -> list[tuple[int, int, str]]:
    """All that is shared with somebody: (begin, end, rights)."""
    found = []
    with open("/proc/self/maps") as file:
        for line in file:
            place, rights, *_ = line.split()
            if rights[3] == "s":
                begin, _, end = place.partition("-")
                found.append((int(begin, 16), int(end, 16), rights))
    return found


def reach() -> str:
    """Try every way to write to what is mapped for reading. Says how many octets can be written."""
    for begin, end, rights in mappings():
        if rights[1] == "-" and libc.mprotect(begin, end - begin, 3) == 0:
            return f"mprotect has given {end - begin} octets"
    for name in os.listdir("/proc/self/map_files"):
        with contextlib.suppress(OSError):
            os.open(f"/proc/self/map_files/{name}", os.O_RDWR)
            if "memfd" in os.readlink(f"/proc/self/map_files/{name}"):
                return f"{name} can be opened"
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "memfd" in os.readlink(f"/proc/self/fd/{name}"):
                return f"descriptor {name} was left open"
    return str(sum(end - begin for begin, end, rights in mappings() if rights[1] == "w"))


def grow() -> str:
    """Make each writable piece four times as long, to reach what lies behind it, and write there: we are to die."""
    for begin, end, rights in mappings():
        size = end - begin
        if rights[1] == "w":
            place = libc.mremap(begin, size, 4 * size, 1)
            if place != ctypes.c_void_p(-1).value:
                (ctypes.c_uint64 * (size // 2)).from_address(place)[size // 8] = 77
                return "what lies behind was reached"
    return "nothing to make longer"


def scribble(seed: str, seconds: str) -> str:
    """Every word that can be written gets a chosen value, then random ones get random values."""
    rng, end = random.Random(seed), time.monotonic() + float(seconds)
    words = [
        (ctypes.c_uint64 * ((end - begin) // 8)).from_address(begin)
        for begin, end, rights in mappings()
        if rights[1] == "w"
    ]
    for value in EXTREME:
        for part in words:
            ctypes.memmove(part, struct.pack("=Q", value) * len(part), ctypes.sizeof(part))
        time.sleep(0.02)
    while time.monotonic() < end:
        part = rng.choice(words)
        part[rng.randrange(min(len(part), rng.choice((16, 4096, len(part)))))] = rng.choice((rng.getrandbits(64), *EXTREME))
    return "still alive"


def gauge(name: str, value: str, seconds: str = "2.5") -> str:
    """One word that has a name, as an attacker with the source finds it."""
    from preforksmtp.prefork.scoreboard import Slot

    (slot,) = (each for each in gc.get_objects() if isinstance(each, Slot) and each.pid == os.getpid())
    for _ in range(int(float(seconds) / 0.005)):  # our own main thread says something else, twice a second
        slot.gauges[vars(Slot)[name].word] = int(value)
        time.sleep(0.005)
    return "still alive"


def counter(index: str, value: str, seconds: str = "4") -> str:
    from preforksmtp.prefork.scoreboard import Slot

    (slot,) = (each for each in gc.get_objects() if isinstance(each, Slot) and each.pid == os.getpid())
    for row in slot.rows:
        row[int(index)] = int(value)
    time.sleep(float(seconds))
    return "still alive"


def answer(text: str) -> str:
    """What the master gets when it asks for the sessions: this, again and again."""
    from preforksmtp.prefork.pages import PAGE
    from preforksmtp.prefork.worker import answer as answers

    octets = {
        "nested": b"[" * PAGE,
        "number": b'{"seconds": ' + b"9" * (PAGE - 20) + b"}",
        "types": b'{"session": [1], "seconds": {"a": 1}, "peer": null, "left_out": "x"}\n' * 100,
        "escapes": b'{"session": "\\u001b]0;x\\u0007\\u202e", "peer": "\\u001b[2J", "seconds": 1}\n',
        "octets": bytes(range(256)) * 100,
        "list": b"[1, 2]\n3\nnull\n",
    }[text]
    answers._text = lambda lines: octets
    return "ready"


def flood(seconds: str) -> str:
    """Fill every pipe that we hold an end of, without a pause; but the log's, where the test reads."""
    end, written = time.monotonic() + float(seconds), 0
    logs = {os.readlink(f"/proc/self/fd/{number}") for number in (1, 2)}
    pipes = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("pipe:") and target not in logs:
                pipes.append(int(name))
                os.set_blocking(int(name), False)
                fcntl.fcntl(int(name), fcntl.F_SETPIPE_SZ, 1 << 20)
    while time.monotonic() < end:
        for fd in pipes:
            with contextlib.suppress(OSError):
                written += os.write(fd, bytes(65536))
    return f"{written} octets"


def blink(seconds: str) -> str:
    """Stop and continue: the kernel tells our parent each time."""
    end, ours = time.monotonic() + float(seconds), os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            while time.monotonic() < end and os.getppid() == ours:
                os.kill(ours, signal.SIGSTOP)
                os.kill(ours, signal.SIGCONT)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return "done"


def listeners(how: str) -> str:
    """Spoil the sockets that all workers accept on."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(int(name)))
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                if how == "shutdown":
                    sock.shutdown(socket.SHUT_RDWR)
                elif how == "nonblocking":
                    sock.setblocking(False)
                elif how == "endless":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
            sock.close()
    return "done"


def others(path: str) -> str:
    """Signal the master, attach to it, speak to its control socket; what was allowed."""
    master, allowed = os.getppid(), []
    for number in (0, signal.SIGTERM, signal.SIGSTOP, signal.SIGUSR2):
        with contextlib.suppress(PermissionError):
            os.kill(master, number)
            allowed.append(f"signal {number}")
    with contextlib.suppress(PermissionError):
        os.open(f"/proc/{master}/mem", os.O_RDWR)
        allowed.append("mem")
    with contextlib.suppress(PermissionError):
        allowed += [f"fd {name}" for name in os.listdir(f"/proc/{master}/fd")]
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(PermissionError):
        sock.connect(path)
        allowed.append("control socket")
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(master, resource.RLIMIT_NOFILE, (1, 1))
        allowed.append("prlimit")
    return ", ".join(allowed) or "nothing"


def massacre(seconds: str) -> str:
    """Kill our siblings, the status process among them; how many could be killed."""
    end, killed = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                parent = int(Path(f"/proc/{int(name)}/stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getppid() and int(name) != os.getpid():
                    os.kill(int(name), signal.SIGKILL)
                    killed += 1
    return str(killed)


def getpid() -> int:
    return os.getpid()
