"""What the tests of conf/ have in common: where it is, and the programs that its files are for."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent.parent / "conf"

# This process' own address of the loopback network, where no other test takes the port that was free a moment ago.
_PID = os.getpid()
LOCAL = f"127.{64 + (_PID >> 16) % 64}.{_PID >> 8 & 255}.{_PID & 255}"


def run(*command: str, code: int = 0, **popen: object) -> str:
    """Its output, errors included, once it has ended with `code`."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **popen
    )  # type: ignore[call-overload]
    assert done.returncode == code, done.stdout
    assert isinstance(done.stdout, str)
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Ports of LOCAL for programs that cannot be asked which one they got."""
    sockets = [socket.create_server((LOCAL, 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
