"""rsyslog accepts its file, and puts what the real server sends into the right one of two logs."""

from __future__ import annotations

import logging
import re
import smtplib
from pathlib import Path

import pytest

from preforksmtp.logs.access import AccessRecord, json_record
from preforksmtp.logs.error import json_line
from tests.conf.programs import CONF, run
from tests.processes import PATIENCE, Program, wait_until
from tests.program.conftest import LOOPBACK, Server, need

SAMPLE = CONF / "rsyslog" / "preforksmtp.conf"
APP = """
def handler(message):
    raise ValueError("two\\nlines")
"""


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("[INFO]")
        with pytest.raises(smtplib.SMTPResponseException):
            client.sendmail("a@example.com", ["b@example.com"], "Subject: x\n\ny")


def test_rsyslog_accepts_it() -> None:
    assert "error" not in run(need("rsyslogd"), "-N1", "-f", str(SAMPLE))


def test_no_words_of_a_client_make_a_line_of_the_error_log() -> None:
    (quoted,) = re.findall(r'^ +if \(re_match\(\$msg, "(.*)"\)\) then \{$', SAMPLE.read_text(), re.MULTILINE)
    of_the_error_log = re.compile(re.sub(r"\\(.)", r"\1", quoted))
    record = logging.LogRecord("preforksmtp", logging.ERROR, __file__, 1, "it hangs", (), None)
    assert of_the_error_log.search(" " + json_line(record))
    assert of_the_error_log.search(" [ERROR] it hangs")
    assert of_the_error_log.search("   | ValueError: two")
    for words in ('x", "level": "ERROR"', '{"level": "ERROR"', ' "level": "ERROR', '\\", "level": "ERROR"', '"level": "ERROR"'):
        facts = AccessRecord(helo=words, sender=words, recipients=[words], text=words, user=words)
        assert not of_the_error_log.search(" " + json_record(facts))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_each_line_comes_to_its_file(tmp_path: Path, log_format: str) -> None:
    """A handler's exception: the error log has its stack, line by line; the access log the message."""
    rsyslogd = need("rsyslogd")
    (tmp_path / "app.py").write_text(APP)
    error, access, socket = tmp_path / "error.log", tmp_path / "access.log", tmp_path / "socket"
    sample = SAMPLE.read_text().replace("/var/log/preforksmtp-error.log", str(error)).replace(' fileGroup="adm"', "")
    config = tmp_path / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{tmp_path}")\nmodule(load="imuxsock" SysSock.Use="off")\n'
        f'input(type="imuxsock" Socket="{socket}" CreatePath="off")\n'
        + sample.replace("/var/log/preforksmtp-access.log", str(access))
        + f'\naction(type="omfile" file="{tmp_path}/others.log")\n'
    )
    with Program([rsyslogd, "-n", "-iNONE", "-f", str(config)]) as running:
        wait_until(socket.exists, "rsyslog listens")
        options = ["--log-syslog", "--log-syslog-to", f"unix://{socket}", "--log-format", log_format]
        with Server(tmp_path, "-b", LOOPBACK, *options, "app:handler") as server:
            server.ready()

            def logged() -> bool:
                """A message more: the socket's queue may have room for ten lines, and a server never waits for rsyslog."""
                send(server.port())
                return "a@example.com" in text(access) and "ValueError: two" in text(error)

            wait_until(logged, "the message is in the access log, and the stack in the error log")
            assert server.stop() == 0
        running.stop()
    assert "preforksmtp" not in text(tmp_path / "others.log")
    errors = text(error)
    assert "a@example.com" not in errors
    assert [line for line in text(access).splitlines() if "a@example.com" not in line] == []
    assert " preforksmtp[" in errors
    if log_format == "text":
        assert "  | ValueError: two" in errors
        assert re.search(r"preforksmtp\[\d+\]: \[\w+\] ", errors)
