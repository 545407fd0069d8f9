"""A call of a handler's hook, as a session thread leaves it in its row of the scoreboard while it runs.

If the worker dies in it, whatever killed it, the master reads there what the session was doing, and logs it. The thread
has written one text, in one call of struct: 0.5 us, where a session costs 150. Nothing here fails, whatever stands in
the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

WORDS = 64  # of a row: KEY, and then the text
KEY, TEXT = 0, 1
_OCTETS = 8 * (WORDS - TEXT)

BODY_HOOKS = ("data", "stream", "message")  # in which there is a whole envelope

# put(row, octet, text): what is longer is cut off. While no call runs, the word where the text begins is 0.
put = Struct(f"{_OCTETS}s").pack_into
INSIDE = "%s\n%s\n%s\nfrom <%s> to %s"  # a transaction: hook, client, id of the message, its envelope
OUTSIDE = "%s\n%s\n%s"  # hook, client, id of the session
_FIELDS = 4


@dataclass(frozen=True)
class Call:
    """As the row says."""

    hook: str
    client: str
    name: str  # of the message, or of the session where there is none
    envelope: str  # "" outside of a transaction
    key: int  # of poison.py; 0: none

    def __str__(self) -> str:
        what = f"message {self.name} {self.envelope}" if self.envelope else f"session {self.name}"
        return f"{self.hook}: client {self.client}, {what}"

    @property
    def has_message(self) -> bool:
        return self.hook in BODY_HOOKS


def read(words: memoryview) -> Call | None:
    """Master: the call that runs there, if any."""
    if not words[TEXT]:
        return None
    text = bytes(words[TEXT:]).partition(b"\0")[0].decode("utf-8", "replace")
    hook, client, name, envelope = (text.split("\n", _FIELDS - 1) + [""] * _FIELDS)[:_FIELDS]
    return Call(hook, client, name, envelope, words[KEY])
