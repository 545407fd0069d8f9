"""handlers/pipe.py: real commands, and how each of their ends is answered."""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from preforksmtp import Reject, Reply
from preforksmtp.handlers import Pipe
from preforksmtp.handlers import pipe as module
from tests.handlers.envelope import PATIENCE, Envelope, Large, message, session
from tests.handlers.fake import FakeMessage

TRACE = f"Return-Path: <alice@example.org>\r\n{FakeMessage.received}\r\n".encode()
Log = pytest.LogCaptureFixture


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def answer(pipe: Pipe, **changes: Any) -> Reply | None:
    """The reply it comes to; None is the standard one."""
    try:
        return pipe(message(**changes))
    except Reject as refusal:
        return refusal.reply


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    folder = "/proc/self/fd"
    gc.collect()  # what tests before this one have left to the collector
    before = len(os.listdir(folder)), children()
    yield
    assert (len(os.listdir(folder)), children()) == before


@pytest.fixture(autouse=True)
def log_everything(caplog: Log) -> None:
    caplog.set_level(logging.DEBUG, logger="preforksmtp")


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("content", [b"", b"Subject: x\r\n\r\n.\r\nFrom\n\xff\0", os.urandom(5 * module.BLOCK + 1)])
def test_content_arrives_byte_for_byte(tmp_path: Path, content: bytes, trace: bool) -> None:
    script = python("import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1], 'wb'))", f"{tmp_path}/out")
    assert answer(Pipe(script, trace=trace), content=content) is None
    assert (tmp_path / "out").read_bytes() == (TRACE if trace else b"") + content


@pytest.mark.parametrize("content", [b"small", b"x" * 1_000_000])
def test_size_is_that_of_standard_input(content: bytes) -> None:
    check = "import os, sys; sys.exit(len(sys.stdin.buffer.read()) != int(os.environ['SIZE']))"
    assert answer(Pipe(python(check)), content=content) is None
    assert answer(Pipe(python(check), trace=False), content=content) is None


PRINT = python("import os, sys; open(sys.argv[1], 'w').write(repr({k: os.environb.get(k.encode()) for k in sys.argv[2:]}))")
NAMES = ("SENDER", "RECIPIENT", "RECIPIENTS", "QUEUE_ID", "CLIENT_ADDRESS", "CLIENT_HOSTNAME", "CLIENT_HELO", "SASL_USERNAME")


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, (b"alice@example.org", b"bob@example.org", b"bob@example.org", b"42", b"192.0.2.7", b"", b"client.example.org", b"")),
        (
            {"sender": "", "recipients": ["-oQ/tmp@x", "$(id)@x", "grüße@x"], "session": session(user="ü\nx", reverse_dns="h.x", helo="`id`")},
            (b"", None, "-oQ/tmp@x\n$(id)@x\ngrüße@x".encode(), b"42", b"192.0.2.7", b"h.x", b"`id`", "ü?x".encode()),
        ),
        (
            {"sender": "a\udcff\0@x", "recipients": ["b\nc@x"]},
            (b"a\xff?@x", b"b?c@x", b"b?c@x", b"42", b"192.0.2.7", b"", b"client.example.org", b""),
        ),
    ],
)
def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, values: Any) -> None:
    monkeypatch.setenv("RECIPIENT", "somebody else")
    monkeypatch.setenv("INHERITED", "yes")
    assert answer(Pipe([*PRINT, f"{tmp_path}/out", *NAMES, "INHERITED"]), **changes) is None
    assert (tmp_path / "out").read_text() == repr({**dict(zip(NAMES, values, strict=True)), "INHERITED": b"yes"})


