"""How long a worker serves: it finds itself that it has served enough, and why.

Runs in the worker. What follows is the master's (prefork/master/recycling.py). Nothing here fails or blocks.
"""

from __future__ import annotations

import os
import random
from typing import Protocol

from preforksmtp.prefork.reasons import AGE, MEMORY, SESSIONS

_PAGE = os.sysconf("SC_PAGE_SIZE")


class RecyclingConfig(Protocol):
    """The settings that say when a worker has served enough; 0 = never."""

    @property
    def max_sessions(self) -> int: ...
    @property
    def max_sessions_jitter(self) -> int: ...
    @property
    def max_worker_memory(self) -> int: ...
    @property
    def max_worker_age(self) -> float: ...


class Limits:
    """Worker: when it is due. The jitter is drawn here, after the fork: workers born together do not leave together."""

    def __init__(self, config: RecyclingConfig) -> None:
        self.sessions = config.max_sessions
        if self.sessions and config.max_sessions_jitter:
            self.sessions += random.randint(0, config.max_sessions_jitter)
        self._memory = config.max_worker_memory
        self._age = config.max_worker_age

    def reached(self, sessions: int, memory: int, age: float) -> int:
        """The reason to retire, 0 for none."""
        if self.sessions and sessions >= self.sessions:
            return SESSIONS
        if self._memory and memory >= self._memory:
            return MEMORY
        return AGE if self._age and age >= self._age else 0


def resident_memory() -> int:
    """Any process: its bytes in memory; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
