"""python3 -m preforksmtp.scram: make the text of a ScramSecret, for a file of passwords.

The password comes from the terminal, or as the first line of standard input; it is never an argument, which others
on the machine can see. Prints one line; ends with 1 for a password that cannot be used.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence

from preforksmtp import ScramSecret
from preforksmtp.smtp.scram import ITERATIONS, MOST_ITERATIONS, NAMES


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m preforksmtp.scram",
        description="Make a secret that a handler's password() may return instead of the password: "
        "ScramSecret.parse(line). The password is asked for, or read from standard input.",
    )
    parser.add_argument("--algorithm", choices=NAMES, default="sha256", help="Default: sha256, for SCRAM-SHA-256.")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help=f"Work of a login. Default: {ITERATIONS}.")
    options = parser.parse_args(arguments)
    if not ITERATIONS <= options.iterations <= MOST_ITERATIONS:
        parser.error(f"--iterations must be from {ITERATIONS} to {MOST_ITERATIONS} (RFC 7677)")
    password = _read()
    try:
        if not password:
            raise ValueError("it is empty")
        print(ScramSecret.make(password, options.algorithm, options.iterations))
    except ValueError as error:
        print(f"preforksmtp.scram: the password cannot be used: {error}", file=sys.stderr)
        return 1
    return 0


def _read() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        print("preforksmtp.scram: the two are not the same", file=sys.stderr)
        sys.exit(1)
    return password


if __name__ == "__main__":
    sys.exit(main())
