"""What becomes of a process that the application forks: by os.fork, by multiprocessing, as one of an executor's.

It begins as a copy of a worker (or master) in the middle of its work: with the listening sockets, the connections of
all sessions, the wake-up descriptors and the signal handlers. Before any code of the application's runs there it lets
go of them (os.register_at_fork), so that it keeps no port, holds no client, and dies of the signals it is sent. It ends
with the process that it comes from (offspring.py); and where the application lets it come back to us it ends at once
(`Confined` here, service.py in sessions). Forks of our own go through `own_fork` and are no such children.

Whoever is forked by C code behind Python's back keeps everything until it execs: all descriptors are close-on-exec.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from socket import SOCK_STREAM, getdefaulttimeout, setdefaulttimeout, socket
from types import TracebackType
from typing import Any, NoReturn

from preforksmtp.prefork import signals
from preforksmtp.prefork.offspring import Offspring

LetGo = Callable[[], None]

log = logging.getLogger("preforksmtp")

offspring = Offspring()  # of this process
_registered = False
_let_go: LetGo | None = None
_forking = 0  # the thread that forks for us
_masks: dict[int, set[int]] = {}  # by thread: of those that fork just now
_NOWHERE = (None, None)


def protect(let_go: LetGo = lambda: None) -> None:
    """Master, worker, aide: from now on a child that the application forks from this process begins with let_go()."""
    global _registered, _let_go
    _let_go = let_go
    if not _registered:
        _registered = True
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


@contextlib.contextmanager
def own_fork() -> Iterator[None]:
    """Master: what this thread forks within is ours. The child is not protected until it says so itself."""
    global _forking
    _forking = threading.get_ident()
    try:
        yield
    finally:
        _forking = 0


def _before() -> None:
    """Any thread. No signal may reach the child while it has our handlers: it would be lost."""
    thread = threading.get_ident()
    if _forking != thread:
        _masks[thread] = signal.pthread_sigmask(signal.SIG_BLOCK, signals.HANDLED)
        offspring.prepare()


def _in_parent() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    """The only thread there is."""
    global _forking, _let_go
    thread = threading.get_ident()
    own, _forking = _forking == thread, 0
    let_go, _let_go = _let_go, None  # once: its own children have nothing of ours any more
    if own:
        offspring.forget()
        multiprocessing = sys.modules.get("multiprocessing.process")
        getattr(multiprocessing, "_children", set()).clear()  # or it would end those of the master when we end
        return
    mask = _masks.pop(thread, set())
    _masks.clear()
    try:
        if let_go is not None:
            signals.to_default()
            let_go()
    finally:
        offspring.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def drop_connections(addresses: Iterable[Any]) -> None:
    """Child: let go of every socket that listens at one of these addresses or was accepted there.

    The kernel is asked, because one that was accepted a moment ago is known to a thread that does not exist here. The
    numbers stay taken, by /dev/null: objects that still have them will close nothing else.
    """
    wanted = {_place(address) for address in addresses} - {_NOWHERE}
    default = getdefaulttimeout()
    setdefaulttimeout(None)  # or each would be non-blocking from here on, in the parent as well
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in _descriptors():
        host, port = _bound_to(fd)
        if (host, port) in wanted or ("", port) in wanted:
            os.dup2(null, fd, inheritable=False)
    os.close(null)
    setdefaulttimeout(default)


def _bound_to(fd: int) -> tuple[Any, Any]:
    """The place of a stream socket; of whatever else it is _NOWHERE."""
    try:
        sock = socket(fileno=fd)
    except OSError:
        return _NOWHERE
    try:
        return _place(sock.getsockname()) if sock.type == SOCK_STREAM else _NOWHERE
    except OSError:
        return _NOWHERE
    finally:
        sock.detach()


def _place(address: Any) -> tuple[Any, Any]:
    """Host and port, "" for all addresses; or the name of a unix socket."""
    if isinstance(address, tuple):
        return ("" if address[0] in ("0.0.0.0", "::") else address[0]), address[1]
    return (address, "unix") if address else _NOWHERE


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return list(range(1024))


class Confined:
    """`with Confined("the hook x"):` around code of the application's, in the main thread. A process that it forks and
    lets come back out of there would go on as a second master or worker: it ends."""

    __slots__ = ("_pid", "_what")

    def __init__(self, what: object) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            end_stray(str(self._what), error)


def end_stray(where: str, error: BaseException | None = None) -> NoReturn:
    """Child: it has come back from `where`, with this exception. As os._exit() does, without exit callbacks and without
    writing buffers that the parent writes as well."""
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else error.code is not None
        elif error is not None:
            code = 1
            log.error("process %d, forked in %s, raised %s", os.getpid(), where, type(error).__name__, exc_info=error)
        else:
            line = "process %d, forked in %s, came back from there, and is ended; end it by os._exit()"
            log.warning(line, os.getpid(), where)
    finally:
        os._exit(code & 0xFF)
