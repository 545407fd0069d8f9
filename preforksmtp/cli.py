"""The composition root: argv -> Config -> what was asked for: to check or show it, or to serve (server.py).

main() returns the exit code: 0 stopped, 1 configuration, 2 argparse, 3 workers cannot boot, 4 APP cannot be loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from preforksmtp import reference
from preforksmtp.config.load import load
from preforksmtp.config.model import Config
from preforksmtp.process.inheritance import begin
from preforksmtp.server.audition import rehearse_app
from preforksmtp.server.check import check, warnings
from preforksmtp.server.reconfigure import Invocation
from preforksmtp.server.run import BAD_CONFIG, ERRORS, serve

OK = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server as the command line asks."""
    try:
        invocation = Invocation.of_this_process(argv, begin())
        settings = load(argv)
        if settings.action == "print-config":
            print(reference.describe(settings), end="")
            return OK
        settings.apply()
        if settings.action == "check-config":
            return check_config(settings)
        return serve(invocation, settings)
    except ERRORS as error:
        return _complain(str(error).splitlines())


def check_config(settings: Config) -> int:
    """Validate everything without binding: one line for each error."""
    errors = check(settings) + rehearse_app(settings)
    for line in [line for line in warnings(settings) if line not in errors]:
        print(f"preforksmtp: warning: {line}", file=sys.stderr)
    if errors:
        return _complain(errors)
    print("preforksmtp: configuration is ok")
    return OK


def _complain(errors: Sequence[str]) -> int:
    for line in errors:
        print(f"preforksmtp: error: {line}", file=sys.stderr)
    return BAD_CONFIG
