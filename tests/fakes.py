"""What a dialogue needs, made of bytes: FakeWire, RecordingJournal, handlers that record; and `talk`, which joins them.

Nothing here touches a socket or a clock. A script is what the client sends, a chunk for each time the server waits;
an exception in it is raised at that point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from preforksmtp import Handler
from preforksmtp.config.load import load
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.journal import Journal
from preforksmtp.smtp.rules import Room, Rules
from preforksmtp.smtp.session import Endpoint, Session
from preforksmtp.smtp.wire import Wire

Chunk = bytes | BaseException
Script = bytes | Iterable[Chunk]


@dataclass(frozen=True)
class FakeTLS:
    version: str = "TLSv1.3"
    cipher: str = "TLS_FAKE"
    sni: str = ""
    peer_certificate: Any = None
    server_certificate: bytes = b""
    bindings: Mapping[str, bytes] = field(default_factory=dict)


class FakeWire:
    """See smtp/wire.py. `script`: chunks as they arrive, or bytes that come at once; with `cut`, in pieces so long.

    sent    what the server had sent by each time it had to wait for input, and at the end
    output  all of it
    """

    def __init__(self, script: Script, cut: int = 0) -> None:
        chunks: list[Chunk] = [script] if isinstance(script, bytes) else list(script)
        self._script: list[Chunk] = [piece for chunk in chunks for piece in _cut(chunk, cut)]
        self._buffer = b""
        self._written = b""
        self.sent: list[bytes] = []
        self.draining = False
        self.hurried = True
        self.expired = False
        self.tls: Any = FakeTLS()  # or an exception: how the handshake ends
        self.pauses: list[float] = []

    @property
    def output(self) -> bytes:
        return b"".join(self.sent) + self._written

    @property
    def unread(self) -> bytes:
        """What the server never looked at."""
        return self._buffer + b"".join(chunk for chunk in self._script if isinstance(chunk, bytes))

    def _receive(self) -> None:
        self.flush()
        if not self._script:
            raise EOFError("closed by the client")
        chunk = self._script.pop(0)
        if isinstance(chunk, BaseException):
            raise chunk
        self._buffer += chunk

    @property
    def ahead(self) -> bool:
        return bool(self._buffer)

    def keep_pace(self, pace: Any) -> None:
        """Nothing here has a clock."""

    def read_line(self, limit: int, idle: int = False) -> bytes | None:
        while b"\n" not in self._buffer:
            self._receive()
        end = self._buffer.index(b"\n") + 1
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        return line if len(line) <= limit else None

    def read_block(self, size: int, idle: int = False) -> bytes:
        if not self._buffer:
            self._receive()
        block, self._buffer = self._buffer[:size], self._buffer[size:]
        return block

    def take_line(self) -> bytes:
        line, newline, rest = self._buffer.partition(b"\n")
        self._buffer = rest if newline else self._buffer
        return line + newline if newline else b""

    def wait(self, seconds: float, idle: bool = False) -> bool:
        self.flush()
        return bool(self._buffer or self._script)

    def pause(self, seconds: float, since: float = 0.0, idle: bool = False) -> None:
        self.flush()
        self.pauses.append(seconds)

    def push_back(self, data: bytes) -> None:
        self._buffer = data + self._buffer

    def discard_input(self) -> None:
        self._buffer = b""

    def write(self, data: bytes) -> None:
        self._written += data

    def flush(self) -> None:
        if self._written:
            self.sent.append(self._written)
            self._written = b""

    def start_tls(self) -> Any:
        self.flush()
        self.discard_input()
        if isinstance(self.tls, BaseException):
            raise self.tls
        return self.tls


def _cut(chunk: Chunk, size: int) -> list[Chunk]:
    if isinstance(chunk, BaseException) or not size:
        return [chunk]
    return [chunk[i : i + size] for i in range(0, len(chunk), size)]


class RecordingJournal:
    """See smtp/journal.py: every event as a tuple whose first item is its name."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.seen: list[tuple[Any, ...]] = []  # what only counters and lines about refusals want
        self.hooks: list[str] = []  # as `handling` tells: a name when it begins, "" when it is over

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == name]

    def handling(self, hook: str, since: float) -> None:
        assert bool(hook) == bool(since)
        self.hooks.append(hook)

    def commands(self, verbs: Mapping[str, Any]) -> Any:
        return verbs

    def greeted(self) -> None:
        self.seen.append(("greeted",))

    def refused(self, session: Session, verb: str, reply: Any, argument: str = "") -> None:
        self.seen.append(("refused", verb, reply.code, argument))

    def abandoned(self, transaction: Any) -> None:
        self.seen.append(("abandoned", len(transaction.recipients)))

    def deferred(self, session: Session, hook: str, reply: Any, cause: BaseException) -> None:
        self.seen.append(("deferred", hook, reply.code, cause))

    def storage_failed(self, session: Session, cause: BaseException | None) -> None:
        self.events.append(("storage_failed", cause))

    def told(self) -> None:
        self.seen.append(("told",))

    def message(self, session: Session, transaction: Any, size: int, reply: Any) -> None:
        self.events.append(("message", transaction.sender, list(transaction.recipients), size, reply.code))

    def authenticated(
        self, session: Session, mechanism: str, username: str | None, binding: str = "", claimed: str = ""
    ) -> None:
        self.seen.append(("claimed", claimed))
        self.events.append(("authenticated", mechanism, username, *([binding] if binding else [])))

    def tls_started(self, session: Session) -> None:
        self.events.append(("tls_started",))

    def handler_failed(self, session: Session, hook: str, error: BaseException) -> None:
        self.events.append(("handler_failed", hook, error))

    def timed_out(self, session: Session, limit: str = "") -> None:
        self.events.append(("timed_out", limit))

    def ended(self, session: Session, why: str) -> None:
        self.events.append(("ended", why))


