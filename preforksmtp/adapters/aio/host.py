"""Host: one handler of aiosmtpd in one worker, and the event loop in which its hooks run.

The Host is made in the master and started in each worker; a session's thread calls a hook and waits for it. An
exception of the handler passes through to the session, unless the handler has handle_exception; a status that is no
reply is logged and becomes 451.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from preforksmtp import Reject, Reply
from preforksmtp.adapters.aio.hooks import MECHANISMS, auth_methods_of, hooks_of
from preforksmtp.adapters.status import BadStatus, is_missing, read_status

# Seconds for tasks to end once they are cancelled. Where hooks are under way the worker is at its deadline, and has
# half a second left; else there are only tasks that the handler has made, and the worker watches the time.
_CUT_OFF, _FAREWELL = 0.3, 5.0


class Loop:
    """An event loop in a thread of its own. `run` gives the result of a function or coroutine function called there.

    It never leaves a caller waiting: what is cancelled, or under way when the loop is stopped, raises RuntimeError.
    """

    def __init__(self, log: logging.Logger) -> None:
        import asyncio  # here: who only wants the old smtpd does not pay for it

        self._asyncio = asyncio
        self._log = log
        self.loop = asyncio.new_event_loop()
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._ending = False
        self._patience = _FAREWELL
        self._thread = threading.Thread(target=self._turn, name="aiosmtpd loop", daemon=True)
        self._thread.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            if self._ending:
                raise RuntimeError("the event loop of the handler has ended")
            future = self._asyncio.run_coroutine_threadsafe(_perform(function, arguments), self.loop)
            self._pending.add(future)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(f"{getattr(function, '__qualname__', function)} was cancelled") from None
        finally:
            with self._lock:
                self._pending.discard(future)

    def stop(self) -> None:
        """Cancel all tasks and end the thread; one that a hook blocks is left behind."""
        with self._lock:
            if self._ending:
                return
            self._ending = True
            if self._pending:
                self._patience = _CUT_OFF
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(self._patience)
        self._release()

    def _turn(self) -> None:
        self._asyncio.set_event_loop(self.loop)
        while not self._ending and not self.loop.is_closed():
            try:
                self.loop.run_forever()  # a handler may stop it, and a task of its own raise SystemExit through it
            except BaseException:
                self._log.exception("a task of the aiosmtpd handler raised")
        self._ending = True
        try:
            tasks = self._asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(self._asyncio.wait(tasks, timeout=self._patience))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self._release()
            self.loop.close()

    def _release(self) -> None:
        with self._lock:
            left = list(self._pending)
        for future in left:
            future.cancel()


async def _perform(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    process = os.getpid()
    try:
        result = function(*arguments)
        return await result if inspect.isawaitable(result) else result
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would let them end the loop, for all sessions
        raise RuntimeError(f"the hook raised {type(error).__name__}") from error
    finally:
        if os.getpid() != process:  # it has forked, and the child has come back: to a loop that nobody waits for
            os._exit(1 if sys.exc_info()[1] is not None else 0)


class Host:
    """One foreign handler in one worker: its instance, its loop, and what it has.

    `hooks`: as hooks_of() names them, with "auth" also for the authenticator and the auth_callback.
    """

    def __init__(
        self, handler: Any, arguments: tuple[Any, ...], authenticator: Any, auth_callback: Any, decode_data: bool
    ) -> None:
        self.authenticator = authenticator
        self.auth_callback = auth_callback
        self.decode_data = decode_data
        self.name = handler.__name__ if isinstance(handler, type) else type(handler).__name__
        own = {"auth"} if authenticator is not None or auth_callback is not None else set()
        self.hooks = hooks_of(handler) | own
        self.auth_methods = auth_methods_of(handler)
        self.greets = not self.hooks.isdisjoint(("HELO", "EHLO"))
        self.handler: Any = None
        self.old_ehlo = False
        self.log = logging.getLogger("preforksmtp")
        self._given = (handler, arguments)
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._stopped = False

    def start(self, worker: Any) -> None:
        """Once in a worker, after the fork: no thread would outlive it."""
        self.log = getattr(worker, "log", self.log)
        self._stopped = False
        self.loop()
        foreign = sorted(self.auth_methods.keys() - set(MECHANISMS))
        if foreign:
            self.log.warning("%s: no AUTH %s, only methods for PLAIN and LOGIN are used", self.name, " ".join(foreign))
        if self.hooks.isdisjoint(("DATA", "process_message")):
            self.log.warning("%s has no handle_DATA: mail is accepted and thrown away, as by aiosmtpd", self.name)

    def stop(self) -> None:
        with self._lock:
            loop, self._loop, self._stopped = self._loop, None, True
        if loop is not None:
            loop.stop()

    def loop(self) -> Loop:
        with self._lock:
            if self._stopped:  # a session that was cut off must not make all of it anew
                raise RuntimeError("the event loop of the handler has ended")
            if self._loop is None:
                loop = Loop(self.log)
                try:
                    self.handler = loop.run(self._make)
                except BaseException:
                    loop.stop()
                    raise
                self._loop = loop
            return self._loop

    def _make(self) -> Any:
        """In the loop's thread, where a constructor may ask for the running loop."""
        handler, arguments = self._given
        made = handler(*arguments) if isinstance(handler, type) else handler
        if "EHLO" in self.hooks:
            count = len(inspect.signature(made.handle_EHLO).parameters)
            if count not in (4, 5):
                raise ValueError(f"{self.name}.handle_EHLO takes {count} arguments; aiosmtpd gives it 4 or 5")
            self.old_ehlo = count == 4
        return made

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.loop().run(function, *arguments)

    def ask(self, function: Callable[..., Any], *arguments: Any, default: Any = None) -> Reply | None:
        """Call a hook whose result is a status; its exceptions are for handle_exception, where there is one.

        `default` is what None means. Returns None for MISSING.
        """
        try:
            try:
                status = self.call(function, *arguments)
                if is_missing(status):
                    return None
                return read_status(default if status is None else status)
            except Reject as refusal:  # ours: the handler has begun to move
                return refusal.reply
            except Exception as error:
                if "exception" not in self.hooks:
                    raise
                return read_status(self.call(self.handler.handle_exception, error))
        except BadStatus as error:
            name = getattr(function, "__qualname__", function)
            self.log.error("%s returned no status: %s", name, error)
            # Not aiosmtpd's 500: the message may be stored, or not, and the client is to try again.
            return Reply(451, "4.3.0 Error: the handler has given no valid status")
