"""What the tests of conf/ have in common: where it is, and the programs that its files are for."""

from __future__ import annotations

import subprocess
from pathlib import Path

CONF = Path(__file__).resolve().parent.parent.parent / "conf"


def run(*command: str, code: int = 0, **popen: object) -> str:
    """Its output, errors included, once it has ended with `code`."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **popen
    )  # type: ignore[call-overload]
    assert done.returncode == code, done.stdout
    assert isinstance(done.stdout, str)
    return done.stdout
