"""The transcript: a file with the dialogue of every session, one line for each thing that was said.

What may be shown of a dialogue is decided where it is recorded (connection/transcribed.py). A line that cannot be
written is lost, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import time
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
