"""The error log: one write a record, nothing forged, files reopened under the same descriptor."""

import fcntl
import io
import json
import logging
import os
import re
import threading
from types import SimpleNamespace

import pytest

from preforksmtp.logs import error as log
from preforksmtp.logs.linefile import STREAMS, LogError, LogFile

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} \[(\d+)\] \[([A-Z]+)\] (.*)")


@pytest.fixture
def open_log(tmp_path):
    handlers = []

    def open_log(log_format="text", level="info", path=None):
        settings = SimpleNamespace(
            error_logfile=path or str(tmp_path / "error.log"), log_format=log_format, log_level=level
        )
        handlers.append(log.open_error_log(settings))
        return logging.getLogger("preforksmtp"), handlers[-1]

    yield open_log
    for handler in handlers:
        handler.close()


@pytest.fixture
def lines(tmp_path):
    return lambda: (tmp_path / "error.log").read_text("utf-8").split("\n")[:-1]


@pytest.fixture
def writes(monkeypatch):
    """What is written, one entry a system call."""
    found = []
    monkeypatch.setattr(log.os, "write", lambda fd, data: found.append(data) or len(data))
    return found


def test_a_record_is_one_line_of_text(open_log, lines):
    logger, _ = open_log()
    logger.info("listening on %s", "127.0.0.1:25")
    (line,) = lines()
    assert LINE.fullmatch(line).groups() == (str(os.getpid()), "INFO", "listening on 127.0.0.1:25")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_record_is_one_write_even_with_a_traceback(open_log, writes, log_format):
    logger, _ = open_log(log_format)
    try:
        raise RuntimeError("lost")
    except RuntimeError:
        logger.exception("handler failed", stack_info=True)
    assert len(writes) == 1
    assert writes[0].endswith(b"\n")


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (
            "a\r\n2026-01-01 00:00:00 +0000 [1] [INFO] forged",
            r"a\x0d\x0a2026-01-01 00:00:00 +0000 [1] [INFO] forged",
        ),
        ("tab\t nul\0 esc\x1b[2J del\x7f", r"tab\x09 nul\x00 esc\x1b[2J del\x7f"),
        ("c1 \x9b next \x85", r"c1 \x9b next \x85"),
        ("line \u2028 bidi \u202e", r"line \u2028 bidi \u202e"),
        ("tag \U000e0001", r"tag \U000e0001"),
        ("undecodable \udcff", r"undecodable \udcff"),
        ("caf\u00e9 \u4e2d\u6587", "caf\u00e9 \u4e2d\u6587"),
    ],
)
def test_nothing_a_client_sends_can_begin_a_line(open_log, lines, message, written):
    logger, _ = open_log()
    logger.warning("%s", message)
    (line,) = lines()
    assert LINE.fullmatch(line)[3] == written


def test_lines_of_a_traceback_cannot_be_taken_for_records(open_log, lines):
    logger, _ = open_log()
    try:
        raise ValueError("x\n2026-01-01 00:00:00 +0000 [1] [INFO] forged\r\x1b")
    except ValueError:
        logger.exception("session s1")
    first, *rest = lines()
    assert LINE.fullmatch(first)[3] == "session s1"
    assert rest[0] == "  | Traceback (most recent call last):"
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    assert any("forged" in line for line in rest)


def test_detail_follows_its_record(open_log, lines):
    logger, _ = open_log()
    logger.error("handler is stuck", extra={"detail": "File a, line 1\nFile b, line 2"})
    assert lines()[1:] == ["  | File a, line 1", "  | File b, line 2"]


def test_json(open_log, lines):
    logger, _ = open_log("json")
    try:
        raise ValueError("x\r\ny")
    except ValueError:
        logger.exception("session %s", "a\nb\udcff")
    (line,) = lines()
    record = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record["time"])
    assert (record["level"], record["pid"], record["message"]) == ("ERROR", os.getpid(), "session a\nb\udcff")
    assert record["traceback"].endswith("ValueError: x\r\ny")


