"""The transcript: a file with the dialogue of every session, one line for each thing that was said.

What may be shown of a dialogue is decided where it is recorded (connection/transcribed.py). A line that cannot be
written is lost, and nothing else. What an operator wants to see for a while goes to the error log instead.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Protocol

from preforksmtp.logs.error import LOGGER, format_time
from preforksmtp.logs.escaping import escape
from preforksmtp.logs.linefile import LogError, LogFile
from preforksmtp.process.privileges import Identity


class TranscriptSettings(Protocol):
    """The settings that open_transcript() reads."""

    transcript: str | None


def open_transcript(
    config: TranscriptSettings, owner: Identity | None = None, former: LogFile | None = None
) -> Transcript | None:
    """The transcript that the settings ask for, if they ask for one. LogError."""
    path = config.transcript
    return Transcript(LogFile("transcript", path, owner, former)) if path is not None else None


class Transcript:
    """The file, of all sessions together."""

    def __init__(self, file: LogFile) -> None:
        self.file = file

    def write(self, session_id: str, mark: str, text: str) -> None:
        """One line. A full disk costs the line and nothing else."""
        with contextlib.suppress(OSError):
            self.file.write(f"{format_time(time.time())} {session_id} {mark}: {escape(text)}\n")

    def reopen(self) -> list[str]:
        """Open the file afresh (USR1). A failure goes to the error log, and the old file stays in use. Returns what
        failed, a line each."""
        try:
            self.file.reopen()
        except (LogError, OSError) as error:
            logging.getLogger(LOGGER).error("%s; the old file stays in use", error)
            return [str(error)]
        return []

    def close(self) -> None:
        self.file.close()


class LoggedTranscript:
    """One session's lines in the error log, however severe its level is, as long as they are wanted."""

    def __init__(self, log: logging.Logger, wanted: Callable[[], bool]) -> None:
        self._log = log
        self._wanted = wanted

    def write(self, session_id: str, mark: str, text: str) -> None:
        """One line."""
        if self._wanted():
            fields = {"fields": {"session": session_id}}
            said = (session_id, mark, text)  # escaped there, as all lines are
            record = self._log.makeRecord(
                self._log.name, logging.INFO, __file__, 0, "transcript session=%s %s: %s", said, None, None, fields
            )
            self._log.handle(record)
