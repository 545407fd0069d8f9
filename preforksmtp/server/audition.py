"""--check-config: whether APP can be loaded, tried as the user that workers run as.

Root runs no code of the application's for it, but in a child that is that user.
"""

from __future__ import annotations

import os
import sys

from preforksmtp.config.model import Config
from preforksmtp.process import privileges, trust
from preforksmtp.server.app import AppError, load_app

_LONGEST = 4096  # bytes of what is wrong: it must fit into a pipe that nobody reads yet


def rehearse_app(settings: Config) -> list[str]:
    """What is wrong with it: a line or none."""
    try:
        identity = privileges.find(settings.user, settings.group)
    except privileges.PrivilegesError:
        return []  # said among the settings' own errors
    if identity is None or identity.is_ours:
        return _try(settings.app)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try_as(identity, settings, write)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status or not text:
        return [f"app {settings.app!r}: ends the process that loads it, status {os.waitstatus_to_exitcode(status)}"]
    return text.decode("utf-8", "replace").splitlines()[1:]


def _try(app: str) -> list[str]:
    try:
        load_app(app)
    except AppError as error:
        return [str(error)]
    return []


def _try_as(identity: privileges.Identity, settings: Config, pipe: int) -> None:
    """Child."""
    lines = []
    try:
        try:
            privileges.drop(identity, no_new_privileges=settings.no_new_privileges)
            trust.import_again()
            lines = _try(settings.app)
        except privileges.PrivilegesError as error:
            lines = [str(error)]
        text = "\n".join(["tried", *lines]).encode("utf-8", "backslashreplace")
        os.write(pipe, text[:_LONGEST])
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)
    finally:
        os._exit(1)
