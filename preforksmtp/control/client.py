"""The other end of the control socket: one order to a running master, and the wait for its outcome.

Knows the protocol of control.py and nothing of what the orders mean. Raises Unreachable where no master answers, or
somebody who is not to be believed, and Overdue where it takes longer than one cares to wait; the order goes on then.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

BUSY = 10.0  # seconds for a place in the queue of a master that others keep busy
LONGEST = 64 << 20  # bytes of an answer
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class Unreachable(Exception):
    """One line: the socket, and what is wrong there."""


class Overdue(Exception):
    """No outcome within the time given."""


@dataclass(frozen=True)
class Outcome:
    """`result` of an order that was carried out; `error`, one line, of one that was not."""

    ok: bool
    result: Any
    error: str


def give(path: str, words: Sequence[str], seconds: float, trusted: Collection[int]) -> Outcome:
    """Give an order and wait for its outcome, so many seconds at most; 0: for ever. `trusted`: who may answer."""
    deadline = time.monotonic() + seconds if seconds else 0.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            _connect(sock, path, deadline or time.monotonic() + BUSY)
            _check_peer(sock, path, trusted)
            sock.settimeout(seconds or None)
            sock.sendall(json.dumps({"order": list(words)}).encode() + b"\n")
            line = _read(sock, deadline)
            answer = json.loads(line)
            outcome = Outcome(bool(answer["ok"]), answer.get("result"), str(answer.get("error", "")))
            if outcome.ok and words[0] == "shutdown":
                _await_end(sock, deadline)
        except TimeoutError:
            raise Overdue from None
        except OSError as error:
            raise Unreachable(f"{path}: {_explain(error)}") from None
        except (ValueError, KeyError, TypeError):
            raise Unreachable(f"{path}: what answers there is no preforksmtp, or it did not hear this user") from None
    return outcome


def _connect(sock: socket.socket, path: str, deadline: float) -> None:
    """OSError, TimeoutError."""
    sock.setblocking(False)
    while True:
        try:
            return sock.connect(path)
        except BlockingIOError:  # unix(7): its queue is full
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def _check_peer(sock: socket.socket, path: str, trusted: Collection[int]) -> None:
    """Whoever may write to the folder can listen there himself. Elsewhere than on Linux the folder's owner decides."""
    if sys.platform != "linux":
        return
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid = _CREDENTIALS.unpack(credentials)[1]
    if uid not in trusted:
        known = f"uid {uid} answers there, neither root nor you"
        raise Unreachable(f"{path}: {known}; if that is right, say so with --user {uid}")


def _read(sock: socket.socket, deadline: float) -> bytes:
    """The answer's line. TimeoutError, OSError, ValueError."""
    line = b""
    while not line.endswith(b"\n"):
        if deadline:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
        data = sock.recv(65536)
        if not data or len(line) > LONGEST:
            raise ValueError("no whole line")
        line += data
    return line


def _await_end(sock: socket.socket, deadline: float) -> None:
    """The master has stopped all; the end of its process, after which another may be started, closes the connection."""
    if deadline:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass


def _explain(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such socket; is the server running, with control_socket set?"
    if isinstance(error, ConnectionRefusedError):
        return "no server listens there any more"
    if isinstance(error, BlockingIOError):
        return "the server has too many orders waiting"
    if isinstance(error, PermissionError):
        return "no permission; it is for the server's own user and root"
    return error.strerror or str(error) or type(error).__name__
