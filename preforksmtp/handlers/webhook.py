"""Webhook(url): POST every message as JSON, its content in base64; 2xx is the receiver's promise that it is stored.

A JSON answer may decide itself: {"code": 550, "text": "5.7.1 Not wanted"}. Otherwise 406, 410, 413 and 422 refuse the
message for good. Every other status, redirects too, and no answer within `timeout` seconds (name resolution has limits
of its own) are 451 and a line in the error log: a wrong URL must not bounce mail. The client then sends the message
again, so the receiver may get it twice, under another id. No proxy is used. The log names the host only.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import io
import json
import logging
import math
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from preforksmtp import Reject, Reply

if TYPE_CHECKING:
    from preforksmtp import Message

BLOCK = 3 * 64 * 1024  # octets of content at once, never the whole of a large message; base64 takes three by three
ANSWER_LIMIT = 64 * 1024  # octets of a JSON answer
TEXT_LIMIT = 400  # characters of a reply

class _Refusal(NamedTuple):
    code: int
    enhanced: str
    text: str


_PERMANENT = {
    406: _Refusal(550, "5.6.0", "The message was refused"),
    410: _Refusal(550, "5.1.1", "No such mailbox"),
    413: _Refusal(552, "5.3.4", "Message too large"),
    422: _Refusal(550, "5.6.0", "The message was refused"),
}
_NO_CONNECTION = "4.4.1 Cannot pass the message on, try again later"
_BROKEN = "4.4.2 The message could not be passed on, try again later"
_NOT_ACCEPTED = "4.4.0 The message could not be passed on, try again later"
_OURS = ("host", "content-type", "content-length", "transfer-encoding", "connection", "x-preforksmtp-signature")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?: |$)")
_log = logging.getLogger("preforksmtp")  # the error log


class Webhook:
    """Called once per message, from many threads at once; each message has a connection of its own.

    {"id", "time", "sender", "recipients": [{"address", "params"}], "params", "size", "session": {"id", "peer": {"host",
    "port"}, "helo", "esmtp", "tls", "user", "reverse_dns", "bind"}, "received", "content"}: "tls" is its version or
    null, "received" the trace field that belongs on top of the content, which is as it was sent. With `secret` the
    header X-Preforksmtp-Signature is "sha256=" and the HMAC of the body in hex.
    """

    def __init__(
        self,
        url: str,
        secret: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._target = _split(url)
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._headers = _check_headers(headers or {})
        if self._target.authorization:
            if "authorization" in map(str.lower, self._headers):
                raise ValueError("give a user in the url or an Authorization header, not both")
            self._headers["Authorization"] = self._target.authorization
        if not any(name.lower() == "user-agent" for name in self._headers):
            self._headers["User-Agent"] = "preforksmtp"
        if self._secret == b"":
            raise ValueError("the secret is empty")
        self.timeout = float(timeout)
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout {timeout!r} is not a number of seconds above 0")
        self._tls = ssl.create_default_context() if self._target.scheme == "https" else None

    def __call__(self, message: Message) -> Reply | None:
        """Post the message; the answer decides."""
        deadline = time.monotonic() + self.timeout
        head = _head(message)
        headers = {
            **self._headers,
            "Host": self._target.authority,
            "Content-Type": "application/json",
            "Content-Length": str(len(head) + (message.size + 2) // 3 * 4 + len(_END)),
            "Connection": "close",
        }
        if self._secret is not None:
            digest = hmac.new(self._secret, digestmod="sha256")
            for block in _body(message, head):  # a second time: the header comes before the body
                digest.update(block)
            headers["X-Preforksmtp-Signature"] = f"sha256={digest.hexdigest()}"
        try:
            connection = _connect(self._target, self._tls, deadline)
        except OSError as error:
            self._fail(message, f"cannot connect: {_describe(error)}", _NO_CONNECTION, error)
        try:
            return self._exchange(message, connection, headers, head)
        except (OSError, http.client.HTTPException) as error:
            self._fail(message, _describe(error), _BROKEN, error)
        finally:
            connection.end()

    def _exchange(
        self, message: Message, connection: _Connection, headers: dict[str, str], head: bytes
    ) -> Reply | None:
        http_connection = http.client.HTTPConnection(self._target.host, self._target.port)
        http_connection.sock = cast(Any, connection)
        broken: OSError | None = None
        try:
            try:
                http_connection.request("POST", self._target.path, _body(message, head), headers)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
                broken = error  # it may have said why, before it had it all: 413 for one
            try:
                response = http_connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise broken or error from None
            connection.headed = True
            with response:
                if broken is not None and response.status < 300:
                    raise broken  # a yes to half a message
                return self._judge(message, response)
        finally:
            broken = None  # it and this frame, with the message, would hold each other

    def _judge(self, message: Message, response: http.client.HTTPResponse) -> Reply | None:
        status = response.status
        refusal = _PERMANENT.get(status)
        if refusal is None and not 200 <= status < 300:
            self._fail(message, f"status {status}", _NOT_ACCEPTED)
        try:
            code, text = _read_verdict(response, refusal.code if refusal else 250)
        except ValueError as error:
            self._fail(message, f"status {status}, {error}", _NOT_ACCEPTED)
        if code < 300:
            return Reply(code, text) if text or code != 250 else None
        if refusal is None or code != refusal.code:
            raise Reject(code, text or "The message was refused")
        has_enhanced = _ENHANCED.match(text) and text[0] == refusal.enhanced[0]
        raise Reject(code, text if has_enhanced else f"{refusal.enhanced} {text or refusal.text}")

    def _fail(self, message: Message, why: str, answer: str, cause: Exception | None = None) -> NoReturn:
        target = self._target
        _log.error("message %s: webhook %s://%s: %s", message.id, target.scheme, target.authority, why)
        raise Reject(451, answer) from cause


class _Target(NamedTuple):
    """Where to: the parts of a URL."""

    scheme: str
    host: str
    port: int
    authority: str  # the Host header
    path: str  # and query
    authorization: str


def _split(url: str) -> _Target:
    """The parts of the url. ValueError: a line that does not repeat it, for it may hold a password."""
    if not isinstance(url, str) or re.fullmatch(r"[!-~]+", url) is None:
        raise ValueError("the url has characters other than ASCII, or spaces: they must be percent-encoded")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"the url is wrong: {str(error).partition(':')[0]}") from None
    scheme, host = parts.scheme, parts.hostname
    if scheme not in ("http", "https"):
        raise ValueError("the url must begin with http:// or https://")
    if not host:
        raise ValueError("the url has no host")
    if port == 0:
        raise ValueError("the url is wrong: port 0")
    authorization = ""
    if parts.username is not None:
        user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = parts.netloc.rpartition("@")[2]
    return _Target(scheme, host, port or (443 if scheme == "https" else 80), authority, path, authorization)


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
            raise ValueError(f"header {name!r}: not a name")
        if name.lower() in _OURS:
            raise ValueError(f"header {name!r} is set by Webhook itself")
        if not isinstance(value, str) or re.fullmatch(r"[\t -~]*", value) is None:
            raise ValueError(f"header {name!r}: its value must be printable ASCII")
    return dict(headers)


_END = b'"}'


def _head(message: Message) -> bytes:
    """The JSON up to the content."""
    session = message.session
    fields = {
        "id": message.id,
        "time": message.time,
        "sender": message.sender,
        "recipients": [
            {"address": str(recipient), "params": getattr(recipient, "params", {})} for recipient in message.recipients
        ],
        "params": message.params,
        "size": message.size,
        "session": {
            "id": session.id,
            "peer": {"host": session.peer.host, "port": session.peer.port},
            "helo": session.helo,
            "esmtp": session.esmtp,
            "tls": session.tls.version if session.tls is not None else None,
            "user": session.user,
            "reverse_dns": session.reverse_dns,
            "bind": session.bind,
        },
        "received": message.received,
    }
    return json.dumps(_plain(fields)).encode()[:-1] + b', "content": "'


def _plain(value: Any) -> Any:
    """What JSON knows: parameters have dates and named tuples among their values."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return str(value).encode("utf-8", "replace").decode()  # half a surrogate pair stops many a parser


