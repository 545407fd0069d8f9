"""What the tests of conf/ have in common: where it is, and the programs that its files are for."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent.parent / "conf"


def run(*command: str, code: int = 0, **popen: object) -> str:
    """Its output, errors included, once it has ended with `code`."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **popen
    )  # type: ignore[call-overload]
    assert done.returncode == code, done.stdout
    assert isinstance(done.stdout, str)
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Ports for programs that cannot be asked which one they got."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
