"""What root makes of the settings of section Observation: the status process and the control socket of one run.

Runs in the master, before and around it. Their addresses are opened once a run, and go on to the next program in an
upgrade: the status socket as it is, the control socket under the name PATH.2 until that program has taken over. Raises
ListenError, one line that names the setting.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING

from preforksmtp import __version__, reference
from preforksmtp.config.destinations import split_address
from preforksmtp.control.listener import Control
from preforksmtp.control.orders import Orders
from preforksmtp.logs import error as log
from preforksmtp.net import handover
from preforksmtp.net.accept_queue import queued
from preforksmtp.net.bind import Bind, parse_bind
from preforksmtp.net.expiry import expiry
from preforksmtp.net.listener import Listener, ListenError, open_listeners
from preforksmtp.net.rebind import revise_listeners
from preforksmtp.observe.process import StatusProcess, Surroundings
from preforksmtp.observe.snapshot import Facts
from preforksmtp.observe.statsd import Statsd
from preforksmtp.process.machine import full_name
from preforksmtp.process.place import absolute

if TYPE_CHECKING:
    from preforksmtp.config.model import Config
    from preforksmtp.prefork.master.master import Master
    from preforksmtp.server.composition import Composition

VARIABLE = "PREFORKSMTP_STATUS_FD"  # the status sockets that the old master hands over
BACKLOG = 64
MEASURE_EVERY = 1.0  # seconds between two looks at the kernel's queues


class Observation:
    """One run. Opened with the listeners, attended before the master runs, closed after it."""

    def __init__(self, settings: Config, inherited: str, upgrading: bool) -> None:
        self.statuses: list[Listener] = []
        self._left: list[Listener] = []  # the old master's, that we do without: their files go when it has gone
        self._control: Listener | None = None
        self._settings = settings
        self._started = time.time()
        self._measure_at = 0.0
        try:
            self.statuses, self._left = _open_status(settings, inherited)
            for listener in self._left:  # the old master has its own copy, and the file is its as long as it serves
                listener.close()
            self._control = _open_control(settings, upgrading)
        except BaseException:
            self.close()
            raise

    def attend(self, master: Master, current: Callable[[], Composition]) -> None:
        """`current`: the composition in force."""

        def facts() -> Facts:
            return self._facts(current())

        if self.statuses or self._settings.statsd_host or self._control is not None:
            master.on_round.append(lambda: self._measure(master))
        # With statsd it is there for its sake alone. A reload may add statsd later.
        status = StatusProcess([listener.socket for listener in self.statuses], lambda: _surroundings(current(), facts))
        status.wanted = lambda: bool(self.statuses or current().settings.statsd_host)
        status.attend(master)
        if self._control is not None:
            settings, unopened = lambda: reference.values(current().settings), lambda: current().logs.faults
            orders = Orders(master, facts, settings, unopened)
            Control(self._control.socket, orders).attend(master)
        master.on_promoted.append(self._promote)

    def settle_files(self, shared: bool) -> None:
        """Before closing: whether another master has the status sockets as well."""
        handover.share(self.statuses, shared)

    def hand_over(self, environ: MutableMapping[str, str]) -> None:
        """Aide, before it execs the new program."""
        environ[VARIABLE] = handover.pack(self.statuses)

    def close(self) -> None:
        for listener in (*self.statuses, *self._left):
            listener.close()
        if self._control is not None:
            self._control.close()

    def _promote(self) -> None:
        """The old master has stopped or was told to: its name is ours."""
        handover.share([*self.statuses, *self._left], False)
        for listener in self._left:
            listener.close()
        if self._control is not None and self._control.path is not None:
            path = self._control.path.removesuffix(".2")
            try:
                self._control.rename(path)
            except OSError as error:
                logging.getLogger(log.LOGGER).error("control_socket: cannot rename it to %s: %s", path, error.strerror)

    def _measure(self, master: Master) -> None:
        """Master, each round."""
        now = time.monotonic()
        if now >= self._measure_at:
            self._measure_at = now + MEASURE_EVERY
            master.board.queued = queued(master.current.listeners.every())

    def _facts(self, composition: Composition) -> Facts:
        settings = composition.settings
        return Facts(
            __version__,
            settings.name,
            os.getpid(),
            self._started,
            [f"{listener.bind.scheme}://{listener.address}" for listener in composition.listeners],
            host=full_name(),
            certificates=list(_certificates(settings)),
            folders=composition.folders(),
            settings=[row for row in reference.values(settings) if row[2] != "default"],
        )


def _certificates(settings: Config) -> Iterator[tuple[str, str, float]]:
    """Each bind's, and those for names of their own (sni): when they end."""
    for bind in settings.binds():
        view = settings.for_bind(bind)
        if view.certfile:
            for file in dict.fromkeys([view.certfile, *(pair[0] for pair in view.sni.values())]):
                end = expiry(file)
                if end is not None:
                    yield bind.text, file, end


def _surroundings(composition: Composition, facts: Callable[[], Facts]) -> Surroundings:
    settings, statsd = composition.settings, None
    if settings.statsd_host:
        address = split_address(settings.statsd_host)
        statsd = Statsd(address, settings.statsd_prefix or "", settings.dogstatsd_tags or "", composition.log)
    return Surroundings(facts(), statsd, composition.enter_status, composition.logs.reopen)


def _open_status(settings: Config, inherited: str) -> tuple[list[Listener], list[Listener]]:
    """What is served, and what of the inherited sockets is not."""
    there = handover.take_over(inherited)
    binds = [parse_bind(settings.status_bind)] if settings.status_bind else []
    try:
        revision = revise_listeners(there, binds, backlog=BACKLOG, tries=5)
    except ListenError as error:
        for listener in there:
            listener.close()
        raise ListenError(f"status_bind: {error}") from None
    return revision.listeners, revision.removed


def _open_control(settings: Config, upgrading: bool) -> Listener | None:
    if settings.control_socket is None:
        return None
    try:
        path = absolute(settings.control_socket)
    except OSError as error:
        raise ListenError(f"control_socket: cannot listen at {settings.control_socket}: {error.strerror}") from None
    if upgrading:
        path += ".2"
    bind = Bind(f"unix:{path}", path=path, options={"mode": "600"})
    try:
        (listener,) = open_listeners([bind], backlog=BACKLOG, environ={})
    except ListenError as error:
        raise ListenError(f"control_socket: {error}") from None
    return listener
