"""USR2: a new program takes the place of the running one, and the listening sockets stay open all the while.

The running master forks and execs its own command line (Upgrade). The new master (Succession) boots a generation of its
own on the same sockets; once all of it is READY it is promoted: in automatic mode it tells the old one to stop, in
manual mode it waits until the operator stopped it. A new program that fails, or hangs before its loop runs (Patience),
leaves the old one serving. An old master that dies first leaves its sockets to the new one.

While both live they share the sockets: neither turns away who waits in their queue when it stops, for the other one
serves it (`shares_listeners`). Everything here runs in a master; what fails is one line in the log.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, MutableMapping

from preforksmtp.prefork.master.child import describe
from preforksmtp.prefork.master.fork import fork_aide
from preforksmtp.prefork.master.progress import Patience, Progress
from preforksmtp.prefork.master.workforce import Workforce

# In the environment of the new master: the process ids of the old one and of its own, and the pipe for its progress.
VARIABLE = "PREFORKSMTP_PID"


class Upgrade:
    """The old master's side. `execute` is root's: in a child of ours it lets the sockets through and execs."""

    def __init__(self, master: Workforce, resize: Callable[[int], None]) -> None:
        """`resize`: have so many workers."""
        self._resize = resize
        self.execute: Callable[[], object] | None = None
        self.automatic = True  # root's: the new master will tell us to stop
        self.pid = 0  # of the new master; 0: no upgrade is under way
        self.fault = ""  # of the last one that failed
        self.on_failed: list[Callable[[str], None]] = []  # root's, with the fault
        self._master = master
        self._patience: Patience | None = None
        self._predecessor = 0
        master.on_child.append(self._close_in_child)

    def begin(self) -> None:
        """USR2."""
        refusal = self.refusal()
        if refusal:
            self._master.log.error("master %d: no upgrade: %s", os.getpid(), refusal)
            return
        master = self._master
        # Before the fork: later the parent of the aide may be a stranger, for this master can be killed meanwhile.
        self._predecessor = os.getpid()
        try:
            self._patience = Patience(master.wakeup.selector, master.config.boot_timeout)
            self.pid = fork_aide(master, self._become_new_master, self._died, keep=master.listeners())
        except OSError as error:
            self._end_patience()
            master.log.error("master %d: no upgrade: cannot fork: %s", os.getpid(), error.strerror)
            return
        self._patience.begin(self.pid)
        master.log.info("master %d: upgrading, the new master is %d", os.getpid(), self.pid)

    def advance(self, now: float) -> None:
        """Each round."""
        if self._patience is not None:
            self._patience.advance(now, lambda line: self._master.log.error("master %d: %s", os.getpid(), line))

    def next_deadline(self) -> float:
        return self._patience.deadline if self._patience is not None else float("inf")

    def introduce(self, environ: MutableMapping[str, str]) -> None:
        """Aide, just before it execs, with this environment: what the new master must know of us."""
        assert self._patience is not None
        os.set_inheritable(self._patience.write, True)
        environ[VARIABLE] = f"{self._predecessor}:{os.getpid()}:{self._patience.write}"

    @property
    def running(self) -> bool:
        """The new master's loop runs, so its configuration will do; its workers may still boot."""
        return self.pid != 0 and self._patience is not None and self._patience.over

    def refusal(self) -> str:
        """Why no upgrade can begin now, or ""."""
        if os.getpid() == 1:
            return "as process 1 of a container it could not be replaced; start a new container instead"
        if self.execute is None:
            return "this program does not know how"
        if self._master.stopping:
            return "the server is stopping"
        if self.pid:
            return f"one is under way, the new master is {self.pid}"
        if self._master.succession is not None:
            return f"this is a new master itself, {self._master.predecessor} still runs"
        return ""

    def _become_new_master(self) -> None:
        """Aide."""
        self._master.hook("pre_exec")  # may have taken its time
        assert self.execute is not None and self._patience is not None
        Progress(self._patience.write).expect(self._master.config.boot_timeout)
        self.execute()

    def _close_in_child(self) -> None:
        """Any child: what the aide needs it keeps."""
        if self._patience is not None:
            self._patience.close_in_child()

    def _died(self, status: int | None) -> None:
        self.pid = 0
        master = self._master
        how = "vanished" if status is None else describe(status)
        why = self._end_patience()
        if why:
            how = f"{how} ({why})"
        if master.stopping:
            return
        self.fault = f"the new master {how}"
        master.board.chronicle.note("upgrade failed", self.fault)
        master.log.error("master %d: the upgrade failed, this program goes on: the new master %s", os.getpid(), how)
        if master.wanted == 0:  # WINCH
            self._resize(master.config.workers)
        for callback in self.on_failed:
            master.call(lambda callback=callback: callback(self.fault))  # type: ignore[misc]

    def _end_patience(self) -> str:
        """Why it had run out, or ""."""
        patience, self._patience = self._patience, None
        if patience is None:
            return ""
        patience.end()
        return patience.why


class Succession:
    """The new master's side, as long as it is not promoted."""

    def __init__(self, master: Workforce, predecessor: int, progress: Progress, *, automatic: bool) -> None:
        self.predecessor = predecessor
        self._master = master
        self._progress = progress
        self._automatic = automatic
        master.succession = self
        master.predecessor = predecessor
        master.on_child.append(progress.close)
        master.on_ready.append(self._ready)

    def advance(self) -> None:
        """Each round: the predecessor is our parent until it is gone."""
        self._progress.done()
        if os.getppid() != self.predecessor:
            self._promote("the old master is gone")

    def _ready(self) -> None:
        if self._automatic and self._master.succession is self:
            if os.getppid() == self.predecessor:  # or it is gone, and the number may be anybody's
                os.kill(self.predecessor, signal.SIGTERM)
            self._promote(f"the old master {self.predecessor} was told to stop")

    def _promote(self, why: str) -> None:
        self._master.log.info("master %d: has taken over: %s", os.getpid(), why)
        self._master.succession = None
        self._master.board.chronicle.note("upgraded", why)
        for callback in self._master.on_promoted:
            self._master.call(callback)


def find_predecessor(environ: MutableMapping[str, str]) -> tuple[int, Progress]:
    """The old master that started this process, alive or not, and the way to tell it of our progress; 0: it is a first
    start. Removes the variable."""
    try:
        predecessor, own, pipe = map(int, environ.pop(VARIABLE, "").split(":"))
    except ValueError:
        return 0, Progress()
    if own != os.getpid():  # exec keeps the number: the variable was meant for a program further up
        return 0, Progress()
    return predecessor, Progress(pipe)
