"""What a worker asks of its surroundings: the settings that it reads, and the ways in which it may say that it cannot
work.
"""

from __future__ import annotations

from typing import Protocol

from preforksmtp.prefork.worker.lifetime import RecyclingConfig

BOOT_FAILED = 3


class BootFailed(Exception):
    """The worker cannot serve. `exit_code` 4: the app cannot be loaded; 3: anything else. One clear line."""

    def __init__(self, exit_code: int, line: str) -> None:
        super().__init__(line)
        self.exit_code = exit_code


class Tampered(Exception):
    """The worker cannot go on. One clear line."""


class WorkerConfig(RecyclingConfig, Protocol):
    """The settings a worker reads."""

    @property
    def threads(self) -> int: ...
    @property
    def graceful_timeout(self) -> float: ...
    @property
    def handler_timeout(self) -> float: ...
    @property
    def scheduling(self) -> str: ...
