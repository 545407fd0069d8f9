"""What a given application overrides of the Handler, and so what the server offers; what it does not override costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from preforksmtp.smtp.declared import read_declared
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.sasl import possible
from preforksmtp.smtp.scram import ITERATIONS, SALT_OCTETS, read_iterations, read_salt_octets

if TYPE_CHECKING:
    from preforksmtp.smtp.message import Message
    from preforksmtp.smtp.session import Session

_HOOKS = (
    "connect", "helo", "authenticate", "password", "token", "certificate", "mail", "rcpt", "data", "stream",
    "message", "verify", "expand", "etrn", "help", "reset", "close",
)  # fmt: skip


class Hooks:
    """What an application offers: which hooks it has, and `new(session)`, the object that has them.

    `mechanisms` are the AUTH mechanisms that the hooks make possible.
    """

    def __init__(
        self, new: Callable[[Session], Any] | None, has: frozenset[str], handler: type[Handler] | None = None
    ) -> None:
        self.new = new
        self.shared: Any = None  # the object of every session, where `new` makes none
        self.handler = handler
        self.has = has
        self.extensions: dict[str, str] = read_declared(handler.extensions if handler is not None else ())
        self.scram_iterations = read_iterations(handler.scram_iterations if handler is not None else ITERATIONS)
        self.scram_salt_octets = read_salt_octets(handler.scram_salt_octets if handler is not None else SALT_OCTETS)
        for name in _HOOKS:  # plain attributes: read at every command
            setattr(self, name, name in has)
        self.mechanisms = possible(has)
        self.folders: tuple[str, ...] = tuple(map(str, getattr(handler, "folders", ())))  # where it stores messages

    connect: bool
    helo: bool
    authenticate: bool
    password: bool
    token: bool
    certificate: bool
    mail: bool
    rcpt: bool
    data: bool
    stream: bool
    message: bool
    verify: bool
    expand: bool
    etrn: bool
    help: bool
    reset: bool
    close: bool

    @classmethod
    def of_function(cls, function: Callable[[Message], Any]) -> Hooks:
        """A plain callable: it is the `message` hook of every session."""
        hooks = cls(None, frozenset({"message"}))
        hooks.extensions = read_declared(getattr(function, "extensions", ()))
        hooks.folders = tuple(map(str, getattr(function, "folders", ())))
        hooks.shared = _FunctionHandler(function)
        return hooks

    @classmethod
    def of_class(cls, handler: type[Handler], new: Callable[[Session], Any] | None = None) -> Hooks:
        """A Handler subclass; `new` makes an instance where the class alone does not (a functools.partial)."""
        overridden = (name for name in _HOOKS if getattr(handler, name) is not getattr(Handler, name))
        return cls(new or handler, frozenset(overridden), handler)


class _FunctionHandler:
    def __init__(self, message: Callable[[Message], Any]) -> None:
        self.message = message
