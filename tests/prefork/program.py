"""The smallest program around the real Master, run by test_master.py: `python program.py JSON`.

It speaks a line protocol on 127.0.0.1; `boot` names what goes wrong at boot. Not a test itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from preforksmtp.net.drain import await_socket
from preforksmtp.prefork.hooks import Hooks
from preforksmtp.prefork.master import child
from preforksmtp.prefork.master.master import Master
from preforksmtp.prefork.scoreboard import MESSAGES, READY
from preforksmtp.prefork.worker import worker
from preforksmtp.prefork.worker.contract import BootFailed
from preforksmtp.prefork.worker.pool import Serve
from preforksmtp.prefork.worker.seat import Seat
from preforksmtp.prefork.worker.worker import Worker


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings, and what to break."""

    workers: int = 1
    threads: int = 8
    graceful_timeout: float = 10.0
    drain_delay: float = 0.0
    boot_timeout: float = 10.0
    timeout: float = 0.0
    handler_timeout: float = 0.0
    max_sessions: int = 0
    max_sessions_jitter: int = 0
    max_worker_memory: int = 0
    max_worker_age: float = 0.0
    listeners: int = 1
    reuse_port: bool = False
    scheduling: str = "auto"
    boot: str = "ok"
    files: int = 0  # RLIMIT_NOFILE of a worker beyond what it has open
    shrink_every: float = 0.0
    before_fork: str = ""
    roll: bool = False  # on USR1
    gate: str = ""  # no worker gets past its boot while this file is there
    hanging_hook: str = ""
    hearing: float = 0.0  # 0: as it is
    mercy: float = 0.0  # seconds of slack, and again between ABRT and KILL; 0: as they are
    last_words: float = 0.0  # seconds for exit callbacks, and of a quick stop until KILL; 0: as they are
    farewell: float = 0.0  # 0: as it is


class Listeners:
    """With reuse_port lane 1 is another socket of the same address, and so on."""

    def __init__(self, number: int) -> None:
        self.lanes = [[listener() for _ in range(number)]]

    def lane(self, number: int) -> list[socket.socket]:
        while len(self.lanes) <= number:
            self.lanes.append([listener(first.getsockname()) for first in self.lanes[0]])
        return self.lanes[number]

    def every(self) -> list[socket.socket]:
        return [sock for lane in self.lanes for sock in lane]

    def cut(self, lanes: int) -> None:
        while len(self.lanes) > lanes:
            for sock in self.lanes.pop():
                sock.close()


def listener(address: tuple[str, int] = ("127.0.0.1", 0)) -> socket.socket:
    sock = socket.create_server(address, backlog=128, reuse_port=True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 500_000))
    if not address[1]:
        print("listening on", sock.getsockname()[1], flush=True)
    return sock


def serve(connection: socket.socket, peer: Any, index: int, seat: Seat) -> None:
    with contextlib.suppress(ConnectionResetError):
        talk(connection, index, seat)


def turn_away(connection: socket.socket, index: int) -> None:
    with connection:
        connection.sendall(f"421 listener {index}\n".encode())


def talk(connection: socket.socket, index: int, seat: Seat) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
    over = seat.drain.requested  # it was in the queue
    with connection, connection.makefile("rwb", buffering=0) as stream:
        while not (over := over or told(connection, seat)) and (line := stream.readline()):
            if line == b"raise\n":
                raise ZeroDivisionError("as asked")
            stream.write(f"{answer(line.decode().strip(), index, seat)}\n".encode())
        if over:
            stream.write(b"421 leaving\n")


def told(connection: socket.socket, seat: Seat) -> bool:
    """Wait for a line. Has the worker waited long enough?"""
    try:
        await_socket(connection, select.POLLIN, time.monotonic() + 3600, seat.drain, idle=True)
    except InterruptedError:
        return True
    return False


def answer(line: str, index: int, seat: Seat) -> object:
    if line == "pid":
        return os.getpid()
    if line == "listener":
        return index
    if line == "thread":
        return threading.current_thread().name
    if line == "threads":
        return sum(thread.name.startswith("session-") for thread in threading.enumerate())
    if line == "count":
        seat.row[MESSAGES] += 1
        return seat.row[MESSAGES]
    if line == "cpu":
        return time.process_time()
    if line == "sleep":
        print("sleeping", flush=True)
        time.sleep(3600)
    if line == "recurse":
        return recurse()
    return f"what is {line}?"


