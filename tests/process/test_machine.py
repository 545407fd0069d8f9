"""machine.py: the name of this machine, with a resolver that answers, does not, or lies; and the processors it has."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforksmtp.config import values
from preforksmtp.config.settings import BY_NAME
from preforksmtp.process import machine
from tests.processes import ROOT, Program
from tests.program.conftest import need

HANG = 3600.0


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    machine.full_name.cache_clear()
    yield
    machine.full_name.cache_clear()


@pytest.mark.parametrize(
    ("kernel", "resolver", "name"),
    [
        ("mx.example.org", None, "mx.example.org"),  # None: it is not asked
        ("mx", "mx.example.org", "mx.example.org"),
        ("mx", "1.0.0.127.in-addr.arpa", "mx"),
        ("mx", "m\u00e4x.example.org", "mx"),
        ("mx", "x" * 5000, "mx"),
        ("my_box", "my_box", "localhost"),
    ],
)
def test_local_hostname(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: str, resolver: str | None, name: str
) -> None:
    def getfqdn(asked: str) -> str:
        (tmp_path / "asked").touch()
        assert asked == kernel
        return resolver or ""

    monkeypatch.setattr("socket.gethostname", lambda: kernel)
    monkeypatch.setattr("socket.getfqdn", getfqdn)
    assert values.local_hostname() == name
    assert (tmp_path / "asked").exists() == (resolver is not None)


def test_a_resolver_that_does_not_answer_costs_one_bounded_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "mx")
    monkeypatch.setattr("socket.getfqdn", lambda _: time.sleep(HANG))
    monkeypatch.setattr(machine, "ANSWER", 0.1)
    fds = os.listdir("/proc/self/fd")
    assert values.local_hostname() == "mx"
    monkeypatch.setattr(machine, "ANSWER", HANG)
    assert values.local_hostname() == "mx", "it is not asked again"
    assert os.listdir("/proc/self/fd") == fds
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_resolver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "mx")
    monkeypatch.setattr("socket.getfqdn", lambda _: 1 / 0)
    assert values.local_hostname() == "mx"


def test_no_process_to_ask_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("socket.gethostname", lambda: "mx")
    monkeypatch.setattr("os.fork", fork)
    assert values.local_hostname() == "mx"


IN_A_NAMESPACE = """
import os, socket, subprocess, sys
folder = sys.argv[1]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
socket.sethostname("mx")
for name, text in (("resolv.conf", "nameserver 127.0.0.1\\n"), ("hosts", "")):
    with open(f"{folder}/{name}", "w") as file:
        file.write(text)
    subprocess.run(["mount", "--bind", f"{folder}/{name}", f"/etc/{name}"], check=True)
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
silent.set_inheritable(True)
os.execv(sys.executable, [sys.executable, "-m", "preforksmtp", "-b", "127.0.0.1:0", "app"])
"""


def test_start_and_hup_where_no_nameserver_answers(tmp_path: Path) -> None:
    """Scenario 56 of lifecycle.md, in namespaces of its own."""
    if os.geteuid():
        pytest.skip("needs root")
    (tmp_path / "app.py").write_text("def handler(message): pass\n")
    began = time.monotonic()
    command = [need("unshare"), "-mnu", sys.executable, "-c", IN_A_NAMESPACE, str(tmp_path)]
    with Program(command, cwd=tmp_path) as server:
        server.wait_for(r"master \d+: ready")
        assert machine.ANSWER - 0.1 < time.monotonic() - began < 2.5 * machine.ANSWER, "and not the 10 s of the C library"
        began = time.monotonic()
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        assert time.monotonic() - began < machine.ANSWER
        assert server.stop() == 0


# -- processors


def make_proc(folder: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A /proc, and control groups mounted below `folder`, which stands for @ in all of it."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("@", str(folder)))
    return folder / "proc"


V2 = "30 23 0:26 / @/sys rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 / @/cpu\\040s rw - cgroup cgroup rw,cpu,cpuacct\n32 23 0:28 / @/memory rw - cgroup cgroup rw,memory\n"
OURS = "1 0 8:1 / / rw - ext4 /dev/sda rw\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quotas"),
    [
        ("0::/\n", OURS + V2, {}, []),
        ("0::/a/b\n", OURS + V2, {"sys/a/b/cpu.max": "max 100000\n"}, []),
        ("0::/a/b\n", OURS + V2, {"sys/a/b/cpu.max": "250000 100000\n"}, [2.5]),
        ("0::/a/b\n", OURS + V2, {"sys/a/b/cpu.max": "max 100000\n", "sys/a/cpu.max": "150000 100000\n"}, [1.5]),
        ("0::/a\n", OURS + V2, {"sys/cpu.max": "50000 100000\n"}, [0.5]),
        (
            "4:memory:/m\n3:cpu,cpuacct:/a\n0::/\n",
            OURS + V1 + V2,
            {"cpu s/a/cpu.cfs_quota_us": "300000\n", "cpu s/a/cpu.cfs_period_us": "100000\n"},
            [3.0],
        ),
        (
            "3:cpu,cpuacct:/a/b\n",
            OURS + V1,
            {
                "cpu s/a/b/cpu.cfs_quota_us": "-1\n",
                "cpu s/a/b/cpu.cfs_period_us": "100000\n",
                "cpu s/a/cpu.cfs_quota_us": "100000\n",
                "cpu s/a/cpu.cfs_period_us": "50000\n",
            },
            [2.0],
        ),
        (
            "3:cpu:/docker/1234\n",  # as the host sees it; mounted is this group alone
            "31 23 0:27 /docker/1234 @/cpu ro - cgroup cgroup ro,cpu\n",
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            [1.0],
        ),
        ("0::/a\n", OURS + V2, {"sys/a/cpu.max": "nonsense", "sys/cpu.max": "100000 0\n"}, []),
        ("nonsense", OURS + V2, {}, []),
        ("0::/a\n", "nonsense", {}, []),
    ],
)
def test_quotas(tmp_path: Path, groups: str, mounts: str, files: dict[str, str], quotas: list[float]) -> None:
    assert machine.cpu_quotas(make_proc(tmp_path, groups, mounts, files)) == quotas


def test_without_proc(tmp_path: Path) -> None:
    assert machine.cpu_quotas(tmp_path) == []


@pytest.mark.parametrize(("quota", "cpus"), [("max", 3), ("150000", 2), ("100000", 1), ("10000", 1), ("900000", 3)])
def test_auto_workers_are_the_cpus_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    proc = make_proc(tmp_path, "0::/a\n", V2, {"sys/a/cpu.max": f"{quota} 100000\n"})
    assert machine.usable_cpus(proc) == cpus
    assert BY_NAME["workers"].parse("auto") in range(1, 4)


def test_a_quota_of_this_kernel(tmp_path: Path) -> None:
    """In a control group of version 1 that we make, where we may."""
    parent = Path("/sys/fs/cgroup/cpu")
    group = parent / f"preforksmtp-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("100000")
    except OSError:
        pytest.skip("needs a writable control group for cpu, of version 1")
    program = f"open('{group}/cgroup.procs', 'w').write('0'); from preforksmtp.process.machine import *; print(usable_cpus())"
    try:
        with Program([sys.executable, "-c", program], cwd=ROOT) as asked:
            assert asked.wait() == 0
            assert asked.lines == ["1"]
    finally:
        group.rmdir()
