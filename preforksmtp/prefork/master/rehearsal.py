"""The rehearsal: a throw-away child of the master that tries a new configuration, so that nothing in it (sys.exit, a
crash, a loop without end) can hurt the master.

`begin` returns at once. The child writes one line to a pipe, its verdict; the master's loop reads it when it is there.
The child dies with the master, and is killed at its deadline. Whatever goes wrong is the text of `fault`.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import threading
import time
from collections.abc import Callable

from preforksmtp.prefork.hooks import explain
from preforksmtp.prefork.master.child import describe
from preforksmtp.prefork.master.fork import fork_aide
from preforksmtp.prefork.master.workforce import Workforce

_FINE = "fine"
_LONGEST = 60_000  # bytes of a verdict: it must fit into a pipe that nobody reads yet


class Rehearsal:
    """One child. `over`, then `fault`: "" if the configuration will do."""

    def __init__(self, master: Workforce, run: Callable[[], None], seconds: float) -> None:
        self._master = master
        self._seconds = seconds
        self._text = b""
        self.over = False
        self.fault = ""
        self.deadline = time.monotonic() + seconds if seconds else float("inf")
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        lifeline = master.wakeup.lifeline
        try:
            self.pid = fork_aide(master, lambda: _rehearse(run, write, lifeline), self._died)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(write)
        master.wakeup.selector.register(self._pipe, selectors.EVENT_READ)

    def advance(self, now: float) -> None:
        """Master, each round."""
        if self.over:
            return
        with contextlib.suppress(BlockingIOError):
            self._text += os.read(self._pipe, _LONGEST)
        if self._text.endswith(b"\n"):
            verdict = self._text.decode("utf-8", "replace").strip()
            self._end("" if verdict == _FINE else verdict)
        elif now >= self.deadline:
            self.kill(f"evaluating the configuration takes longer than boot_timeout {self._seconds:.4g} s")

    def kill(self, why: str = "not wanted any more") -> None:
        """Master. It has nothing that could delay its end, so this waits for it."""
        if self._master.aides.pop(self.pid, None) is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # reaped by a hook
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        if not self.over:
            self._end(why)

    def _died(self, status: int | None) -> None:
        self.advance(time.monotonic())  # its last line may still be in the pipe
        if not self.over:
            how = "vanished" if status is None else describe(status)
            self._end(f"the process that evaluated the configuration {how}")

    def _end(self, fault: str) -> None:
        self.over, self.fault = True, fault
        self._master.wakeup.selector.unregister(self._pipe)
        os.close(self._pipe)


def _rehearse(run: Callable[[], None], pipe: int, lifeline: int) -> None:
    """Aide."""
    threading.Thread(target=_die_with_master, args=(lifeline,), daemon=True).start()
    try:
        run()
        verdict = _FINE
    except BaseException as error:  # the user's code, SystemExit too
        verdict = explain(error)
    os.write(pipe, verdict.encode("utf-8", "backslashreplace")[: _LONGEST - 1] + b"\n")
    os._exit(0)  # threads that the configuration started do not matter


def _die_with_master(lifeline: int) -> None:
    """Own thread."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.poll()
    os._exit(1)
