"""syslog.py: what arrives at a server, and that no server can hold up or break a session."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from preforksmtp.logs import error as log
from preforksmtp.logs.access import AccessRecord, open_access_log
from preforksmtp.logs.linefile import LogError
from preforksmtp.logs.syslog import FACILITIES, Syslog, open_syslog, split_target

HEAD = re.compile(r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?:\S+ )?(\S+)\[(\d+)\]: (.*)")


def parsed(message: bytes) -> tuple[int, str, str]:
    """(facility and severity, tag, text)"""
    found = HEAD.fullmatch(message.decode())
    assert found is not None, message
    assert int(found[3]) == os.getpid()
    return int(found[1]), found[2], found[4]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def bound(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(path)
    server.settimeout(5)
    return server


@pytest.fixture
def server(path: str) -> Iterator[socket.socket]:
    with bound(path) as server:
        yield server


def settings(target: str, **others: object) -> SimpleNamespace:
    values: dict[str, object] = {
        "name": "mx", "log_syslog": True, "log_syslog_to": target, "log_syslog_prefix": None,
        "log_syslog_facility": "mail", "error_logfile": os.devnull, "log_format": "text", "log_level": "info",
        "access_logfile": None, "access_logformat": "from=<%(f)s>",
    }  # fmt: skip
    return SimpleNamespace(**(values | others))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unix:///dev/log", ("unix", "/dev/log")),
        ("udp://127.0.0.1:5514", ("udp", ("127.0.0.1", 5514))),
        ("udp://log.example.org", ("udp", ("log.example.org", 514))),
        ("tcp://[::1]:601", ("tcp", ("::1", 601))),
    ],
)
def test_targets(text, found):
    assert split_target(text) == found


@pytest.mark.parametrize(
    "text",
    ["log", "/dev/log", "unix://", "unix:///", "unix://dev/log", "udp://", "udp://h:x", "udp://h:99999", "http://h",
     "udp://h:1/x", "tcp://h?x=1"],
)  # fmt: skip
def test_no_targets(text):
    with pytest.raises(ValueError, match="must be unix:///dev/log, udp://host:port or tcp://host:port, not"):
        split_target(text)


@pytest.mark.parametrize(("level", "severity"), [("CRITICAL", 2), ("ERROR", 3), ("WARNING", 4), ("INFO", 6), ("DEBUG", 7)])
@pytest.mark.parametrize("facility", ["kern", "mail", "local7"])
def test_priority(path, server, level, severity, facility):
    Syslog("unix://" + path, "mx", facility).record(level, "hello\n")
    assert parsed(server.recv(9999)) == (FACILITIES.index(facility) * 8 + severity, "mx", "hello")


def test_the_codes_of_facilities():
    assert {name: FACILITIES.index(name) for name in ("user", "mail", "authpriv", "local0", "local7")} == {
        "user": 1, "mail": 2, "authpriv": 10, "local0": 16, "local7": 23,
    }  # fmt: skip


def test_each_line_is_a_message_and_a_tag_has_no_spaces(path, server):
    Syslog("unix://" + path, "a b:[c]", "mail").record("INFO", "one\ntwo\n")
    assert [parsed(server.recv(9999))[1:] for _ in range(2)] == [("a_b__c_", "one"), ("a_b__c_", "two")]


def test_a_long_line_is_cut(path, server):
    Syslog("unix://" + path, "mx", "mail").record("INFO", "x" * 100_000)
    assert len(server.recv(99999)) == 8192


def test_udp_says_the_host():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        Syslog(f"udp://127.0.0.1:{server.getsockname()[1]}", "mx", "mail").record("INFO", "hello")
        message = server.recv(9999).decode()
    assert f" {socket.gethostname().partition('.')[0]} mx[{os.getpid()}]: hello" in message


def test_tcp_and_a_server_that_comes_again():
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", "mx", "mail")
        first, _ = server.accept()
        syslog.record("INFO", "one")
        with first, first.makefile("rb") as lines:
            assert parsed(lines.readline().rstrip(b"\n")) == (22, "mx", "one")
        server.setblocking(False)
        for _ in range(1000):  # the first may be lost: it is what TCP is answered with a reset
            syslog.record("INFO", "two")
            try:
                second, _ = server.accept()
                break
            except BlockingIOError:
                continue
        second.settimeout(5)
        with second, second.makefile("rb") as lines:
            assert parsed(lines.readline().rstrip(b"\n")) == (22, "mx", "two")
        syslog.close()


def test_a_unix_socket_that_is_a_stream(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        syslog = Syslog("unix://" + path, "mx", "mail")
        accepted, _ = server.accept()
        accepted.settimeout(5)
        with accepted, accepted.makefile("rb") as lines:
            syslog.record("INFO", "one\ntwo\n")
            assert [parsed(lines.readline().rstrip(b"\n"))[2] for _ in range(2)] == ["one", "two"]
        syslog.close()


def test_another_process_has_a_tcp_connection_of_its_own(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", "mx", "mail")
        server.settimeout(5)
        first, _ = server.accept()
        with first:
            monkeypatch.setattr("preforksmtp.logs.syslog.os.getpid", lambda: 1)
            syslog.record("INFO", "from the child")
            second, _ = server.accept()
            with second:
                assert b"mx[1]: from the child\n" in second.recv(9999)
        syslog.close()


def test_a_server_that_does_not_read_costs_lines_and_no_time(path, server):
    syslog = Syslog("unix://" + path, "mx", "mail")
    for number in range(5000):
        syslog.record("INFO", f"{number} {'x' * 500}")  # a blocking send would hang here
    assert " 0 " in " " + parsed(server.recv(9999))[2]


def test_a_server_that_goes_and_comes_again(path):
    with bound(path):
        syslog = Syslog("unix://" + path, "mx", "mail")
    os.unlink(path)
    syslog.record("INFO", "lost")
    syslog._retry_at = 0.0
    with bound(path) as server:
        syslog.record("INFO", "found")
        assert parsed(server.recv(9999))[2] == "found"


def test_reopen(path, server):
    syslog = Syslog("unix://" + path, "mx", "mail")
    os.unlink(path)
    with bound(path) as new:
        syslog.reopen()
        syslog.record("INFO", "hello")
        assert parsed(new.recv(9999))[2] == "hello"
    os.unlink(path)
    with pytest.raises(LogError, match="log_syslog_to: cannot reach"):
        syslog.reopen()
    syslog.record("INFO", "not sent")
    syslog.close()
    syslog.record("INFO", "nor this")


def test_nobody_there_at_the_start(path):
    with pytest.raises(LogError) as caught:
        Syslog("unix://" + path, "mx", "mail")
    assert str(caught.value) == f"log_syslog_to: cannot reach unix://{path}: No such file or directory"


def test_off_is_off():
    assert open_syslog(settings("unix:///none", log_syslog=False)) is None


@pytest.mark.parametrize(("prefix", "tag"), [(None, "mx"), ("relay", "relay")])
def test_the_error_log(path, server, prefix, tag):
    chosen = settings("unix://" + path, log_syslog_prefix=prefix)
    handler = log.make_error_log(chosen, open_syslog(chosen))
    handler.install()
    try:
        try:
            raise RuntimeError("lost")
        except RuntimeError:
            logging.getLogger(log.LOGGER).exception("oh %s", "no\r\nforged")
        logging.getLogger(log.LOGGER).debug("below log_level")
    finally:
        handler.close()
    assert parsed(server.recv(9999)) == (19, tag, "[ERROR] oh no\\x0d\\x0aforged")
    assert parsed(server.recv(9999)) == (19, tag, "  | Traceback (most recent call last):")
    server.settimeout(0)
    rest = []
    try:
        while True:
            rest.append(parsed(server.recv(9999))[2])
    except BlockingIOError:
        assert rest[-1] == "  | RuntimeError: lost"


@pytest.mark.parametrize("file", [True, False])
def test_the_access_log(path, server, tmp_path, file):
    chosen = settings("unix://" + path, access_logfile=str(tmp_path / "access.log") if file else None)
    access = open_access_log(chosen, open_syslog(chosen))
    assert access.enabled
    access.write(AccessRecord(sender="a@b"))
    assert parsed(server.recv(9999)) == (22, "mx", "from=<a@b>")
    assert not file or (tmp_path / "access.log").read_text() == "from=<a@b>\n"
    access.close()
    assert not access.enabled