def test_command_is_never_given_to_a_shell(tmp_path: Path) -> None:
    pipe = Pipe(f"{sys.executable} -c 'import sys; print(sys.argv[1:])' '$HOME' ; `id` > {tmp_path}/out")
    assert answer(pipe) == Reply(250, f"['$HOME', ';', '`id`', '>', '{tmp_path}/out']")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "output", "reply"),
    [
        (0, "", None),
        (0, "queued as 7\nmore", Reply(250, "2.0.0 queued as 7")),
        (0, "2.6.0 stored", Reply(250, "2.6.0 stored")),
        (0, "\nsecond", None),
        (0, "a\x1b[2J\tb\r\n", Reply(250, "a?[2J?b")),
        (0, "x" * 10_000, Reply(250, "x" * module.TEXT_LIMIT)),
        (65, "", Reply(550, "5.6.0 The message is malformed")),
        (67, "", Reply(550, "5.1.1 No such user")),
        (67, "who?\n", Reply(550, "5.1.1 who?")),
        (68, "", Reply(550, "5.1.2 No such host")),
        (69, "5.2.2 full", Reply(550, "5.2.2 full")),
        (69, "4.2.2 full", Reply(550, "5.3.0 4.2.2 full")),
        (77, "", Reply(550, "5.7.1 Permission denied")),
        (100, "no", Reply(554, "5.3.0 no")),
        (75, "", Reply(451, "4.3.0 Not now, try again later")),
        (75, "4.2.1 later", Reply(451, "4.2.1 later")),
        (71, "x", Reply(451, "4.3.0 x")),
        (74, "x", Reply(451, "4.3.0 x")),
        (111, "x", Reply(451, "4.3.0 x")),
    ],
)
def test_exit_status(caplog: Log, status: int, output: str, reply: Reply | None) -> None:
    code = "import sys; sys.stdin.buffer.read(); sys.stdout.write(sys.argv[1]); sys.exit(int(sys.argv[2]))"
    assert answer(Pipe(python(code, output, str(status)))) == reply
    assert caplog.records == []


@pytest.mark.parametrize("status", [1, 2, 64, 66, 70, 72, 73, 76, 78, 99, 126, 127, 255, -9, -11, -15])
def test_what_is_not_the_clients_fault_is_temporary_and_logged(caplog: Log, status: int) -> None:
    end = f"sys.exit({status})" if status > 0 else f"os.kill(os.getpid(), {-status})"
    assert answer(Pipe(python(f"import os, sys; print('secret', flush=True); {end}"))) == Reply(451, module._FAILED)
    [record] = caplog.records
    how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
    assert (record.levelname, record.getMessage()) == ("ERROR", f"message 42: {sys.executable}: {how}")


@pytest.mark.parametrize(("status", "level"), [(0, "INFO"), (67, "INFO"), (75, "INFO"), (1, "ERROR")])
def test_standard_error_is_logged(caplog: Log, status: int, level: str) -> None:
    code = f"import sys; sys.stderr.write('one\\ntwo\\xff\\n'); sys.exit({status})"
    answer(Pipe(python(code)))
    [record] = caplog.records
    assert record.levelname == level
    assert record.detail.startswith("one\ntwo")  # type: ignore[attr-defined]


def test_output_has_bounds(caplog: Log) -> None:
    code = (
        "import os\nfor _ in range(300):\n os.write(1, b'o' * 65536); os.write(2, b'e' * 65536)\n"
        "os.write(1, b'\\nend')"
    )
    pipe = Pipe(python(code), timeout=PATIENCE)
    assert answer(pipe, content=b"x" * 1_000_000) == Reply(250, "o" * module.TEXT_LIMIT)
    [record] = caplog.records
    rest = 300 * 65536 - module.ERROR_LIMIT
    assert record.detail == "e" * module.ERROR_LIMIT + f"\n[{rest} more bytes]"  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [0, 67])
@pytest.mark.parametrize("how", ["", "os.close(0); import time; time.sleep(0.2)", "os.read(0, 10)"])
def test_command_that_does_not_read_is_judged_by_its_status(how: str, status: int) -> None:
    reply = answer(Pipe(python(f"import os, sys; {how}\nsys.exit({status})")), content=b"x" * 3_000_000)
    assert reply == (None if status == 0 else Reply(550, "5.1.1 No such user"))


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "end")
    code = "import os, sys\nprint('stored', flush=True)\nif os.fork() == 0: open(sys.argv[1]).read()"
    assert answer(Pipe(python(code, f"{tmp_path}/end"), timeout=PATIENCE)) == Reply(250, "stored")
    with open(tmp_path / "end", "w"):  # it is alive: this waits for a reader
        pass


def test_time_is_up(tmp_path: Path, caplog: Log) -> None:
    """The whole group is killed, whatever it ignores, before its input ends."""
    os.mkfifo(tmp_path / "alive")
    code = (
        "import os, signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork()\n"
        "held = open(sys.argv[1], 'w')\nsys.stdin.buffer.read()\nsignal.pause()"
    )
    ended = threading.Event()

    def watch() -> None:
        with open(tmp_path / "alive") as fifo:
            fifo.read()  # to the end: no writer is alive
        ended.set()

    thread = threading.Thread(target=watch)
    thread.start()
    begun = time.monotonic()
    assert answer(Pipe(python(code, f"{tmp_path}/alive"), timeout=3)) == Reply(451, module._FAILED)
    assert 3 <= time.monotonic() - begun < PATIENCE
    assert ended.wait(PATIENCE)
    thread.join()
    [record] = caplog.records
    assert record.getMessage() == f"message 42: {sys.executable}: killed, it was not done within 3 s"


