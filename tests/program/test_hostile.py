"""A worker that was taken over completely, as the workers' user: it harms itself, its sessions, and nobody else. Root's
master serves on, reloads and stops, and what it says of itself stays sane. PREFORKSMTP_HOSTILE_SECONDS makes it longer."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from preforksmtp.prefork.scoreboard import BYTES, HANDLER_NS, MESSAGES, SINCE
from preforksmtp.process.confine import confine_signals
from tests.processes import ROOT, stat, wait_until
from tests.program.conftest import LOOPBACK, Server, Talk
from tests.program.test_observation import Status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")

SECONDS = float(os.environ.get("PREFORKSMTP_HOSTILE_SECONDS", "3"))
WORKERS = 3
KILLED = "what it wrote into the shared memory no worker writes, it is killed: (.*)"


class Victim(Server):
    """Root's master with three workers of nobody's, whose handler is hostile.py."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        shutil.copy(Path(__file__).with_name("hostile.py"), folder / "hostile.py")
        where = ["-b", LOOPBACK, "--control-socket", "ctl.sock", "--status-bind", "unix:status", "--graceful-timeout", "8"]
        super().__init__(folder, *where, "-w", str(WORKERS), "-u", "nobody", *arguments, "hostile")
        self.status = Status(str(folder / "status"))

    def tell(self, order: str, seconds: float = 30.0) -> str:
        """Have one worker do it. What it answered, "" if it died of it."""
        with contextlib.suppress(ConnectionError, AssertionError), Talk(self.port(), seconds) as talk:
            talk.begin_data()  # which fails, too, where the worker died before its turn
            return talk.ask(f"{order}\r\n.").removeprefix("250 2.0.0 ")
        return ""

    def served(self) -> bool:
        try:
            return self.tell("getpid").isdecimal()
        except (OSError, AssertionError):  # that worker has just been killed, or the listener is about to be mended
            return False

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "preforksmtp.ctl", "-s", "ctl.sock", *words],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def order(self, *words: str) -> Any:
        answer = json.loads(self.ctl("-j", *words).stdout)
        assert answer["ok"] is True, answer
        return answer["result"]

    def seconds_of_cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def assert_sound(self) -> None:
        """It serves, reloads, tells what is true, and stops."""
        wait_until(lambda: self.status.text("/readyz") == "200 ok", "ready again")
        wait_until(self.served, "a message is taken")
        metrics = self.status.metrics()
        assert metrics["preforksmtp_sessions_active"] <= 100 * WORKERS
        assert all(0 <= value < 2**62 for value in metrics.values()), metrics
        assert self.status.ask("/")[0] == 200
        workers = self.order("show", "workers")
        assert {worker["state"] for worker in workers} <= {"booting", "ready", "draining"}
        assert {"sessions", "silent"} == set(self.order("show", "sessions"))
        self.order("show", "stats")
        assert self.order("reload") == f"reloaded: {WORKERS} workers"
        assert self.stop() == 0
        assert not self.matches(r"a round failed|master \d+: unexpected end|status process .* (hangs|was killed|exited)"), self.output


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that `nobody` may enter; pytest's own are closed to it."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def victim(folder: Path) -> Iterator[Victim]:
    with Victim(folder) as server:
        server.ready()
        yield server
        server.assert_sound()


def test_it_can_write_to_its_own_slot_alone(victim: Victim) -> None:
    reached = int(victim.tell("reach"))
    assert 0 < reached < 1 << 20, "the gauges and rows, the answers and the clients of one slot"
    assert victim.tell("grow") == ""
    victim.wait_for("was killed by SIGBUS")
    assert victim.tell("others ctl.sock") == "nothing"


def test_who_writes_what_no_worker_writes_is_killed_and_counts_for_nothing(victim: Victim) -> None:
    before = victim.status.metrics()["preforksmtp_received_bytes_total"]
    orders = [
        *("gauge claimed 9", "gauge claimed 0", "gauge retire 77", "gauge threads 101", f"gauge place {2**40}"),
        *(f"gauge heartbeat {2**64 - 1}", f"gauge ready {2**63}", f"counter {MESSAGES} {2**64 - 1}"),
        *(f"counter {BYTES} {2**62}", f"counter {HANDLER_NS} {2**63}"),
    ]
    for number, order in enumerate(orders, 1):
        assert victim.tell(order) == "", order
        victim.wait_for(KILLED, count=number)
        victim.wait_for(r"was killed by SIGKILL \(what it wrote", count=number)
        wait_until(victim.served, "a message is taken")
    metrics = victim.status.metrics()
    assert before <= metrics["preforksmtp_received_bytes_total"] < before + 10_000
    assert metrics['preforksmtp_messages_total{result="accepted"}'] < 100
    assert metrics["preforksmtp_handler_seconds_sum"] < 100


