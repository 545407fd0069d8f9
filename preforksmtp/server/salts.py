"""The salt key: what SCRAM salts of users who are not there are made of (smtp/scram.py), to look like those of others.

A salt that changes tells as much as one that is missing, so the key must last: over restarts, and on all hosts that
know the same users. It comes from auth_secret_file; without that from the machine's id, or from the private key of the
first certificate. Read by the master, which may be root. ValueError, one clear line.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable

LEAST_OCTETS = 16
MOST_OCTETS = 1 << 16
MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
CHANCE = os.urandom(32)  # where nothing lasts; the same in all workers and after each reload, for the master makes it
_PURPOSE = b"preforksmtp: salts of users who are not there"


def salt_key(path: str | None, private_keys: Iterable[str]) -> bytes | None:
    """Master: the key, made of the file at `path` if one is given; None where nothing lasts. ValueError."""
    secret = read_secret(path) if path is not None else _machine_id() or _first(private_keys)
    return hmac.digest(secret, _PURPOSE, "sha256") if secret else None


def read_secret(path: str) -> bytes:
    """What auth_secret_file has. ValueError."""
    try:
        secret = _read(path).strip()
    except OSError as error:
        raise ValueError(f"auth_secret_file: cannot read {path}: {error.strerror}") from None
    if len(secret) < LEAST_OCTETS:
        raise ValueError(f"auth_secret_file: {path} has {len(secret)} bytes, at least {LEAST_OCTETS} are needed")
    return secret


def _machine_id() -> bytes:
    """What systemd or D-Bus made when the machine was set up; b"" in most containers. Nobody outside knows it."""
    for path in MACHINE_IDS:
        found = _first([path]).strip()
        if len(found) == 32 and found.strip(b"0"):  # else it is empty, or "uninitialized"
            return found
    return b""


def _first(paths: Iterable[str]) -> bytes:
    """The content of the first that can be read; b"" if none can, which others complain of who need it."""
    for path in paths:
        try:
            return _read(path)
        except OSError:
            pass
    return b""


def _read(path: str) -> bytes:
    # Without waiting: a FIFO must not hold the start.
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        return file.read(MOST_OCTETS) or b""
