"""The hooks: functions of the user's that the master and its workers call, with gunicorn's names and arguments.

Each is called in the process its name is listed with. One that raises is named in the error log with its traceback;
one that takes more than a second is named with its time, and named already while it runs. In the master none is fatal:
a hook that holds it up is interrupted after boot_timeout, and as soon as a signal to stop waits; during a stop, when
two seconds are used up, all calls but on_exit together. In a worker the two that belong to its boot (post_fork,
post_worker_init) keep it from serving when they raise; no other does any harm.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

from preforksmtp.prefork.alarm import SLOW, Overdue, alarm
from preforksmtp.prefork.atfork import Confined

Function = Callable[..., object]
Scope = Callable[[], contextlib.AbstractContextManager[object]]

log = logging.getLogger("preforksmtp")


class Hooks:
    """The functions that one configuration gives. `scope`: entered around each call in the master."""

    def __init__(self, functions: Mapping[str, Function] | None = None, scope: Scope = contextlib.nullcontext) -> None:
        self._functions = dict(functions or {})
        self._scope = scope

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def in_master(self, name: str, *arguments: object, limit: float, must_stop: Callable[[], str]) -> bool:
        """Master: call it, if there is one. False: it failed, which is logged."""
        function = self._functions.get(name)
        if function is None:
            return True
        began = time.monotonic()
        try:
            with Confined(f"hook {name}"), self._scope(), alarm(limit, must_stop, lambda: _warn_running(name)):
                function(*arguments)
        except Overdue as overdue:
            log.error("hook %s was interrupted after %.1f s: %s", name, time.monotonic() - began, overdue)
            return False
        except BaseException as error:  # the user's code
            log.error("hook %s raised %s", name, describe(error), exc_info=error)
            return False
        _note_slow(name, began)
        return True

    def in_worker(self, name: str, *arguments: object) -> bool:
        """Worker: the same, without interruption: what never returns ends with the worker, its stacks in the log."""
        function = self._functions.get(name)
        if function is None:
            return True
        began = time.monotonic()
        timer = threading.Timer(SLOW, _warn_running, (name,))
        timer.daemon = True
        timer.start()
        try:
            with Confined(f"hook {name}"):
                function(*arguments)
        except BaseException as error:  # the user's code
            log.error("hook %s raised %s", name, describe(error), exc_info=error)
            return False
        finally:
            timer.cancel()
        _note_slow(name, began)
        return True


def describe(error: BaseException) -> str:
    """The exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def explain(error: BaseException) -> str:
    """One line. Our own errors are lines already; the user's have a type and a text."""
    if type(error).__module__.startswith("preforksmtp."):
        return "; ".join(str(error).splitlines())
    return describe(error)


def _warn_running(name: str) -> None:
    log.warning("hook %s is running for more than %g s", name, SLOW)


def _note_slow(name: str, began: float) -> None:
    seconds = time.monotonic() - began
    if seconds > SLOW:
        log.warning("hook %s took %.1f s", name, seconds)
