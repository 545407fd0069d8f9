"""--preload: APP is loaded once, in the master, and its workers share that memory.

Runs in the master before the first fork, with the master's privileges. What is loaded there stays for the life of the
process, so HUP, which cannot bring new code any more, becomes an upgrade: a new program on the same sockets. Loading
raises AppError.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from preforksmtp.config.model import Config
from preforksmtp.prefork.alarm import alarm
from preforksmtp.prefork.master.generation import nothing
from preforksmtp.server.app import load_app

if TYPE_CHECKING:
    from preforksmtp.prefork.master.master import Master
    from preforksmtp.smtp.hooks import Hooks


class Preload:
    """APP as the master has loaded it."""

    def __init__(self, settings: Config, log: logging.Logger) -> None:
        self._log = log
        self._text: str = settings.app
        self._by_hand = settings.upgrade == "manual"
        self._reloading = False  # HUP began the upgrade under way
        # An upgrade that hangs in here would be under way for ever: what takes too long is given up, as in a worker.
        began, seconds = time.monotonic(), settings.boot_timeout
        overdue = f"it took more than boot_timeout {seconds:.4g} s"
        with alarm(0, lambda: overdue if time.monotonic() - began >= seconds else "", nothing):
            self._hooks = load_app(self._text)
        if threading.active_count() > 1:
            log.warning("preload: loading app %r began threads, which no worker has; begin them in start()", self._text)
        gc.collect()
        gc.freeze()  # or the first collection in each worker would write to, and so copy, every page with an object

    def load(self, text: str) -> Hooks:
        """Worker: what it was forked with; another APP, from a config file read again, it loads itself."""
        return self._hooks if text == self._text else load_app(text)

    def attend(self, master: Master) -> None:
        """Before the master runs: HUP is ours."""
        self._master = master
        master.actions[signal.SIGHUP] = self._hang_up
        master.upgrade.on_failed.append(self._failed)

    def _hang_up(self) -> None:
        """Master."""
        master = self._master
        if master.stopping:
            return
        if os.getpid() == 1 or self._by_hand:
            way = "start process 1 again" if os.getpid() == 1 else "send USR2 (upgrade is manual)"
            self._log.warning(
                "master %d: HUP reloads the configuration, but NOT THE APPLICATION (preload); for new code %s",
                *(os.getpid(), way),
            )
            master.reload.request()
            return
        if not master.upgrade.pid:
            self._log.info("master %d: reloading by an upgrade, because of preload", os.getpid())
            self._reloading = True
            for callback in master.on_reloading:
                master.call(callback)
        master.upgrade.begin()
        if not master.upgrade.pid:
            self._failed("it could not begin")

    def _failed(self, fault: str) -> None:
        """Master: the upgrade came to nothing."""
        if not self._reloading:
            return
        self._reloading = False
        self._master.reload.count(fault)
        for callback in self._master.on_reloaded:
            self._master.call(lambda callback=callback: callback(fault))  # type: ignore[misc]