def test_level(open_log, lines):
    logger, _ = open_log(level="warning")
    logger.info("no")
    logger.warning("yes")
    assert [LINE.fullmatch(line)[3] for line in lines()] == ["yes"]


def test_wrong_arguments_of_a_log_call_are_logged_all_the_same(open_log, lines, capfd):
    logger, _ = open_log()
    logger.info("%d sessions", "many")
    assert "'%d sessions' with arguments ('many',) cannot be logged" in lines()[0]
    assert capfd.readouterr().err == ""


def test_a_full_disk_costs_the_line_and_nothing_else(open_log, monkeypatch, capfd):
    logger, _ = open_log()

    def write(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.os, "write", write)
    logger.info("lost")
    assert capfd.readouterr().err == ""


def test_dash_is_standard_error(open_log, capfd):
    logger, handler = open_log(path="-")
    logger.info("here")
    handler.reopen()
    logger.info("still here")
    handler.close()
    os.write(2, b"open\n")
    assert [line[-4:] for line in capfd.readouterr().err.splitlines()] == ["here", "here", "open"]


def test_an_application_that_configures_logging_does_not_double_the_lines(open_log, lines, monkeypatch):
    logger, handler = open_log()
    root = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(root)
    try:
        logger.error("once")
        logging.getLogger("preforksmtp.worker").error("of a child logger")
        assert root.stream.getvalue() == ""
        assert len(lines()) == 2
        handler.close()
        logger.error("propagates when no log is open")
        assert "propagates" in root.stream.getvalue()
    finally:
        logging.getLogger().removeHandler(root)


def test_opening_again_replaces_the_handler(open_log, lines, tmp_path):
    open_log()
    logger, _ = open_log(path=str(tmp_path / "second.log"))
    logger.info("once")
    assert lines() == []
    assert len((tmp_path / "second.log").read_text().splitlines()) == 1


def test_a_file_that_cannot_be_opened_names_the_setting_and_leaves_the_old_log(open_log, lines, tmp_path):
    logger, _ = open_log()
    with pytest.raises(LogError) as error:
        open_log(path=str(tmp_path / "no" / "error.log"))
    assert (
        str(error.value) == f"error_logfile: cannot open {tmp_path}/no/error.log: No such file or directory"
    )
    logger.info("still logging")
    assert len(lines()) == 1


def test_reopen_keeps_the_descriptor_and_follows_the_name(open_log, lines, tmp_path):
    logger, handler = open_log()
    descriptors = set(os.listdir("/dev/fd"))
    fd = handler.file.fd
    logger.info("before")
    os.rename(tmp_path / "error.log", tmp_path / "error.log.1")
    logger.info("between")
    handler.reopen()
    logger.info("after")
    assert handler.file.fd == fd
    assert not os.get_inheritable(fd)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    assert set(os.listdir("/dev/fd")) == descriptors
    assert [line[-7:] for line in (tmp_path / "error.log.1").read_text().splitlines()] == [
        " before",
        "between",
    ]
    assert [line[-5:] for line in lines()] == ["after"]


def test_a_failed_reopen_keeps_the_old_file(open_log, tmp_path):
    logger, handler = open_log()
    os.rename(tmp_path / "error.log", tmp_path / "old")
    (tmp_path / "error.log").mkdir()
    handler.reopen()
    logger.info("after")
    first, second = (tmp_path / "old").read_text().splitlines()
    assert "error_logfile: cannot open" in first
    assert "stays in use" in first
    assert second.endswith("after")


