"""A wire that writes down what passes over it, a line per system call, without anybody's secrets.

A TranscribedWire stands between a Dialogue and its Wire and is made only where the setting is on, or its client is
watched for a while. What a client says is shown if its verb is one of SMTP's. All of AUTH but the mechanism's name is
masked, with the challenges and responses that follow; of what is no command one word is shown, once, and none after
AUTH: a client that pipelines sends its password before it knows that AUTH is refused. Messages are counted, not shown.
Nothing here raises but what the wire does.
"""

from __future__ import annotations

from preforksmtp.logs.transcript import LoggedTranscript, Transcript
from preforksmtp.net.wire import TLS, Wire
from preforksmtp.smtp.sasl import MECHANISMS
from preforksmtp.smtp.session import Session
from preforksmtp.smtp.verbs import VERBS

MASK = "********"


class TranscribedWire:
    """See smtp/wire.py. Marks: C is the client, S the server, * what happens to the connection."""

    def __init__(self, wire: Wire, transcript: Transcript | LoggedTranscript, session: Session) -> None:
        self._wire = wire
        self._transcript = transcript
        self._session = session
        self._octets = 0  # of a message, not yet told of
        self._told = b""  # a line that was pushed back
        self._challenged = False  # the client's next line answers a 334
        self._wary = False  # the next lines may be secrets, of an AUTH that is refused or misspelt
        self._greeted = False
        # What needs no record goes straight through.
        self.wake, self.interrupt, self.cut = wire.wake, wire.interrupt, wire.cut
        self.dismiss, self.activity = wire.dismiss, wire.activity
        self.wait = wire.wait
        self.pause = wire.pause
        self.keep_pace = wire.keep_pace
        self.flush = wire.flush
        self.local_address = wire.local_address

    @property
    def draining(self) -> bool:
        return self._wire.draining

    @property
    def hurried(self) -> bool:
        return self._wire.hurried

    @property
    def expired(self) -> bool:
        return self._wire.expired

    # --- the client

    @property
    def ahead(self) -> bool:
        return self._wire.ahead

    def read_line(self, limit: int, idle: int = False) -> bytes | None:
        self._tell_octets()
        line = self._wire.read_line(limit, idle)
        if line is not None and line == self._told:  # chunks.py looks for a BDAT, and puts back what is none
            self._told = b""
            return line
        self._told = b""
        challenged, self._challenged = self._challenged, False
        if line is None:
            self._wary = True  # it may have been AUTH
            self._record("C", f"[a line of more than {limit} octets]")
        elif challenged:
            self._record("C", "*" if line.strip() == b"*" else MASK)  # cancelling is no secret (RFC 4954 section 4)
        else:
            self._record("C", self._shown(line))
        return line

    def take_line(self) -> bytes:
        line = self._wire.take_line()
        if line:
            self._record("C", self._shown(line))
        return line

    def _shown(self, line: bytes) -> str:
        """A command, as far as it may be shown."""
        text = _text(line)
        words = text.split(None, 2)
        verb = words[0].upper() if words else ""
        if verb == "AUTH":
            self._wary = True
            name = words[1].upper() if len(words) > 1 else ""
            shown = [words[0], *(words[1:2] if name in MECHANISMS else [MASK] * bool(name))]
            return " ".join([*shown, *[MASK] * (len(words) > 2)])
        if verb in VERBS or not words:
            return text
        wary, self._wary = self._wary, True
        if wary or not verb.isalnum() or not verb.isascii():
            return f"[{len(line)} octets that are no command]"
        return " ".join([words[0], *[MASK] * (len(words) > 1)])

    def read_block(self, size: int, idle: int = False) -> bytes:
        self._told = b""
        block = self._wire.read_block(size, idle)
        self._octets += len(block)
        return block

    def push_back(self, data: bytes) -> None:
        if self._octets:
            self._octets = max(0, self._octets - len(data))
        else:
            self._told = data
        self._wire.push_back(data)

    def discard_input(self) -> None:
        self._wire.discard_input()

    def _tell_octets(self) -> None:
        octets, self._octets = self._octets, 0
        if octets:
            self._record("C", f"[{octets} octets of data]")

    # --- the server

    def write(self, data: bytes) -> None:
        self._tell_octets()
        for line in data.splitlines(keepends=True):
            self._challenged = line.startswith(b"334")
            # A challenge may have a password's salt.
            self._record("S", f"334 {MASK}" if self._challenged and len(line.strip()) > 3 else _text(line))
        self._wire.write(data)

    def start_tls(self) -> TLS:
        try:
            facts = self._wire.start_tls()
        except OSError as error:
            self._record("*", f"[no TLS: {error.strerror or error or type(error).__name__}]")
            raise
        self._record("*", f"[TLS: {facts.version} {facts.cipher}]")
        return facts

    def close(self, linger: bool, wait: bool = True) -> None:
        self._tell_octets()
        self._record("*", "[closed]")
        self._wire.close(linger, wait)

    def _record(self, mark: str, text: str) -> None:
        if not self._greeted:  # not before: a PROXY header may change who the client is
            self._greeted = True
            self._transcript.write(self._session.id, "*", f"[connection of {self._session.peer}]")
        self._transcript.write(self._session.id, mark, text)


def _text(line: bytes) -> str:
    """Without the CRLF that every line has; a bare LF is worth seeing."""
    return line.removesuffix(b"\r\n").decode("utf-8", "backslashreplace")
