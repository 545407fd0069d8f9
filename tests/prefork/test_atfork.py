"""At a fork of the application's: what the child lets go of, what it leaves alone, and where it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from preforksmtp.prefork import atfork
from preforksmtp.prefork.atfork import Confined, drop_connections
from tests.processes import ROOT

# A process that is protected as a master or worker is. Its children write what they are.
PROGRAM = """
import os, signal, sys
from preforksmtp.prefork import atfork, signals

queue = signals.SignalQueue()
queue.install((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
signal.signal(signal.SIGUSR2, lambda *_: None)

def let_go():
    os.write(1, b"let go\\n")

def tell(name):
    names = {signal.SIG_DFL: "default", signal.default_int_handler: "Python's", queue._append: "ours"}
    shown = [names.get(signal.getsignal(number), "own") for number in (
        signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    os.write(1, f"{name} {shown} {sorted(mask)}\\n".encode())

def fork(name, then=lambda: None):
    pid = os.fork()
    if pid == 0:
        tell(name)
        then()
        os._exit(0)
    os.waitpid(pid, 0)

atfork.protect(let_go)
with atfork.own_fork():
    fork("ours", lambda: fork("of ours"))
fork("child", lambda: fork("grandchild"))
tell("parent")
"""


def test_whose_child_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ}
    )
    ours = "['ours', 'ours', 'ours', 'own']"
    default = """['default', "Python's", 'default', 'own']"""
    assert done.stdout.splitlines() == [
        f"ours {ours} []",  # and has yet to say what its own children let go of
        f"of ours {ours} []",
        "let go",
        f"child {default} []",  # the application's own handler stays
        f"grandchild {default} []",
        f"parent {ours} []",
    ]


def in_child(run: Callable[[], object]) -> object:
    """What `run` returns in a child of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, repr(run()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return eval(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "", "::1"])
@pytest.mark.parametrize("default", [None, 5.0])
def test_sockets_of_these_addresses_go_and_no_others(host: str, default: float | None) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_server((host, 0), family=family) as other,
        socket.create_connection((host or "127.0.0.1", listener.getsockname()[1])) as client,
        listener.accept()[0] as accepted,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
    ):
        numbers = [sock.fileno() for sock in (listener, accepted, other, client, datagrams)]

        def look() -> list[bool]:
            socket.setdefaulttimeout(default)
            drop_connections([listener.getsockname()])
            assert socket.getdefaulttimeout() == default
            return [os.readlink(f"/proc/self/fd/{number}") == os.devnull for number in numbers]

        assert in_child(look) == [True, True, False, False, False]
        assert os.get_blocking(other.fileno()), "the parent's sockets are as they were"
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"


def test_unix_sockets(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        accepted = listener.accept()[0]
        one, two = socket.socketpair()
        numbers = [sock.fileno() for sock in (listener, accepted, client, one)]

        def look() -> list[bool]:
            drop_connections([listener.getsockname(), ""])
            return [os.readlink(f"/proc/self/fd/{number}") == os.devnull for number in numbers]

        assert in_child(look) == [True, True, False, False]
        for sock in (accepted, one, two):
            sock.close()


def come_back() -> None:
    if os.fork():
        os.wait()


def raise_in_child(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        if os.fork() == 0:
            raise error
        assert os.waitstatus_to_exitcode(os.wait()[1]) == (3 if isinstance(error, SystemExit) else 1)

    return run


@pytest.mark.parametrize("run", [come_back, raise_in_child(SystemExit(3)), raise_in_child(ValueError("x"))])
def test_what_comes_back_out_of_confined_code_ends(run: Callable[[], None]) -> None:
    pid = os.getpid()
    try:
        with Confined("the test"):
            run()
    finally:
        if os.getpid() != pid:
            os._exit(99)


def test_what_happens_in_this_process_passes() -> None:
    with pytest.raises(ZeroDivisionError), Confined("the test"):
        raise ZeroDivisionError


def test_the_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    for error in (None, ValueError("x"), SystemExit(5), SystemExit("text"), SystemExit(None)):
        atfork.end_stray("hook x", error)  # type: ignore[unused-ignore]
    assert codes == [0, 1, 5, 1, 0]
    assert caplog.messages == [
        f"process {os.getpid()}, forked in hook x, came back from there, and is ended; end it by os._exit()",
        f"process {os.getpid()}, forked in hook x, raised ValueError",
    ]
