"""Print(): show every message on standard output, for trying things out.

One write per message, so that messages of different threads and workers do not mix (a pipe may still split
those above 4 KiB). Control characters appear as \\x1b, so that no message can play with the terminal.
Fails with OSError when standard output is closed or full.
"""

from __future__ import annotations

import re
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preforksmtp import Message

# C0 and C1 controls but for newline and tab, and what reorders or breaks lines in Unicode.
_UNPRINTABLE = re.compile("[^\n\t -~\xa0-\U0010ffff]|[\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Print:
    """Called once per message; prints the envelope and at most `limit` bytes of the content."""

    def __init__(self, limit: int = 1024 * 1024) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # the buffer of sys.stdout is shared by all threads

    def __call__(self, message: Message) -> None:
        """Print the message."""
        recipients = ", ".join(f"<{recipient}>" for recipient in message.recipients)
        with message.open() as body:
            content = readable(body.read(self.limit).decode("utf-8", "backslashreplace"))
        if not content.endswith("\n"):
            content += "\n"
        if message.size > self.limit:
            content += f"[{message.size - self.limit} more bytes]\n"
        # Only the content may have line ends of its own.
        top = one_line(f"message {message.id}: {message.size} bytes from <{message.sender}> to {recipients}")
        text = f"---------- {top}\n{content}---------- end of {one_line(message.id)}\n"
        with self._lock:
            sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))
            sys.stdout.buffer.flush()


def readable(text: str) -> str:
    """CRLF as a newline, other control characters as escapes."""
    return _UNPRINTABLE.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same without line ends."""
    return readable(text).replace("\n", "\\n")


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
