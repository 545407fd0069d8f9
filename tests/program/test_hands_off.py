"""What an application does to its process, when it is loaded and again in every message: sessions, logs and the stop
are what they are without it, or one line says what was put back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

APP = """
import asyncio, contextlib, faulthandler, gc, locale, logging, logging.config, os, random, resource, signal, socket, sys, \\
    threading, warnings

LOGS = logging.getLogger("preforksmtp")
MAIN = threading.main_thread()

def in_main_thread(function):
    return lambda: function() if threading.current_thread() is MAIN else None

def refuse(*arguments, **others):
    raise RuntimeError("an application's own")

class Refusing(logging.Handler):
    emit = refuse

def replace_streams():
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.close()
    sys.stdout = sys.stderr = None

def change_level_names():
    logging.addLevelName(40, "OOPS")
    logging.raiseExceptions = logging.logProcesses = logging.logThreads = False

def refuse_records():
    logging.setLogRecordFactory(refuse)

def put_itself_before_us():
    LOGS.addHandler(Refusing())
    LOGS.addFilter(refuse)
    logging.getLogger().addHandler(Refusing())

def take_signals():
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, refuse)

def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

def ignore_everything():
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

def redirect_wakeups():
    asyncio.run(asyncio.sleep(0))
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, refuse)
    loop.close()
    signal.set_wakeup_fd(-1)

def tiny_threads():
    threading.stack_size(32768)

def own_socket():
    class Socket(socket.socket):
        def recv(self, *_):
            refuse()
        sendall = recv
    socket.socket = Socket

def few_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

def tiny_umask():
    os.umask(0o777)

def change_locale():
    for name in ("tr_TR.UTF-8", "de_DE.UTF-8", "C"):
        try:
            locale.setlocale(locale.LC_ALL, name)
            return
        except locale.Error:
            pass

def hook_exceptions():
    sys.excepthook = threading.excepthook = sys.unraisablehook = refuse

def trace():
    threading.settrace(lambda *_: None)
    threading.setprofile(lambda *_: None)

def lead_a_session():
    with contextlib.suppress(PermissionError):  # it does already
        os.setsid()

def alarm():
    signal.alarm(1)

def reset_signals():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

VARIANTS = {
    "socket timeout": lambda: socket.setdefaulttimeout(0.2),
    "dictConfig": lambda: logging.config.dictConfig({"version": 1}),
    "dictConfig with a root": lambda: logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL"}}),
    "dictConfig of our logger": lambda: logging.config.dictConfig(
        {"version": 1, "loggers": {"preforksmtp": {"handlers": [], "propagate": True}}}),
    "logging.disable": lambda: logging.disable(logging.CRITICAL),
    "basicConfig": lambda: logging.basicConfig(force=True, level=logging.CRITICAL),
    "logging.shutdown": logging.shutdown,
    "level names": change_level_names,
    "record factory": refuse_records,
    "handlers and filters": put_itself_before_us,
    "logger class": lambda: logging.setLoggerClass(type("Own", (logging.Logger,), {"handle": refuse})),
    "streams": replace_streams,
    "locale": change_locale,
    "umask": tiny_umask,
    "folder": lambda: os.chdir("/"),
    "signals": in_main_thread(take_signals),
    "ignored signals": in_main_thread(ignore_everything),
    "default signals": in_main_thread(reset_signals),
    "blocked signals": block_signals,
    "wake-ups": in_main_thread(redirect_wakeups),
    "faulthandler": faulthandler.disable,
    "gc": lambda: (gc.disable(), gc.freeze(), gc.set_threshold(0)),
    "stack size": tiny_threads,
    "switch interval": lambda: sys.setswitchinterval(30),
    "environ": os.environ.clear,
    "random": lambda: random.seed(1),
    "trace": trace,
    "exception hooks": hook_exceptions,
    "warnings": lambda: warnings.simplefilter("error"),
    "own socket class": own_socket,
    "few files": few_files,
    "nice": lambda: os.nice(1),
    "session": in_main_thread(lead_a_session),
    "alarm": alarm,
    "recursion": lambda: sys.setrecursionlimit(120),
}

def app(variant):
    VARIANTS[variant]()
    def handler(message):
        VARIANTS[variant]()
        if "fail" in message.recipients[0]:
            raise LookupError("as asked")
    return handler
