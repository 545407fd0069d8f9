"""All logs of one configuration, opened and closed together: error log, access log, transcript, syslog.

Made in the master, at the start and at each reload beside those in force; installed there and in each worker. What
cannot be opened is a LogError with one line, and leaves nothing open.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from preforksmtp.logs import error as log
from preforksmtp.logs.access import AccessLog, open_access_log
from preforksmtp.logs.linefile import LogError
from preforksmtp.logs.syslog import open_syslog
from preforksmtp.logs.transcript import Transcript, open_transcript
from preforksmtp.logs.userconfig import ConfiguredLog, make_configured_log
from preforksmtp.process import privileges


class Logs:
    def __init__(self, settings: Any, former: Logs | None = None) -> None:
        """`former`: those in force. What they have open already stays in use where it cannot be opened again."""
        owner = privileges.find(settings.user, settings.group)
        error = former.error.file if former is not None else None
        access = former.access.file if former is not None else None
        transcript = former.transcript.file if former is not None and former.transcript is not None else None
        self.faults: list[str] = []  # of the last reopen
        with contextlib.ExitStack() as stack:
            self.syslog = open_syslog(settings, owner)
            if self.syslog is not None:
                stack.callback(self.syslog.close)
            self.error: log.ErrorLog | ConfiguredLog
            if settings.log_config is None:
                self.error = log.make_error_log(settings, self.syslog, owner, error)
            else:
                self.error = make_configured_log(settings, owner, error)
            stack.callback(self.error.close)
            self.access: AccessLog = open_access_log(settings, self.syslog, owner, access)
            stack.callback(self.access.close)
            self.transcript: Transcript | None = open_transcript(settings, owner, transcript)
            stack.pop_all()

    def install(self) -> None:
        """Log here from now on. LogError: log_config cannot be applied, so the error log is what it is without."""
        self.error.install()

    def reopen(self) -> None:
        faults = [*self.error.reopen(), *self.access.reopen()]
        if self.transcript is not None:
            faults += self.transcript.reopen()
        if self.syslog is not None:
            try:
                self.syslog.reopen()
            except LogError as error:
                logging.getLogger(log.LOGGER).error("%s; the old connection stays in use", error)
                faults.append(str(error))
        self.faults = faults

    def close(self) -> None:
        self.error.close()
        self.access.close()
        if self.transcript is not None:
            self.transcript.close()
        if self.syslog is not None:
            self.syslog.close()
