"""What an application forks: it has nothing of ours, answers no client, and ends with its worker in the time there is."""

from __future__ import annotations

import ast
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import PATIENCE, stat, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

GRACE = "4"  # seconds; what ends by itself takes much less
SOON = 3.0

APP = """
import asyncio, concurrent.futures, multiprocessing, os, signal, subprocess, sys, time
from preforksmtp import Handler, Reject

def forever(*_):
    time.sleep(3600)

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forever()

def double(number):
    return 2 * number

def signals(_):
    return [signal.getsignal(number) is not signal.SIG_IGN and callable(signal.getsignal(number)) for number in
            (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGURG)]

def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass
    return found

def fork(run):
    pid = os.fork()
    if pid:
        return pid
    run()
    os._exit(0)

def pool(method):
    return concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(method))

def process(method, function, daemon):
    process = multiprocessing.get_context(method).Process(target=function, daemon=daemon)
    process.start()
    return process

class Begin:
    '''What start() does, or preload.'''
    def executor(self, method):
        self.pool = pool(method)
        return self.pool.submit(double, 21).result()
    def busy(self, method):
        self.pool = pool(method)
        self.pool.submit(forever)
    def daemon(self, method):
        self.process = process(method, forever, True)
    def process(self, method):
        self.process = process(method, forever, False)
    def fork(self, method):
        fork(forever)
    def stubborn(self, method):
        fork(stubborn)
    def nothing(self, method):
        pass

class Message:
    '''What a handler does with a message.'''
    def nothing(self, message):
        return "done"
    def work(self, message):
        return str(BEGUN.pool.submit(double, 21).result())
    def lazy(self, message):
        if not hasattr(BEGUN, "pool"):
            BEGUN.pool = pool(METHOD)
        return str(BEGUN.pool.submit(double, 21).result())
    def terminate(self, message):
        codes = set()
        for _ in range(20):
            child = process(METHOD, forever, False)
            child.terminate()
            child.join()
            codes.add(child.exitcode)
        return str(codes)
    def returns(self, message):
        pid = os.fork()
        if pid == 0:
            return "from the child"
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    def rejects(self, message):
        pid = os.fork()
        if pid == 0:
            raise Reject(550, "from the child")
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    def raises(self, message):
        pid = os.fork()
        if pid == 0:
            raise LookupError("from the child")
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    def exits(self, message):
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    def lives(self, message):
        fork(forever)
        return "done"
    def inside(self, message):
        read, write = os.pipe()
        seen = lambda: os.write(write, repr((descriptors(), signals(0))).encode())
        os.waitpid(fork(seen), 0)
        os.write(2, b"SEEN " + os.read(read, 60000) + b"\\n")
    def run(self, message):
        command = [sys.executable, "-c", "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"]
        return subprocess.run(command, capture_output=True, text=True, close_fds=False, stdin=subprocess.DEVNULL).stdout.strip()
    def leave_running(self, message):
        return str(subprocess.Popen(["sleep", "60"], close_fds=False).pid)
    def asynchronous(self, message):
        async def main():
            child = await asyncio.create_subprocess_exec("echo", "42", stdout=subprocess.PIPE)
            return (await child.communicate())[0].decode().strip()
        return asyncio.run(main())

BEGUN = Begin()
METHOD = "fork"

def app(begin, message="nothing", method="fork", at="start"):
    global METHOD
    METHOD = method
    if at == "import":
        getattr(BEGUN, begin)(method)

    class Mail(Handler):
        @classmethod
        def start(cls, worker):
            if at == "start":
                getattr(BEGUN, begin)(method)

        def message(self, received):
            return getattr(Message, message)(self, received)

    return Mail
"""


@pytest.fixture
def begin(serve: Serve, tmp_path: Path) -> Callable[..., Server]:
    (tmp_path / "app.py").write_text(APP)

    def begin(app: str, *arguments: str) -> Server:
        log = ("--access-logfile", str(tmp_path / "access"))
        return serve("-b", LOOPBACK, "--graceful-timeout", GRACE, *log, *arguments, f"app:app({app})").ready()

    return begin


def deliver(server: Server) -> str:
    """The answer to one message; after QUIT the connection ends."""
    with Talk(server.port()) as talk:
        talk.begin_data()
        answer = talk.ask("x\r\n.")
        assert talk.ask("QUIT").startswith("221"), server.output
        assert talk.read() == ""
        return answer


def stop(server: Server) -> float:
    """How long it took. The port is free at once."""
    port, began = server.port(), time.monotonic()
    assert server.stop() == 0, server.output
    took = time.monotonic() - began
    with socket.create_server(("127.0.0.1", port)):  # reuse_port would hide it
        pass
    wait_until(lambda: not server.group(), "the end of multiprocessing's own processes")
    return took