"""
# What is put back, and said once; (the others need nothing.)
SAID = {
    "signals": "has changed what SIG",
    "ignored signals": "has changed what SIG",
    "default signals": "set the default of SIGPIPE",
    "switch interval": r"sys.setswitchinterval\(30\)",
    "alarm": "SIGALRM came",
}


def variants() -> list[str]:
    names: dict[str, object] = {}
    exec(APP, names)
    found = names["VARIANTS"]
    assert isinstance(found, dict)
    return list(found)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
def begin(serve: Serve, tmp_path: Path) -> object:
    """A server whose logs are files, with relative names."""
    (tmp_path / "app.py").write_text(APP)

    def begin(variant: str, *arguments: str) -> Server:
        logs = ("--error-logfile", "error.log", "--access-logfile", "access.log", "--transcript", "transcript.log")
        server = serve(
            *("-b", LOOPBACK, "--graceful-timeout", "5", *logs, "--spool-threshold", "100", "--spool-dir", "spool"),
            *(*arguments, f"app:app({variant!r})"),
        )
        (tmp_path / "spool").mkdir(exist_ok=True)
        wait_until(lambda: "listening on" in read(tmp_path / "error.log"), f"the start:\n{server.output}")
        return server

    return begin


def port_of(folder: Path) -> int:
    line = next(line for line in read(folder / "error.log").splitlines() if "listening on" in line)
    return int(line.rpartition(":")[2])


def deliver(talk: Talk, recipient: str = "b") -> str:
    talk.begin_data(recipient=f"{recipient}@example.com")
    return talk.ask("Subject: x\r\n\r\n" + "x" * 60 + "\r\n" + "y" * 60 + "\r\n.")


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("variant", variants())
def test_it_goes_on_as_before(begin, tmp_path: Path, variant: str, preload: bool) -> None:
    server = begin(variant, *(["--preload"] if preload else []))
    port = port_of(tmp_path)
    with Talk(port) as first:
        assert deliver(first).startswith("250"), server.output
        assert deliver(first, "fail").startswith("451")
        assert "LookupError: as asked" in read(tmp_path / "error.log")
        with Talk(port) as second:
            assert deliver(second).startswith("250")
            assert second.ask("QUIT").startswith("221")
        wait_until(lambda: read(tmp_path / "access.log").count("\n") == 3, "three lines of the access log")
        if variant == "socket timeout":
            time.sleep(0.6)  # three of them
        assert first.ask("NOOP").startswith("250")
        for name in ("error", "access", "transcript"):
            os.rename(tmp_path / f"{name}.log", tmp_path / f"{name}.old")
        server.send(signal.SIGUSR1)
        for name in ("error", "access", "transcript"):
            wait_until((tmp_path / f"{name}.log").exists, f"a new {name} log")
        # Its main thread may take a moment to open it.
        wait_until(
            lambda: deliver(first, "fail").startswith("451") and "as asked" in read(tmp_path / "error.log"),
            "a traceback in the new log",
        )
        said = SAID.get(variant)
        if said is not None and not (preload and variant == "alarm"):
            wait_until(lambda: logged(tmp_path, said), f"a line about it: {said}")
        began = time.monotonic()
        server.send(signal.SIGTERM)
        assert first.read().startswith("421 4.3.2")
        assert first.read() == ""
    assert server.wait() == 0
    assert time.monotonic() - began < 4.0, "the stop took all the time there is"
    assert "exited with code 0 (stop)" in read(tmp_path / "error.log")


def logged(folder: Path, pattern: str) -> bool:
    return re.search(pattern, read(folder / "error.old") + read(folder / "error.log")) is not None


LOG_CONFIG = """
{"handlers": {"file": {"class": "logging.FileHandler", "filename": "own.log"}}, "root": {"handlers": ["file"]}}
"""


@pytest.mark.parametrize("variant", ["dictConfig", "logging.disable", "logging.shutdown"])
def test_a_log_that_logging_config_has_made(serve: Serve, tmp_path: Path, variant: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "log.json").write_text(LOG_CONFIG)
    server = serve("-b", f"unix:{tmp_path / 's'}", "--log-config", "log.json", "--pipelined-body", "accept", f"app:app({variant!r})")
    wait_until(lambda: "listening on" in read(tmp_path / "own.log"), "the start")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        with client.makefile("rwb") as stream:
            commands = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<fail@x>\r\nDATA\r\n.\r\nQUIT\r\n"
            stream.write(commands)
            stream.flush()
            assert b"451" in stream.read()
    wait_until(lambda: "LookupError: as asked" in read(tmp_path / "own.log"), "the traceback")
    assert server.stop() == 0
    assert "exited with code 0 (stop)" in read(tmp_path / "own.log")


PATCHED = """
import _thread
def start_new_thread(*arguments):
    raise NotImplementedError