def test_no_line_is_lost_or_torn_while_the_file_is_reopened(open_log, lines, tmp_path):
    """Four threads write 500 lines each; the file is renamed and reopened 20 times meanwhile."""
    logger, handler = open_log()
    start = threading.Barrier(5)

    def write(name):
        start.wait()
        for number in range(500):
            logger.info("%s", f"{name}{number:03}" * 50)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    start.wait()
    for number in range(20):
        os.rename(tmp_path / "error.log", tmp_path / f"error.log.{number}")
        handler.reopen()
    for thread in threads:
        thread.join()
    found = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert all(LINE.fullmatch(line) for line in found)
    assert sorted(LINE.fullmatch(line)[3] for line in found) == sorted(
        f"{name}{number:03}" * 50 for name in "abcd" for number in range(500)
    )


def test_two_processes_share_a_file_without_mixing_lines(open_log, lines):
    logger, _ = open_log()
    children = []
    for name in "ab":
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(300):
                    logger.info(name * 3000)
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    messages = [LINE.fullmatch(line)[3] for line in lines()]
    assert sorted(messages) == ["a" * 3000] * 300 + ["b" * 3000] * 300


def test_the_time_is_of_this_zone(monkeypatch):
    monkeypatch.setenv("TZ", "XXX-3")
    log.time.tzset()
    log._format_second.cache_clear()
    try:
        assert log.format_time(1795852800) == "2026-11-28 11:00:00 +0300"
    finally:
        monkeypatch.undo()
        log.time.tzset()
        log._format_second.cache_clear()
    assert log.format_json_time(1795852800.25) == "2026-11-28T08:00:00.250+00:00"


# --- whose records they are, and systemd's journal


def _emit(handler, name, **extra):
    record = logging.LogRecord(name, logging.WARNING, "f", 1, "it %s", ("happens",), None)
    record.__dict__.update(extra)
    handler.emit(record)


@pytest.mark.parametrize(
    "name, session, text",
    [
        ("preforksmtp", "S1", "[WARNING] it happens"),
        ("preforksmtp.session", "S1", "[WARNING] session S1: it happens"),
        ("shop.orders", "S1", "[WARNING] session S1: shop.orders: it happens"),
        ("shop\norders", "", r"[WARNING] shop\x0aorders: it happens"),
    ],
)
def test_the_applications_own_records_name_logger_and_session(tmp_path, name, session, text):
    handler = log.ErrorLog(LogFile("error_logfile", str(tmp_path / "error.log")), "text")
    handler.session = lambda: session
    _emit(handler, name)
    handler.close()
    assert (tmp_path / "error.log").read_text().partition("] ")[2] == f"{text}\n"


def test_fields_in_json(tmp_path):
    handler = log.ErrorLog(LogFile("error_logfile", str(tmp_path / "error.log")), "json")
    handler.session, handler.common = lambda: "S1", {"worker": 3, "generation": 2}
    _emit(handler, "preforksmtp", fields={"session": "S2", "peer": "192.0.2.7", "time": "forged"})
    _emit(handler, "shop")
    handler.close()
    first, second = map(json.loads, (tmp_path / "error.log").read_text().splitlines())
    assert (first["session"], first["peer"], first["worker"], first["message"]) == ("S2", "192.0.2.7", 3, "it happens")
    assert first["time"] != "forged"
    assert (second["session"], second["logger"], second["generation"]) == ("S1", "shop", 2)


def test_lines_in_the_journal_have_priorities(tmp_path, monkeypatch):
    with open(tmp_path / "journal", "w+b") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setitem(STREAMS, "error_logfile", journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        handler = log.ErrorLog(LogFile("error_logfile", "-"), "text")
        _emit(handler, "preforksmtp", detail="more\nof it")
        handler.close()
        lines = (tmp_path / "journal").read_text().splitlines()
    assert [line[:3] for line in lines] == ["<4>"] * 3
    assert lines[1:] == ["<4>  | more", "<4>  | of it"]


def test_another_stream_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    handler = log.ErrorLog(LogFile("error_logfile", str(tmp_path / "error.log")), "text")
    _emit(handler, "preforksmtp")
    handler.close()
    assert not (tmp_path / "error.log").read_text().startswith("<")
