"""What the master tells the service manager: systemd's sd_notify(3) protocol, and its watchdog.

Runs in the master, from its loop: nothing here blocks, and nothing fails, for a message that cannot be sent is one that
nobody reads; a state, which is said once, is sent when there is room. Without NOTIFY_SOCKET it costs one comparison a
round. The variables are taken out of the environment, so that neither a worker nor a program it starts can speak in the
master's name.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforksmtp.prefork.master.master import Master

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
STATUS_EVERY = 1.0  # seconds between two STATUS lines, at least
STATES = 8  # that wait for room in the manager's socket; of more, the last ones
EXTENSION = 10.0  # seconds that each EXTEND_TIMEOUT_USEC asks for; sent once a second


class ServiceManager:
    """Takes the variables out of `environ`. Call `attend` once, before the master runs."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        taken = {name: environ.pop(name, "") for name in VARIABLES}
        address, seconds, pid = taken.values()
        # What a successor (an upgrade) gets: the watchdog is not for one certain process any more.
        self.inheritance = {name: value for name, value in taken.items() if value and name != "WATCHDOG_PID"}
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._unsent: deque[str] = deque(maxlen=STATES)
        self._status = ""
        self._status_at = -STATUS_EVERY
        self._extended_at = -STATUS_EVERY
        self._stopping = False
        self._fault = ""  # of the last reload
        self._ready = False  # it has been told so
        self._reloading = False
        self._ping_every = 0.0
        self._ping_at = 0.0  # at once
        if seconds.isdecimal() and pid in ("", str(os.getpid())):
            self._ping_every = int(seconds) / 2e6

    def attend(self, master: Master) -> None:
        """Have the master tell us what happens."""
        if not self._address:
            return
        if self._ping_every:
            master.round_every = min(master.round_every, self._ping_every)
        master.on_ready.append(lambda: self.ready(master))
        master.on_reloading.append(self.reloading)
        master.on_reloaded.append(self.reloaded)
        master.on_promoted.append(self.promoted)
        master.on_round.append(lambda: self.round(master))

    def ready(self, master: Master) -> None:
        """The first generation serves."""
        if master.succession is None:
            self._ready = True
            self._tell("READY=1")

    def reloading(self) -> None:
        """Not before the first READY: it would be taken for the end of the start, and the READY after it as well."""
        if not self._ready:
            return
        self._reloading = True
        # notify-reload waits for a RELOADING that is younger than its signal, by this clock.
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self, fault: str) -> None:
        """READY also after a failure: the former configuration serves."""
        self._fault = fault
        if self._reloading:
            self._reloading = False
            self._tell("READY=1")

    def promoted(self) -> None:
        """This process has taken over from another master."""
        self._ready = True
        self._tell(f"MAINPID={os.getpid()}\nREADY=1")

    def round(self, master: Master) -> None:
        """At the end of each full pass of the master's loop; so a loop that hangs does not feed the watchdog."""
        now = time.monotonic()
        self._catch_up()
        if self._ping_every and now >= self._ping_at and self.send("WATCHDOG=1"):
            self._ping_at = now + self._ping_every
        if master.succession is not None:
            return  # the old master still speaks for the service
        if master.stopping:
            self._stop(master, now)
        if now >= self._status_at + STATUS_EVERY:
            self._report(master, now)

    def _tell(self, message: str) -> None:
        if self._address:
            self._unsent.append(message)
            self._catch_up()

    def _catch_up(self) -> None:
        while self._unsent and self.send(self._unsent[0]):
            self._unsent.popleft()

    def send(self, message: str) -> bool:
        """False: it could not be sent now."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError:
            return False
        return True

    def _stop(self, master: Master, now: float) -> None:
        if not self._stopping:
            # An upgrade: the service goes on, and systemd must know its new main process before this one is gone.
            # What the new one says is heard only then, where the main process alone may speak (NotifyAccess=main).
            successor = master.upgrade.pid
            done = "\nREADY=1" if self._reloading else ""  # preload: the upgrade is the reload
            self._stopping = self.send(f"MAINPID={successor}{done}" if successor else "STOPPING=1")
        if now >= self._extended_at + STATUS_EVERY:  # sessions drain for as long as the master lets them
            self._extended_at = now
            self.send(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}")

    def _report(self, master: Master, now: float) -> None:
        ready = sum(1 for worker in master.members() if worker.ready_at is not None)
        sessions = sum(worker.slot.active() for worker in master.children.values())
        if master.stopping:
            status = f"stopping, {len(master.children)} workers, {sessions} sessions"
        else:
            status = f"{ready}/{master.wanted} workers, {sessions} sessions"
        if self._fault:
            status += f"; the last reload failed: {' '.join(self._fault.split())}"
        if status != self._status and self.send(f"STATUS={status}"):
            self._status, self._status_at = status, now
