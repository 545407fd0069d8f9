"""A watch over files: which of them were changed, replaced, removed or made since the last look.

Runs in the master, from its loop, and reads no file. A change counts once it has rested from one look to the next: an
editor, or a checkout, is then done with it. Nothing here fails; a file that cannot be looked at is not there.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping

Mark = tuple[int, ...]  # what stat() says of a file; () if there is none


def mark(path: str) -> Mark:
    """Follows symbolic links."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class FileWatch:
    """Single files and patterns of glob; a file that a pattern comes to match is a change as well."""

    def __init__(self) -> None:
        self._known: dict[str, Mark] = {}  # what we have told of
        self._seen: Mapping[str, Mark] = {}  # at the last look
        self._patterns: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, path: str, known: Mark) -> None:
        """`known`: the mark of what is in use. A file that is watched already stays as it is."""
        self._known.setdefault(path, known)

    def add_patterns(self, patterns: Iterable[str]) -> None:
        """What they match now is no news."""
        new = tuple(pattern for pattern in dict.fromkeys(patterns) if pattern not in self._patterns)
        self._patterns += new
        for path in _matches(new):
            self.add(path, mark(path))

    def changed(self) -> list[str]:
        """Each change is told once."""
        marks = {path: mark(path) for path in (*self._known, *_matches(self._patterns))}
        rested, self._seen = marks == self._seen, marks
        if not rested:
            return []
        news = [path for path in marks if marks[path] != self._known.get(path)]
        self._known = marks
        return news


def _matches(patterns: Iterable[str]) -> list[str]:
    found = (path for pattern in patterns for path in glob.iglob(pattern, recursive=True))
    return [path for path in found if not os.path.isdir(path)]
