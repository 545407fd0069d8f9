"""The logger while an error log is installed: whatever an application does to logging, each record is written once."""

from __future__ import annotations

import io
import logging
import logging.config
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from preforksmtp.logs import error as log
from preforksmtp.logs.logger import LOGGER, ErrorLogger, installed

logger = logging.getLogger(LOGGER)


class Refusing(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("an application's own")


def refuse(*_: object, **__: object) -> bool:
    raise RuntimeError("an application's own")


@pytest.fixture
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogRecordFactory(), logging._handlerList[:])
    yield
    root.handlers[:], level, factory, logging._handlerList[:] = before
    root.setLevel(level)
    logging.setLogRecordFactory(factory)
    logging.disable(logging.NOTSET)
    logging.addLevelName(40, "ERROR")
    logging.logProcesses = True
    logger.handlers[:] = []
    logger.filters[:] = []


@pytest.fixture
def lines(tmp_path, as_it_was: None) -> Iterator[Callable[[], list[str]]]:
    path = tmp_path / "error.log"
    handler = log.open_error_log(SimpleNamespace(error_logfile=str(path), log_format="text", log_level="info"))
    yield lambda: path.read_text().splitlines()
    handler.close()
    assert installed() is None
    assert type(logger) is not ErrorLogger


@pytest.mark.parametrize(
    "harm",
    [
        lambda: logging.config.dictConfig({"version": 1}),
        lambda: logging.config.dictConfig({"version": 1, "loggers": {LOGGER: {"handlers": [], "propagate": True}}}),
        lambda: logging.disable(logging.CRITICAL),
        lambda: logging.basicConfig(force=True, level=logging.CRITICAL),
        logging.shutdown,
        lambda: logger.handlers.clear(),
        lambda: logger.addHandler(Refusing()),
        lambda: logger.addFilter(refuse),
        lambda: logging.setLogRecordFactory(refuse),
        lambda: logging.addLevelName(40, "OOPS"),
        lambda: setattr(logging, "logProcesses", False),
        lambda: setattr(logger, "disabled", True),
    ],
)
def test_each_record_is_written_once(lines, harm: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> None:
    harm()
    logger.info("hello")
    try:
        raise LookupError("as asked")
    except LookupError:
        logger.exception("%s", "failed", extra={"detail": "more"})
    text = lines()
    assert [line.partition("] ")[2] for line in text if not line.startswith("  |")] == [
        "[INFO] hello",
        "[ERROR] failed",
    ]
    assert any("LookupError: as asked" in line for line in text)
    assert any("more" in line for line in text)
    assert "hello" not in capfd.readouterr().err


def test_a_handler_that_was_added_on_purpose_has_it_too(lines) -> None:
    stream = io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("both")
    logging.getLogger(f"{LOGGER}.child").error("of a child")
    assert stream.getvalue().splitlines() == ["both", "of a child"]
    assert [line.partition("] ")[2] for line in lines()] == ["[ERROR] both", "[ERROR] of a child"]


def test_an_applications_level_counts(lines) -> None:
    logger.setLevel(logging.ERROR)
    logger.warning("no")
    logger.error("yes")
    assert len(lines()) == 1
