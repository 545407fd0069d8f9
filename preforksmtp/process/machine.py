"""This machine as a server needs to know it: its full name, and how many processors there are for us.

Both are found out once a process and its children; nothing here fails, and nothing takes longer than ANSWER.
"""

import contextlib
import functools
import math
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

ANSWER = 2.0  # seconds the resolver has for our own name
_NAME_OCTETS = 1024
_GROUP = re.compile(r"^\d+:([^:\n]*):(.*)$", re.MULTILINE)  # controllers, "" for version 2, and the path
_MOUNT = re.compile(r"^\d+ \d+ \S+ (\S+) (\S+) .*- (cgroup2?) \S+ (\S+)$", re.MULTILINE)  # root, where, kind, options
_ESCAPE = re.compile(r"\\([0-7]{3})")  # a space and its like, in the file mountinfo


def names() -> tuple[str, str]:
    """What this machine is called: its full name, and the kernel's own."""
    return full_name(), socket.gethostname()


@functools.cache
def full_name() -> str:
    """The kernel's name of this machine; where it has no dot, what the resolver makes of it. HUP asks nobody again."""
    name = socket.gethostname()
    if "." in name:
        return name
    full = _ask_resolver(name)
    # On a machine without a name in DNS it may answer with one of the reverse tree: worse than none.
    return name if not full or full.endswith(".arpa") else full


def _ask_resolver(name: str) -> str:
    """In a child, for the C library waits for nameservers that do not answer as long as it likes. "" is no answer."""
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid == 0:
        _tell(name, write)
    os.close(write)
    with open(read, "rb", buffering=0) as pipe:
        if pid < 0:
            return ""
        try:
            return _hear(pipe.fileno(), monotonic() + ANSWER)
        finally:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # somebody else has reaped it
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _tell(name: str, write: int) -> None:
    """The child: it never returns."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(math.ceil(ANSWER) + 1)  # should our parent be killed meanwhile
        os.write(write, socket.getfqdn(name).encode()[:_NAME_OCTETS])
    finally:
        os._exit(0)


def _hear(read: int, end: float) -> str:
    poll = select.poll()
    poll.register(read, select.POLLIN)
    if not poll.poll(max(0.0, end - monotonic()) * 1000):
        return ""
    return os.read(read, _NAME_OCTETS).decode("ascii", "replace")


def usable_cpus(proc: Path = Path("/proc")) -> int:
    """The processors this process may use: in a container, under taskset or a quota fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13: it heeds PYTHON_CPU_COUNT as well
        cpus = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0)) or 1
    else:
        cpus = os.cpu_count() or 1
    return max(1, min([cpus, *map(math.ceil, cpu_quotas(proc))]))


def cpu_quotas(proc: Path) -> list[float]:
    """How many processors' time the control group of this process has, and each group above it, where that is limited
    (cgroups(7): cpu.max, or cpu.cfs_quota_us in version 1)."""
    quotas = []
    for folder, version in _cpu_groups(proc):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # no limit at this level
            if version == 2:
                quota, period = map(int, (folder / "cpu.max").read_text().split())  # "max" is no number
            else:
                quota = int((folder / "cpu.cfs_quota_us").read_text())
                period = int((folder / "cpu.cfs_period_us").read_text())
            if quota > 0:
                quotas.append(quota / period)
    return quotas


def _cpu_groups(proc: Path) -> Iterator[tuple[Path, int]]:
    """The folders of our group and those above it, as far as they are mounted, with the version of cgroups."""
    try:
        groups = (proc / "self/cgroup").read_text()
        mounts = (proc / "self/mountinfo").read_text()
    except (OSError, ValueError):
        return
    paths = {controller: path for names, path in _GROUP.findall(groups) for controller in names.split(",")}
    for *names, kind, options in _MOUNT.findall(mounts):
        version = 2 if kind == "cgroup2" else 1
        path = paths.get("" if version == 2 else "cpu")
        if path is None or (version == 1 and "cpu" not in options.split(",")):
            continue
        root, mount_point = (_ESCAPE.sub(lambda found: chr(int(found[1], 8)), name) for name in names)
        # A container may see the path as its host does, and have only its own group mounted: then that is the folder.
        inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        folder = Path(mount_point) / inside
        yield from ((each, version) for each in (folder, *folder.parents) if each.is_relative_to(mount_point))


def free_bytes(folder: str) -> int:
    """For who is not root; -1 is not known."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return -1
    return found.f_bavail * found.f_frsize
