"""The control socket and preforksmtpctl: each order waits for its outcome, and nothing said there hurts the master."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import selectors
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preforksmtp.control.listener import _Connection
from tests.processes import PATIENCE, ROOT, descriptors, wait_until
from tests.processes import stat as process_stat
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

SOCKET = "ctl.sock"
APP = """
import os, time
from preforksmtp import Handler

class Odd:
    def __repr__(self):
        return "odd"

    def __str__(self):
        if os.path.exists("odd"):
            raise RuntimeError("as asked")
        return "odd"

class Mail(Handler):
    @classmethod
    def start(cls, worker):
        if os.path.exists("broken"):
            raise RuntimeError("as asked")
        while os.path.exists("hold"):
            time.sleep(0.01)

    def helo(self, name):
        if name == "odd.example.com":
            self.session.user = Odd()

    def message(self, message):
        while os.path.exists("hold"):
            time.sleep(0.01)
"""


class Ctl:
    """preforksmtpctl beside a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "preforksmtp.ctl", "-s", SOCKET, *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )

    def ask(self, *words: str) -> Any:
        """The result of an order that is carried out."""
        done = self.run("-j", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        answer = json.loads(done.stdout)
        assert answer["ok"] is True
        return answer["result"]

    def refusal(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith("preforksmtpctl: error: ")
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.removeprefix("preforksmtpctl: error: ").rstrip("\n")

    def workers(self) -> list[int]:
        return [worker["pid"] for worker in self.ask("show", "workers")]


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    (tmp_path / "app.py").write_text(APP)
    return Ctl(tmp_path)


def begin(serve: Serve, *arguments: str) -> Server:
    return serve("-b", LOOPBACK, "--control-socket", SOCKET, *arguments, "app:Mail").ready()


def end(server: Server, ctl: Ctl) -> None:
    """Of a server whose master is not the process the test started."""
    assert ctl.ask("shutdown") == "stopped"
    wait_until(lambda: not server.group(), "all of it is gone")


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        wait_until(lambda: sock.connect_ex(str(folder / SOCKET)) != errno.EAGAIN, "a place in its queue")
        yield sock


def read(sock: socket.socket) -> bytes:
    text = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            text += data
    return text


def test_show(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve, "-w", "2")
    assert set(ctl.workers()) == server.children()
    assert ctl.ask("show", "listeners") == [f"smtp://127.0.0.1:{server.port()}"]
    assert ctl.run("show", "workers").stdout.count("ready") == 2
    config = {row["name"]: (row["value"], row["origin"]) for row in ctl.ask("show", "config")}
    assert config["workers"] == ("2", "command line")
    (tmp_path / "hold").touch()
    with Talk(server.port()) as talk:
        talk.begin_data("me@example.com")
        (session,) = ctl.ask("show", "sessions")["sessions"]
        assert (session["sender"], session["recipients"], session["hook"]) == ("me@example.com", 1, "")
        assert session["helo"] == "client.example.com"
        assert session["worker"] in server.children()
        talk.send(b"Subject: x\r\n\r\n.\r\n")
        wait_until(lambda: ctl.ask("show", "sessions")["sessions"][0]["hook"] == "message", "the handler runs")
        assert ctl.ask("show", "stats")["sessions_active"] == 1
        assert "client.example.com" in ctl.run("show", "sessions").stdout
        threads = ctl.ask("worker", "dump", str(session["worker"]))["threads"]
        (mine,) = [thread for thread in threads if thread["session"] == session["session"]]
        assert "in message" in mine["stack"]
        (tmp_path / "hold").unlink()
        assert talk.read().startswith("250")
    assert "messages" in ctl.run("show", "stats").stdout
    assert ctl.ask("show", "stats")["totals"]["messages"] == 1


def replaced(ctl: Ctl, old: set[int]) -> set[int]:
    """The workers once the old ones, which take no new session any more, have left."""
    wait_until(lambda: not set(ctl.workers()) & old, "old workers gone")
    return set(ctl.workers())


def test_reload_waits_for_its_outcome(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    begin(serve, "-w", "2")
    before = set(ctl.workers())
    assert ctl.ask("reload") == "reloaded: 2 workers"
    before = replaced(ctl, before)
    (tmp_path / "app.py").write_text("def nothing(:\n")
    assert "former configuration and workers go on" in ctl.refusal("reload")
    assert set(ctl.workers()) == before
    assert "former configuration and workers go on" in ctl.refusal("restart")
    (tmp_path / "app.py").write_text(APP)
    assert ctl.ask("restart") == "all workers replaced: 2 workers"
    replaced(ctl, before)
    assert ctl.ask("show", "stats")["totals"]["reloads"] == 2
    assert ctl.ask("show", "stats")["totals"]["reloads_failed"] == 1


def test_many_reloads_at_once_each_have_an_outcome(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    begin(serve)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(tmp_path)) for _ in range(8)]
        for sock in socks:
            sock.sendall(b'{"order": ["reload"]}\n')
        assert [json.loads(read(sock)) for sock in socks] == [{"ok": True, "result": "reloaded: 1 workers"}] * 8


def test_scale(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    assert ctl.ask("scale", "3") == "3 workers"
    assert len(server.children()) == 3
    assert ctl.ask("scale", "+1") == "4 workers"
    assert ctl.ask("scale", "-2") == "2 workers"
    wait_until(lambda: len(server.children()) == 2, "two left")
    for wrong in ("0", "x", "100000", "--1", "9999999"):
        assert ctl.refusal("scale", "--", wrong), wrong
    assert len(ctl.workers()) == 2
    (tmp_path / "broken").touch()
    assert "died while booting" in ctl.refusal("scale", "3")


def test_workers_one_by_one(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve, "-w", "2")
    first, second = sorted(server.children())
    assert ctl.ask("worker", "drain", str(first)) == f"worker {first} is gone"
    assert first not in server.children()
    server.wait_for(rf"worker {first}: preforksmtpctl, starting its replacement")
    server.wait_for(rf"worker {first} exited with code 0 \(preforksmtpctl\)")
    assert ctl.ask("worker", "kill", str(second)) == f"worker {second} is gone"
    wait_until(lambda: len(server.children() - {second}) == 2, "two workers again")
    assert "there is no worker 1;" in ctl.refusal("worker", "kill", "1")


def test_a_worker_that_hangs_in_c_has_its_stacks_in_the_log(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve)
    worker = server.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_until(lambda: (process_stat(worker) or ("",))[0] == "T", "stopped")
        assert "does not answer" in ctl.refusal("worker", "dump", str(worker))
        assert ctl.ask("show", "sessions") == {"sessions": [], "silent": [worker]}
    finally:
        os.kill(worker, signal.SIGCONT)
    server.wait_for(r'File ".*worker.py", line \d+ in _live')
    assert ctl.ask("worker", "dump", str(worker))["threads"]  # it lives


def test_what_a_handler_makes_of_its_session_hurts_nobody(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    with Talk(server.port()) as talk:
        talk.ask("EHLO odd.example.com")
        assert ctl.ask("show", "sessions")["sessions"][0]["user"] == "odd"
        (tmp_path / "odd").touch()
        (answer,) = ctl.ask("show", "sessions")["sessions"]
        assert answer["fault"] == "RuntimeError('as asked')"
        assert ctl.run("show", "sessions").returncode == 0
        assert talk.ask("NOOP").startswith("250")


def test_the_first_worker_of_a_reload_may_be_killed(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    (old,) = server.children()
    (tmp_path / "hold").touch()
    with connected(tmp_path) as sock:
        sock.sendall(b'{"order": ["reload"]}\n')
        wait_until(lambda: len(ctl.workers()) == 2, "the first new worker boots")
        (new,) = set(ctl.workers()) - {old}
        assert "is the first one of a reload" in ctl.refusal("worker", "drain", str(new))
        assert ctl.ask("worker", "kill", str(new)) == f"worker {new} is gone"
        answer = json.loads(read(sock))
        assert answer["ok"] is False
        assert "before it was ready" in answer["error"]
    (tmp_path / "hold").unlink()
    assert ctl.ask("reload") == "reloaded: 1 workers"
    replaced(ctl, {old})


def test_a_reload_that_winch_drops_has_an_outcome(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    (tmp_path / "hold").touch()
    with connected(tmp_path) as first, connected(tmp_path) as second:
        first.sendall(b'{"order": ["reload"]}\n')
        wait_until(lambda: len(ctl.workers()) == 2, "the first new worker boots")
        second.sendall(b'{"order": ["reload"]}\n')
        server.wait_for("another will follow")
        server.send(signal.SIGWINCH)
        assert json.loads(read(first))["ok"] is False
        assert json.loads(read(second))["ok"] is False
    (tmp_path / "hold").unlink()


def test_a_big_answer_to_a_slow_reader() -> None:
    server, client = socket.socketpair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server.setblocking(False)
    connection = _Connection(server)
    connection._reply({"ok": True, "result": "x" * 500_000})
    orders: Any = None
    received = b""
    with server, client:
        while not connection.over:
            assert connection.waits_for() & selectors.EVENT_WRITE or not received
            connection.advance(orders)
            received += client.recv(3000)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := client.recv(65536):
                received += data
    assert len(json.loads(received)["result"]) == 500_000
    assert connection.waits_for() == 0


def test_log_level(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve)
    assert not server.matches("DEBUG")
    ctl.ask("log-level", "debug")

    def visit() -> bool:
        with Talk(server.port()):
            pass
        return bool(server.matches(r"DEBUG\] session \w+: 127.0.0.1:\d+ left without QUIT"))

    wait_until(visit, "the worker logs debug messages")
    ctl.ask("log-level", "default")
    ctl.ask("show", "stats")
    assert not server.matches(r"DEBUG\] control: show stats")
    assert "choose debug, info" in ctl.refusal("log-level", "loud")


def test_reopen(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    begin(serve, "--access-logfile", "access.log")
    os.rename(tmp_path / "access.log", tmp_path / "access.1")
    assert ctl.ask("reopen") == "logs reopened"
    assert (tmp_path / "access.log").exists()


def test_a_log_that_cannot_be_reopened(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    begin(serve, "--access-logfile", "access.log", "--transcript", "said.log")
    for name in ("access.log", "said.log"):
        os.unlink(tmp_path / name)
        (tmp_path / name).mkdir()
    said = ctl.refusal("reopen")
    assert "access_logfile: cannot open" in said
    assert "transcript: cannot open" in said
    for name in ("access.log", "said.log"):
        (tmp_path / name).rmdir()
    assert ctl.ask("reopen") == "logs reopened"


def test_shutdown_returns_when_the_server_is_gone(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve, "-p", "pid")
    (tmp_path / "hold").touch()
    with Talk(server.port()) as talk:
        talk.begin_data()
        talk.send(b"\r\n.\r\n")
        wait_until(lambda: ctl.ask("show", "sessions")["sessions"][0]["hook"] == "message", "the handler runs")
        with connected(tmp_path) as sock:
            sock.sendall(b'{"order": ["shutdown"]}\n')
            server.wait_for("draining")
            assert "the server is stopping" in ctl.refusal("reload")
            assert "the server is stopping" in ctl.refusal("scale", "2")
            (tmp_path / "hold").unlink()
            assert talk.read().startswith("250")
            assert json.loads(read(sock)) == {"ok": True, "result": "stopped"}
            assert not (tmp_path / "pid").exists()  # the connection ends after all of it
            assert not (tmp_path / SOCKET).exists()
    assert server.wait() == 0


def test_shutdown_quick(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve)
    with Talk(server.port()) as talk:
        talk.begin_data()
        assert ctl.ask("shutdown", "quick") == "stopped"
    assert server.wait() == 0


def test_upgrade(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve, "-p", "pid")
    answer = ctl.ask("upgrade")
    new = int(answer.rsplit(" ", 1)[1])
    assert answer == f"upgraded: the new master is {new}"
    assert server.process.wait(PATIENCE) == 0
    assert ctl.ask("show", "stats")["master"] == new  # the socket's name is the new one's
    assert sorted(path.name for path in tmp_path.glob("ctl*")) == [SOCKET]
    end(server, ctl)
    assert not list(tmp_path.glob("ctl*"))


def test_an_upgrade_that_fails(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "conf.py").touch()
    server = begin(serve, "-c", "conf.py")
    (tmp_path / "conf.py").write_text("workers = 'many'\n")
    assert "the upgrade failed, this program goes on" in ctl.refusal("upgrade")
    assert ctl.ask("show", "stats")["master"] == server.pid
    assert sorted(path.name for path in tmp_path.glob("ctl*")) == [SOCKET]


def test_a_manual_upgrade(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve, "--upgrade", "manual")
    answer = ctl.ask("upgrade")
    assert f"upgrade is manual, send TERM to {server.pid}" in answer
    assert "no upgrade: one is under way" in ctl.refusal("upgrade")
    server.send(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0  # its child goes on as the program's session, and holds the output
    wait_until(lambda: ctl.run("show", "stats").returncode == 0, "the new master has the socket's name")
    end(server, ctl)


def test_reload_with_preload_is_an_upgrade(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve, "--preload")
    assert ctl.ask("reload").startswith("upgraded: the new master is ")
    server.process.wait(PATIENCE)
    (tmp_path / "app.py").write_text("def nothing(:\n")
    assert "the upgrade failed" in ctl.refusal("reload")
    end(server, ctl)


def test_the_socket_is_its_owners_alone(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve, "-w", "1")
    assert stat.S_IMODE(os.stat(tmp_path / SOCKET).st_mode) == 0o600
    if os.geteuid() == 0:
        os.chmod(tmp_path / SOCKET, 0o666)  # even then
        tmp_path.chmod(0o755)
        script = (
            "import os, socket; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
            "s.connect('ctl.sock'); s.sendall(b'{\"order\": [\"shutdown\"]}\\n'); print(s.recv(100))"
        )
        folder = tmp_path
        while folder.stat().st_uid == 0 and folder != Path("/tmp") and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
            folder = folder.parent
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "PermissionError" not in done.stderr
        assert done.stdout.strip() == "b''" or "Error" in done.stderr  # closed unheard
    assert server.process.poll() is None
    assert ctl.workers()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\n", "an order is one line of JSON"),
        (b"{}\n", "an order is one line of JSON"),
        (b"[]\n", "an order is one line of JSON"),
        (b'{"order": []}\n', "an order is one line of JSON"),
        (b'{"order": "reload"}\n', "an order is one line of JSON"),
        (b'{"order": [1]}\n', "an order is one line of JSON"),
        (b"[" * 4000 + b"\n", "an order is one line of JSON"),
        (b"\xff\xfe\x00\n", "an order is one line of JSON"),
        (b'{"order": ["frob"]}\n', "unknown order 'frob'"),
        (b'{"order": ["reload", "now"]}\n', "reload takes no argument"),
        (b'{"order": ["scale"]}\n', "scale takes N|+N|-N"),
        (b"x" * 5000, "an order has at most 4096 bytes"),
    ],
)
def test_what_is_no_order(serve: Serve, ctl: Ctl, tmp_path: Path, line: bytes, error: str) -> None:
    begin(serve)
    with connected(tmp_path) as sock:
        sock.sendall(line)
        answer = json.loads(read(sock))
    assert answer["ok"] is False
    assert answer["error"].startswith(error)
    assert len(ctl.workers()) == 1


def test_rubbish_and_clients_that_leave_cost_nothing(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    with connected(tmp_path) as sock:
        sock.sendall(b'{"order": ["show", "workers"]}\n')
        assert len(json.loads(read(sock))["result"]) == 1  # read to its end: the master has closed it, too
    before = descriptors(server.pid)
    noise = random.Random(1)
    for _ in range(200):
        with connected(tmp_path) as sock, contextlib.suppress(OSError):
            sock.sendall(noise.randbytes(noise.randrange(6000)))
            if noise.random() < 0.3:
                sock.sendall(b'{"order": ["reload"]}\n')
    with contextlib.ExitStack() as stack:  # more at once than are heard
        socks = [stack.enter_context(connected(tmp_path)) for _ in range(40)]
        closed = [sock for sock in socks[30:] if not sock.recv(1)]
        assert closed
    wait_until(lambda: descriptors(server.pid) == before, "no descriptor left")
    assert len(ctl.workers()) == 1
    assert "Traceback" not in server.output


def test_a_client_that_says_no_more_still_gets_its_answer(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    """As `echo ... | nc -N -U` does."""
    server = begin(serve)
    before = server.children()
    with connected(tmp_path) as sock:
        sock.sendall(b'{"order": ["reload"]}\n')
        sock.shutdown(socket.SHUT_WR)
        assert json.loads(read(sock)) == {"ok": True, "result": "reloaded: 1 workers"}
    wait_until(lambda: not server.children() & before, "old workers gone")
    with connected(tmp_path) as sock:
        sock.shutdown(socket.SHUT_WR)  # and no order at all
        assert read(sock) == b""


def test_an_order_outlives_its_client(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    before = descriptors(server.pid)
    with connected(tmp_path) as sock:
        sock.sendall(b'{"order": ["reload"]}\n')
        server.wait_for("reloading")
    server.wait_for("reload done")
    wait_until(lambda: descriptors(server.pid) == before, "its connection is closed")


def test_without_descriptors_the_master_does_not_spin(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    limit = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (descriptors(server.pid), limit[1]))
    with connected(tmp_path) as sock:
        sock.sendall(b'{"order": ["show", "listeners"]}\n')
        server.wait_for("control: cannot accept: Too many open files", count=2)  # a second apart, and not at once
        assert len(server.matches("cannot accept")) <= 3
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limit)
        assert json.loads(read(sock))["ok"] is True


def test_no_server(ctl: Ctl, tmp_path: Path) -> None:
    done = ctl.run("show", "stats")
    assert (done.returncode, done.stderr) == (
        3,
        "preforksmtpctl: error: ctl.sock: there is no such socket; is the server running, with control_socket set?\n",
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / SOCKET))
    assert "no server listens there any more" in ctl.run("show", "stats").stderr


def test_it_finds_the_socket_as_the_server_does(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "preforksmtp.conf.py").write_text("control_socket = 'own.sock'\n")
    serve("-b", LOOPBACK, "app:Mail").ready()
    command = [sys.executable, "-m", "preforksmtp.ctl"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "show", "workers"], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ready" in done.stdout
    (tmp_path / "preforksmtp.conf.py").write_text("")
    done = subprocess.run([*command, "show", "workers"], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the configuration has no control_socket; name the socket with --socket PATH" in done.stderr


def test_a_wait_can_be_cut_short(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    server = begin(serve)
    (tmp_path / "hold").touch()
    with Talk(server.port()) as talk:
        talk.begin_data()
        talk.send(b"\r\n.\r\n")
        wait_until(lambda: ctl.ask("show", "sessions")["sessions"][0]["hook"] == "message", "the handler runs")
        done = ctl.run("-t", "0.2", "worker", "drain", str(server.worker()))
        assert done.returncode == 4
        assert "no outcome within 0.2 s; the order goes on" in done.stderr
        (tmp_path / "hold").unlink()
        assert talk.read().startswith("250")


# --- sessions, clients, and what is to be seen of them


def test_sessions_sorted_and_filtered(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve)
    with Talk(server.port()) as one, Talk(server.port()) as two:
        assert one.ask("EHLO one.example").startswith("250")
        assert one.ask("MAIL FROM:<a@example.com>").startswith("250")
        assert two.ask("EHLO two.example").startswith("250")

        def shown(*options: str) -> list[str]:
            return [line["helo"] for line in ctl.ask("show", "sessions", *options)["sessions"]]

        assert shown("--sort", "bytes") == ["one.example", "two.example"]
        assert shown("--stage", "mail") == ["one.example"]
        assert shown("--peer", "127.0.0.0/8", "--sort", "bytes", "--limit", "1") == ["one.example"]
        assert shown("--peer", "192.0.2.1") == shown("--login", "bob") == []
        (client,) = ctl.ask("show", "clients")
        assert (client["client"], client["sessions"], client["messages"]) == ("127.0.0.1", 2, 1)
        session = ctl.ask("show", "sessions", "--stage", "mail")["sessions"][0]
        assert session["bind"] == LOOPBACK
        assert session["received"] == len("EHLO one.example\r\nMAIL FROM:<a@example.com>\r\n")
        assert "no session" not in ctl.run("top", "--once").stdout


def test_one_session_is_closed(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve, "-w", "2")
    with Talk(server.port()) as one, Talk(server.port()) as two:
        for talk in (one, two):
            assert talk.ask("EHLO x").startswith("250")
        names = {line["peer"]: line["session"] for line in ctl.ask("show", "sessions")["sessions"]}
        name = names["{}:{}".format(*one.socket.getsockname())]
        assert ctl.ask("session", "close", name) == f"session {name} is closed"
        assert one.read().startswith("421 4.3.2")
        assert one.read() == ""
        assert two.ask("NOOP").startswith("250")
        assert ctl.refusal("session", "close", name) == f"there is no session {name}"


def test_a_client_is_transcribed_for_a_while(serve: Serve, ctl: Ctl) -> None:
    server = begin(serve, "-w", "2")
    ctl.ask("log-level", "error")  # what was asked for is seen all the same

    def say(word: str) -> None:
        with Talk(server.port()) as talk:
            assert talk.ask(f"EHLO {word}.example").startswith("250")

    say("before")
    assert ctl.ask("transcript", "on", "127.0.0.0/8", "--for", "1m").startswith("new sessions of 127.0.0.0/8 are in")
    with Talk(server.port()) as talk:
        assert talk.ask("EHLO during.example").startswith("250")
        assert talk.ask("AUTH PLAIN AGJvYgBzZWNyZXQ=").startswith("5")
        wait_until(lambda: server.matches(r"transcript session=\w+ C: EHLO during\.example"), "it is in the log")
        assert "is not transcribed; there are 127.0.0.0/8" in ctl.refusal("transcript", "off", "::1")
        assert ctl.ask("transcript", "off", "127.0.0.0/8")
        assert talk.ask("NOOP after").startswith("250")
    say("afterwards")
    assert server.matches(r"transcript session=\w+ C: AUTH PLAIN \*+")
    for unseen in ("EHLO before", "NOOP after", "EHLO afterwards", "AGJvYgBz"):
        assert not server.matches(unseen)


def test_a_transcript_that_cannot_be(serve: Serve, ctl: Ctl) -> None:
    begin(serve, "--transcript", "said.log")
    assert "is no address or network" in ctl.refusal("transcript", "on", "mx.example")
    assert "from 1 second to a day" in ctl.refusal("transcript", "on", "::1", "86401")
    assert "how long" in ctl.refusal("transcript", "on", "::1", "soon")
    assert "the setting transcript has all sessions" in ctl.refusal("transcript", "on", "::1")


def test_a_misspelt_order_is_none_at_all(ctl: Ctl) -> None:
    done = ctl.run("relaod")
    assert done.returncode == 2
    assert done.stderr == "preforksmtpctl: error: unknown order 'relaod'; did you mean 'reload'?\n"
    assert "takes no argument" in ctl.run("reload", "now").stderr


def test_what_differs_from_the_default(serve: Serve, ctl: Ctl) -> None:
    begin(serve, "-w", "2")
    names = {row["name"] for row in ctl.ask("show", "config", "--changed")}
    assert {"workers", "bind", "control_socket"} <= names
    assert "threads" not in names


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(ctl: Ctl, shell: str, tmp_path: Path) -> None:
    script = ctl.run("--completion", shell).stdout
    if shell == "zsh":
        assert script.startswith("autoload")
        return
    (tmp_path / "complete").write_text(script)
    ask = f"source {tmp_path}/complete; COMP_WORDS=(preforksmtpctl show se); COMP_CWORD=2; _preforksmtpctl; echo ${{COMPREPLY[*]}}"
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout == "sessions\n"


def test_a_reader_that_leaves_is_no_error(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    begin(serve)
    command = f"{sys.executable} -m preforksmtp.ctl -s {SOCKET} show config | head -n 1"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("app")
    assert done.stderr == ""


def test_a_reload_that_fails_says_why(serve: Serve, ctl: Ctl, tmp_path: Path) -> None:
    begin(serve)
    good = (tmp_path / "app.py").read_text()
    (tmp_path / "app.py").write_text(good + "\n1 / 0\n")
    line = len(good.splitlines()) + 2
    said = ctl.refusal("reload")
    assert f"app.py, line {line}: app 'app:Mail': importing app raised ZeroDivisionError: division by zero" in said
    (tmp_path / "app.py").write_text(good)
    assert ctl.ask("reload").startswith("reloaded")
