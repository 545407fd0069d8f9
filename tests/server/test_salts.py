"""The salt key: where it comes from, that it lasts, and what is said of a file that will not do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preforksmtp.server import salts
from preforksmtp.server.salts import read_secret, salt_key

ID = "3d1219c7c4c5404aaa1f6d2a48adfda4"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without an id, until the file is written."""
    monkeypatch.setattr(salts, "MACHINE_IDS", (str(tmp_path / "none"), str(tmp_path / "machine-id")))
    return tmp_path / "machine-id"


def test_the_file_comes_first_and_is_the_same_wherever_it_is(machine: Path, tmp_path: Path) -> None:
    machine.write_text(ID)
    one, copy, other = (tmp_path / name for name in ("one", "copy", "other"))
    one.write_bytes(b"x" * 16 + b"\n")
    copy.write_bytes(b"x" * 16)
    other.write_bytes(b"y" * 16)
    key = salt_key(str(one), [])
    assert key is not None and key != salt_key(None, [])
    assert key == salt_key(str(one), []) == salt_key(str(copy), []) != salt_key(str(other), [])
    assert b"x" * 16 not in key


@pytest.mark.parametrize("text", [ID, f"{ID}\n"])
def test_then_the_machine(machine: Path, tmp_path: Path, text: str) -> None:
    machine.write_text(text)
    (tmp_path / "key.pem").write_text("key")
    assert salt_key(None, [str(tmp_path / "key.pem")]) == salt_key(None, []) is not None


@pytest.mark.parametrize("text", ["", "uninitialized\n", "0" * 32, "short"])
def test_then_the_private_key(machine: Path, tmp_path: Path, text: str) -> None:
    machine.write_text(text)
    (tmp_path / "key.pem").write_text("key")
    keys = [str(tmp_path / "unreadable"), str(tmp_path / "key.pem")]
    assert salt_key(None, keys) is not None
    assert salt_key(None, keys[:1]) is None, "nothing lasts"
    assert salt_key(None, []) is None


def test_a_file_that_will_not_do(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x" * 15 + b" \n\n")
    os.mkfifo(tmp_path / "fifo")
    for name, why in (
        ("short", "has 15 bytes, at least 16 are needed"),
        ("fifo", "has 0 bytes, at least 16 are needed"),
        ("none", "cannot read .*: No such file"),
        (".", "cannot read .*: Is a directory"),
    ):
        with pytest.raises(ValueError, match=f"auth_secret_file: .*{why}"):
            read_secret(str(tmp_path / name))
