"""Status lines and options, both ways."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from preforksmtp import Handler
from preforksmtp.adapters.status import BadStatus, find, options, plain, read_status
from preforksmtp.smtp.transaction import Recipient
from tests.fakes import talk

ROWS = [
    ("250 OK", b"250 2.0.0 OK\r\n"),
    ("250 OK\r\n", b"250 2.0.0 OK\r\n"),
    (b"550 No such user", b"550 5.7.1 No such user\r\n"),
    ("550 5.1.1 No such user", b"550 5.1.1 No such user\r\n"),
    ("451", b"451 4.3.0\r\n"),
    ("250-one\r\n250 two", b"250-2.0.0 one\r\n250 2.0.0 two\r\n"),
    ("550-5.1.1 one\n550 5.1.1 two\n", b"550-5.1.1 one\r\n550 5.1.1 two\r\n"),
    (["250-one", "250 two"], b"250-2.0.0 one\r\n250 2.0.0 two\r\n"),
    ("250 ünï", b"250 2.0.0 \\xfcn\\xef\r\n"),
]
BAD = [None, "", "OK", "25 OK", "250OK", "354 go on", "199 x", "600 x", 250, [], ["250 one", None],
       "250 one\r\n550 two", "250 one\rDATA", "250 one\x00", "250 one\r\nQUIT", "250 one\r\n\r\n", object()]  # fmt: skip


@pytest.mark.parametrize(("status", "wire"), ROWS)
def test_a_status_becomes_a_reply(status, wire):
    assert read_status(status).wire == wire


@pytest.mark.parametrize("status", BAD, ids=repr)
def test_what_is_no_reply(status):
    with pytest.raises(BadStatus):
        read_status(status)


def test_options_are_written_as_the_client_wrote_them():
    seen = []

    class Mail(Handler):
        extensions = {"MT-PRIORITY": None, "DELIVERBY": None, "FUTURERELEASE": 10**8, "RRVS": None}

        def mail(self, sender, params):
            seen.append(options(params))

        def rcpt(self, recipient, params):
            seen.append(options(params))

        def message(self, message):
            pass

    mails = [
        ["SIZE=12", "BODY=8BITMIME", "SMTPUTF8"],
        ["RET=HDRS", "ENVID=a+2Bb+3D", "AUTH=<>", "MT-PRIORITY=-3", "BY=120;RT"],
        ["HOLDFOR=60"],
        ["HOLDUNTIL=2026-12-24T08:00:00Z"],
    ]
    rcpts = [["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;bob+40x+2B"], ["RRVS=2026-01-02T03:04:05Z;C"], ["NOTIFY=NEVER"]]
    lines = ["EHLO c.test"]
    for words in mails:
        lines += [f"MAIL FROM:<a@b.test> {' '.join(words)}", "RSET"]
    lines.append("MAIL FROM:<a@b.test>")
    for words in rcpts:
        lines.append(f"RCPT TO:<c@d.test> {' '.join(words)}")
    assert set(talk(lines, Mail).codes) == {250}
    expected = [*mails, [], *rcpts]
    expected[-3] = ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;bob@x+2B"]  # only what must be is encoded
    assert seen == expected


def test_a_moment_is_written_in_utc():
    assert options({"HOLDUNTIL": datetime(2026, 12, 24, 8, tzinfo=timezone.utc)}) == ["HOLDUNTIL=2026-12-24T08:00:00Z"]


def test_recipients_are_plain_strings():
    (address,) = plain([Recipient("a@b.test", {})])
    assert (address, type(address)) == ("a@b.test", str)


def test_find(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wording_app.py").write_text("class A:\n    class B: pass\n")
    (tmp_path / "wording_broken.py").write_text("import wording_missing\n")
    assert find("handler", "wording_app:A.B").__qualname__ == "A.B"
    for path, words in [
        ("wording_app", "handler 'wording_app': expected module:attribute, such as myapp:MyHandler"),
        ("wording_app:", "expected module:attribute"),
        ("wording-app:A", "expected module:attribute"),
        ("wording_app:A.C", "wording_app has no attribute 'A.C'"),
        ("wording_nowhere:A", "no module named 'wording_nowhere'"),
    ]:
        with pytest.raises(ValueError, match=words):
            find("handler", path)
    with pytest.raises(ModuleNotFoundError, match="wording_missing"):
        find("handler", "wording_broken:A")
