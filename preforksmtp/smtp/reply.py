"""Replies: every answer the server can send, encoded once.

Knows the reply codes of RFC 5321 section 4.2 and the enhanced status codes of RFC 3463. A text that could
forge a second reply (CR, LF, control characters) or a code outside 200-599 raises ValueError when the
reply is made, so it never reaches the wire.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")
_LINE_ROOM = 490  # RFC 5321 section 4.5.3.1.5: 512 octets with code, enhanced code and CRLF

# What a reply code says by itself, where a handler gives no enhanced status code (RFC 3463).
_DEFAULT_ENHANCED = {
    421: "4.3.2", 450: "4.2.0", 451: "4.3.0", 452: "4.3.1", 454: "4.7.0", 455: "4.5.4",
    500: "5.5.2", 501: "5.5.4", 502: "5.5.1", 503: "5.5.1", 504: "5.5.4", 521: "5.3.2",
    530: "5.7.0", 535: "5.7.8", 550: "5.7.1", 552: "5.3.4", 553: "5.1.3", 554: "5.7.1", 555: "5.5.4",
}  # fmt: skip


class Reply:
    """One SMTP reply (RFC 5321 section 4.2).

    `code` is 200 to 599. `text` is one line, or a sequence of lines; it may begin with an enhanced status code
    (RFC 3463) of the same class, otherwise one that fits the code is put in front of it.
    Raises ValueError for a code out of range or a text with control characters.
    """

    __slots__ = ("code", "enhanced", "lines", "wire")

    code: int
    enhanced: str
    lines: tuple[str, ...]
    wire: bytes

    def __init__(self, code: int, text: str | Sequence[str] = "", *, bare: bool = False) -> None:
        if isinstance(code, bool) or not isinstance(code, int) or not 200 <= code <= 599:
            raise ValueError(f"reply code {code!r} is not within 200 to 599 (RFC 5321 section 4.2)")
        lines = (text,) if isinstance(text, str) else tuple(text) or ("",)
        for line in lines:
            if not isinstance(line, str) or not (line.isprintable() or line.replace("\t", " ").isprintable()):
                raise ValueError(f"reply text {line!r} is not one printable line")
        self.code = code
        self.enhanced, self.lines = ("", lines) if bare or (code < 400 and code // 100 == 3) else _enhance(code, lines)
        self.wire = self._encode()

    def _encode(self) -> bytes:
        prefix = f"{self.enhanced} " if self.enhanced else ""
        lines = [part for line in self.lines for part in _wrap(line)]
        last = len(lines) - 1
        return "".join(
            f"{self.code}{' ' if i == last else '-'}{prefix}{line}".rstrip(" ") + "\r\n" for i, line in enumerate(lines)
        ).encode("ascii", "backslashreplace")

    @classmethod
    def queued(cls, id: str) -> Reply:
        """The standard reply to an accepted message. Made for each one, so without the checks a foreign text needs."""
        self = cls.__new__(cls)
        self.code = 250
        self.enhanced = "2.0.0"
        self.lines = (f"Ok: queued as {id}",)
        self.wire = b"250 2.0.0 Ok: queued as %b\r\n" % id.encode("ascii")
        return self

    @property
    def text(self) -> str:
        """The text without codes, lines joined by a space."""
        return " ".join(self.lines)

    @property
    def positive(self) -> bool:
        return self.code < 400

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and self.wire == other.wire

    def __hash__(self) -> int:
        return hash(self.wire)

    def __repr__(self) -> str:
        return f"Reply({self.code}, {' '.join(filter(None, (self.enhanced, self.text)))!r})"


def _enhance(code: int, lines: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Take the enhanced status code off the first line, or choose one. Its class must be the code's (RFC 2034)."""
    found = _ENHANCED.match(lines[0])
    if found and found[1][0] == str(code // 100):
        return found[1], (lines[0][found.end() :], *lines[1:])
    return _DEFAULT_ENHANCED.get(code, f"{code // 100}.0.0"), lines


def _wrap(line: str) -> list[str]:
    if len(line) <= _LINE_ROOM and line.isascii():
        return [line]
    encoded = line.encode("ascii", "backslashreplace").decode("ascii")
    return [encoded[i : i + _LINE_ROOM] for i in range(0, len(encoded), _LINE_ROOM)]


_Refusal = TypeVar("_Refusal", bound="Reject")


class Reject(Exception):
    """Raised by a handler to refuse: `Reject(550, "5.1.1 no such user")`, or `Reject(reply)`.

    The code must be 400 to 599; 421 also ends the session (RFC 5321 section 3.8). Raises ValueError otherwise.
    """

    def __init__(self, code: int | Reply, text: str | Sequence[str] = "") -> None:
        self.reply = code if isinstance(code, Reply) else Reply(code, text or "Rejected")
        if self.reply.code < 400:
            raise ValueError(f"Reject takes a reply code from 400 to 599, not {self.reply.code}")
        super().__init__(f"{self.reply.code} {self.reply.enhanced} {self.reply.text}")

    def fresh(self: _Refusal) -> _Refusal:
        """The same refusal, to be raised where this one stays: an exception keeps the frames of each time it is raised,
        and with them all that the client has said."""
        fresh = type(self).__new__(type(self), *self.args)
        fresh.__dict__.update(self.__dict__)
        return fresh


# --- success
CLOSING = Reply(221, "2.0.0 Bye")
READY_FOR_TLS = Reply(220, "2.0.0 Ready to start TLS")
AUTHENTICATED = Reply(235, "2.7.0 Authentication successful")
OK = Reply(250, "2.0.0 Ok")
QUEUING_STARTED = Reply(250, "2.0.0 Queuing started")
SENDER_OK = Reply(250, "2.1.0 Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5 Recipient ok")
CANNOT_VERIFY = Reply(252, "2.5.0 Cannot verify the user, but will accept the message and attempt delivery")
PRDR_FOLLOWS = Reply(353, "PRDR: one reply for each recipient follows")
START_MAIL_INPUT = Reply(354, "End data with <CR><LF>.<CR><LF>")

# --- the server's condition
SHUTTING_DOWN = Reply(421, "4.3.2 Service shutting down, try again later")
UNWELL = Reply(421, "4.3.0 Service not available for now, try again later")
TIMED_OUT = Reply(421, "4.4.2 Timeout, closing the connection")
SESSION_TIMED_OUT = Reply(421, "4.4.2 Session lasted too long, closing the connection")
TOO_SLOW = Reply(421, "4.4.2 Data comes too slowly, closing the connection")
TOO_BUSY = Reply(421, "4.3.2 Too many sessions, try again later")
TOO_MANY_SESSIONS = Reply(421, "4.7.0 Too many sessions from your address, try again later")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0 Too many connections from your address, try again later")
TOO_MANY_MESSAGES = Reply(421, "4.7.0 Too many messages in this session, open another one")
TOO_MANY_IDLE = Reply(421, "4.7.0 Too many commands without a message, closing the connection")
TOO_MANY_AUTH_FAILURES = Reply(421, "4.7.0 Too many authentication failures, closing the connection")
TOO_MANY_REFUSED = Reply(421, "4.7.0 Too many recipients refused, closing the connection")
TOO_MANY_ERRORS = Reply(421, "4.7.0 Too many errors, closing the connection")
MESSAGE_RATE = Reply(450, "4.7.1 Too many messages from your address, try again later")
RECIPIENT_RATE = Reply(450, "4.7.1 Too many recipients from your address, try again later")
POISON = Reply(451, "4.3.0 This message has failed here several times, try again in an hour")
GIVEN_UP = Reply(451, "4.5.0 Message given up by the client")
LOCAL_ERROR = Reply(451, "4.3.0 Local error in processing, try again later")
TOO_MANY_DOMAINS = Reply(452, "4.5.3 Too many domains of recipients")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3 Too many recipients")
NO_STORAGE = Reply(452, "4.3.1 Insufficient system storage, try again later")
AUTH_FAILURE_RATE = Reply(454, "4.7.0 Too many authentication failures from your address, try again later")

# --- syntax and sequence
UNRECOGNIZED = Reply(500, "5.5.1 Command not recognized")
LINE_TOO_LONG = Reply(500, "5.5.2 Line too long")
BARE_LINE_FEED = Reply(500, "5.5.2 Commands end with <CR><LF>, a bare <LF> is refused")
BAD_CHARACTERS = Reply(500, "5.5.2 Control characters in a command are refused")
AUTH_LINE_TOO_LONG = Reply(500, "5.5.6 Authentication exchange line is too long")
NOT_UTF8 = Reply(501, "5.5.2 Command is neither ASCII nor UTF-8")
NO_ARGUMENT_ALLOWED = Reply(501, "5.5.4 No argument is allowed")
NEEDS_DOMAIN = Reply(501, "5.5.4 Needs a domain name or address literal")
NEEDS_ARGUMENT = Reply(501, "5.5.4 Needs an argument")
MAIL_SYNTAX = Reply(501, "5.5.4 Syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX = Reply(501, "5.5.4 Syntax: RCPT TO:<address> [parameters]")
BAD_SENDER = Reply(501, "5.1.7 Bad sender address syntax")
BAD_RECIPIENT = Reply(501, "5.1.3 Bad recipient address syntax")
SENDER_TOO_LONG = Reply(501, "5.1.7 Path too long")
RECIPIENT_TOO_LONG = Reply(501, "5.1.3 Path too long")
BAD_PARAMETER = Reply(501, "5.5.4 Malformed parameter")
REPEATED_PARAMETER = Reply(501, "5.5.4 Parameter given twice")
BY_TOO_SHORT = Reply(555, "5.5.4 BY= asks for less time than the minimum announced")
UNKNOWN_PARAMETER = Reply(555, "5.5.4 Parameter not recognized or not implemented")
BAD_ATTRIBUTE = Reply(501, "5.5.4 Bad attribute")
BDAT_SYNTAX = Reply(501, "5.5.4 Syntax: BDAT size [LAST]")
AUTH_SYNTAX = Reply(501, "5.5.4 Syntax: AUTH mechanism [initial-response]")
NO_INITIAL_RESPONSE = Reply(501, "5.7.0 The server speaks first in this mechanism")
BAD_BASE64 = Reply(501, "5.5.2 Cannot decode the response, base64 expected")
MALFORMED_PLAIN = Reply(501, "5.5.2 Malformed PLAIN response")
MALFORMED_SCRAM = Reply(501, "5.5.2 Malformed SCRAM message")
MALFORMED_TOKEN = Reply(501, "5.5.2 Malformed token message")
AUTH_CANCELLED = Reply(501, "5.7.0 Authentication cancelled")
NOT_IMPLEMENTED = Reply(502, "5.5.1 Command not implemented")
HELO_FIRST = Reply(503, "5.5.1 Send EHLO or HELO first")
NESTED_MAIL = Reply(503, "5.5.1 Nested MAIL command")
MAIL_FIRST = Reply(503, "5.5.1 Need MAIL first")
RECIPIENT_FIRST = Reply(503, "5.5.1 Need RCPT first")
ABANDONED = Reply(503, "5.5.1 The message was given up between two chunks: send RSET")
CHUNKS_OPEN = Reply(503, "5.5.1 BDAT in progress: send the next chunk or RSET")
BINARY_NEEDS_BDAT = Reply(503, "5.5.1 BODY=BINARYMIME needs BDAT")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1 No valid recipients")
ALREADY_TLS = Reply(503, "5.5.1 TLS already active")
ALREADY_AUTHENTICATED = Reply(503, "5.5.1 Already authenticated")
IN_TRANSACTION = Reply(503, "5.5.1 Not permitted during a mail transaction")
REFUSED_SESSION = Reply(503, "5.5.1 Session was refused, only QUIT is accepted")
UNKNOWN_MECHANISM = Reply(504, "5.5.4 Unrecognized authentication mechanism")

# --- policy
TLS_FIRST = Reply(530, "5.7.0 Must issue a STARTTLS command first")
AUTH_FIRST = Reply(530, "5.7.0 Authentication required")
AUTH_FAILED = Reply(535, "5.7.8 Authentication credentials invalid")
AUTH_NEEDS_TLS = Reply(538, "5.7.11 Encryption required for requested authentication mechanism")
NOT_TRUSTED = Reply(550, "5.7.0 Insufficient authorization")
REFUSED_FOR_NOW = Reply(450, "4.2.0 Refused for all recipients, for some only for now")
REFUSED_FOR_ALL = Reply(550, "5.7.1 Refused for all recipients")
BARE_NEWLINES = Reply(550, "5.6.0 Bare <CR> or <LF> in the message is refused, lines end with <CR><LF>")
SMUGGLING = Reply(550, "5.6.0 Message ended by other than <CR><LF>.<CR><LF>, closing the connection")
TOO_LARGE = Reply(552, "5.3.4 Message size exceeds fixed maximum message size")
UTF8_NOT_REQUESTED = Reply(553, "5.6.7 Non-ASCII address needs the SMTPUTF8 parameter")
BODY_LINE_TOO_LONG = Reply(554, "5.6.0 Line too long in the message")
PIPELINED_BODY = Reply(554, "5.5.0 You sent a message before the reply to DATA, closing the connection")
EARLY_TALKER = Reply(554, "5.5.1 You spoke before the greeting, closing the connection")
CROSS_PROTOCOL = Reply(554, "5.5.1 This is an SMTP server, closing the connection")

# Which setting each of these says to have been reached; what else a handler refuses is its own.
LIMITS: dict[int, str] = {
    id(answer): setting
    for answer, setting in (
        (TOO_SLOW, "min_data_rate"),
        (SESSION_TIMED_OUT, "session_timeout"),
        (TOO_BUSY, "max_connections"),
        (TOO_MANY_SESSIONS, "max_connections_per_ip"),
        (TOO_MANY_CONNECTIONS, "max_connection_rate"),
        (TOO_MANY_MESSAGES, "max_messages"),
        (TOO_MANY_IDLE, "max_idle_commands"),
        (TOO_MANY_AUTH_FAILURES, "max_auth_failures"),
        (TOO_MANY_REFUSED, "max_refused_recipients"),
        (TOO_MANY_ERRORS, "max_errors"),
        (MESSAGE_RATE, "max_message_rate"),
        (RECIPIENT_RATE, "max_recipient_rate"),
        (AUTH_FAILURE_RATE, "max_auth_failure_rate"),
        (POISON, "poison_limit"),
        (TOO_MANY_DOMAINS, "max_recipient_domains"),
        (TOO_MANY_RECIPIENTS, "max_recipients"),
        (TOO_LARGE, "max_message_size"),
        (BODY_LINE_TOO_LONG, "max_line_length"),
        (BARE_NEWLINES, "bare_newlines"),
        (PIPELINED_BODY, "pipelined_body"),
        (EARLY_TALKER, "greeting_delay"),
    )
}
