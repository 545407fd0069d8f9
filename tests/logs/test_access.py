"""The access log: formats are compiled, values escaped for their place, and no session ever sees an error."""

import json
import os
from types import SimpleNamespace

import pytest

from preforksmtp.config.settings import ACCESS_LOGFORMAT
from preforksmtp.logs import access
from preforksmtp.logs.access import AccessRecord, compile_format, open_access_log
from preforksmtp.logs.error import format_time
from preforksmtp.logs.linefile import LogError

RECORD = AccessRecord(
    time=1795852800.0, session_id="S1", message_id="M1", peer_host="192.0.2.7", peer_port=40000,
    helo="client.example",
    user="alice", sender="a@x.org", recipients=["b@y.org", "c@z.org"], size=1234, command="DATA", code=250,
    enhanced="2.0.0", text="Ok: queued as M1", seconds=1.2345678, tls="TLSv1.3",
    cipher="TLS_AES_256_GCM_SHA384", pid=77, worker=3, bind="smtp://:25",
)  # fmt: skip


def line(log_format, **facts):
    record = AccessRecord(**({name: getattr(RECORD, name) for name in AccessRecord.__slots__} | facts))
    return compile_format(log_format)(record).removesuffix("\n")


@pytest.fixture
def open_log(tmp_path):
    logs = []

    def open_log(access_logformat=ACCESS_LOGFORMAT, log_format="text", path="access.log"):
        file = path if path in (None, "-") else str(tmp_path / path)
        settings = SimpleNamespace(
            access_logfile=file, access_logformat=access_logformat, log_format=log_format
        )
        logs.append(open_access_log(settings))
        return logs[-1]

    yield open_log
    for log in logs:
        log.close()


def test_the_default_format():
    assert line(ACCESS_LOGFORMAT) == (
        f"{format_time(RECORD.time)} session=S1 message=M1 peer=[192.0.2.7]:40000 helo=client.example "
        "user=alice "
        'from=<a@x.org> to=<b@y.org>,<c@z.org> nrcpt=2 size=1234 reply="250 2.0.0 Ok: queued as M1" '
        "time=1.234568 tls=TLSv1.3"
    )


def test_the_default_format_of_nothing():
    found = compile_format(ACCESS_LOGFORMAT)(AccessRecord(time=RECORD.time))
    assert found == (
        f"{format_time(RECORD.time)} session=- message=- peer=[-]:- helo=- user=- from=<> to=- nrcpt=0 "
        'size=0 reply="- - -" time=0.000000 tls=-\n'
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("h", "192.0.2.7"), ("hp", "40000"), ("l", "client.example"), ("u", "alice"), ("r", "DATA"),
        ("s", "250"),
        ("e", "2.0.0"), ("m", r"Ok:\x20queued\x20as\x20M1"), ("f", "a@x.org"), ("n", "2"),
        ("rcpt", "<b@y.org>,<c@z.org>"), ("b", "1234"), ("T", "1"), ("L", "1.234568"), ("M", "1234"),
        ("D", "1234567"),
        ("tls", "TLSv1.3"), ("c", "TLS_AES_256_GCM_SHA384"), ("i", "S1"), ("q", "M1"), ("p", "77"),
        ("w", "3"), ("B", "smtp://:25"), ("t", format_time(RECORD.time)),
    ],
)  # fmt: skip
def test_atom(name, text):
    assert line(f"%({name})s") == text
    assert line(f"a%({name})sb%({name})sc") == f"a{text}b{text}c"


def test_every_atom_has_a_test():
    (mark,) = test_atom.pytestmark
    assert {name for name, _ in mark.args[1]} == set(access.ATOMS)


@pytest.mark.parametrize(
    ("log_format", "facts", "text"),
    [
        ("%(l)s x", {"helo": "a b\r\nc"}, r"a\x20b\x0d\x0ac x"),
        ("%(l)s x", {"helo": ""}, "- x"),
        ("%(l)s", {"helo": 'a"b\\c'}, r"a\x22b\x5cc"),
        ('"%(l)s"', {"helo": 'a "b" \\ c\n'}, r'"a \"b\" \\ c\x0a"'),
        ('"%(l)s"', {"helo": ""}, '"-"'),
        ('"%(s)s %(m)s" %(m)s', {"text": 'a "b"'}, r'"250 a \"b\"" a\x20\x22b\x22'),
        ("<%(f)s>", {"sender": ""}, "<>"),
        ("<%(f)s>", {"sender": '"> to=<x"@y'}, r"<\x22\x3e\x20to=\x3cx\x22@y>"),
        ("%(rcpt)s", {"recipients": ['"a >,<"@x', "b@y"]}, r"<\x22a\x20\x3e,\x3c\x22@x>,<b@y>"),
        ("%(rcpt)s", {"recipients": []}, "-"),
        ('"%(rcpt)s"', {"recipients": ['"a"@x']}, r'"<\x22a\x22@x>"'),
        ("%(f)s", {"sender": "\u00fc@\u4e2d\u6587.org\u202e"}, "\u00fc@\u4e2d\u6587.org\\u202e"),
        ("100%% %(u)s%%", {"user": "%(s)s%s"}, "100% %(s)s%s%"),
        ("a\tb%(n)s", {}, r"a\x09b2"),
        ("%(s)s %(e)s", {"code": 0, "enhanced": ""}, "- -"),
        ("no atoms", {}, "no atoms"),
    ],
)
def test_values_are_escaped_for_their_place(log_format, facts, text):
    assert line(log_format, **facts) == text


