"""The old smtpd module: `from preforksmtp.adapters import smtpd` instead of `import smtpd`, and no other change.

    preforksmtp app:MyServer                                                    a class derived from SMTPServer
    preforksmtp "preforksmtp.adapters.smtpd:process_message('app:MyServer')"    one of Python's own smtpd, or a function

The command line takes the place of making the server and of asyncore.loop(). process_message gets what it got: lines
end with LF, the last without one; None is 250. A status that is no reply, or any exception, is logged and answered 451.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from preforksmtp import Handler, Message, Reply, Session
from preforksmtp.adapters.status import NULL_SENDER, find, options, plain, read_status

__all__ = ["DebuggingServer", "SMTPServer", "process_message"]

DATA_SIZE_DEFAULT = 33554432


class _OldConstructor(type):
    """Calls an __init__ that was written for the old module, (localaddr, remoteaddr, ...), for a session."""

    def __call__(cls, session: Session, *arguments: Any, **keywords: Any) -> Any:
        server = cls.__new__(cls)  # type: ignore[call-overload]  # an ordinary class, though its type is ours
        Handler.__init__(server, session)
        server.__init__(*(arguments or _addresses(cls)), **keywords)
        return server


@cache
def _addresses(cls: type) -> tuple[Any, ...]:
    """What stands for the addresses that the command line has now: two of None, or as many as __init__ takes."""
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]  # that of the class given
    for arguments in ((None, None), (None,), ()):
        try:
            signature.bind(None, *arguments)
        except TypeError:
            continue
        return arguments
    raise ValueError(f"{cls.__name__}.__init__ takes {signature}; (localaddr, remoteaddr) is expected")


class SMTPServer(Handler, metaclass=_OldConstructor):
    """Override process_message. One instance serves one session, and sessions run side by side in threads: what they
    share belongs in the class or the module, under a lock.

    An __init__ of the old signature is called, with None for both addresses. enable_SMTPUTF8 and data_size_limit
    change nothing: SMTPUTF8 is always offered, sizes are limited by --max-message-size.
    """

    enable_SMTPUTF8 = False
    data_size_limit: int | None = DATA_SIZE_DEFAULT
    _decode_data = False

    def __init__(
        self,
        localaddr: Any = None,
        remoteaddr: Any = None,
        data_size_limit: int | None = DATA_SIZE_DEFAULT,
        map: Any = None,
        enable_SMTPUTF8: bool = False,
        decode_data: bool = False,
    ) -> None:  # Handler's own was called by the metaclass
        if enable_SMTPUTF8 and decode_data:
            raise ValueError("decode_data and enable_SMTPUTF8 cannot be set to True at the same time")
        self._localaddr = localaddr
        self._remoteaddr = remoteaddr
        self.data_size_limit = data_size_limit
        self.enable_SMTPUTF8 = enable_SMTPUTF8
        self._decode_data = decode_data

    @classmethod
    def start(cls, worker: Any) -> None:
        """Once in each worker: refuse what would fail at every message."""
        if cls.process_message is SMTPServer.process_message and cls.message is SMTPServer.message:
            raise ValueError(f"{cls.__name__} does not override process_message: mail would be lost")
        try:
            server = cls(None)  # one that no session has
        except Exception as error:
            raise ValueError(f"{cls.__name__}.__init__, with None for the addresses, raised {error!r}") from error
        if not callable(server.message):
            raise ValueError(f"{cls.__name__}: self.message is a method of preforksmtp.Handler; call yours otherwise")
        _takes_options(server.process_message)

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> str | None:
        """`peer` is (host, port); `data` is bytes, or str with decode_data. Return None, or a status: "550 No"."""
        raise NotImplementedError

    def message(self, message: Message) -> Reply | None:
        """The message as the old module gave it."""
        with_options = not self._decode_data and _takes_options(self.process_message)
        return _process(self.process_message, message, self._decode_data, with_options)


class DebuggingServer(SMTPServer):
    """Prints each message on standard output, at once: those of other threads do not get in between."""

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> None:
        """Print it."""
        lines = ["---------- MESSAGE FOLLOWS ----------"]
        if kwargs.get("mail_options"):
            lines.append(f"mail options: {kwargs['mail_options']}")
        if kwargs.get("rcpt_options"):
            lines.append(f"rcpt options: {kwargs['rcpt_options']}\n")
        lines += self._content(peer, data)
        print("\n".join([*lines, "------------ END MESSAGE ------------\n"]), end="", flush=True)

    def _content(self, peer: Any, data: Any) -> list[str]:
        """Octets as their repr, so that no message plays with the terminal; X-Peer at the end of the header."""
        content = data.splitlines()
        if data[:0] in content:
            header = f"X-Peer: {peer[0]}"
            content.insert(content.index(data[:0]), header if isinstance(data, str) else header.encode())
        return content if isinstance(data, str) else [repr(line) for line in content]


def _takes_options(function: Callable[..., Any]) -> bool:
    """Whether process_message takes the keywords that it gets without decode_data. ValueError if it is no good."""
    signature = inspect.signature(function)
    try:
        signature.bind(None, "", [], b"", mail_options=[], rcpt_options=[])
    except TypeError:
        try:
            signature.bind(None, "", [], b"")
        except TypeError as error:
            raise ValueError(f"{_name(function)}: {error}; (peer, mailfrom, rcpttos, data) is expected") from None
        return False
    return True


def _process(
    function: Callable[..., Any], message: Message, decode_data: bool, with_options: bool = True
) -> Reply | None:
    content = message.content.removesuffix(b"\r\n").replace(b"\r\n", b"\n")
    data = content.decode("utf-8", "surrogateescape") if decode_data else content
    kwargs: dict[str, list[str]] = {}
    if with_options and not decode_data:
        last = message.recipients[-1]  # the old module kept those of the last one only
        kwargs = {"mail_options": options(message.params), "rcpt_options": options(last.params)}
    peer = tuple(message.session.peer)
    status = function(peer, message.sender or NULL_SENDER, plain(message.recipients), data, **kwargs)
    return read_status(status) if status else None


def process_message(target: Any, decode_data: bool = False) -> Callable[[Message], Reply | None]:
    """`target`: a function as process_message is, an object or class that has it, or where one is: "module:attribute".

    It is called for one message at a time in each worker, as asyncore did. Of a class of Python's own smtpd an instance
    is made without its __init__, which would open a socket; of any other class one without arguments. Raises ValueError
    for what cannot be called so.
    """
    if isinstance(target, str):
        target = find("smtpd server", target)
    function = _function(target)
    decode_data = decode_data or getattr(getattr(function, "__self__", None), "_decode_data", False)
    kwargs: dict[str, list[str]] = {} if decode_data else {"mail_options": [], "rcpt_options": []}
    try:
        inspect.signature(function).bind(None, "", [], b"", **kwargs)
    except TypeError as error:
        hint = "" if decode_data else "; without **kwargs it needs decode_data=True"
        raise ValueError(f"{_name(target)}: {error}{hint}") from None
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"{_name(target)} is a coroutine function; process_message is a plain one")
    lock = threading.Lock()

    def process(message: Message) -> Reply | None:
        with lock:
            return _process(function, message, decode_data)

    return process


def _function(target: Any) -> Callable[..., Any]:
    if isinstance(target, type):
        if not callable(getattr(target, "process_message", None)):
            raise ValueError(f"class {target.__name__} has no process_message")
        target = _instance(target)
    function = getattr(target, "process_message", target)
    if not callable(function):
        raise ValueError(f"{target!r:.100} is no function and has no process_message")
    checked: Callable[..., Any] = function
    return checked


def _instance(cls: type) -> Any:
    if issubclass(cls, SMTPServer):
        return cls(None)  # one for all sessions
    if issubclass(cls, Handler):
        raise ValueError(f"{cls.__name__} is a preforksmtp.Handler already: give it as APP itself")
    if not any(base.__module__ == "asyncore" for base in cls.__mro__):
        try:
            inspect.signature(cls).bind()
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}; make an instance of it in a module") from None
        return cls()
    server = object.__new__(cls)
    # What __init__ would have set: dispatcher.__getattr__ asks its socket for what is missing.
    vars(server).update(socket=None, _map={}, _localaddr=None, _remoteaddr=None, data_size_limit=DATA_SIZE_DEFAULT)
    vars(server).update(enable_SMTPUTF8=False, _decode_data=False)
    return server


def _name(target: Any) -> str:
    return getattr(target, "__qualname__", "") or type(target).__name__
