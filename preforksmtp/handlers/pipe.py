"""Pipe(command): run a command for every message, with the message on its standard input.

Never through a shell, and nothing a client says becomes an argument, where it could be taken for an option or a command
(CVE-2020-7247): the envelope is in the environment. Exit status 0 is 250, and the command's promise that the message is
stored; others refuse it for good or for now (see _REFUSED and _LATER). Whatever else goes wrong is 451 and a line in
the error log, where its standard error goes as well. If the worker is killed, the command's input ends early: fewer
octets than SIZE are not the message.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

from preforksmtp import Reject, Reply

if TYPE_CHECKING:
    from preforksmtp import Message

BLOCK = 64 * 1024  # of the message, read and written at once
OUTPUT_LIMIT = 4096  # octets of standard output that are kept; only its first line is used
ERROR_LIMIT = 8192  # octets of standard error that are logged
TEXT_LIMIT = 400  # characters of a reply
LOOK = 0.05  # seconds between two looks at a command that has not closed its output, or runs on without
MERCY = 5.0  # seconds for the kernel to end what was killed

# What a command says of the message or its addresses. A mistake in the setup (64, 66, 70, 72, 73, 78, 127 ...) is none
# of the client's: mail must wait until it is mended.
_REFUSED = {
    65: (550, "5.6.0", "The message is malformed"),
    67: (550, "5.1.1", "No such user"),
    68: (550, "5.1.2", "No such host"),
    69: (550, "5.3.0", "The service does not accept the message"),
    77: (550, "5.7.1", "Permission denied"),
    100: (554, "5.3.0", "The message was refused"),
}
_LATER = {71, 74, 75, 111}
_FAILED = "4.3.0 Local error in processing, try again later"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?: |$)")
_log = logging.getLogger("preforksmtp")  # the error log


class Pipe:
    """Called once per message, from many threads at once.

    The environment is the server's, with SENDER, RECIPIENTS (one a line), RECIPIENT (if there is only one), SIZE (of
    standard input), QUEUE_ID, CLIENT_ADDRESS, CLIENT_HOSTNAME, CLIENT_HELO and SASL_USERNAME; what is not known is
    empty. The first line of standard output is the text of the reply. After `timeout` seconds the command is killed,
    with its process group. `trace`: put Return-Path and Received in front of the message.
    """

    def __init__(self, command: str | Sequence[str], timeout: float = 60.0, trace: bool = True) -> None:
        self.command = _split(command)
        self.timeout = float(timeout)
        self.trace = trace
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout {timeout!r} is not a number of seconds above 0")
        program = shutil.which(self.command[0])
        if program is None:
            raise ValueError(f"command {self.command[0]!r} is not an executable file, nor is one found in PATH")
        self._program = os.path.abspath(program)

    def __call__(self, message: Message) -> Reply | None:
        """Run the command and translate how it ends."""
        trace = _trace(message) if self.trace else b""
        try:
            run = _Run(self.command, self._program, _environment(message, len(trace) + message.size))
        except OSError as error:
            if error.errno == errno.E2BIG:  # 128 KiB of them, on Linux: no later attempt would do better
                raise Reject(554, "5.5.3 Too many recipients for one message") from error
            _log.error("message %s: %s cannot be started: %s", message.id, self.command[0], error.strerror)
            raise Reject(451, _FAILED) from error
        with run:
            status = run.feed(_blocks(message, trace), time.monotonic() + self.timeout)
        return self._judge(message, status, run)

    def _judge(self, message: Message, status: int | None, run: _Run) -> Reply | None:
        text = _first_line(run.output)
        if status == 0:
            self._note(logging.INFO, message, "done", run)
            return Reply(250, text) if text else None
        if status in _REFUSED:
            code, enhanced, standard = _REFUSED[status]
            self._note(logging.INFO, message, f"exit status {status}", run)
            raise Reject(code, _with_enhanced(enhanced, text or standard))
        if status in _LATER:
            self._note(logging.INFO, message, f"exit status {status}", run)
            raise Reject(451, _with_enhanced("4.3.0", text or "Not now, try again later"))
        if run.timed_out:
            how = f"killed, it was not done within {self.timeout:g} s"
        elif status is None:
            how = "its exit status was taken by somebody else"
        else:
            how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
        self._note(logging.ERROR, message, how, run, always=True)
        raise Reject(451, _FAILED)  # what it printed was not meant for the client

    def _note(self, level: int, message: Message, how: str, run: _Run, always: bool = False) -> None:
        """One record, with the standard error below it."""
        said = bytes(run.error).decode("utf-8", "replace").strip()
        if run.error_lost:
            said += f"\n[{run.error_lost} more bytes]"
        if said or always:
            _log.log(level, "message %s: %s: %s", message.id, self.command[0], how, extra={"detail": said})


class _Run:
    """One run of the command. Leaving the `with` ends what is left of it."""

    def __init__(self, command: Sequence[str], program: str, environment: dict[bytes, bytes]) -> None:
        self.output = bytearray()
        self.error = bytearray()
        self.error_lost = 0
        self.timed_out = False
        self._ended = False
        self._pause = 0.001
        # subprocess gives it the default of the signals that Python ignores (SIGPIPE), the thread its mask: empty.
        self._process = subprocess.Popen(
            command,
            executable=program,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:  # before its input ends: that must not look like the end of the message
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            limit = time.monotonic() + MERCY
            while not self._has_ended() and time.monotonic() < limit:  # after that subprocess reaps it some time
                time.sleep(0.001)
        for file in self._files():
            with contextlib.suppress(OSError):
                file.close()

    def _files(self) -> Sequence[IO[bytes]]:
        process = self._process
        return [file for file in (process.stdin, process.stdout, process.stderr) if file is not None]

    def feed(self, blocks: Iterator[bytes], deadline: float) -> int | None:
        """Give it its input and take its output until it ends; its exit status. None: not known."""
        with selectors.PollSelector() as selector:
            stdin, *outputs = self._files()
            for file in (stdin, *outputs):
                os.set_blocking(file.fileno(), False)
            for file in outputs:
                selector.register(file, selectors.EVENT_READ)
            selector.register(stdin, selectors.EVENT_WRITE)
            pending = memoryview(b"")
            while not self._has_ended():
                left = deadline - time.monotonic()
                if left <= 0:
                    self.timed_out = True
                    return None
                for key, _ in selector.select(min(left, self._next_pause(len(selector.get_map())))):
                    if key.fileobj is not stdin:
                        self._read(key.fd, selector)
                        continue
                    try:
                        pending = pending or memoryview(next(blocks, b""))
                        if pending:
                            pending = pending[os.write(key.fd, pending) :]
                            continue
                    except BlockingIOError:
                        continue
                    except BrokenPipeError:  # it has read enough: its exit status says what that means
                        pass
                    selector.unregister(stdin)
                    stdin.close()
            for file in outputs:  # what it wrote last; children of its own may hold the pipe open for long
                if file.fileno() in selector.get_map():
                    self._read(file.fileno(), selector, OUTPUT_LIMIT + ERROR_LIMIT)
        return self._process.returncode

    def _next_pause(self, files: int) -> float:
        """Where there is nothing left to wait for, look soon, for it ends now; then ever more seldom."""
        if files:
            return LOOK
        self._pause = min(self._pause * 2, LOOK)
        return self._pause

    def _read(self, fd: int, selector: selectors.BaseSelector, limit: int = 1) -> None:
        """What is there, at least `limit` octets of it if it has them."""
        stdout = self._process.stdout
        is_output = stdout is not None and fd == stdout.fileno()
        while limit > 0:
            try:
                data = os.read(fd, BLOCK)
            except BlockingIOError:
                return
            limit -= len(data)
            if not data:
                selector.unregister(fd)
                return
            if is_output:
                self.output += data[: OUTPUT_LIMIT - len(self.output)]
            else:
                kept = data[: ERROR_LIMIT - len(self.error)]
                self.error += kept
                self.error_lost += len(data) - len(kept)

    def _has_ended(self) -> bool:
        # Not Popen.poll(): it takes a status that it could not get for success.
        if not self._ended:
            try:
                pid, status = os.waitpid(self._process.pid, os.WNOHANG)
            except ChildProcessError:
                self._ended = True
                return True
            if pid:
                self._ended = True
                self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._ended


def _split(command: str | Sequence[str]) -> list[str]:
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise ValueError(f"command {command!r}: {error}") from None
    if not words or not words[0]:
        raise ValueError("the command is empty")
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise ValueError(f"command {command!r} is not a list of strings")
    return words


def _environment(message: Message, size: int) -> dict[bytes, bytes]:
    """That of the server, and the envelope. Bytes, for the locale need not know the letters of an address."""
    session = message.session
    recipients = [_clean(recipient) for recipient in message.recipients]
    values = {
        "SENDER": _clean(message.sender),
        "RECIPIENTS": "\n".join(recipients),
        "SIZE": str(size),
        "QUEUE_ID": message.id,
        "CLIENT_ADDRESS": session.peer.host,
        "CLIENT_HOSTNAME": _clean(session.reverse_dns),
        "CLIENT_HELO": _clean(session.helo),
        "SASL_USERNAME": _clean(session.user or ""),
    }
    if len(recipients) == 1:
        values["RECIPIENT"] = recipients[0]
    environment = dict(os.environb)
    environment.pop(b"RECIPIENT", None)
    environment.update({name.encode(): value.encode("utf-8", "surrogateescape") for name, value in values.items()})
    return environment


def _clean(text: str) -> str:
    return _CONTROL.sub("?", text)


def _trace(message: Message) -> bytes:
    # RFC 5321 section 4.4: Return-Path on top, then Received.
    return f"{message.return_path}\r\n{message.received}\r\n".encode("utf-8", "surrogateescape")


def _blocks(message: Message, trace: bytes) -> Iterator[bytes]:
    if trace:
        yield trace
    with message.open() as body:
        while block := body.read(BLOCK):
            yield block


def _first_line(output: bytearray) -> str:
    line = bytes(output).partition(b"\n")[0].decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() else "?" for char in line)[:TEXT_LIMIT]


def _with_enhanced(enhanced: str, text: str) -> str:
    """The text with an enhanced status code: its own, where it begins with one of the right class."""
    return text if _ENHANCED.match(text) and text[0] == enhanced[0] else f"{enhanced} {text}"
