"""What whoever starts us leaves us: closed standard streams, descriptors, blocked signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.processes import ROOT

ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}

# Prints to descriptor 3, or where argv says: with streams closed there is nothing else to print to.
PROGRAM = """
import json, os, signal, sys
out = int(sys.argv[1])
os.set_inheritable(out, False)
from preforksmtp.process.inheritance import begin
inheritance = begin()
first = os.open("/dev/zero", os.O_RDONLY)
own = os.pipe()
pid = os.fork()
if pid == 0:
    inheritance.close(keep=[int(fd) for fd in sys.argv[2].split(",") if fd])
    left = sorted(int(fd) for fd in os.listdir("/dev/fd"))
    streams = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
    print("lost")
    print("lost", file=sys.stderr)
    sys.stdout.flush()
    mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    inherit = [os.get_inheritable(fd) for fd in (0, 1, 2)]
    os.write(out, json.dumps([left, first, streams, mask, list(own), inherit]).encode())
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def run(shell: str, keep: str = "", **popen: object) -> list[object]:
    """What the child of the program says; `shell` starts it with $PROGRAM."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    environ = {**ENVIRON, "PROGRAM": PROGRAM, "PYTHON": sys.executable, "OUT": str(write), "KEEP": keep}
    command = ["bash", "-c", f'exec "$PYTHON" -c "$PROGRAM" "$OUT" "$KEEP" {shell}']
    code = subprocess.run(command, env=environ, close_fds=False, check=False, **popen).returncode  # type: ignore[call-overload]
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    assert code == 0, text
    found: list[object] = json.loads(text)
    return found


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"])
def test_closed_streams_are_dev_null(closed: str) -> None:
    _, first, streams, _, _, inheritable = run(closed)
    assert isinstance(first, int)
    assert first > 2
    assert isinstance(streams, list)
    names = {"<&-": 0, ">&-": 1, "2>&-": 2}
    assert all(streams[names[word]] == "/dev/null" for word in closed.split())
    assert inheritable == [True, True, True]


def test_descriptors_of_nobodys_are_in_no_child() -> None:
    left, first, _, _, own, _ = run("7</dev/null 8</dev/null 9</dev/null", keep="8")
    assert isinstance(left, list)
    assert isinstance(own, list)
    assert 7 not in left
    assert 9 not in left
    assert {8, first, *own} <= set(left)


def test_blocked_signals_are_let_in() -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])

    mask = run("", preexec_fn=block)[3]
    assert mask == []


def test_a_number_that_is_another_files_by_now_stays_open() -> None:
    script = """
import os
from preforksmtp.process.inheritance import begin
inheritance = begin()
os.close(7)
assert os.dup2(os.open("/dev/zero", os.O_RDONLY), 7) == 7
inheritance.adopt([8])
inheritance.close()
os.fstat(7), os.fstat(8)
try:
    os.fstat(9)
except OSError:
    print("closed")
"""
    command = ["bash", "-c", 'exec "$PYTHON" -c "$SCRIPT" 7</dev/null 8</dev/null 9</dev/null']
    environ = {**ENVIRON, "SCRIPT": script, "PYTHON": sys.executable}
    assert subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout == "closed\n"


def test_passed_on_as_they_came() -> None:
    script = """
import os
from preforksmtp.process.inheritance import begin
inheritance = begin()
before = os.get_inheritable(7)
inheritance.pass_on()
print(before, os.get_inheritable(7))
"""
    command = ["bash", "-c", 'exec "$PYTHON" -c "$SCRIPT" 7</dev/null']
    environ = {**ENVIRON, "SCRIPT": script, "PYTHON": sys.executable}
    assert subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout == "False True\n"
