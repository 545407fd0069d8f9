"""Forward(host, port): hand every message to the next hop over SMTP or LMTP, and give its answers to the client.

Nothing is stored here and nothing is acknowledged before the next hop has it: MAIL and RCPT are said there as they
come, the content when it is complete, and the client hears the next hop's own replies. What keeps us from it (no
connection, no answer, no sense in it) is 451, with one line in the error log; the client tries again. Where the answer
to a whole message does not come in time, the next hop may have it nevertheless, and get it twice (RFC 1047).

No queue, so no reports: NOTIFY and its like are passed on where the next hop offers DSN, else dropped. Content of 8
bits is not converted (RFC 6152): a next hop without 8BITMIME does not get it, 554. An LMTP next hop answers for each
recipient, but plain SMTP has one reply for all: such a client is given one recipient a transaction (452 for the others,
which it sends in the next ones, RFC 5321 section 4.5.3.1.10). Clients of LMTP, or with PRDR, have no such limit.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from preforksmtp import Handler, Message, Reject, Reply, Session, quote_address
from preforksmtp.handlers.forward.encoding import (
    MOST_RECEIVED,
    DataEncoder,
    blocks,
    check_address,
    is_seven_bit,
    mail_parameters,
    rcpt_parameters,
)
from preforksmtp.handlers.forward.nexthop import Connection, HopFailed, NextHop, say

TLS = ("opportunistic", "require", "implicit", "never")

_LOG = logging.getLogger("preforksmtp")  # the error log
_LOST = Reply(451, "4.4.2 The connection to the next hop was lost")


def Forward(
    host: str,
    port: int | None = None,
    *,
    lmtp: bool = False,
    tls: str | None = None,
    verify: bool | None = None,
    cafile: str | None = None,
    server_name: str | None = None,
    username: str | None = None,
    password_file: str | os.PathLike[str] | None = None,
    hostname: str | None = None,
    timeout: float = 60.0,
    final_timeout: float = 300.0,
) -> functools.partial[Relay]:
    """The application. Raises ValueError for what cannot work; does not connect yet.

    host, port     the next hop; a host with a slash is the path of a unix socket. The port is 25 by default, 24 with
                   lmtp, 465 with implicit TLS
    tls            "opportunistic": STARTTLS where it is offered and accepted, else in clear; "require": or else 451;
                   "implicit": from the first octet; "never". By default never on a unix socket, require with a
                   username, else opportunistic
    verify         check the certificate, for `server_name` (the host); by default with require and implicit
    cafile         certificates of authorities, instead of the system's
    username       log in (PLAIN, LOGIN), with the first line of `password_file`; only where nobody can listen
    hostname       what to say in EHLO; by default the server's own
    timeout        seconds for connecting, each command and each block of content
    final_timeout  seconds for the answer to the whole message, more than the next hop needs for its work (and the
                   server's handler_timeout, if there is one, more than this)
    """
    if not isinstance(host, str) or not host or not host.isprintable() or " " in host:
        raise ValueError(f"Forward: host {host!r} is no host name, address or path of a socket")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]  # an IPv6 address, as it stands in front of a port
    if port is None:
        port = 24 if lmtp else 465 if tls == "implicit" else 25
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"Forward: port {port!r} is not within 1 to 65535")
    for name, seconds in (("timeout", timeout), ("final_timeout", final_timeout)):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e6:
            raise ValueError(f"Forward: {name} {seconds!r} is not a number of seconds above 0")
    if hostname is not None and not (hostname and hostname.isprintable() and " " not in hostname):
        raise ValueError(f"Forward: hostname {hostname!r} is no name for EHLO")
    local = "/" in host
    tls = _choose_tls(tls, local, username)
    if tls == "never" and (verify or cafile or server_name):
        raise ValueError("Forward: verify, cafile and server_name are of no use without TLS")
    verify = tls in ("require", "implicit") if verify is None else bool(verify)
    if not verify and (cafile or server_name):
        raise ValueError("Forward: cafile and server_name are of no use without verify=True")
    if username is not None and tls == "never" and not local and not _is_loopback(host):
        raise ValueError("Forward: a password is not sent in clear over a network; use tls='require' or 'implicit'")
    hop = NextHop(
        host, port, bool(lmtp), tls,
        None if tls == "never" else _make_context(verify, cafile),
        verify, server_name or host, username, _read_password(username, password_file), timeout, final_timeout,
    )  # fmt: skip
    return functools.partial(RelayToLmtp if lmtp else Relay, hop, hostname)


def _choose_tls(tls: str | None, local: bool, username: str | None) -> str:
    if tls is None:
        if local:
            return "never"
        return "opportunistic" if username is None else "require"
    if tls not in TLS:
        raise ValueError(f"Forward: tls {tls!r} is none of {', '.join(TLS)}")
    if local and tls != "never":
        raise ValueError("Forward: there is no TLS on a unix socket")
    if username is not None and tls == "opportunistic":  # whoever can listen can also take STARTTLS out of the EHLO
        raise ValueError("Forward: with a username tls must be 'require' or 'implicit'")
    return tls


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _make_context(verify: bool, cafile: str | None) -> ssl.SSLContext:
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise ValueError(f"Forward: cannot read cafile {cafile}: {error.strerror or error}") from None


def _read_password(username: str | None, file: str | os.PathLike[str] | None) -> str:
    """Once, at the start: the user that the worker runs as later may not read it."""
    if username is None:
        if file is not None:
            raise ValueError("Forward: password_file is of no use without username")
        return ""
    if file is None:
        raise ValueError("Forward: username needs password_file")
    try:
        with open(file, encoding="utf-8") as lines:
            password = lines.readline().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise ValueError(f"Forward: cannot read password_file {file}: {error}") from None
    if not password or "\0" in password + username:
        raise ValueError(f"Forward: the first line of {file} is no password, or username is no name")
    return password


class Relay(Handler):
    """One session of ours, and at most one of the next hop's: opened by the first MAIL, kept to the end."""

    def __init__(self, hop: NextHop, hostname: str | None, session: Session) -> None:
        super().__init__(session)
        self.hop = hop
        self._hostname = hostname or session.hostname
        self._connection: Connection | None = None
        self._utf8 = False  # of this transaction: the next hop was told SMTPUTF8
        self._single = False  # this transaction may have one recipient only
        self._accepted = 0  # its recipients so far
        self._said: list[tuple[str, ...]] = []  # of it, what the next hop has accepted

    def mail(self, sender: str, params: dict[str, Any]) -> Reply | str | None:
        """Have a connection, and say it there."""
        with self._watched(self._ready) as connection:
            check_address(sender, connection.keywords)
            words = mail_parameters(
                params,
                connection.keywords,
                authenticated=connection.authenticated,
                verified=connection.verified,
                local=self.hop.local,
            )
            self._utf8 = "SMTPUTF8" in words
            self._single = self.hop.lmtp and not (self.session.lmtp or "PRDR" in params)
            self._accepted = 0
            self._said.clear()
            return self._say(connection, "MAIL", f"FROM:<{quote_address(sender)}>", *words)

    def rcpt(self, recipient: str, params: dict[str, Any]) -> Reply | str | None:
        """Say it there, unless the next hop's replies to the whole message could not be told apart."""
        with self._watched(self._current) as connection:
            if self._single and self._accepted:
                raise Reject(452, "4.5.3 One recipient at a time, please send the others in further transactions")
            check_address(recipient, connection.keywords)
            words = rcpt_parameters(params, connection.keywords)
            answer = self._say(connection, "RCPT", f"TO:<{quote_address(recipient)}>", *words)
            self._accepted += answer.positive
            return answer

    def data(self) -> None:
        """Spare the client the body, where there is nobody to hand it to."""
        with self._watched(self._current) as connection:
            connection.check()

    def message(self, message: Message) -> Reply | str | None:
        """Hand it over. What is refused from here is forgotten by the RSET before the next MAIL."""
        with self._watched(self._resumed) as connection:
            self._check(message, connection)
            if message.params.get("BODY") == "BINARYMIME":
                self._send_chunk(message, connection)
            elif (refusal := self._send_data(message, connection)) is not None:
                return refusal
            if self.hop.lmtp:
                return self._hear_each(message, connection)
            return connection.judge(connection.read(self.hop.final_timeout), "the message")

    def close(self) -> None:
        """Say goodbye there too."""
        if self._connection is not None:
            self._connection.quit()
            self._connection = None

    # --- the message

    def _check(self, message: Message, connection: Connection) -> None:
        """Refuse what must not go there, before DATA."""
        binary = message.params.get("BODY") == "BINARYMIME"
        headers = message.headers
        if len(headers.get_all("Received", ())) > MOST_RECEIVED:
            raise Reject(554, "5.4.6 Too many hops, this looks like a mail loop")
        if not headers.raw.isascii() and "SMTPUTF8" in message.params and not self._utf8:
            raise Reject(550, "5.6.9 Header fields in UTF-8 are not supported by the next hop")
        if "8BITMIME" not in connection.keywords and not binary and not is_seven_bit(message):  # RFC 6152 section 3
            raise Reject(554, "5.6.3 8-bit content is not supported by the next hop, and is not converted here")

    def _trace(self, message: Message) -> bytes:
        return f"{message.received}\r\n".encode("utf-8" if self._utf8 else "ascii", "backslashreplace")

    def _send_data(self, message: Message, connection: Connection) -> Reply | None:
        """Up to the final dot. A Reply is the refusal of DATA; one in the middle of the content is raised."""
        refusal = connection.begin("DATA")
        if refusal is not None:
            return refusal
        encoder = DataEncoder()
        with self._unfinished():
            connection.pour(encoder.encode(self._trace(message)))
            with message.open() as body:
                for block in blocks(body):
                    connection.pour(encoder.encode(block))
            early = connection.interrupted()
            if early is not None:  # too large, perhaps: the next hop did not wait for the final dot, so it gets none
                raise Reject(connection.refusal(early, "the content"))
            connection.pour(encoder.finish() + b".\r\n")
        return None

    def _send_chunk(self, message: Message, connection: Connection) -> None:
        """All of it in one chunk (RFC 3030), which needs no look at the content: it may be binary."""
        trace = self._trace(message)
        left = message.size
        connection.tell("BDAT", str(len(trace) + left), "LAST")
        with self._unfinished():
            connection.pour(trace)
            with message.open() as body:
                for block in blocks(body):
                    left -= len(block)
                    if left < 0:
                        break
                    connection.pour(block)
            if left:
                raise OSError("the content is not as long as it was")

    @contextmanager
    def _unfinished(self) -> Iterator[None]:
        """While content is sent: whatever fails, the connection ends here, so that the part is never a message."""
        try:
            yield
        except BaseException:
            self._drop()
            raise

    def _hear_each(self, message: Message, connection: Connection) -> Reply | None:
        """LMTP: a reply for each recipient, in their order (RFC 2033 section 4.2)."""
        answers: list[Reply] = []
        deadline = time.monotonic() + self.hop.final_timeout
        try:
            for _ in message.recipients:
                answer = connection.read(max(0.0, deadline - time.monotonic()))
                answers.append(connection.judge(answer, "the message"))
        except HopFailed as failure:  # who was answered for has the message, the others are tried again
            if not answers:
                raise
            self._fail(failure)
            answers += [failure.reply] * (len(message.recipients) - len(answers))
        if len(answers) == 1:
            return answers[0]
        delivered = {to for to, answer in zip(message.recipients, answers, strict=True) if answer.positive}
        for recipient, answer in zip(message.recipients, answers, strict=True):
            if recipient not in delivered:  # named twice, it may have been refused once
                message.reject(recipient, answer)
        return next((answer for answer in answers if answer.positive), None)

    # --- the connection

    def _ready(self) -> Connection:
        """A connection without a transaction: the one we have, or a new one where it is gone."""
        if self._connection is not None:
            try:
                if self._connection.ask("RSET").code == 250:
                    return self._connection
            except HopFailed:
                pass  # it was idle, and the next hop has closed it: nothing is lost yet, so not a word about it
            self._drop()
        self._connection = Connection(self.hop, self._hostname)
        return self._connection

    def _say(self, connection: Connection, *words: str) -> Reply:
        """Ask, and remember what was accepted."""
        answer = connection.ask(*words)
        if answer.positive:
            self._said.append(words)
        return answer

    def _resumed(self) -> Connection:
        """The one on which this transaction began; or another with the same, where the next hop has not waited for a
        large message on a slow line. It has heard nothing of the message yet, so it cannot have it twice."""
        connection = self._current()
        try:
            connection.check()
        except HopFailed:
            self._drop()
            self._connection = connection = Connection(self.hop, self._hostname)
            for words in self._said:
                answer = connection.ask(*words)
                if not answer.positive:
                    raise HopFailed(f"did not wait, and answers {words[0]} with {say(answer)} now") from None
        return connection

    def _current(self) -> Connection:
        """The one on which this transaction began."""
        if self._connection is None:
            raise Reject(_LOST)
        return self._connection

    @contextmanager
    def _watched(self, get: Callable[[], Connection]) -> Iterator[Connection]:
        """A connection to use. When it fails it is closed as it stands, the log has a line and our client a 451."""
        try:
            yield get()
        except HopFailed as failure:
            self._fail(failure)
            raise

    def _fail(self, failure: HopFailed) -> None:
        self._drop()
        _LOG.warning("session %s: next hop %s: %s", self.session.id, self.hop, failure.why)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class RelayToLmtp(Relay):
    """Towards LMTP each recipient has a reply of its own, so we can offer our clients PRDR."""

    extensions = ("PRDR",)
