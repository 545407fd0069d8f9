"""aiosmtpd(handler): the Handler subclass that runs a handler written for aiosmtpd.

Hooks are called as aiosmtpd calls them, coroutines and plain functions alike, in the one event loop of the worker, a
thread of its own; the session's thread waits. Only what the foreign handler has is offered. Where it differs from
aiosmtpd: an exception without handle_exception is logged and answered 451 by the session, not 500; a status that is no
reply is logged and answered 451; of what handle_EHLO returns only a refusal counts; handle_QUIT is called at the end of
every session; handle_NOOP never; authenticators hear of PLAIN, also where it was LOGIN.
"""

from __future__ import annotations

import inspect
from typing import Any

from preforksmtp import Handler
from preforksmtp.adapters.aio.hooks import NEEDED_BY, hooks_of
from preforksmtp.adapters.aio.host import Host
from preforksmtp.adapters.aio.session import Adapter
from preforksmtp.adapters.status import find


def aiosmtpd(
    handler: Any,
    *arguments: Any,
    authenticator: Any = None,
    auth_callback: Any = None,
    decode_data: bool = False,
) -> type[Handler]:
    """`handler`: an instance, a class, or where one is found, "module:attribute"; so are the two functions.

    Of a class one instance is made in each worker, with `arguments`. The options are those of aiosmtpd's SMTP; with
    `decode_data`, content is a str: UTF-8, other bytes as surrogates. Raises ValueError for what is no handler.
    """
    if isinstance(handler, str):
        handler = find("aiosmtpd handler", handler)
    if isinstance(authenticator, str):
        authenticator = find("authenticator", authenticator)
    if isinstance(auth_callback, str):
        auth_callback = find("auth_callback", auth_callback)
    for name, function in (("authenticator", authenticator), ("auth_callback", auth_callback)):
        if function is not None and not callable(function):
            raise ValueError(f"{name} must be a function, not {function!r:.100}")
    _check(handler, arguments)
    host = Host(handler, arguments, authenticator, auth_callback, decode_data)
    unneeded = {name: vars(Handler)[name] for name, needing in NEEDED_BY.items() if not needing & host.hooks}
    return type(host.name, (Adapter,), {"host": host, **unneeded})


def _check(handler: Any, arguments: tuple[Any, ...]) -> None:
    """ValueError for what cannot be a handler, or cannot be made."""
    kind = handler if isinstance(handler, type) else type(handler)
    foreign = kind.__module__.partition(".")[0] == "aiosmtpd"  # its Sink has no hook at all
    if inspect.isroutine(handler) or inspect.ismodule(handler) or not (foreign or hooks_of(handler)):
        raise ValueError(f"{handler!r:.100} is no handler of aiosmtpd: it has no method such as handle_DATA")
    if not isinstance(handler, type):
        if arguments:
            raise ValueError(f"{handler!r:.100} is an instance already: it takes no arguments")
        return
    if inspect.isabstract(handler):
        missing = ", ".join(sorted(getattr(handler, "__abstractmethods__", ())))
        raise ValueError(f"{handler.__name__} is abstract: derive a class from it with {missing}")
    try:
        inspect.signature(handler).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{handler.__name__}: {error}; they follow it: aiosmtpd('module:Class', 'argument')") from None
