"""NextHop, the settings of a server that mail is handed to; and Connection, one connection to it, as its client.

Knows SMTP and LMTP from the client's side: greeting, EHLO, STARTTLS, AUTH, commands and replies. Not smtplib, whose
replies have no end (CVE-2020-8794 is of that kind: here lines, their number and the time for all of them are bounded),
and which reads on over STARTTLS with what came before (CVE-2021-38371).
Raises HopFailed for whatever leaves the connection unusable: what to log, and the reply to our own client, always 4xx.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from preforksmtp import Reject, Reply

_LINE_OCTETS = 4096  # RFC 5321 section 4.5.3.1.5 says 512; some say more
_MOST_LINES = 50
_TEXT = 500  # characters of a line that our client, or the log, gets to see
_FAREWELL = 1.0  # seconds that QUIT may take
_LAST_WORDS = 1.0  # seconds for the reply of a next hop that closes in the middle of our message

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"^[245]\.\d{1,3}\.\d{1,3}(?: |$)")

# Replies about our session with the next hop: it closes, or wants TLS or AUTH from us. Our client can do nothing about
# it, and must neither close its own session (421) nor bounce the mail (5xx).
_SUCCESS = frozenset((250, 251, 252))
_ABOUT_US = frozenset((421, 530, 534, 535, 538))


class HopFailed(Reject):
    """The connection is of no use any more. `why` is for the log, the Reject for our client."""

    def __init__(self, why: str, text: str | tuple[str, ...] = "4.4.2 The connection to the next hop was lost") -> None:
        super().__init__(451, text)
        self.why = why


@dataclass(frozen=True)
class NextHop:
    """Where to, and how. `tls` is opportunistic, require, implicit or never; a host with a slash is a unix socket."""

    host: str
    port: int
    lmtp: bool
    tls: str
    context: ssl.SSLContext | None
    verify: bool
    server_name: str
    username: str | None
    password: str = field(repr=False)
    timeout: float
    final_timeout: float

    @property
    def local(self) -> bool:
        return "/" in self.host

    def __str__(self) -> str:
        if self.local:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection:
    """Connected, greeted, encrypted and logged in as the settings ask: ready for MAIL."""

    def __init__(self, hop: NextHop, hostname: str) -> None:
        self.hop = hop
        self.keywords: dict[str, str] = {}  # what EHLO offers, upper case
        self.encrypted = self.verified = self.authenticated = False
        self._hostname = hostname
        self._buffer = b""
        self._socket = _connect(hop)
        try:
            self._introduce()
        except BaseException:
            self.close()
            raise

    # --- the beginning

    def _introduce(self) -> None:
        hop = self.hop
        if hop.tls == "implicit":
            self._handshake()
        greeting = self.read()
        if greeting.code != 220:
            raise HopFailed(f"greets with {say(greeting)}", "4.4.1 The next hop does not accept mail now")
        self._hello()
        if hop.tls in ("opportunistic", "require"):
            self._start_tls()
        if hop.username is not None:
            self._login(hop.username, hop.password)

    def _hello(self) -> None:
        answer = self._own("LHLO" if self.hop.lmtp else "EHLO", self._hostname)
        self.keywords = {}
        if answer.code == 250:
            for line in answer.lines[1:]:
                keyword, _, value = line.partition(" ")
                self.keywords[keyword.upper()] = value.strip()
            return
        if self.hop.lmtp or answer.code < 500:
            raise HopFailed(f"answers {'LHLO' if self.hop.lmtp else 'EHLO'} with {say(answer)}", _NOT_NOW)
        answer = self._own("HELO", self._hostname)  # RFC 5321 section 3.2: older than 1995
        if answer.code != 250:
            raise HopFailed(f"answers HELO with {say(answer)}", _NOT_NOW)

    def _start_tls(self) -> None:
        if "STARTTLS" in self.keywords:
            answer = self._own("STARTTLS")
            if answer.code == 220:
                # Whoever sits in between can have put replies behind the 220, for us to take as said under TLS.
                if self._buffer:
                    raise HopFailed("sent octets between its reply to STARTTLS and the handshake", _NO_TLS)
                self._handshake()
                self._hello()  # RFC 3207 section 4.2: nothing that was said before counts
                return
            if self.hop.tls == "require":
                raise HopFailed(f"answers STARTTLS with {say(answer)}", _NO_TLS)
        elif self.hop.tls == "require":
            raise HopFailed("does not offer STARTTLS", _NO_TLS)

    def _handshake(self) -> None:
        assert self.hop.context is not None
        plain = self._socket
        plain.settimeout(self.hop.timeout)
        try:
            self._socket = self.hop.context.wrap_socket(plain, server_hostname=self.hop.server_name)
        except (OSError, ValueError) as error:  # ssl.SSLError and CertificateError are OSErrors
            self._socket = plain
            raise HopFailed(f"TLS: {_describe(error)}", "4.7.5 No TLS connection to the next hop") from error
        self.encrypted, self.verified = True, self.hop.verify

    def _login(self, username: str, password: str) -> None:
        """PLAIN or LOGIN: Forward has seen to it that nobody else can read them."""
        offered = self.keywords.get("AUTH", "").upper().split()
        if "PLAIN" in offered:
            answer = self._own("AUTH PLAIN", _base64(f"\0{username}\0{password}"))
        elif "LOGIN" in offered:
            answer = self._own("AUTH LOGIN")
            for text in (username, password):
                if answer.code != 334:
                    break
                answer = self._own(_base64(text))
        else:
            raise HopFailed("offers neither AUTH PLAIN nor LOGIN", _NO_LOGIN)
        if answer.code != 235:
            raise HopFailed(f"answers AUTH with {say(answer)}", _NO_LOGIN)
        self.authenticated = True

    # --- commands and replies

    def ask(self, *words: str) -> Reply:
        """One command of our client's, its reply as our client may hear it: 2xx, 4xx or 5xx."""
        return self.judge(self._own(*words), words[0])

    def judge(self, answer: Reply, command: str) -> Reply:
        """The same for a reply that is already here. Of the 2xx only those that RFC 5321 section 4.3.2 has."""
        if answer.code in _ABOUT_US:
            text = (f"{answer.enhanced} {answer.lines[0]}", *answer.lines[1:]) if answer.code == 421 else _NOT_NOW
            raise HopFailed(f"answers {command} with {say(answer)}", text)
        if answer.code < 400 and answer.code not in _SUCCESS:
            raise HopFailed(f"answers {command} with {say(answer)}", _NONSENSE)
        return answer

    def begin(self, *words: str) -> Reply | None:
        """A command that 354 follows: None then, otherwise the refusal."""
        answer = self._own(*words)
        return None if answer.code == 354 else self.refusal(answer, words[0])

    def refusal(self, answer: Reply, command: str) -> Reply:
        """A reply that can be nothing but a refusal."""
        if answer.code < 400:
            raise HopFailed(f"answers {command} with {say(answer)}", _NONSENSE)
        return self.judge(answer, command)

    def interrupted(self) -> Reply | None:
        """What the next hop has said while it was our turn to speak; HopFailed where it has closed."""
        if self._buffer or self._arrived():
            return self.read()
        return None

    def pour(self, data: bytes) -> None:
        """A piece of content. Raises Reject where the next hop refuses it in the middle, and closes."""
        try:
            self.send(data)
        except HopFailed:
            refusal = self._last_words()
            if refusal is None:
                raise
            raise Reject(refusal) from None

    def _last_words(self) -> Reply | None:
        with contextlib.suppress(HopFailed):
            return self.refusal(self.read(min(_LAST_WORDS, self.hop.timeout)), "the content")
        return None

    def _own(self, *words: str) -> Reply:
        """One command and its reply, whatever it is."""
        self.tell(*words)
        return self.read()

    def tell(self, *words: str) -> None:
        """One command, whose reply comes later."""
        line = " ".join(words)
        if _CONTROL.search(line):
            raise ValueError(f"{line!r} is no command")
        self.check()
        self.send(line.encode() + b"\r\n")

    def check(self) -> None:
        """Raise HopFailed where the next hop has closed, or has spoken while it was our turn.

        A reply too many would be taken for the one to the next command, and so on, to that of the message.
        """
        early = self.interrupted()
        if early is not None:
            if early.code == 421:  # its timeout, as Postfix says it
                self.judge(early, "our silence")
            raise HopFailed(f"spoke out of turn: {say(early)}", _NONSENSE)

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self.hop.timeout)
        with _failing():
            self._socket.sendall(data)

    def read(self, timeout: float | None = None) -> Reply:
        """The next reply, whole within `timeout` seconds."""
        deadline = time.monotonic() + (self.hop.timeout if timeout is None else timeout)
        lines: list[str] = []
        code = b""
        while True:
            line = self._read_line(deadline)
            found = _REPLY_LINE.fullmatch(line)
            if found is None or (code and found[1] != code):
                raise HopFailed(f"sent {line[:80]!r}, which is no reply", _NONSENSE)
            code = found[1]
            text = "".join(c if c.isprintable() else "?" for c in (found[3] or b"").decode("utf-8", "replace")[:_TEXT])
            # RFC 2034 section 4: the enhanced status code is on each line; Reply puts it there again.
            lines.append(_ENHANCED.sub("", text) if lines else text)
            if found[2] != b"-":
                return Reply(int(code), lines)
            if len(lines) == _MOST_LINES:
                raise HopFailed("sent a reply without end", _NONSENSE)

    def _read_line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0 and len(self._buffer) <= _LINE_OCTETS:
            left = deadline - time.monotonic()
            with _failing():
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                data = self._socket.recv(_LINE_OCTETS)
            if not data:
                raise HopFailed("closed the connection")
            self._buffer += data
        if not 0 <= end <= _LINE_OCTETS:
            raise HopFailed("sent a line without end", _NONSENSE)
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.rstrip(b"\r")

    def _arrived(self) -> bool:
        """Whether octets have come that nobody waits for. Under TLS only recv tells: there are tickets as well."""
        self._socket.settimeout(0)
        with _failing():
            try:
                data = self._socket.recv(_LINE_OCTETS)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
        if not data:
            raise HopFailed("closed the connection")
        self._buffer += data
        return True

    # --- the end

    def quit(self) -> None:
        """Say goodbye, without waiting long, and close."""
        with contextlib.suppress(HopFailed, OSError):
            self._socket.settimeout(_FAREWELL)
            self._socket.sendall(b"QUIT\r\n")
            self.read(_FAREWELL)
        self.close()

    def close(self) -> None:
        """Close as it stands: without the final dot, what was sent of a message is none."""
        with contextlib.suppress(OSError):
            self._socket.close()


_NOT_NOW = "4.4.1 The next hop does not accept mail from here now"
_NO_TLS = "4.7.4 The next hop does not offer the TLS that is required"
_NO_LOGIN = "4.7.0 The next hop does not accept our login"
_NONSENSE = "4.5.0 The next hop does not speak proper SMTP"


def _connect(hop: NextHop) -> socket.socket:
    try:
        if not hop.local:
            connected = socket.create_connection((hop.host, hop.port), hop.timeout)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        local = socket.socket(socket.AF_UNIX)
        try:
            local.settimeout(hop.timeout)
            local.connect(hop.host)
        except BaseException:
            local.close()
            raise
        return local
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA refuses
        raise HopFailed(f"cannot connect: {_describe(error)}", "4.4.1 The next hop cannot be reached") from error


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise HopFailed("timed out", "4.4.2 The next hop does not answer in time") from error
    except OSError as error:
        raise HopFailed(_describe(error)) from error


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def say(answer: Reply) -> str:
    return " ".join(filter(None, (str(answer.code), answer.enhanced, answer.text)))[:_TEXT]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
