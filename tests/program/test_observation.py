"""The status process on a running server: it answers whatever workers and master do, and what it counts is true."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE, Program, processes, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

APP = """
import os, time
from preforksmtp import Reject

def handler(message):
    while os.path.exists("hold"):
        time.sleep(0.01)
    while os.path.exists("spin"):
        pass
    if "refuse" in message.sender:
        raise Reject(550, "5.7.1 no")
"""


class Status:
    """Clients of the status process, on a unix socket or a port."""

    def __init__(self, address: str | int) -> None:
        self.address = address

    def connect(self) -> socket.socket:
        if isinstance(self.address, int):
            return socket.create_connection(("127.0.0.1", self.address), PATIENCE)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(self.address)
        return sock

    def ask(self, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("status")
        connection.sock = self.connect()
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers
        finally:
            connection.close()

    def text(self, path: str) -> str:
        code, text, _ = self.ask(path)
        return f"{code} {text.strip()}"

    def stats(self) -> Any:
        return json.loads(self.ask("/stats")[1])

    def metrics(self) -> dict[str, float]:
        code, text, _ = self.ask("/metrics")
        assert code == 200, text
        return {name: float(value) for name, value in re.findall(r"^(preforksmtp\S+) (\S+)$", text, re.MULTILINE)}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def begin(serve: Serve, folder: Path, *arguments: str) -> tuple[Server, Status]:
    server = serve("-b", LOOPBACK, "--status-bind", "unix:status", *arguments, "app:handler").ready()
    status = Status(str(folder / "status"))
    wait_until(lambda: status.text("/readyz") == "200 ok", "ready")
    return server, status


def status_pid(server: Program) -> int:
    """Its command name says what it is."""
    found: list[int] = []

    def look() -> list[int]:
        for pid in server.group():
            try:
                if Path(f"/proc/{pid}/comm").read_text() == "preforksmtp s\n":
                    found.append(pid)
            except OSError:
                continue
        return found

    wait_until(look, "a status process")
    return found[0]


def deliver(server: Server, count: int = 1, sender: str = "a@example.com") -> str:
    answer = ""
    with Talk(server.port()) as talk:
        for _ in range(count):
            talk.begin_data(sender)
            talk.send(b"Subject: x\r\n\r\n.\r\n")
            answer = talk.read()
    return answer


def test_pages(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    deliver(server, 3)
    assert deliver(server, 1, "refuse@example.com").startswith("550")
    assert status.text("/livez") == status.text("/healthz") == "200 ok"
    metrics = status.metrics()
    assert metrics['preforksmtp_messages_total{result="accepted"}'] == 3
    assert metrics['preforksmtp_messages_total{result="rejected"}'] == 1
    assert metrics["preforksmtp_handler_seconds_count"] == 4
    assert metrics["preforksmtp_ready"] == 1
    assert status.stats()["totals"]["messages"] == 3
    assert status.stats()["listeners"] == [f"smtp://127.0.0.1:{server.port()}"]
    code, page, headers = status.ask("/")
    assert code == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert page.startswith("<!DOCTYPE html>")
    assert str(server.pid) in page
    code, nothing, headers = status.ask("/stats?pretty", "HEAD")
    assert (code, nothing) == (200, "")
    assert int(headers["Content-Length"]) > 100
    assert status.ask("/nothing")[0] == 404
    assert status.ask("/../etc/passwd")[0] == 404
    assert status.ask("/", "POST")[0] == 405
    assert status.ask("/metrics", "DELETE")[2]["Allow"] == "GET, HEAD"


def test_on_a_port(serve: Serve, app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    serve("-b", LOOPBACK, "--status-bind", f"127.0.0.1:{port}", "app:handler").ready()
    wait_until(lambda: Status(port).text("/readyz") == "200 ok", "ready")


def test_readiness(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app, "--threads", "1")
    (app / "hold").touch()
    with Talk(server.port()) as talk:
        talk.begin_data()
        talk.send(b"\r\n.\r\n")
        assert status.text("/readyz") == "200 ok"  # who comes now waits, and is served
        assert status.text("/readyz?busy=503") == "503 all session threads are busy"
        assert status.stats()["state"] == "busy"
        wait_until(lambda: status.stats()["workers"][0]["longest_handler_seconds"] > 0, "the handler is seen")
        server.send(signal.SIGTERM)
        wait_until(lambda: status.text("/readyz") == "503 stopping", "stopping")
        assert status.text("/livez") == "200 ok"
        (app / "hold").unlink()
        assert talk.read().startswith("250")
    assert server.wait() == 0
    assert not (app / "status").exists()


def test_no_worker(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    server.send(signal.SIGWINCH)
    wait_until(lambda: status.text("/readyz") == "503 no worker is ready", "dismissed")
    assert status.stats()["state"] == "dismissed"
    server.send(signal.SIGHUP)
    wait_until(lambda: status.text("/readyz") == "200 ok", "ready again")


def test_it_answers_while_every_worker_burns_its_processor(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app, "-w", "2", "--threads", "4")
    (app / "spin").touch()
    try:
        talks = [Talk(server.port()) for _ in range(8)]
        for talk in talks:
            talk.begin_data()
            talk.send(b"\r\n.\r\n")
        wait_until(lambda: status.stats()["sessions_active"] == 8, "all of them spin")  # with all threads there are
        times = []
        for _ in range(10):
            began = time.monotonic()
            assert status.text("/livez") == "200 ok"
            assert status.metrics()["preforksmtp_sessions_active"] == 8
            times.append(time.monotonic() - began)
        # 100 ms is what is promised of one; where four suites share the machine this only says that nobody waits.
        assert sorted(times)[5] < 2.0
    finally:
        (app / "spin").unlink()
    for talk in talks:
        assert talk.read().startswith("250")
        talk.close()


def insist(server: Server) -> None:
    """Deliver one message, to a server whose workers come and go: what is refused or cut off before is tried again."""

    def attempt() -> bool:
        try:
            return deliver(server).startswith("250")
        except (AssertionError, OSError):
            return False

    wait_until(attempt, "a message is accepted")


def kill_one(server: Server, status: Status) -> None:
    """The youngest worker; if it was leaving anyway, another one."""

    def youngest() -> int:
        return max((worker["pid"] for worker in status.stats()["workers"]), default=0)

    while True:
        wait_until(youngest, "a worker")
        if pid := youngest():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            end = server.wait_for(rf"worker {pid} (was killed by|exited with).*$")[0]
            if "SIGKILL" in end and "(" not in end:  # nobody asked it to go
                return


class Scraper:
    """Asks for the metrics all the time: each answer is complete, and no counter ever goes back."""

    def __init__(self, status: Status, ready: int | None = None) -> None:
        self.status = status
        self.ready = ready
        self.scrapes = 0
        self.faults: list[str] = []
        self._last: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                metrics = self.status.metrics()
            except Exception as error:
                self.faults.append(repr(error))
                continue
            self.scrapes += 1
            if self.ready is not None and metrics["preforksmtp_ready"] != self.ready:
                self.faults.append(f"ready {metrics['preforksmtp_ready']}")
            now = {name: value for name, value in metrics.items() if "_total" in name and "worker=" not in name}
            self.faults += [f"{name} {self._last[name]} -> {now[name]}" for name in self._last if now[name] < self._last[name]]
            self._last = now

    def wait(self, count: int) -> None:
        target = self.scrapes + count
        wait_until(lambda: self.scrapes >= target or self.faults, "more scrapes")

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)


def test_counters_are_true_over_recycling_kills_and_reloads(serve: Serve, app: Path) -> None:
    (app / "preforksmtp.conf.py").write_text("workers = 2\n")
    server, status = begin(serve, app, "--max-sessions", "5")
    sent = 0
    with Scraper(status) as scraper:
        for number in range(40):
            for _ in range(3):
                insist(server)
                sent += 1
            if number % 8 == 3:
                kill_one(server, status)
            if number == 20:  # 2 * 40 slots: a bigger scoreboard, and a new status process
                (app / "preforksmtp.conf.py").write_text("workers = 14\n")
                server.send(signal.SIGHUP)
                server.wait_for("reload done")
        wait_until(lambda: status.stats()["totals"]["messages"] == sent, f"{sent} messages")
        totals = status.stats()["totals"]
        assert totals["recipients"] == sent
        assert totals["sessions"] >= sent
        assert totals["workers_died"] >= 5
        assert totals["workers_recycled"] >= 2
        assert totals["reloads"] == 1
        assert status.metrics()["preforksmtp_handler_seconds_count"] == sent
        scraper.wait(5)
    assert scraper.faults == []


def test_a_bigger_scoreboard(serve: Serve, app: Path) -> None:
    (app / "preforksmtp.conf.py").write_text("threads = 2\n")
    server, status = begin(serve, app)
    deliver(server, 4)
    with Scraper(status, ready=1) as scraper:
        for threads in (20, 40, 80):
            (app / "preforksmtp.conf.py").write_text(f"threads = {threads}\n")
            server.send(signal.SIGHUP)
            wait_until(lambda: status.stats()["sessions_limit"] == threads, "the new limit")  # noqa: B023
            insist(server)
            scraper.wait(3)
        wait_until(lambda: len(server.children()) == 2, "the old ones are gone")
        scraper.wait(3)
        assert status.stats()["totals"]["messages"] == 7
    assert scraper.faults == []


def test_it_is_replaced_when_it_dies(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    pid = status_pid(server)
    os.kill(pid, signal.SIGKILL)
    assert status.text("/livez") == "200 ok"  # who comes meanwhile waits
    server.wait_for(rf"status process {pid} was killed by SIGKILL; next attempt in 1 s")
    assert status_pid(server) != pid


def test_one_that_hangs_is_killed(serve: Serve, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (app / "sitecustomize.py").write_text("from preforksmtp.observe import process\nprocess.SILENT = 1.5\n")
    monkeypatch.setenv("PYTHONPATH", str(app))
    path = os.pathsep.join([str(app), str(Path(__file__).parents[2])])
    server, status = begin(
        lambda *arguments: serve(*arguments, env={"PYTHONPATH": path}),  # type: ignore[arg-type]
        app,
    )
    pid = status_pid(server)
    os.kill(pid, signal.SIGSTOP)
    server.wait_for(rf"status process {pid}: hangs, killed")
    assert status.text("/livez") == "200 ok"


def test_signals_for_everybody_do_not_hurt_it(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    pid = status_pid(server)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH):
        os.kill(pid, number)
    assert status.text("/livez") == "200 ok"
    assert status_pid(server) == pid


def test_a_stop_of_the_whole_process_group_is_no_error(serve: Serve, app: Path) -> None:
    server, _ = begin(serve, app)
    (app / "hold").touch()
    with Talk(server.port()) as talk:  # with a worker that is busy the master sees the end of the status process
        talk.begin_data()
        talk.send(b"x\r\n.\r\n")
        pid = status_pid(server)
        os.killpg(server.pid, signal.SIGTERM)
        wait_until(lambda: pid not in processes(), "the status process was reaped")
        (app / "hold").unlink()
        assert talk.read().startswith("250")
    assert server.wait() == 0
    assert not server.matches("ERROR"), server.output


def test_an_upgrade_refuses_nobody(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    assert deliver(server).startswith("250")
    before = status.stats()
    faults: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                assert status.text("/livez") == "200 ok"
            except Exception as error:
                faults.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        server.send(signal.SIGUSR2)
        assert server.process.wait(PATIENCE) == 0
        wait_until(lambda: status.stats()["master"] != before["master"], "the new master's")
    finally:
        over.set()
        thread.join(PATIENCE)
    assert faults == []
    new = status.stats()["master"]
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not server.group(), "all of it is gone")
    assert not (app / "status").exists()


def test_an_upgrade_to_a_program_without_it_leaves_no_file(serve: Serve, app: Path) -> None:
    (app / "preforksmtp.conf.py").write_text("status_bind = 'unix:status'\n")
    server = serve("-b", LOOPBACK, "app:handler").ready()
    wait_until(lambda: (app / "status").exists(), "the socket")
    (app / "preforksmtp.conf.py").write_text("")
    server.send(signal.SIGUSR2)
    assert server.process.wait(PATIENCE) == 0
    new = int(server.wait_for(r"master (\d+): has taken over")[1])
    wait_until(lambda: not (app / "status").exists(), "its file is gone")
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not server.group(), "all of it is gone")


def test_an_upgrade_to_another_port_lets_go_of_the_old_one(serve: Serve, app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        old, new = first.getsockname()[1], second.getsockname()[1]
    (app / "preforksmtp.conf.py").write_text(f"status_bind = '127.0.0.1:{old}'\n")
    server = serve("-b", LOOPBACK, "app:handler").ready()
    wait_until(lambda: _answers(Status(old)), "the status process")
    (app / "preforksmtp.conf.py").write_text(f"status_bind = '127.0.0.1:{new}'\n")
    server.send(signal.SIGUSR2)
    assert server.process.wait(PATIENCE) == 0
    wait_until(lambda: _answers(Status(new)), "the new one")
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", old)) == errno.ECONNREFUSED
    os.kill(Status(new).stats()["master"], signal.SIGTERM)
    wait_until(lambda: not server.group(), "all of it is gone")


def test_one_that_hangs_when_it_is_to_leave_is_killed(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    pid = status_pid(server)
    os.kill(pid, signal.SIGSTOP)
    server.send(signal.SIGHUP)
    server.wait_for("reload done")
    wait_until(lambda: pid not in processes(), "it is killed")
    assert status.text("/livez") == "200 ok"


def test_it_leaves_with_its_master(serve: Serve, app: Path) -> None:
    server, _ = begin(serve, app)
    pid = status_pid(server)
    server.send(signal.SIGKILL)
    wait_until(lambda: pid not in processes() or processes()[pid][0] == "Z", "the status process is gone")
    server.wait()
    wait_until(lambda: not server.group(), "all of it is gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_drops_its_privileges(serve: Serve, app: Path) -> None:
    for folder in (app, *app.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    server, status = begin(serve, app, "-u", "nobody")
    facts = Path(f"/proc/{status_pid(server)}/status").read_text()
    uid, groups = re.search(r"^Uid:\s+(.*)$", facts, re.MULTILINE), re.search(r"^Groups:(.*)$", facts, re.MULTILINE)
    assert uid is not None
    assert groups is not None
    assert set(uid[1].split()) == {"65534"}
    assert "0" not in groups[1].split()
    assert status.text("/livez") == "200 ok"


def half(status: Status, said: bytes) -> socket.socket:
    sock = status.connect()
    sock.sendall(said)
    return sock


@pytest.mark.parametrize(
    "said",
    [b"", b"G", b"GET /livez HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"],
    ids=["silent", "an octet", "half a header", "does not read", "TLS", "a body that does not come"],
)
def test_slow_and_many_clients_keep_nobody_out(serve: Serve, app: Path, said: bytes) -> None:
    """Slowloris: each of them is there for as long as it may, and whoever asks is answered at once."""
    server, status = begin(serve, app)
    pid = status_pid(server)
    descriptors, threads = len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))
    longest = 0.0
    with contextlib.ExitStack() as stack:
        for number in range(400):
            stack.enter_context(half(status, said))
            if number % 10 == 0:
                started = time.monotonic()
                assert status.text("/livez") == "200 ok"
                longest = max(longest, time.monotonic() - started)
        print(f"at most {longest * 1e3:.1f} ms for an answer")
        assert longest < 5, "sooner than any of them is cut off"
        assert len(os.listdir(f"/proc/{pid}/task")) == threads
        assert len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 130
        assert status_pid(server) == pid
    wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 1, "they are forgotten")


def test_who_is_slow_is_cut_off(serve: Serve, app: Path) -> None:
    server, status = begin(lambda *arguments: serve(*arguments, patch="import preforksmtp.observe.web as web; web.DEADLINE = 0.5"), app)
    with half(status, b"GET /livez HTTP/1.1\r\n") as sock:
        sock.settimeout(0.05)
        started = time.monotonic()
        while not _ends(sock):
            assert time.monotonic() - started < PATIENCE
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"X")  # each octet long before the deadline
        assert status.text("/livez") == "200 ok"


def _answers(status: Status) -> bool:
    try:
        return status.text("/livez") == "200 ok"
    except (OSError, http.client.HTTPException):
        return False


def _ends(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("octets", [8193, 100_000, 10_000_000])
def test_a_request_without_end(serve: Serve, app: Path, octets: int) -> None:
    _, status = begin(serve, app)
    with status.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * octets)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(4096):
                answer += data
        assert answer == b"" or answer.startswith(b"HTTP/1.0 431 ")
        assert answer or octets > 8193
    assert status.text("/livez") == "200 ok"


def test_a_request_in_pieces(serve: Serve, app: Path) -> None:
    _, status = begin(serve, app)
    for request in (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /livez HTTP/1.0\n\n"):
        with status.connect() as sock:
            for octet in request:
                sock.sendall(bytes([octet]))
            answer = b""
            while data := sock.recv(4096):
                answer += data
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize("request_line", [b"\r\n", b"\x16\x03\x01\x02\x00\r\n", b"GET\r\n", b"GET / HTTP/9.9\r\n\r\n", b"x" * 70000])
def test_rubbish(serve: Serve, app: Path, request_line: bytes) -> None:
    server, status = begin(serve, app)
    with status.connect() as sock:
        try:
            sock.sendall(request_line)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        except OSError:
            pass  # closed in mid-line
    assert status.text("/livez") == "200 ok"
    assert "Traceback" not in server.output


def test_statsd(serve: Serve, app: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(PATIENCE)
        where = f"127.0.0.1:{collector.getsockname()[1]}"
        server = serve("-b", LOOPBACK, "--statsd-host", where, "--statsd-prefix", "mx", "app:handler").ready()
        assert b"mx.workers.wanted:1|g" in collector.recv(65536)
        deliver(server, 2)
        counted, deadline = 0, time.monotonic() + PATIENCE
        while counted < 2 and time.monotonic() < deadline:
            found = re.search(rb"^mx\.messages\.accepted:(\d+)\|c$", collector.recv(65536), re.MULTILINE)
            counted += int(found[1]) if found else 0
        assert counted == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--status-bind", "9100"], "status_bind: '9100': a port alone needs a colon: ':9100' means all addresses (command line)"),
        (["--status-bind", "smtp://:9100"], "status_bind: must be HOST:PORT or unix:/path?mode=660, not 'smtp://:9100' (command line)"),
        (["--status-bind", ":9100?certfile=x"], "status_bind: must be HOST:PORT or unix:/path?mode=660, not ':9100?certfile=x' (command line)"),
        (["--statsd-host", ":8125"], "statsd_host: must be HOST:PORT, [IPV6]:PORT or unix:/path, not ':8125' (command line)"),
        (["--control-socket", "x", "--status-bind", "unix:x"], "control_socket: is the same file as status_bind (command line)"),
    ],
)
def test_wrong_settings(serve: Serve, app: Path, arguments: list[str], line: str) -> None:
    server = serve("-b", LOOPBACK, *arguments, "app:handler")
    assert server.wait() == 1
    assert server.lines == [f"preforksmtp: error: {line}"]


def test_an_address_in_use(serve: Serve, app: Path) -> None:
    (app / "file").touch()
    server = serve("-b", LOOPBACK, "--control-socket", "file", "app:handler")
    assert server.wait() == 1
    assert "preforksmtp: error: control_socket: cannot listen on unix:" in server.output
    server = serve("-b", LOOPBACK, "--status-bind", "unix:missing/status", "app:handler")
    assert server.wait() == 1
    assert server.lines[-1] == "preforksmtp: error: status_bind: cannot listen on unix:missing/status: the folder missing does not exist"


# --- ready, busy, leaving, unwell


def test_a_stop_that_is_announced(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app, "--drain-delay", "3600")
    server.send(signal.SIGTERM)
    wait_until(lambda: status.text("/readyz") == "503 stopping", "not ready any more")
    assert status.text("/livez") == "200 ok"
    assert deliver(server).startswith("250")  # all else goes on
    server.send(signal.SIGTERM)
    assert server.wait() == 0


def test_it_ends_by_itself(serve: Serve, app: Path) -> None:
    server, _ = begin(serve, app, "--drain-delay", "0.2")
    assert server.stop() == 0
    assert "stopping in 0.2 s (drain_delay)" in server.output


UNWELL = """
import os
from preforksmtp import Handler

