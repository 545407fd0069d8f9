"""Pages: a piece of shared memory for each slot of the scoreboard, in which its worker answers what the master asks.

The master makes them before its first fork. A page has one writer, the worker's main thread, and is read by the master
once the worker says in its slot which question it has answered (questions.py). Memory is used only where something was
written. Nothing here fails; what does not fit is cut off.
"""

from __future__ import annotations

from preforksmtp.prefork.memory import Memory

PAGE = 256 * 1024  # bytes of one answer
LAST_WORDS = 1000  # bytes of them
_LENGTH = 8  # bytes in front of it


class Pages:
    def __init__(self, slots: int) -> None:
        self.memory = Memory(0, slots, (_LENGTH + PAGE) // 8)
        self._pages = [section.cast("B") for section in self.memory.sections]

    def write(self, slot: int, answer: bytes) -> None:
        """Worker, main thread."""
        answer = answer[:PAGE]
        page = self._pages[slot]
        page[:_LENGTH] = len(answer).to_bytes(_LENGTH, "little")
        page[_LENGTH : _LENGTH + len(answer)] = answer

    def read(self, slot: int) -> bytes:
        """Master."""
        page = self._pages[slot]
        length = int.from_bytes(page[:_LENGTH], "little")
        return bytes(page[_LENGTH : _LENGTH + min(length, PAGE)])

    def last_words(self, slot: int) -> str:
        """Master, of a worker that died while it booted: what it had to say, on one line of its own choice."""
        text = self.read(slot)[:LAST_WORDS].decode("utf-8", "replace")
        return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))

    def release(self, slot: int) -> None:
        """Master, once the worker of this slot is reaped."""
        self.memory.clear(slot)