_SETTINGS = load([], environ={"PREFORKSMTP_HOSTNAME": "localhost"}, folder="/")


def make_rules(hooks: Hooks, **changes: Any) -> Rules:
    """The rules of a bind with the default settings, but for `changes`."""
    computed: dict[str, Any] = {
        "hooks": hooks, "lmtp": False, "offer_tls": False, "accept_bare_newlines": False, "salt_key": bytes(32),
        "accept_pipelined_body": False, "spool_dir": None, "room": Room(), "stressed": None,
    }  # fmt: skip
    return Rules.of(_SETTINGS, **{**computed, **changes})


_wire: Callable[[FakeWire], Wire] = lambda wire: wire  # noqa: E731 - mypy compares the fakes with what they stand for
_journal: Callable[[RecordingJournal], Journal] = lambda journal: journal  # noqa: E731


class RecordingHandler(Handler):
    """Made by `recording`: notes each call in `events` and does what `acts` says for the hook."""

    events: list[tuple[Any, ...]]
    acts: dict[str, Any]

    def act(self, hook: str, *arguments: Any) -> Any:
        self.events.append((hook, *arguments))
        act = self.acts[hook]
        if isinstance(act, BaseException) or (isinstance(act, type) and issubclass(act, BaseException)):
            raise act
        return act(self, *arguments) if callable(act) else act


def recording(**acts: Any) -> type[RecordingHandler]:
    """A Handler class with just the hooks named: each returns its value, raises it, or is called with (self, ...)."""

    def hook(name: str) -> Callable[..., Any]:
        return lambda self, *arguments: self.act(name, *arguments)

    return type("Recording", (RecordingHandler,), {"events": [], "acts": acts, **{name: hook(name) for name in acts}})


@dataclass
class Talk:
    """A dialogue that is over."""

    wire: FakeWire
    journal: RecordingJournal
    session: Session
    dialogue: Dialogue
    fault: BaseException | None  # of the connection, that `run` raised

    @property
    def replies(self) -> list[str]:
        """Each reply, its lines joined by newlines; without the greeting."""
        return split_replies(self.wire.output)[1:]

    @property
    def codes(self) -> list[int]:
        return [int(reply[:3]) for reply in self.replies]


def split_replies(output: bytes) -> list[str]:
    """Also proves the form of each: RFC 5321 section 4.2.1, and lines of at most 512 octets (4.5.3.1.5)."""
    replies: list[str] = []
    lines: list[str] = []
    assert output.endswith(b"\r\n") or not output
    for line in output.decode("ascii").split("\r\n")[:-1]:
        assert len(line) <= 510
        assert line.isprintable()
        assert line[:3].isdigit() and line[3:4] in ("", " ", "-"), line
        assert not lines or lines[0][:3] == line[:3]
        lines.append(line)
        if line[3:4] != "-":
            replies.append("\n".join(lines))
            lines = []
    assert not lines, "the last reply is not complete"
    return replies


def talk(
    script: Script | str | Sequence[str],
    handler: Any = None,
    *,
    cut: int = 0,
    before: Callable[[Dialogue], object] | None = None,
    faults: Iterable[BaseException] = (),
    **rules: Any,
) -> Talk:
    """Run one dialogue. A `str` in the script is a line. `handler`: a Handler class, or a function of one message.

    Scripts may say all at once what a client must not: pipelined_body is "accept" unless a test says otherwise."""
    wire = FakeWire([*to_chunks(script), *faults], cut)
    is_class = isinstance(handler, type) and issubclass(handler, Handler)
    hooks = Hooks.of_class(handler) if is_class else Hooks.of_function(handler or (lambda message: None))
    rules_ = make_rules(hooks, **{"hostname": "mx.test", "accept_pipelined_body": True, **rules})
    session = Session("s1", Endpoint("192.0.2.1", 4000), lambda: Endpoint("192.0.2.2", 25), "smtp://:25", "mx.test",
                      rules_.lmtp)  # fmt: skip
    journal = RecordingJournal()
    dialogue = Dialogue(wire, session, rules_, journal)
    if before is not None:
        before(dialogue)
    fault: BaseException | None = None
    try:
        dialogue.run()
    except (EOFError, OSError) as error:
        fault = error
    return Talk(wire, journal, session, dialogue, fault)


def to_chunks(script: Any) -> list[Chunk]:
    items = [script] if isinstance(script, (str, bytes)) else list(script)
    return [f"{item}\r\n".encode() if isinstance(item, str) else item for item in items]