def _body(message: Message, head: bytes) -> Iterator[bytes]:
    yield head
    with message.open() as content:
        while block := content.read(BLOCK):
            yield base64.b64encode(block)
    yield _END


class _Connection:
    """A connection whose every step ends with the deadline: as much of a socket as http.client asks for."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._deadline = deadline
        self.headed = False  # the header of the answer has been read

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._socket.settimeout(_left(self._deadline))
            view = view[self._socket.send(view) :]

    def receive(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self._deadline))
        received = self._socket.recv_into(buffer)
        if not received and not self.headed:  # http.client would take what it has for all of it
            raise http.client.RemoteDisconnected("it closed the connection before its answer was complete")
        return received

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Nothing: http.client calls it where its answer is still to be read."""

    def end(self) -> None:
        self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.receive(buffer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _connect(target: _Target, tls: ssl.SSLContext | None, deadline: float) -> _Connection:
    """To the first address that answers. The time left is shared out: one that is silent leaves some to the next."""
    addresses = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline) / (len(addresses) - index))
            sock.connect(address)
            sock.settimeout(_left(deadline))
            if tls is not None:
                sock = tls.wrap_socket(sock, server_hostname=target.host)
            return _Connection(sock, deadline)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or isinstance(error, ssl.SSLError) or index == len(addresses) - 1:
                raise
    raise OSError("the name has no address")


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__} {error}".strip()


def _read_verdict(response: http.client.HTTPResponse, code: int) -> tuple[int, str]:
    """Reply code and text: `code` and "" where the answer is not JSON, or does not say. ValueError: nonsense."""
    if response.headers.get_content_type() != "application/json":
        return code, ""
    data = response.read(ANSWER_LIMIT + 1)
    if response.length and len(data) <= ANSWER_LIMIT:  # cut off: it may have been a no
        raise http.client.IncompleteRead(data)
    if not data and response.length is None and not response.chunked:  # its end is that of the connection
        raise ValueError("a JSON answer that is empty or was cut off, it has no Content-Length")
    if not data.strip():
        return code, ""
    if len(data) > ANSWER_LIMIT:
        raise ValueError("a JSON answer that is too long")
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("an answer that is not the JSON it says it is") from None
    if not isinstance(answer, dict):
        return code, ""
    decided, text = answer.get("code", code), answer.get("text", "")
    if isinstance(decided, bool) or not isinstance(decided, int) or not (200 <= decided < 300 or 400 <= decided < 600):
        raise ValueError(f"an answer with the code {decided!r:.40}")
    if code >= 400 > decided:
        raise ValueError(f"an answer with the code {decided}, against the status")
    if not isinstance(text, str):
        raise ValueError("an answer whose text is not one")
    line = " ".join(text[: 4 * TEXT_LIMIT].split())
    return decided, "".join(char if char.isprintable() else "?" for char in line)[:TEXT_LIMIT]