def test_it_lies_within_the_bounds(victim: Victim) -> None:
    """Nobody can tell; nobody is hurt."""
    assert victim.tell("gauge longest 1 1.5") == "still alive"
    assert victim.tell(f"counter {SINCE} 1 1.5") == "still alive"
    assert victim.tell(f"counter {MESSAGES} 1000 1.5") == "still alive"


def test_scribbling_over_all_that_it_can_reach(victim: Victim) -> None:
    """One after the other, and two at once; the others go on serving."""
    end, number, done = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        number += 1
        threads = [threading.Thread(target=victim.tell, args=(f"scribble {number}{name} {SECONDS}",)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done += victim.served()
    assert done > 0
    assert victim.matches(KILLED)
    assert len(victim.matches(r"worker \d+ (was killed|exited)")) >= number


def test_its_answer_is_no_answer(victim: Victim) -> None:
    for number, answer in enumerate(("nested", "number", "types", "octets", "list"), 1):
        assert victim.tell(f"answer {answer}") == "ready"
        assert len(victim.order("show", "sessions")["silent"]) == 1, answer
        victim.wait_for("an answer that is none", count=number)
        wait_until(lambda: len(victim.children()) == WORKERS + 1, "another worker, and the status process")


def test_its_answer_is_shown_without_what_steers_a_terminal(victim: Victim) -> None:
    assert victim.tell("answer escapes") == "ready"
    table = victim.ctl("show", "sessions").stdout
    assert "\\x1b[2J" in table
    assert all(line.isprintable() for line in table.splitlines())


@pytest.mark.parametrize("flood", ["flood", "blink"])
def test_it_cannot_keep_the_master_busy(victim: Victim, flood: str) -> None:
    """The bell without end; and SIGCHLD, which the kernel sends for each stop and continuation of a child."""
    before = victim.seconds_of_cpu()
    thread = threading.Thread(target=victim.tell, args=(f"{flood} {SECONDS}",))
    thread.start()
    wait_until(lambda: victim.served(), "others are served meanwhile")
    assert len(victim.order("show", "workers")) == WORKERS
    thread.join()
    assert victim.seconds_of_cpu() - before < 0.3 * SECONDS


def test_the_listening_sockets_are_put_right(victim: Victim) -> None:
    for how, said in (("shutdown", "shut down"), ("nonblocking", "changed"), ("endless", "changed")):
        victim.tell(f"listeners {how}")
        victim.wait_for(f"a worker has {said} the listening socket")
        wait_until(victim.served, "a message is taken")


def test_no_foreign_process_is_signalled(victim: Victim) -> None:
    """The numbers of processes that stand there are nobody's orders: no signal goes where they say."""
    with subprocess.Popen(["sleep", "600"]) as stranger:
        for name in ("claimed", "ready", "retire", "answer", "limit", "threads", "rss", "cpu"):
            victim.tell(f"gauge {name} {stranger.pid} 0.5")
        assert stat(stranger.pid) is not None
        assert stranger.poll() is None
        stranger.kill()


def can_confine() -> bool:
    """In a child: it is for good."""
    pid = os.fork()
    if pid == 0:
        os._exit(int(not confine_signals()))
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not can_confine(), reason="needs LANDLOCK_SCOPE_SIGNAL")
def test_it_kills_none_of_its_siblings(victim: Victim) -> None:
    killed: list[str] = []
    thread = threading.Thread(target=lambda: killed.append(victim.tell(f"massacre {SECONDS}")))
    thread.start()
    wait_until(victim.served, "others are served meanwhile")
    assert victim.order("reload") == f"reloaded: {WORKERS} workers"
    thread.join()
    assert killed == ["0"]
    assert not victim.matches("was killed by")


def test_while_it_rages_a_reload_works(folder: Path) -> None:
    """All workers at once are hostile, in every way, for a while."""
    with Victim(folder) as server:
        server.ready()
        raging = threading.Event()
        orders: list[Callable[[int], str]] = [
            lambda n: f"scribble {n} 1", lambda n: "flood 0.3", lambda n: "gauge retire 77", lambda n: "blink 0.3",
            lambda n: "answer octets", lambda n: f"counter {MESSAGES} {2**64 - 1}", lambda n: "listeners nonblocking",
        ]  # fmt: skip

        def rage(first: int) -> None:
            number = first
            while not raging.is_set():
                number += 3
                try:
                    server.tell(orders[number % len(orders)](number), 5.0)
                except (OSError, AssertionError):
                    time.sleep(0.05)

        threads = [threading.Thread(target=rage, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        reloads = 0
        while time.monotonic() < end or not reloads:
            server.send(signal.SIGHUP)
            server.wait_for("reload (done|failed)", count=reloads + 1, timeout=60)
            reloads += 1
        raging.set()
        for thread in threads:
            thread.join()
        assert not server.matches("reload failed"), server.output
        server.assert_sound()
