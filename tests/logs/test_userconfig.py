"""logconfig.py: the user's own logging, in place of the error log; and back."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.logs import error as log
from preforksmtp.logs.linefile import LogError
from preforksmtp.logs.userconfig import ConfiguredLog, make_configured_log

INI = """
[loggers]
keys=root,ours
[handlers]
keys=file
[formatters]
keys=short
[logger_root]
handlers=
[logger_ours]
qualname=preforksmtp
handlers=file
propagate=0
[handler_file]
class=FileHandler
args=({path!r},)
formatter=short
[formatter_short]
format=%(levelname)s|%(message)s
"""


def ini(folder: Path) -> str:
    return INI.format(path=str(folder / "own.log"))


def as_json(folder: Path, **others: object) -> str:
    handler = {"class": "logging.FileHandler", "filename": str(folder / "own.log"), "formatter": "short"}
    return json.dumps({
        "formatters": {"short": {"format": "%(levelname)s|%(message)s"}},
        "handlers": {"file": handler},
        "root": {"handlers": ["file"]},
        **others,
    })  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., ConfiguredLog]]:
    root, made = logging.getLogger(), []
    before, level = root.handlers[:], root.level

    def make(text: str, name: str = "log.ini") -> ConfiguredLog:
        (tmp_path / name).write_text(text)
        made.append(make_configured_log(settings(tmp_path, name)))
        return made[-1]

    yield make
    for each in made:
        each.close()
    root.handlers[:] = before  # those of pytest
    root.setLevel(level)
    ours = logging.getLogger(log.LOGGER)
    ours.handlers[:], ours.propagate = [], True
    ours.setLevel(logging.NOTSET)


def settings(folder: Path, name: str = "log.ini") -> Any:
    return SimpleNamespace(
        error_logfile=str(folder / "error.log"), log_format="text", log_level="info", log_config=str(folder / name)
    )


def own(folder: Path) -> list[str]:
    return (folder / "own.log").read_text().splitlines()


@pytest.mark.parametrize(("text", "name"), [(ini, "log.ini"), (ini, "log.conf"), (as_json, "log.json")])
def test_it_takes_the_place_of_the_error_log(make, tmp_path, text, name):
    plain = log.open_error_log(settings(tmp_path))
    configured = make(text(tmp_path), name)
    configured.install()
    plain.close()
    logger = logging.getLogger(log.LOGGER)
    logger.info("hello")
    logger.debug("below log_level")
    assert own(tmp_path) == ["INFO|hello"]
    assert (tmp_path / "error.log").read_text() == ""
    os.write(configured.file.fd, b"a stack\n")
    assert (tmp_path / "error.log").read_text() == "a stack\n"


def test_the_configurations_own_level(make, tmp_path):
    make(as_json(tmp_path, loggers={"preforksmtp": {"level": "DEBUG"}}), "log.json").install()
    logging.getLogger(log.LOGGER).debug("hello")
    assert own(tmp_path) == ["DEBUG|hello"]


def test_what_was_read_counts_and_not_what_became_of_the_file(make, tmp_path):
    configured = make(ini(tmp_path))
    (tmp_path / "log.ini").write_text("broken")
    configured.install()
    configured.install()  # as each new worker does
    logging.getLogger(log.LOGGER).info("hello")
    assert own(tmp_path) == ["INFO|hello"]


def test_back_to_the_error_log(make, tmp_path):
    configured = make(ini(tmp_path))
    configured.install()
    plain = log.make_error_log(settings(tmp_path))
    plain.install()
    configured.close()
    logging.getLogger(log.LOGGER).info("hello")
    plain.close()
    assert own(tmp_path) == []
    assert "hello" in (tmp_path / "error.log").read_text()


def test_one_after_another(make, tmp_path):
    first = make(ini(tmp_path))
    first.install()
    second = make(as_json(tmp_path), "log.json")
    second.install()
    first.close()
    logging.getLogger(log.LOGGER).info("hello")
    assert own(tmp_path) == ["INFO|hello"]


def test_reopen(make, tmp_path):
    configured = make(as_json(tmp_path), "log.json")
    configured.install()
    for name in ("own.log", "error.log"):
        os.rename(tmp_path / name, tmp_path / ("old-" + name))
    configured.reopen()
    logging.getLogger(log.LOGGER).info("hello")
    assert own(tmp_path) == ["INFO|hello"]
    assert (tmp_path / "error.log").exists()


def test_a_file_that_cannot_be_reopened_stays_in_use(make, tmp_path):
    (tmp_path / "logs").mkdir()
    configured = make(as_json(tmp_path / "logs"), "log.json")
    configured.install()
    os.rename(tmp_path / "logs", tmp_path / "old")
    configured.reopen()
    (line,) = own(tmp_path / "old")
    assert line.startswith("ERROR|log_config: cannot open ")


@pytest.mark.parametrize(
    ("text", "name", "error"),
    [
        ("hello", "log.ini", "MissingSectionHeaderError: File contains no section headers."),
        ("{", "log.json", "JSONDecodeError: Expecting property name"),
        ("[]", "log.json", "ValueError: must hold one JSON object"),
    ],
)
def test_a_file_that_cannot_be_read(make, tmp_path, text, name, error):
    with pytest.raises(LogError) as caught:
        make(text, name)
    assert str(caught.value).startswith(f"log_config: {tmp_path / name}: {error}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "error.log").exists()


def test_no_file(tmp_path):
    with pytest.raises(LogError) as caught:
        make_configured_log(settings(tmp_path))
    assert str(caught.value) == f"log_config: cannot read {tmp_path / 'log.ini'}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "name", "error"),
    [
        ("[loggers]\nkeys=root\n", "log.ini", "KeyError: 'formatters'"),
        (
            '{"handlers": {"x": {"class": "no.such.Class"}}}', "log.json",
            "ValueError: Unable to configure handler 'x' (Cannot resolve 'no.such.Class': No module named 'no')",
        ),
        ('{"version": 2}', "log.json", "ValueError: Unsupported version: 2"),
    ],
)  # fmt: skip
def test_one_that_cannot_be_applied_leaves_a_plain_error_log(make, tmp_path, text, name, error):
    configured = make(text, name)
    with pytest.raises(LogError) as caught:
        configured.install()
    assert str(caught.value) == f"log_config: {tmp_path / name}: {error}"
    logging.getLogger(log.LOGGER).error("hello")
    assert "hello" in (tmp_path / "error.log").read_text()