def recurse() -> str:
    """Deep recursion through C, which needs the most stack."""
    try:
        return str(sorted([1], key=lambda _: len(recurse_in_c())))
    except RecursionError:
        return "RecursionError"


def recurse_in_c(_: object = None) -> list[int]:
    return sorted([1], key=recurse_in_c)


def boot_of(options: Options) -> Any:
    def boot(worker: Worker) -> Serve:
        worker.log.info("booting %d", worker.pid)
        worker.on_exit.append(lambda: worker.log.info("exit callback of %d", worker.pid))
        worker.on_reopen.append(lambda: worker.log.info("reopened in %d", worker.pid))
        if options.files:
            used = len(os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + options.files,) * 2)
        if options.boot == "the first only" and worker.slot > 0:
            raise BootFailed(4, "the app is broken now")
        while options.gate and os.path.exists(options.gate):
            time.sleep(0.005)
        fail(options.boot, worker)
        worker.turn_away = turn_away
        return serve

    return boot


def fail(how: str, worker: Worker) -> None:
    if how.startswith("code "):
        raise BootFailed(int(how[5:]), "the app is broken")
    if how == "raise":
        raise ZeroDivisionError("as asked")
    if how == "sys.exit":
        sys.exit(9)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(3600)
    if how == "crash":  # as soon as it serves
        threading.Thread(target=crash_when_ready, args=(worker,), daemon=True).start()
    if how == "stuck exit":
        import atexit

        atexit.register(time.sleep, 3600)


def crash_when_ready(worker: Worker) -> None:
    while worker.published.state != READY:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGSEGV)


def failing(advance: Callable[[], None], fault: type[BaseException]) -> Callable[[], None]:
    """Raises the third to the fifth time."""
    numbers = itertools.count(1)

    def step() -> None:
        if 3 <= next(numbers) <= 5:
            raise fault("as asked")
        advance()

    return step


def await_term() -> None:
    """Between fork() and the handlers, where every signal is blocked: until TERM is there, or was lost."""
    end = time.monotonic() + 10.0
    while signal.SIGTERM not in signal.sigpending() and time.monotonic() < end:
        time.sleep(0.005)


def main() -> None:
    options = Options(**json.loads(sys.argv[1]))
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s", stream=sys.stderr)
    if options.shrink_every:
        worker.SHRINK_EVERY = options.shrink_every
    if options.hearing:
        child.HEARING = options.hearing
    if options.mercy:
        child.SLACK = child.MERCY = options.mercy
        child.LIMIT = 2 * options.mercy
        child.ABORT = ((0.0, signal.SIGABRT), (options.mercy, signal.SIGKILL))
    if options.last_words:
        worker.LAST_WORDS = options.last_words
        child.QUICK = ((0.0, signal.SIGQUIT), (options.last_words, signal.SIGKILL))
    if options.farewell:
        worker.FAREWELL = options.farewell
    log = logging.getLogger("preforksmtp")
    listeners = Listeners(options.listeners)
    if options.before_fork == "foreign":
        subprocess.Popen(["sh", "-c", "exit 3"])
    master = Master(options, listeners, boot_of(options), log)
    if options.before_fork == "slow fork":
        os.register_at_fork(after_in_child=await_term)
    if options.before_fork in ("failing rounds", "fatal round"):
        fault = ZeroDivisionError if options.before_fork == "failing rounds" else KeyboardInterrupt
        master.recycling.advance = failing(master.recycling.advance, fault)  # type: ignore[method-assign]
    master.on_reopen.append(lambda: log.info("totals %s", json.dumps(master.board.readings().sessions)))
    if options.roll:
        master.on_reopen.append(lambda: master.roll("as asked"))
    if options.hanging_hook:
        master.hooks = Hooks({options.hanging_hook: lambda *_: time.sleep(3600)})
    master.on_ready.append(lambda: log.info("serving"))
    code = master.run()
    print("run() returned", code, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
