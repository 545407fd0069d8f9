"""A revision: from the listeners that are open to those that the binds now ask for, each address open all the while.

Runs in the master, at a reload and when it takes over from another one. A socket whose place (host and port, path or
descriptor) is still asked for is kept, whatever else of its bind has changed; new ones are opened first, and only
commit() closes those nobody asks for. What systemd passed stays open for life. Fails with ListenError, and then nothing
has changed.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from preforksmtp.net.activation import find_bind
from preforksmtp.net.bind import Bind
from preforksmtp.net.lanes import is_listening
from preforksmtp.net.listener import Listener, open_listeners

log = logging.getLogger("preforksmtp")

Place = tuple[str | None, int | None, str | None, int | None]


@dataclass
class Revision:
    """What follows from new binds. `listeners` is the whole list; the former one is still open as well."""

    listeners: list[Listener]
    added: list[Listener]
    removed: list[Listener]
    kept: list[Listener] = field(default_factory=list)
    backlog: int = 0

    def commit(self) -> None:
        """The new ones are served: close the others, and give those that stay the options of their new binds."""
        for listener in self.removed:
            log.info("no longer listening on %s", listener.address)
            listener.close()
        for listener in self.kept:
            if listener.passed is None and listener.bind.fd is None:
                for sock in listener.sockets():
                    if is_listening(sock):
                        sock.listen(self.backlog)
            if listener.path is not None and listener.bind.mode is not None:
                try:
                    listener.change_mode(listener.bind.mode)
                except OSError as error:
                    log.error("cannot change the mode of %s: %s", listener.path, error.strerror)

    def abandon(self) -> None:
        for listener in self.added:
            listener.close()


def revise_listeners(current: Sequence[Listener], binds: Iterable[Bind], *, backlog: int, tries: int = 1) -> Revision:
    """Keep what is asked for, open what is missing. An address in use is tried so many times, a second apart."""
    asked = list(binds)
    found: dict[int, list[Listener]] = {}  # index of the bind -> its listeners
    extra = _reassign_passed(current, asked, found)
    groups = _groups([listener for listener in current if listener.passed is None])
    for index, bind in enumerate(asked):
        if index not in found and (waiting := groups.get(_place(bind))):
            found[index] = [listener.serving(bind) for listener in waiting.pop(0)]
    added: list[Listener] = []
    missing = [index for index in range(len(asked)) if index not in found]
    opened = open_listeners([asked[index] for index in missing], backlog=backlog, environ={}, tries=tries)
    for index in missing:
        found[index] = [listener for listener in opened if listener.bind is asked[index]]
        added += found[index]
    listeners = [*extra, *(listener for index in range(len(asked)) for listener in found[index])]
    kept = [listener for listener in listeners if listener not in added]
    left: set[socket.socket] = {listener.socket for listener in listeners}
    removed = [listener for listener in current if listener.socket not in left]
    return Revision(listeners, added, removed, kept, backlog)


def _reassign_passed(
    current: Sequence[Listener], binds: list[Bind], found: dict[int, list[Listener]]
) -> list[Listener]:
    """Match what systemd passed with the binds anew. Returns those that no bind asks for; they are served as well."""
    extra = []
    for listener in current:
        if listener.passed is None:
            continue
        index = find_bind(listener.passed, listener.socket, binds, set(found))
        if index is None:
            scheme = listener.passed.scheme or "smtp"
            extra.append(listener.serving(Bind(f"fd://{listener.passed.fd}", scheme, fd=listener.passed.fd)))
        else:
            found.setdefault(index, []).append(listener.serving(binds[index]))
    return extra


def _groups(listeners: Iterable[Listener]) -> dict[Place, list[list[Listener]]]:
    """Place -> the listeners of each bind there; one bind may have several, and port 0 several binds."""
    groups: dict[Place, list[list[Listener]]] = {}
    for listener in listeners:
        there = groups.setdefault(_place(listener.bind), [])
        if there and there[-1][0].bind is listener.bind:
            there[-1].append(listener)
        else:
            there.append([listener])
    return groups


def _place(bind: Bind) -> Place:
    return bind.host, bind.port, bind.path, bind.fd