start_new_thread.__module__ = "gevent.thread"
_thread.start_new_thread = start_new_thread
"""
REFUSED = "gevent has replaced Python's threads"


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_threads_that_are_none(serve: Serve, tmp_path: Path, preload: bool) -> None:
    (tmp_path / "app.py").write_text(f"{PATCHED}\ndef handler(message): pass\n")
    server = serve("-b", LOOPBACK, *["--preload"] * preload, "app:handler")
    assert server.wait() == 4
    assert server.matches(rf"app 'app:handler': {REFUSED}")
    assert "Traceback" not in server.output


def test_threads_that_start_replaces(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from preforksmtp import Handler\nclass Mail(Handler):\n    def message(self, message): pass\n"
        f"    @classmethod\n    def start(cls, worker): exec({PATCHED!r}, {{}})\n"
    )
    server = serve("-b", LOOPBACK, "app:Mail")
    assert server.wait() == 4
    assert server.matches(rf"app 'app:Mail': {REFUSED}")


def test_threads_that_the_config_file_replaces(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(message): pass\n")
    server = serve("-b", LOOPBACK, "app:handler").ready()
    (tmp_path / "patch.py").write_text(PATCHED)
    config = tmp_path / "preforksmtp.conf.py"
    config.write_text("import patch\n")
    server.send(signal.SIGHUP)
    server.wait_for(rf"reload failed, former configuration and workers go on: .*preforksmtp.conf.py: {REFUSED}")
    config.write_text("workers = 2\n")  # the master itself has real ones
    server.send(signal.SIGHUP)
    server.wait_for("reload done, 2 workers")


CLOSING = """
import os
def app(how):
    def handler(message):
        if "bad" in message.recipients[0]:
            exec(how)
    return handler
"""


@pytest.mark.parametrize(
    "how", ["os.closerange(3, 1000)", "for fd in range(3, 30): os.dup2(os.open(os.devnull, os.O_RDWR), fd)"]
)
def test_a_worker_without_its_descriptors_is_replaced(serve: Serve, tmp_path: Path, how: str) -> None:
    (tmp_path / "app.py").write_text(CLOSING)
    server = serve("-b", LOOPBACK, f"app:app({how!r})").ready()
    old = server.worker()
    with contextlib.suppress(ConnectionError), Talk(server.port()) as talk:
        deliver(talk, "bad")
    server.wait_for(rf"worker {old} exited with code 1")
    if "closerange" in how:
        server.wait_for(rf"worker {old}: the application has closed or replaced descriptors of the server's; leaving")
    wait_until(lambda: server.children() and old not in server.children(), "another worker")
    with Talk(server.port()) as talk:
        assert deliver(talk).startswith("250")


def test_redirected_standard_streams(serve: Serve, tmp_path: Path) -> None:
    """A log on standard error, of which the application has made something else."""
    (tmp_path / "app.py").write_text(CLOSING)
    how = "for fd in (1, 2): os.dup2(os.open('elsewhere', os.O_RDWR | os.O_CREAT), fd)"
    server = serve("-b", LOOPBACK, "--access-logfile", "-", f"app:app({how!r})").ready()
    with Talk(server.port()) as talk:
        assert deliver(talk, "bad").startswith("250")
        assert deliver(talk, "b").startswith("250")
        server.wait_for("to=<b@example.com>")
    server.send(signal.SIGTERM)
    server.wait_for(r"worker \d+: draining")
    assert server.wait() == 0
    assert read(tmp_path / "elsewhere") == ""


@pytest.mark.parametrize("fd", [1, 2])
def test_nothing_is_printed_to_a_client(serve: Serve, tmp_path: Path, fd: int) -> None:
    """The application closes a standard stream while sessions are waited for, whose sockets then get its number."""
    (tmp_path / "app.py").write_text(CLOSING)
    server = serve("-b", LOOPBACK, f"app:app('os.close({fd})')").ready()
    with Talk(server.port()) as talk:
        deliver(talk, "bad")
    for _ in range(10):
        with Talk(server.port()) as talk:
            assert deliver(talk).startswith("250")
            for number in (1, 2):
                with contextlib.suppress(FileNotFoundError):  # closed, and not put back yet
                    assert not os.readlink(f"/proc/{server.worker()}/fd/{number}").startswith("socket:")


FAULTS = """
import faulthandler, signal
file = open("own", "w")
faulthandler.enable(file)
faulthandler.register(signal.SIGUSR2, file)
def handler(message):
    faulthandler.disable()
"""


def test_stacks_are_in_the_error_log(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(FAULTS)
    server = serve("-b", LOOPBACK, "app:handler").ready()
    os.kill(server.worker(), signal.SIGUSR2)
    server.wait_for("Current thread 0x")
    with Talk(server.port()) as talk:
        assert deliver(talk).startswith("250")
    wait_until(lambda: has_a_handler(server.worker(), signal.SIGABRT), "faulthandler's own handler, again")
    os.kill(server.worker(), signal.SIGABRT)
    server.wait_for("Fatal Python error: Aborted")
    server.wait_for(r"worker \d+ was killed by SIGABRT")
    assert read(tmp_path / "own") == ""


def has_a_handler(pid: int, number: int) -> bool:
    caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