def test_command_that_reads_nothing_and_does_not_end() -> None:
    pipe = Pipe(["sleep", "3600"], timeout=0.3)
    assert answer(pipe, content=b"x" * 1_000_000) == Reply(451, module._FAILED)


def test_input_does_not_end_early_where_the_message_cannot_be_read(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the disk is gone")

    class Unreadable(Envelope):
        def open(self) -> BinaryIO:
            return Broken()

    code = "import sys; sys.stdin.buffer.read(); open(sys.argv[1], 'w')"
    with pytest.raises(OSError, match="the disk is gone"):
        Pipe(python(code, f"{tmp_path}/stored"))(Unreadable())  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_large_message_is_never_in_memory() -> None:
    large: Any = Large(module.BLOCK, 100)
    code = "import sys; print(len(sys.stdin.buffer.read()))"
    assert Pipe(python(code), trace=False)(large) == Reply(250, str(100 * module.BLOCK))
    assert large.asked == {module.BLOCK}


def test_signals_of_the_command_are_those_of_any_program() -> None:
    """None is blocked, nor is SIGPIPE ignored, as it is in Python."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    reply = answer(Pipe(["sh", "-c", "echo $(grep -E 'Sig(Blk|Ign)' /proc/self/status)"]))
    assert reply is not None
    _, blocked, _, ignored = reply.text.split()
    assert int(blocked, 16) == 0
    assert not int(ignored, 16) & 1 << signal.SIGPIPE - 1


def test_status_that_somebody_else_took_is_no_success(caplog: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    waitpid = os.waitpid

    def taken(pid: int, options: int) -> tuple[int, int]:
        if waitpid(pid, options) == (0, 0):
            return 0, 0
        raise ChildProcessError

    monkeypatch.setattr(os, "waitpid", taken)
    assert answer(Pipe(["true"])) == Reply(451, module._FAILED)
    assert "taken by somebody else" in caplog.text
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("", "the command is empty"),
        ("  ", "the command is empty"),
        ([], "the command is empty"),
        ([""], "the command is empty"),
        ("'a", "No closing quotation"),
        ("absent-command -x", "'absent-command' is not an executable file"),
        ("/etc/passwd", "is not an executable file"),
        ("/tmp", "is not an executable file"),
        (["true", "a\0"], "not a list of strings"),
        (["true", 1], "not a list of strings"),
    ],
)
def test_wrong_command(command: Any, line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        Pipe(command)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_wrong_timeout(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Pipe("true", timeout=timeout)


@pytest.mark.parametrize("text", [None, "#!/absent/interpreter\n", "neither a script nor a program"])
def test_command_that_cannot_be_started(tmp_path: Path, caplog: Log, text: str | None) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    pipe = Pipe([str(program)])
    if text is None:
        program.unlink()
    else:
        program.write_text(text)
    assert answer(pipe) == Reply(451, module._FAILED)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(f"message 42: {program} cannot be started: ")


def test_too_many_recipients_for_an_environment() -> None:
    recipients = [f"{'x' * 60}{number}@example.org" for number in range(4000)]
    assert answer(Pipe("true"), recipients=recipients) == Reply(554, "5.5.3 Too many recipients for one message")
    assert answer(Pipe("true"), recipients=recipients[:1000]) is None


def test_relative_program_is_found_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\necho here\n")
    (tmp_path / "program").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    pipe = Pipe("./program")
    monkeypatch.chdir("/")
    assert answer(pipe) == Reply(250, "here")


def test_many_at_once(tmp_path: Path) -> None:
    code = "import os, sys; open(os.path.join(sys.argv[1], os.environ['QUEUE_ID']), 'wb').write(sys.stdin.buffer.read())"
    pipe = Pipe(python(code, str(tmp_path)), trace=False)
    contents = {f"m{number}": os.urandom(100_000 + number) for number in range(16)}
    replies: list[Reply | None] = []
    threads = [
        threading.Thread(target=lambda id=id, content=content: replies.append(answer(pipe, id=id, content=content)))
        for id, content in contents.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [None] * len(contents)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == contents
