"""Hostile sessions, some hundreds of each kind: memory stays flat, no descriptor is left, nothing is logged as an error.

A leak of some KiB a session shows in so few; loadtest/soak.py finds smaller ones in a night.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.program.conftest import need

SESSIONS = 400
SECONDS = 120.0  # two are usual
KINDS = ("auth-malformed", "auth-failing", "tls-broken", "proxy-broken", "bdat", "oversize", "resets")


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_flat(kind: str) -> None:
    need("openssl")
    command = [sys.executable, str(ROOT / "loadtest" / "soak.py"), "--sessions", str(SESSIONS), "--kinds", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


def test_these_are_all_kinds() -> None:
    command = [sys.executable, str(ROOT / "loadtest" / "soak.py"), "--kinds", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"there are {', '.join(KINDS)}")