class App(Handler):
    @classmethod
    def healthy(cls, worker):
        if os.path.exists("broken"):
            raise ConnectionError("no database")
        return True

    def message(self, message):
        pass
"""


def test_an_application_that_is_not_healthy(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "sick.py").write_text(UNWELL)
    (tmp_path / "broken").touch()
    server = serve("-b", LOOPBACK, "--status-bind", "unix:status", "sick:App").ready()
    status = Status(str(tmp_path / "status"))
    wait_until(lambda: status.text("/readyz") == "503 the application is not healthy", "it is said")
    with Talk(server.port()) as talk:
        assert talk.greeting.startswith("421 4.3.0")
    assert "the application is not healthy: Handler.healthy raised ConnectionError: no database" in server.output
    assert status.metrics()["preforksmtp_application_healthy"] == 0
    (tmp_path / "broken").unlink()
    wait_until(lambda: status.text("/readyz") == "200 ok", "it is healthy again")
    assert deliver(server).startswith("250")


def test_refusals_are_exact_through_a_kill(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    for _ in range(2):
        with Talk(server.port()) as talk:
            talk.ask("EHLO x")
            for _ in range(3):
                assert talk.ask("MAIL FROM:<>x").startswith("5")
    wait_until(lambda: status.metrics().get("preforksmtp_sessions_active") == 0, "the sessions are over")
    metrics = status.metrics()
    refused = {name: n for name, n in metrics.items() if name.startswith("preforksmtp_refused_total")}
    assert sum(refused.values()) == 6
    assert all('stage="mail"' in name for name in refused)
    assert metrics['preforksmtp_accepted_total{stage="helo"}'] == 2
    assert metrics['preforksmtp_sessions_ended_total{reason="left"}'] == 2
    for pid in server.children() - {status_pid(server)}:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: status.metrics().get('preforksmtp_worker_restarts_total{reason="died"}') == 1, "it is replaced")
    assert {name: n for name, n in status.metrics().items() if name.startswith("preforksmtp_refused_total")} == refused


def test_the_last_reload_is_remembered(serve: Serve, app: Path) -> None:
    server, status = begin(serve, app)
    assert status.metrics()["preforksmtp_last_reload_successful"] == 1
    good = (app / "app.py").read_text()
    (app / "app.py").write_text("def handler(message:")
    server.send(signal.SIGHUP)
    wait_until(lambda: status.metrics()["preforksmtp_last_reload_successful"] == 0, "it failed")
    assert status.stats()["last_reload"]["kind"] == "reload failed"
    (app / "app.py").write_text(good)
    server.send(signal.SIGHUP)
    wait_until(lambda: status.metrics()["preforksmtp_last_reload_successful"] == 1, "it succeeded")


def test_absolute_addresses_are_understood(serve: Serve, app: Path) -> None:
    _, status = begin(serve, app)
    assert status.text("http://status.example/livez") == "200 ok"
    assert status.text("http://status.example/nothing").startswith("404")
