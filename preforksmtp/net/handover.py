"""Listeners handed from one master to the next (an upgrade), through descriptors that survive exec and one variable.

The variable PREFORKSMTP_FD is a JSON list: for each listener its descriptor and those of its further lanes, its
address, the bind it served, the file it owns, with its inode, and its name if systemd passed it. Each descriptor is
verified: it must be a listening socket with that address.
Both masters have the socket for a while, so neither removes the file of a unix socket while the other lives
(`Listener.shared`). Fails with ListenError, one line.
"""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping, Sequence
from socket import socket

from preforksmtp.net.activation import VARIABLES, InheritError, Passed, adopt_socket
from preforksmtp.net.bind import Bind, parse_bind
from preforksmtp.net.lanes import is_listening
from preforksmtp.net.listener import Listener, ListenError, format_address, prepare_socket

VARIABLE = "PREFORKSMTP_FD"


def hand_over(listeners: Sequence[Listener], environ: MutableMapping[str, str]) -> None:
    """The process that is about to exec: let the sockets through, and describe them in `environ`."""
    for name in VARIABLES:  # systemd's, from the start of the first master
        environ.pop(name, None)
    environ[VARIABLE] = pack(listeners)


def pack(listeners: Sequence[Listener]) -> str:
    """What take_over() reads. The sockets pass exec from now on."""
    rows = []
    binds: list[Bind] = []
    for listener in listeners:
        if not any(listener.bind is bind for bind in binds):
            binds.append(listener.bind)
        lanes = [sock for sock in listener.lanes if is_listening(sock)]
        number = next(index for index, bind in enumerate(binds) if bind is listener.bind)
        rows.append(
            {
                "fd": listener.socket.fileno(),
                "lanes": [sock.fileno() for sock in lanes],
                "address": format_address(listener.socket),
                "bind": listener.bind.text,
                "number": number,  # a bind may have several sockets, and two binds the same text (port 0)
                "scheme": listener.bind.scheme,
                "path": listener.path,
                "inode": listener.inode,
                "passed": listener.passed and [listener.passed.fd, listener.passed.name],
            }
        )
        for sock in (listener.socket, *lanes):
            sock.set_inheritable(True)
    return json.dumps(rows)


def take_over(text: str) -> list[Listener]:
    """The new master: the sockets that the variable names. They are close-on-exec again at once."""
    listeners: list[Listener] = []
    binds: dict[int, Bind] = {}
    try:
        for row in json.loads(text or "[]"):
            listeners.append(_take(row, binds))
    except (ValueError, KeyError, TypeError, InheritError) as error:
        for listener in listeners:
            listener.close()
        raise ListenError(f"{VARIABLE}: {error}") from None
    return listeners


def _take(row: dict[str, object], binds: dict[int, Bind]) -> Listener:
    fd, number, text = int(str(row["fd"])), int(str(row["number"])), str(row["bind"])
    sock = _adopt(fd, str(row["address"]))
    if number not in binds:
        known = text.startswith("fd://") and row["passed"]  # a bind that systemd's socket brought with it
        binds[number] = Bind(text, str(row["scheme"]), fd=fd) if known else parse_bind(text)
    passed = Passed(*row["passed"]) if isinstance(row["passed"], list) else None
    path = str(row["path"]) if row["path"] is not None else None
    inode = row.get("inode")
    known_inode = (int(inode[0]), int(inode[1])) if isinstance(inode, list) else None
    listener = Listener(binds[number], sock, path=path, inode=known_inode, passed=passed)
    listener.shared = True
    lanes = row.get("lanes", [])
    listener.lanes += [_adopt(int(lane), str(row["address"])) for lane in (lanes if isinstance(lanes, list) else [])]
    return listener


def _adopt(fd: int, address: str) -> socket:
    sock = adopt_socket(fd)
    os.set_inheritable(fd, False)
    if format_address(sock) != address:
        sock.close()
        raise InheritError(f"descriptor {fd} is {format_address(sock)}, not {address}")
    prepare_socket(sock)
    return sock


def share(listeners: Sequence[Listener], shared: bool) -> None:
    """Whether another master has these sockets as well."""
    for listener in listeners:
        listener.shared = shared