def alive(server: Server) -> int:
    """Processes, but for the master and those that nobody has waited for."""
    return sum(state != "Z" for state in server.group().values())


METHODS = ("fork", "spawn", "forkserver")


@pytest.mark.parametrize("at", ["start", "import"])
@pytest.mark.parametrize("method", METHODS)
def test_an_executor_ends_with_the_server(begin, method: str, at: str) -> None:
    server = begin(f"'executor', 'work', {method!r}, {at!r}")
    assert deliver(server) == "250 2.0.0 42"
    assert stop(server) < SOON


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("method", METHODS)
def test_an_executor_that_a_handler_begins(begin, method: str, preload: bool) -> None:
    server = begin(f"'nothing', 'lazy', {method!r}", *["--preload"] * preload)
    assert deliver(server) == "250 2.0.0 42"
    assert stop(server) < SOON


@pytest.mark.parametrize("at", ["start", "import"])
@pytest.mark.parametrize("method", METHODS)
def test_a_daemonic_process_ends_with_the_server(begin, method: str, at: str) -> None:
    server = begin(f"'daemon', method={method!r}, at={at!r}")
    assert deliver(server) == "250 2.0.0 done"
    assert stop(server) < SOON


@pytest.mark.parametrize(
    ("what", "method"), [("busy", "fork"), ("fork", "fork"), ("stubborn", "fork"), *(("process", m) for m in METHODS)]
)
def test_a_process_that_goes_on_has_the_time_that_sessions_have(begin, what: str, method: str) -> None:
    server = begin(f"{what!r}, method={method!r}")
    assert deliver(server) == "250 2.0.0 done"
    assert stop(server) < float(GRACE) + 3.0
    assert server.matches("ends the processes that the application has begun: time is up")
    assert server.matches(r"worker \d+ exited with code 0 \(stop\)"), server.output


@pytest.mark.parametrize("what", ["executor", "daemon", "process", "fork", "stubborn"])
def test_what_a_preloaded_application_has_begun_ends_with_the_master(begin, what: str) -> None:
    server = begin(f"{what!r}, at='import'", "--preload", "-w", "2")
    assert deliver(server) == "250 2.0.0 done"
    assert alive(server) > 2
    assert stop(server) < float(GRACE)


def test_a_worker_that_leaves_does_not_end_what_its_master_has_begun(begin) -> None:
    server = begin("'daemon', at='import'", "--preload", "--log-level", "debug")
    worker = int(server.wait_for(r"worker (\d+): ready")[1])
    (helper,) = server.children() - {worker}
    os.kill(worker, signal.SIGTERM)
    server.wait_for(rf"worker {worker} exited")
    server.wait_for(r"worker \d+: ready", count=2)
    assert helper in server.children()
    assert stop(server) < SOON


@pytest.mark.parametrize("what", ["executor", "daemon", "process", "fork"])
def test_a_killed_worker_leaves_nothing_behind(begin, what: str) -> None:
    server = begin(f"{what!r}", "--log-level", "debug")
    worker = int(server.wait_for(r"worker (\d+): ready")[1])
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: (stat(worker) or "?")[0] == "T", "a worker that does nothing more")
    before = set(server.group()) - {worker}
    assert before
    os.kill(worker, signal.SIGKILL)
    server.wait_for(r"worker \d+: ready", count=2)
    wait_until(lambda: not before & set(server.group()), "the end of its children")
    deliver(server)
    server.stop(signal.SIGQUIT)


def test_a_killed_master_leaves_nothing_behind(begin) -> None:
    server = begin("'executor', 'work'")
    deliver(server)
    port = server.port()
    server.send(signal.SIGKILL)
    server.wait()
    wait_until(lambda: not server.group(), "the end of all")
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_roll_with_an_executor(begin) -> None:
    server = begin("'executor', 'work'", "-w", "2")
    deliver(server)
    old = set(server.group())
    for count in (1, 2):
        server.send(signal.SIGHUP)
        server.wait_for("reload done", count=count)
    wait_until(lambda: not old & set(server.group()), "the end of the first generation, executors and all")
    assert deliver(server) == "250 2.0.0 42"
    assert stop(server) < SOON


