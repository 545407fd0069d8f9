"""The contract with an application, as its author meets it: public names, a module that is loaded, smtplib as client.

Which hook is called when, and what its result becomes. The rows of single answers are in tests/smtp.
"""

from __future__ import annotations

import logging
import smtplib
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import make_certificate
from tests.processes import PATIENCE
from tests.program.conftest import need
from tests.sessions import Sessions

APP = '''
import hashlib
import functools
from preforksmtp import Handler, Message, Reject, Reply, Session

calls = []

class Everything(Handler):
    """Every hook, each noted."""

    @classmethod
    def start(cls, worker):
        calls.append(("start", worker))

    def __init__(self, session):
        super().__init__(session)
        calls.append(("__init__", type(session) is Session))
        self.count = 0

    def connect(self):
        calls.append(("connect",))

    def helo(self, name):
        calls.append(("helo", name))

    def authenticate(self, username, password):
        calls.append(("authenticate", username, password))
        return password == "pass"

    def mail(self, sender, params):
        calls.append(("mail", sender, params))

    def rcpt(self, recipient, params):
        calls.append(("rcpt", recipient, params))
        if recipient.startswith("no"):
            raise Reject(550, "5.1.1 No such user")

    def data(self):
        calls.append(("data",))

    def stream(self, message, body):
        calls.append(("stream", message.sender, list(message.recipients)))
        self.digest = hashlib.sha256(body.read()).hexdigest()[:8]

    def message(self, message):
        assert hashlib.sha256(message.content).hexdigest()[:8] == self.digest
        self.count += 1
        calls.append(("message", message.size, message.headers["Subject"], self.count))
        return f"number {self.count}"

    def verify(self, argument):
        calls.append(("verify", argument))
        return f"<{argument}@mx.test>"

    def expand(self, argument):
        calls.append(("expand", argument))
        return Reply(250, ["<a@mx.test>", "<b@mx.test>"])

    def reset(self):
        calls.append(("reset",))

    def close(self):
        calls.append(("close",))

    @classmethod
    def stop(cls, worker):
        calls.append(("stop", worker))


class Counting(Handler):
    """One instance serves one session: its state needs no lock."""

    def __init__(self, session, step=1):
        super().__init__(session)
        self.total, self.step = 0, step

    def message(self, message):
        self.total += self.step
        self.session.state.total = self.total
        return f"total {self.session.state.total}"

by_ten = functools.partial(Counting, step=10)

def function(message):
    assert type(message) is Message
    calls.append((message.sender, list(message.recipients), message.params, message.size))
    if message.sender.startswith("exit"):
        raise SystemExit(message.sender)
    if message.sender.startswith("fail"):
        raise RuntimeError("on purpose")
    return "2.6.0 thank you"

class TooEarly(Handler):
    def stream(self, message, body):
        for block in body:
            raise Reject(552, "5.3.4 that is enough")

class Swallowing(Handler):
    def stream(self, message, body):
        try:
            for block in body:
                pass
        except BaseException:
            pass
        return "all is well"
'''


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module above, imported by its name as a user's is."""
    (tmp_path / "contract_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield lambda: sys.modules["contract_app"]
    sys.modules.pop("contract_app", None)


class Client(smtplib.SMTP):
    """smtplib on the connection of a session under test."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        super().__init__("127.0.0.1", 1, local_hostname="c.test", timeout=PATIENCE)

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        return self._sessions.begin()


CONTENT = "Subject: hello\r\n\r\n.one\r\ntwo\r\n"


def test_every_hook_in_order(app):
    with Sessions("contract_app:Everything", "--allow-insecure-auth") as sessions:
        client = Client(sessions)
        client.login("user", "pass")
        assert client.sendmail(
            "a@b", ["c@d", "no@d"], CONTENT, mail_options=["BODY=8BITMIME"], rcpt_options=["NOTIFY=DELAY"]
        ) == {"no@d": (550, b"5.1.1 No such user")}
        assert client.verify("al") == (250, b"2.0.0 <al@mx.test>")
        assert client.expn("staff") == (250, b"2.0.0 <a@mx.test>\n2.0.0 <b@mx.test>")
        client.mail("x@y")
        client.rset()
        client.sendmail("", ["c@d"], CONTENT)
        client.quit()
        sessions.over()
        assert [line.split()[0] for line in sessions.logged()] == ["auth", "refused"]
    size = len(CONTENT)
    begin = {"size": size, "body": "8BITMIME"}
    assert app().calls == [
        ("__init__", True),
        ("connect",),
        ("helo", "c.test"),
        ("authenticate", "user", "pass"),
        ("mail", "a@b", {"SIZE": begin["size"], "BODY": begin["body"]}),
        ("rcpt", "c@d", {"NOTIFY": ("DELAY",)}),
        ("rcpt", "no@d", {"NOTIFY": ("DELAY",)}),
        ("data",),
        ("stream", "a@b", ["c@d"]),
        ("message", size, "hello", 1),
        ("verify", "al"),
        ("expand", "staff"),
        ("mail", "x@y", {}),
        ("reset",),
        ("mail", "", {"SIZE": size}),
        ("rcpt", "c@d", {}),
        ("data",),
        ("stream", "", ["c@d"]),
        ("message", size, "hello", 2),
        ("close",),
    ]


def test_state_belongs_to_a_session(app):
    with Sessions("contract_app:Counting") as sessions:
        one, two = Client(sessions), Client(sessions)
        answers = []
        for client in (one, one, two, one):
            client.ehlo_or_helo_if_needed()
            client.mail("a@b")
            client.rcpt("c@d")
            answers.append(client.data(CONTENT)[1])
        one.quit()
        two.quit()
    assert answers == [b"2.0.0 total 1", b"2.0.0 total 2", b"2.0.0 total 1", b"2.0.0 total 3"]


def test_a_partial_of_a_class(app):
    with Sessions("contract_app:by_ten") as sessions, Client(sessions) as client:
        client.ehlo()
        client.mail("a@b")
        client.rcpt("c@d")
        assert client.data(CONTENT) == (250, b"2.0.0 total 10")


def test_a_function(app):
    with Sessions("contract_app:function") as sessions, Client(sessions) as client:
        client.ehlo()
        for sender, answer in (
            ("a@b", (250, b"2.6.0 thank you")),
            ("fail@b", (451, b"4.3.0 Local error in processing, try again later")),
            ("exit@b", (451, b"4.3.0 Local error in processing, try again later")),
            ("a@b", (250, b"2.6.0 thank you")),
        ):
            client.mail(sender)
            client.rcpt("c@d")
            assert client.data(CONTENT) == answer
        assert [line.partition(": ")[2] for line in sessions.logged(logging.ERROR)] == [
            "the handler's message raised RuntimeError",
            "the handler's message raised SystemExit",
        ]
    assert app().calls[0] == ("a@b", ["c@d"], {}, len(CONTENT))


def test_a_stream_refused_while_megabytes_are_still_to_come(app):
    with Sessions("contract_app:TooEarly") as sessions, Client(sessions) as client:
        client.ehlo()
        client.mail("a@b")
        client.rcpt("c@d")
        assert client.data("x" * 70 + "\r\n" + "y" * 5_000_000) == (552, b"5.3.4 that is enough")
        assert client.noop()[0] == 250


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"fine\r\n.\r\n", b"250 2.0.0 all is well\r\n"),
        (b"a\nb\r\n.\r\n", b"550 5.6.0 "),
        (b"x" * 2000 + b"\r\n.\r\n", b"552 5.3.4 "),
    ],
)
def test_a_fault_that_is_swallowed_is_still_one(app, sent, answer):
    with Sessions("contract_app:Swallowing", "--max-message-size", "1000") as sessions, Client(sessions) as client:
        client.ehlo()
        client.mail("a@b")
        client.rcpt("c@d")
        assert client.docmd("DATA")[0] == 354
        client.send(sent)
        code, text = client.getreply()
        assert f"{code} ".encode() + text + b"\r\n" == answer or (f"{code} ".encode() + text).startswith(answer)
        assert client.noop()[0] == 250


def test_a_message_with_everything_through_smtplib(app, tmp_path):
    """SMTPUTF8, 8BITMIME, STARTTLS, AUTH: what smtplib makes of an EmailMessage arrives as it was sent."""
    need("openssl")
    certificate = make_certificate(tmp_path)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "jürgen@bücher.example", "用户@例子.test", "Grüße"
    message.set_content("Schöne Grüße\n.\n..\nEnde\n")
    got = []
    with Sessions(lambda message: got.append(message), *certificate.options) as sessions, Client(sessions) as client:
        assert client.starttls()[0] == 220
        client.send_message(message)
    (received,) = got
    assert received.sender == "jürgen@bücher.example"
    assert received.recipients == ["用户@例子.test"]
    assert received.params["SMTPUTF8"] is True
    assert received.parse()["Subject"] == "Grüße"
    assert received.parse().get_content() == message.get_content()
    assert "with UTF8SMTPS " in received.received


def test_only_public_names_are_needed():
    """What the contract above imports is what the package offers."""
    import preforksmtp

    names = {"Handler", "Message", "Reject", "Reply", "Session"}
    assert names <= set(preforksmtp.__all__)
    assert f"from preforksmtp import {', '.join(sorted(names))}" in APP
