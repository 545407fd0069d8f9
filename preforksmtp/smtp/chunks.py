"""BDAT: a body that comes in counted chunks (RFC 3030).

ChunkReader yields blocks like smtp/body.DataReader, over as many BDAT commands as the client sends: where a chunk ends
it acknowledges it and runs the commands that come until the next one. Chunks are never looked into: what they hold is
content. A command that gives the message up (RSET and its equals, QUIT) is put back for the dialogue to run.
"""

from __future__ import annotations

from preforksmtp.smtp import reply
from preforksmtp.smtp.body import BodyFault
from preforksmtp.smtp.conversation import Conversation
from preforksmtp.smtp.reply import Reject, Reply
from preforksmtp.smtp.wire import Input

_READ = 65536
# What may stand between two chunks without ending the message (RFC 3030 section 2 leaves the rest out of order).
_BETWEEN = frozenset(("NOOP", "VRFY", "EXPN", "HELP"))
_ABANDON = frozenset(("RSET", "QUIT", "EHLO", "HELO", "LHLO", "STARTTLS"))


class Abandoned(BodyFault):
    """The client gave the message up between two chunks; raised in a handler that reads the body."""

    def __init__(self) -> None:
        super().__init__(reply.GIVEN_UP)


def parse_chunk(argument: str) -> tuple[int, bool]:
    """The argument of BDAT: the size of the chunk, and whether it is the last (RFC 3030 section 2)."""
    words = argument.split()
    if not 1 <= len(words) <= 2 or not (words[0].isascii() and words[0].isdigit()) or len(words[0]) > 20:
        raise Reject(reply.BDAT_SYNTAX)
    if len(words) == 2 and words[1].upper() != "LAST":
        raise Reject(reply.BDAT_SYNTAX)
    return int(words[0]), len(words) == 2


def drop_chunk(wire: Input, size: int, idle: int) -> None:
    """Read `size` octets and forget them, so that the next command is found. `idle`: see smtp/wire.py."""
    while size:
        size -= len(wire.read_block(min(size, _READ), idle))


class ChunkReader:
    """The body that begins with the chunk of `argument`."""

    def __init__(self, conversation: Conversation, size: int, last: bool) -> None:
        self.size = 0
        self.fault: BodyFault | None = None
        self.finished = False
        self._conversation = conversation
        self._wire = conversation.rules.body_wire(conversation.wire)
        self._limit = conversation.rules.max_message_size
        self._left = self._chunk = size
        self._last = last
        self._unchecked = True  # the size of this chunk against the limit

    def read_whole(self) -> bytes | None:
        return None

    def read_block(self) -> bytes:
        """The next block, b"" at the end of the last chunk. Raises BodyFault, or Abandoned."""
        while not self.finished:
            if self._unchecked:
                self._check_size()
            if self._left:
                block = self._wire.read_block(min(self._left, _READ))
                self._left -= len(block)
                self.size += len(block)
                return block
            if self._last:
                self.finished = True
            else:
                if not self._chunk:
                    self._conversation.idle()
                self._conversation.wire.write(Reply(250, f"2.0.0 {self._chunk} octets received").wire)
                self._await_chunk()
        return b""

    def drain(self) -> None:
        """Nothing: the rest of the chunk is dropped behind the reply. Chunks that follow find no transaction."""
        self.finished = True

    def settle(self) -> None:
        """Drop what is left of the chunk, so that the next command is found."""
        drop_chunk(self._wire, self._left, 2)
        self._left = 0

    @property
    def last(self) -> bool:
        """Whether the chunk that is being answered is the last."""
        return self._last

    def _check_size(self) -> None:
        """Refuse a message as soon as it is announced to be too large: the client may still send the chunk."""
        self._unchecked = False
        if self._limit and self.size + self._left > self._limit:
            self.fault = BodyFault(reply.TOO_LARGE)
            raise self.fault.fresh()

    def _await_chunk(self) -> None:
        """Run what comes between two chunks."""
        conversation = self._conversation
        while True:
            name, argument, line = conversation.read_command(self._wire)
            if name == "BDAT":
                try:
                    self._chunk, self._last = parse_chunk(argument)
                except Reject as refusal:
                    conversation.answer(refusal.reply)
                    continue
                self._left, self._unchecked = self._chunk, True
                return
            if self._gives_up(name, argument):
                self._wire.push_back(line)
                self.finished = True
                self.fault = Abandoned()
                raise self.fault.fresh()
            conversation.execute(name, argument, line, _BETWEEN | _ABANDON)

    def _gives_up(self, name: str, argument: str) -> bool:
        """Whether a command ends the message. One that is sure to be refused does not; it is run, and refused."""
        if name in ("EHLO", "HELO", "LHLO"):
            said, session = argument.strip(), self._conversation.session
            wanted = session.lmtp == (name == "LHLO")
            return wanted and bool(said) and self._conversation.rules.syntax.is_helo(said)
        if name == "STARTTLS" and name not in self._conversation.offer().keywords:
            return False
        return name in _ABANDON and not argument.strip()