@pytest.mark.parametrize(
    ("log_format", "error"),
    [
        ("%(rctp)s", r"unknown atom %(rctp)s; did you mean %(rcpt)s?"),
        ("%(TLS)s", r"unknown atom %(TLS)s; did you mean %(tls)s?"),
        ("%()s", r"unknown atom %()s"),
        ("50% off", "% at character 3 begins no %(atom)s; write %% for a percent sign"),
        ("%(h)d", "% at character 1 begins no %(atom)s; write %% for a percent sign"),
        ("%", "% at character 1 begins no %(atom)s; write %% for a percent sign"),
    ],
)
def test_a_wrong_format_is_one_clear_line(log_format, error):
    with pytest.raises(ValueError) as found:
        compile_format(log_format)
    assert str(found.value) == error


def test_only_the_atoms_of_the_format_are_worked_out():
    assert compile_format("%(u)s")(SimpleNamespace(user="alice")) == "alice\n"


def test_json(open_log, tmp_path):
    log = open_log(log_format="json")
    log.write(RECORD)
    log.write(AccessRecord(helo="a\r\nb\udcff", recipients=('"x\n"@y',)))
    first, second = (json.loads(line) for line in (tmp_path / "access.log").read_bytes().splitlines())
    assert first == {
        "time": "2026-11-28T08:00:00.000+00:00", "session": "S1", "message": "M1", "peer": "192.0.2.7",
        "port": 40000,
        "helo": "client.example", "user": "alice", "sender": "a@x.org", "recipients": ["b@y.org", "c@z.org"],
        "size": 1234, "command": "DATA", "code": 250, "enhanced": "2.0.0", "text": "Ok: queued as M1",
        "seconds": 1.234568, "tls": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "pid": 77, "worker": 3,
        "bind": "smtp://:25",
    }  # fmt: skip
    assert second["helo"] == "a\r\nb\udcff"


def test_a_line_is_one_write_whatever_is_in_it(open_log, monkeypatch):
    log = open_log()
    found = []
    monkeypatch.setattr(os, "write", lambda fd, data: found.append(data) or len(data))
    log.write(AccessRecord(helo="x\n", recipients=["r\r\n@x"] * 1000, text="\udcff\n"))
    assert len(found) == 1
    assert found[0].count(b"\n") == 1


def test_disabled(open_log, tmp_path):
    log = open_log(path=None)
    assert not log.enabled
    log.write(RECORD)
    log.reopen()
    assert open_log().enabled
    assert os.listdir(tmp_path) == ["access.log"]


def test_dash_is_standard_output(open_log, capfd):
    log = open_log("%(q)s", path="-")
    log.write(RECORD)
    log.reopen()
    log.close()
    assert capfd.readouterr().out == "M1\n"


def test_a_file_that_cannot_be_opened_names_the_setting(open_log, tmp_path):
    with pytest.raises(LogError) as error:
        open_log(path="no/access.log")
    assert (
        str(error.value) == f"access_logfile: cannot open {tmp_path}/no/access.log: No such file or directory"
    )


def test_reopen(open_log, tmp_path):
    log = open_log("%(q)s")
    log.write(RECORD)
    os.rename(tmp_path / "access.log", tmp_path / "access.log.1")
    log.reopen()
    log.write(RECORD)
    assert [(tmp_path / name).read_text() for name in ("access.log", "access.log.1")] == ["M1\n", "M1\n"]


def test_a_failed_reopen_keeps_the_old_file(open_log, tmp_path, caplog):
    log = open_log("%(q)s")
    os.rename(tmp_path / "access.log", tmp_path / "old")
    (tmp_path / "access.log").mkdir()
    log.reopen()
    log.write(RECORD)
    assert (tmp_path / "old").read_text() == "M1\n"
    assert "access_logfile: cannot open" in caplog.text


def test_facts_of_the_wrong_type_do_not_reach_the_session(open_log, caplog):
    open_log().write(AccessRecord(recipients=[None]))
    assert "access_logfile: a line cannot be made" in caplog.text
