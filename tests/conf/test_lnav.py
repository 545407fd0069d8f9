"""lnav accepts the formats, and reads the lines that the server writes into columns."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from preforksmtp.config.settings import SETTINGS
from preforksmtp.logs.access import AccessRecord, compile_format, json_record
from preforksmtp.logs.error import json_line, text_line
from tests.conf.programs import CONF, run
from tests.conf.test_fail2ban import auth, refused
from tests.program.conftest import need

SAMPLE = CONF / "lnav" / "preforksmtp.json"
RECORD = AccessRecord(
    time=1796119200.0, session_id="01KD", message_id="01KE", peer_host="192.0.2.9", peer_port=567, helo="a b=\"c",
    sender="a@example.com", recipients=["b@example.net", "c d@example.net"], size=4321, command="DATA", code=451,
    enhanced="4.3.0", text='later, "or" never', seconds=0.5, tls="TLSv1.3", pid=4711,
)  # fmt: skip
# access_log_sessions, to come
SESSION = (
    "2026-12-01 10:00:00 +0000 session=01KD peer=[192.0.2.9]:567 bind=smtp://0.0.0.0:25 helo=mx.example.com tls=TLSv1.3 "
    "user=- ehlo=1 mail=1 rcpt=1/2 data=1 quit=1 commands=5/6 messages=1 in=2345 out=678 time=0.123 end=quit\n"
)


class Lnav:
    """The program with the sample among its formats, and nothing of whoever runs the test."""

    def __init__(self, folder: Path, sample: str) -> None:
        self.program, self.folder = need("lnav"), folder
        formats = folder / "formats" / "preforksmtp"
        formats.mkdir(parents=True)
        (formats / SAMPLE.name).write_text(sample)
        self.environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "TERM": "dumb", "TZ": "UTC"}

    def run(self, *arguments: str, code: int = 0) -> str:
        return run(self.program, "-I", str(self.folder), *arguments, code=code, env=self.environment)

    def ask(self, question: str, log: str, name: str = "error.log") -> list[dict[str, object]]:
        file = self.folder / name
        file.write_text(log)
        out = self.folder / "out.json"
        self.run("-n", "-q", "-c", f";{question}", "-c", f":write-json-to {out}", str(file))
        found: list[dict[str, object]] = json.loads(out.read_text())
        return found


@pytest.fixture
def lnav(tmp_path: Path) -> Lnav:
    return Lnav(tmp_path, SAMPLE.read_text())


def test_lnav_accepts_it(lnav: Lnav) -> None:
    lnav.run("-C")


def test_lnav_looks_at_the_samples(tmp_path: Path) -> None:
    """It does not accept a format that does not fit its own sample."""
    Lnav(tmp_path, SAMPLE.read_text().replace("session=01KD peer=", "sassion=01KD peer=")).run("-C", code=1)


def test_it_says_what_it_is() -> None:
    formats = json.loads(SAMPLE.read_text())
    assert "Try it: lnav -i preforksmtp.json" in formats["preforksmtp_log"]["description"]
    assert all(body["title"] for name, body in formats.items() if name != "$schema")


def error(message: str, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("preforksmtp", level, __file__, 1, message, (), None)


def test_the_error_log(lnav: Lnav) -> None:
    log = text_line(error("session 01KD: reset\n by peer")) + refused(helo='x y="z', text='no "such" user') + auth("ok", "alice")
    columns = "log_level, session, peer, helo, stage, code, enhanced, text, result, user"
    refusal, ok, reset = lnav.ask(f"SELECT {columns} FROM preforksmtp_log ORDER BY log_level, stage DESC", log)
    assert (reset["log_level"], reset["session"]) == ("error", "01KD")
    assert (ok["result"], ok["user"], ok["log_level"]) == ("ok", "alice", "info")
    assert [refusal[name] for name in ("peer", "stage", "code", "enhanced")] == ["192.0.2.9", "rcpt", 550, "5.1.1"]
    assert refusal["helo"] == r"x\x20y=\x22z"
    assert refusal["text"] == r"no \"such\" user"


def test_the_table_of_refusals(lnav: Lnav) -> None:
    log = refused() + refused(helo="x") + refused(peer_host="2001:db8::9") + auth()
    rows = lnav.ask("SELECT c_peer, count(*) AS n FROM preforksmtp_refused GROUP BY 1 ORDER BY n DESC", log)
    assert rows == [{"c_peer": "192.0.2.9", "n": 2}, {"c_peer": "2001:db8::9", "n": 1}]


def test_the_access_log(lnav: Lnav) -> None:
    default = next(setting.default for setting in SETTINGS if setting.name == "access_logformat")
    log = compile_format(default)(RECORD) + SESSION
    message, session = lnav.ask("SELECT * FROM preforksmtp_access_log ORDER BY message DESC", log)
    assert [message[name] for name in ("message", "sender", "size", "code", "log_level")] == [
        "01KE", "a@example.com", 4321, "451", "warning",
    ]  # fmt: skip
    assert message["recipients"] == r"<b@example.net>,<c\x20d@example.net>"
    assert message["seconds"] == 0.5
    assert (session["end"], session["bind"]) == ("quit", "smtp://0.0.0.0:25")
    (sums,) = lnav.ask("SELECT sum(received) AS received, sum(messages) AS messages FROM preforksmtp_access_log", log)
    assert sums == {"received": 2345, "messages": 1}


def test_both_as_json(lnav: Lnav) -> None:
    (line,) = lnav.ask("SELECT log_level, log_body FROM preforksmtp_json_log", json_line(error("it hangs")))
    assert line == {"log_level": "error", "log_body": "it hangs"}
    (message,) = lnav.ask("SELECT * FROM preforksmtp_json_access_log", json_record(RECORD), "access.log")
    assert [message[name] for name in ("message", "sender", "size", "code")] == ["01KE", "a@example.com", 4321, 451]
