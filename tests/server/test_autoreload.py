"""--reload in the master: a worker may write anything into the pipe of reports."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from preforksmtp.server import autoreload as development
from preforksmtp.server.autoreload import Development


@pytest.fixture
def made(caplog: pytest.LogCaptureFixture) -> Iterator[Development]:
    settings = SimpleNamespace(file=None, reload_extra_file=(), reload=True)
    one = Development(settings, logging.getLogger("test"))  # type: ignore[arg-type]
    one._master = SimpleNamespace(stopping=False, reload=SimpleNamespace(request=lambda: None))  # type: ignore[assignment]
    yield one
    os.close(one._report)
    os.close(one._reports)


def look(one: Development) -> None:
    for _ in range(3):
        one._look_at = 0.0
        one._look()


@pytest.mark.parametrize(
    "text",
    [b"\n", b"{}\n", b"[]\n", b"[1, 2]\n", b'["a"]\n', b'["a", ["x"]]\n', b'["a", 5]\n', b'["a\\u0000b", []]\n', b"\xff\xfe\n",
     b"[" * 3000 + b"\n", b"null\n" * 100, b"x" * 60_000],
)  # fmt: skip
def test_what_is_no_report_is_passed_over(made: Development, tmp_path: Path, text: bytes) -> None:
    good = json.dumps([str(tmp_path / "x.py"), [1, 2]]).encode() + b"\n"
    os.write(made._report, text)
    look(made)
    os.write(made._report, b"\n" + good)
    look(made)
    assert str(tmp_path / "x.py") in list(made._watch)


def test_neither_a_fifo_nor_a_file_without_end_holds_up_the_master(
    made: Development, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "fifo.py")
    (tmp_path / "zero.py").symlink_to("/dev/zero")
    (tmp_path / "bad.py").write_text("def")
    for name in ("fifo.py", "zero.py", "bad.py"):
        os.write(made._report, json.dumps([str(tmp_path / name), []]).encode() + b"\n")
    look(made)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "bad.py, line 1" in errors[0]


def test_no_more_files_than_can_be_looked_at(made: Development, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(development, "MOST", 5)
    for number in range(20):
        os.write(made._report, json.dumps([f"/no/{number}", []]).encode() + b"\n")
    look(made)
    assert len(made._watch) == 5