def test_terminate_ends_a_process_however_young_it_is(begin) -> None:
    server = begin("'nothing', 'terminate'")
    assert deliver(server) == "250 2.0.0 {-15}"


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("returns", 0, "came back from there, and is ended; end it by os._exit"),
        ("rejects", 0, "came back from there, and is ended"),
        ("raises", 1, "the handler's message, raised LookupError"),
        ("exits", 7, ""),
    ],
)
def test_a_child_that_comes_back_ends(begin, tmp_path: Path, how: str, code: int, said: str) -> None:
    server = begin(f"'nothing', {how!r}")
    for _ in range(3):
        assert deliver(server) == f"250 2.0.0 {code}"
    if said:
        server.wait_for(said, count=3)
    assert len((tmp_path / "access").read_text().splitlines()) == 3, "the child writes none"
    wait_until(lambda: alive(server) == 1, "the child's end")
    assert stop(server) < SOON


def test_a_child_that_lives_on_holds_no_client_and_no_port(begin) -> None:
    server = begin("'nothing', 'lives'")
    with Talk(server.port()) as other:  # has a session while the child is forked
        assert deliver(server) == "250 2.0.0 done"  # to the end of the connection
        assert alive(server) == 2
        assert other.ask("QUIT").startswith("221")
        assert other.read() == ""
    server.send(signal.SIGQUIT)
    port = server.port()
    assert server.wait() == 0
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_what_a_child_has_of_ours(begin) -> None:
    server = begin("'nothing', 'inside'", "--error-logfile", "-")
    with Talk(server.port()):
        deliver(server)
    descriptors, handled = ast.literal_eval(server.wait_for("SEEN (.*)")[1])
    assert not [name for name in descriptors.values() if name.startswith("socket:")], descriptors
    pipes = {name for fd, name in descriptors.items() if fd > 2 and name.startswith("pipe:")}
    assert len(pipes - {descriptors[1], descriptors[2]}) == 4, "its own, and three by which it ends with its worker"
    assert not any(handled)


def test_another_program_has_nothing_of_ours(begin) -> None:
    server = begin("'nothing', 'run'")
    assert deliver(server) == "250 2.0.0 [0, 1, 2, 3]"  # 3 is the folder it reads


def test_another_program_goes_on_without_the_port(begin) -> None:
    server = begin("'nothing', 'leave_running'")
    pid = int(deliver(server).split()[-1])
    port = server.port()
    try:
        server.send(signal.SIGTERM)
        server.process.wait(PATIENCE)
        with socket.create_server(("127.0.0.1", port)):
            pass
        assert stat(pid) is not None
    finally:
        os.kill(pid, signal.SIGKILL)
    assert server.wait() == 0
    wait_until(lambda: not server.group(), "its end")


def test_asynchronous_subprocesses(begin) -> None:
    server = begin("'nothing', 'asynchronous'")
    assert deliver(server) == "250 2.0.0 42"
    assert stop(server) < SOON


FOREIGN = """
import os
from preforksmtp.adapters import aiosmtpd

class Handler:
    async def handle_DATA(self, server, session, envelope):
        pid = os.fork()
        if pid == 0:
            {child}
        return f"250 {{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}}"

handler = aiosmtpd(Handler)
"""


@pytest.mark.parametrize(("child", "code"), [("return '250 from the child'", 0), ("raise LookupError", 1)])
def test_a_child_of_a_foreign_handler_that_comes_back_ends(
    serve: Serve, tmp_path: Path, child: str, code: int
) -> None:
    (tmp_path / "foreign.py").write_text(FOREIGN.format(child=child))
    server = serve("-b", LOOPBACK, "foreign:handler").ready()
    for _ in range(2):
        assert deliver(server) == f"250 2.0.0 {code}"
    assert alive(server) == 1
    assert stop(server) < SOON


CONFIG = """
import os
def {hook}({arguments}):
    if os.fork() == 0:
        return
"""


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [("on_starting", "server"), ("pre_fork", "server, worker"), ("post_fork", "server, worker"),
     ("post_worker_init", "worker"), ("worker_exit", "server, worker")],
)  # fmt: skip
def test_a_child_of_a_hook_that_comes_back_is_no_second_server(
    begin, tmp_path: Path, hook: str, arguments: str
) -> None:
    (tmp_path / "preforksmtp.conf.py").write_text(CONFIG.format(hook=hook, arguments=arguments))
    server = begin("'nothing'")
    assert deliver(server) == "250 2.0.0 done"
    wait_until(lambda: alive(server) == 1, "the child's end")
    assert stop(server) < SOON
    assert len(server.matches(f"forked in hook {hook}, came back from there")) == 1


def test_a_child_of_the_config_file_that_comes_back_is_no_second_server(begin, tmp_path: Path) -> None:
    (tmp_path / "preforksmtp.conf.py").write_text("import os\nos.fork()\n")
    server = begin("'nothing'")
    server.wait_for("forked in config file .*preforksmtp.conf.py, came back from there")
    assert len(server.matches("starting 1 workers")) == 1
    wait_until(lambda: alive(server) == 1, "the child's end")
    assert stop(server) < SOON
