"""handlers/forward/relay.py against a next hop that follows a script: what it is told, and what our client hears."""

from __future__ import annotations

import base64
import logging
import random
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from preforksmtp import Reject
from preforksmtp.handlers import Forward
from preforksmtp.handlers.forward.encoding import BLOCK, DataEncoder, original_recipient, xtext
from preforksmtp.server.app import AppError, load_app
from tests.certificates import make_certificate
from tests.handlers.fake import FakeMessage
from tests.handlers.forward.fakehop import CLOSE, KEYWORDS, SILENCE, FakeHop
from tests.processes import PATIENCE, wait_until
from tests.sessions import Sessions, reset

CONTENT = b"Subject: hello\r\n\r\nworld\r\n"
TRACE = re.compile(rb"Received: [^\r]*(?:\r\n\t[^\r]*)*\r\n")
ALL = (*KEYWORDS, "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "MT-PRIORITY", "REQUIRETLS")


class Client:
    """Our client: says lines, returns replies."""

    def __init__(self, sessions: Sessions) -> None:
        self.socket = sessions.begin()
        self.file = self.socket.makefile("rb")
        assert self.read().startswith("220")
        lmtp = sessions.service._terms[0].rules.lmtp
        self.keywords = self.ask("LHLO client.test" if lmtp else "EHLO client.test")

    def read(self) -> str:
        lines = [self.file.readline().decode()]
        while lines[-1][3:4] == "-":
            lines.append(self.file.readline().decode())
        return "".join(lines).replace("\r\n", "\n").rstrip("\n")

    def ask(self, line: str | bytes) -> str:
        self.socket.sendall((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.read()

    def begin(self, *recipients: str, params: str = "") -> None:
        assert self.ask(f"MAIL FROM:<a@example.com>{params}")[:3] == "250"
        for recipient in recipients or ("b@example.com",):
            assert self.ask(f"RCPT TO:<{recipient}>")[:3] == "250"

    def data(self, content: bytes = CONTENT) -> str:
        answer = self.ask("DATA")
        if answer[:3] != "354":
            return answer
        return self.ask(content.replace(b"\r\n.", b"\r\n..") + b".")

    def bdat(self, content: bytes) -> str:
        self.socket.sendall(b"BDAT %d LAST\r\n" % len(content) + content)
        return self.read()

    def send(self, *recipients: str, content: bytes = CONTENT, params: str = "") -> str:
        self.begin(*recipients, params=params)
        return self.data(content)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Front:
    """A session in front of a fake next hop, ready for MAIL."""

    def __init__(self, hop: FakeHop | int, *arguments: str, bind: str = "smtp://127.0.0.1:0", **options: Any) -> None:
        port = hop if isinstance(hop, int) else hop.port
        if isinstance(hop, FakeHop) and hop.lmtp:
            options["lmtp"] = True
        words = "".join(f", {name}={value!r}" for name, value in options.items())
        app = f"preforksmtp.handlers:Forward('127.0.0.1', {port}{words})"
        self.sessions = Sessions(app, *arguments, bind=bind)

    def __enter__(self) -> Client:
        self.sessions.__enter__()
        self.client = Client(self.sessions)
        return self.client

    def __exit__(self, *error: Any) -> None:
        self.client.close()
        self.sessions.__exit__(*error)


def body_of(raw: bytes) -> bytes:
    trace = TRACE.match(raw)
    assert trace is not None, raw[:300]
    return raw[trace.end() :]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- one message after the other


def test_a_transaction_is_said_to_the_next_hop_as_it_comes() -> None:
    script = {"MAIL": ["250 2.1.0 sender"], "RCPT": ["251 2.1.5 elsewhere"], ".": ["250 2.6.0 stored as 7"]}
    with FakeHop(script) as hop:  # type: ignore[arg-type]
        with Front(hop) as client:
            assert hop.connections == 0
            assert client.ask("MAIL FROM:<a@example.com>") == "250 2.1.0 sender"
            assert hop.commands == ["EHLO mx.test", "MAIL FROM:<a@example.com>"]
            assert client.ask("RCPT TO:<b@example.com>") == "251 2.1.5 elsewhere"
            assert hop.commands[-1] == "RCPT TO:<b@example.com>"
            assert client.data() == "250 2.6.0 stored as 7"
        hop.idle()
        assert hop.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
        assert [body_of(raw) for raw in hop.messages] == [CONTENT]


def test_the_connection_is_kept_with_rset_between() -> None:
    with FakeHop() as hop:
        with Front(hop) as client:
            client.begin()
            client.ask("RSET")
            for _ in range(2):
                assert client.send() == "250 2.0.0 Ok: stored"
        hop.idle()
        once = ["MAIL", "RCPT", "DATA"]
        assert hop.verbs() == ["EHLO", "MAIL", "RCPT", "RSET", *once, "RSET", *once, "QUIT"]
        assert hop.connections == 1


@pytest.mark.parametrize("goodbye", [b"", b"421 4.4.2 hop.test Error: timeout exceeded\r\n"], ids=["silent", "421"])
def test_an_idle_connection_that_the_next_hop_closed_is_opened_again(
    goodbye: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeHop() as hop, Front(hop) as client:
        client.send()
        kept = hop._open[0]
        if goodbye:
            kept.sendall(goodbye)
        kept.shutdown(socket.SHUT_RDWR)
        hop.idle()
        assert client.send() == "250 2.0.0 Ok: stored"
        assert (hop.connections, len(hop.messages)) == (2, 2)
        assert warnings(caplog) == []


def test_rset_that_is_refused_costs_the_connection_only() -> None:
    with FakeHop({"RSET": ["500 5.5.1 never heard of"]}) as hop, Front(hop) as client:
        client.send()
        assert client.send()[:3] == "250"
        assert hop.connections == 2


def test_a_hop_that_does_not_answer_quit_is_not_waited_for() -> None:
    with FakeHop({"QUIT": [SILENCE]}) as hop:
        with Front(hop, timeout=1000.0) as client:
            client.send()
        hop.idle()


def test_a_client_that_leaves_in_its_body_leaves_nothing_at_the_next_hop() -> None:
    with FakeHop() as hop:
        with Front(hop) as client:
            client.begin()
            client.ask("DATA")
            client.socket.sendall(b"Subject: half")
            reset(client.socket)
            client.file.close()
        hop.idle()
        assert hop.verbs() == ["EHLO", "MAIL", "RCPT", "QUIT"]
        assert hop.messages == hop.partial == []


# --- replies

REPLIES: list[tuple[object, str]] = [
    ("550 5.1.1 no such user", "550 5.1.1 no such user"),
    ("450 4.2.1 greylisted", "450 4.2.1 greylisted"),
    ("550 nothing enhanced", "550 5.7.1 nothing enhanced"),
    (b"550-5.7.1 first\r\n550-5.7.1 second\r\n550 5.7.1 third\r\n", "550-5.7.1 first\n550-5.7.1 second\n550 5.7.1 third"),
    (b"550 5.7.1 a\x07b\x1b[0m\xff\n", "550 5.7.1 a?b?[0m\\ufffd"),
    (b"550\r\n", "550 5.7.1"),
    (b"550-5.7.1 no\r\n550 10.5.6.7 see 4.2.1 of it\r\n", "550-5.7.1 no\n550 5.7.1 10.5.6.7 see 4.2.1 of it"),
    ("421 4.3.2 hop.test is tired", "451 4.3.2 hop.test is tired"),
    ("530 5.7.0 authenticate first", "451 4.4.1 The next hop does not accept mail from here now"),
    ("235 2.7.0 welcome", "451 4.5.0 The next hop does not speak proper SMTP"),
    ("221 2.0.0 bye", "451 4.5.0 The next hop does not speak proper SMTP"),
    ("354 go on", "451 4.5.0 The next hop does not speak proper SMTP"),
    ("600 what", "451 4.5.0 The next hop does not speak proper SMTP"),
    ("199 what", "451 4.5.0 The next hop does not speak proper SMTP"),
    ("garbage", "451 4.5.0 The next hop does not speak proper SMTP"),
    (b"\r\n", "451 4.5.0 The next hop does not speak proper SMTP"),
    (b"550x what\r\n", "451 4.5.0 The next hop does not speak proper SMTP"),
    (b"250-yes\r\n550 no\r\n", "451 4.5.0 The next hop does not speak proper SMTP"),
    (b"250 " + b"x" * 100_000, "451 4.5.0 The next hop does not speak proper SMTP"),
    (b"250-more\r\n" * 1000, "451 4.5.0 The next hop does not speak proper SMTP"),
    (CLOSE, "451 4.4.2 The connection to the next hop was lost"),
    (b"250-half", "451 4.4.2 The next hop does not answer in time"),
    (SILENCE, "451 4.4.2 The next hop does not answer in time"),
]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "."])
@pytest.mark.parametrize(("step", "heard"), REPLIES, ids=[str(step)[:30] for step, _ in REPLIES])
def test_replies(verb: str, step: object, heard: str, caplog: pytest.LogCaptureFixture) -> None:
    limit = 1.0 if heard.endswith("in time") else PATIENCE
    with FakeHop({verb: [step]}) as hop, Front(hop, timeout=limit, final_timeout=limit) as client:
        if verb == "MAIL":
            assert client.ask("MAIL FROM:<a@example.com>") == heard
        elif verb == "RCPT":
            client.ask("MAIL FROM:<a@example.com>")
            assert client.ask("RCPT TO:<b@example.com>") == heard
        else:
            assert client.send() == heard
        # 451 of our own making: one line in the log, a new connection, and the session goes on.
        failed = heard.startswith("451")
        assert len(warnings(caplog)) == failed, warnings(caplog)
        client.ask("RSET")
        assert client.send() == "250 2.0.0 Ok: stored"
        assert hop.connections == 1 + failed


@pytest.mark.parametrize(
    ("step", "heard"),
    [
        ("554 5.7.1 not today", "554 5.7.1 not today"),
        ("452 4.3.1 full", "452 4.3.1 full"),
        ("421 4.3.2 tired", "451 4.3.2 tired"),
        ("250 2.0.0 what?", "451 4.5.0 The next hop does not speak proper SMTP"),
        (CLOSE, "451 4.4.2 The connection to the next hop was lost"),
    ],
)
def test_replies_to_data(step: object, heard: str) -> None:
    with FakeHop({"DATA": [step]}) as hop, Front(hop) as client:
        assert client.send() == heard
        assert hop.messages == hop.partial == []
        assert client.send() == "250 2.0.0 Ok: stored"


def test_a_refused_recipient_is_not_in_the_way_of_the_others() -> None:
    with FakeHop({"RCPT": ["250 2.1.5 Ok", "550 5.1.1 nobody", "250 2.1.5 Ok"]}) as hop, Front(hop) as client:
        client.ask("MAIL FROM:<a@example.com>")
        assert [client.ask(f"RCPT TO:<{name}@example.com>")[:3] for name in "bcd"] == ["250", "550", "250"]
        assert client.data()[:3] == "250"


def test_a_connection_that_breaks_in_the_transaction_ends_it() -> None:
    with FakeHop({"RCPT": ["250 2.1.5 Ok", CLOSE]}) as hop, Front(hop) as client:
        client.begin()
        lost = "451 4.4.2 The connection to the next hop was lost"
        assert client.ask("RCPT TO:<c@example.com>") == lost
        assert client.ask("RCPT TO:<d@example.com>") == lost
        assert client.data() == lost
        assert hop.messages == []


def test_a_hop_that_closes_before_data_spares_the_client_its_body(caplog: pytest.LogCaptureFixture) -> None:
    with FakeHop() as hop, Front(hop) as client:
        client.begin()
        hop._open[0].shutdown(socket.SHUT_RDWR)
        hop.idle()
        assert client.ask("DATA") == "451 4.4.2 The connection to the next hop was lost"
        assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("goodbye", [b"", b"421 4.4.2 hop.test Error: timeout exceeded\r\n"], ids=["silent", "421"])
def test_a_hop_that_does_not_wait_for_the_body_is_told_again(goodbye: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with FakeHop() as hop, Front(hop) as client:
        client.begin("b@example.com", "c@example.com")
        assert client.ask("DATA")[:3] == "354"
        hop._open[0].sendall(goodbye)
        hop._open[0].shutdown(socket.SHUT_RDWR)
        hop.idle()
        assert client.ask(CONTENT + b".") == "250 2.0.0 Ok: stored"
        assert hop.commands[4:8] == hop.commands[:4]
        assert hop.verbs() == ["EHLO", "MAIL", "RCPT", "RCPT", "EHLO", "MAIL", "RCPT", "RCPT", "DATA"]
        assert [body_of(raw) for raw in hop.messages] == [CONTENT]
        assert warnings(caplog) == []


def test_a_hop_that_has_other_answers_then_gets_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with FakeHop({"RCPT": ["250 yes", "250 yes", "250 yes", "550 5.1.1 no"]}) as hop, Front(hop) as client:
        client.begin("b@example.com", "c@example.com")
        client.ask("DATA")
        hop._open[0].shutdown(socket.SHUT_RDWR)
        hop.idle()
        assert client.ask(CONTENT + b".") == "451 4.4.2 The connection to the next hop was lost"
        assert hop.messages == hop.partial == []
        assert len(warnings(caplog)) == 1
        assert "did not wait, and answers RCPT with 550 5.1.1 no now" in warnings(caplog)[0]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_a_reply_too_many_is_never_taken_for_the_next(verb: str) -> None:
    two = b"%d 2.0.0 yes\r\n250 2.0.0 yes\r\n" % (354 if verb == "DATA" else 250)
    nonsense = "451 4.5.0 The next hop does not speak proper SMTP"
    with FakeHop({verb: [two]}) as hop, Front(hop) as client:
        assert client.ask("MAIL FROM:<a@example.com>")[:3] == "250"
        to = client.ask("RCPT TO:<b@example.com>")
        assert to == nonsense if verb == "MAIL" else to[:3] == "250"
        if verb != "MAIL":
            assert client.data() == ("250 2.0.0 yes" if verb == "." else nonsense)
        assert len(hop.messages) == (verb == ".")
        # Whatever was left over is not believed by the next transaction either.
        hop.script["RCPT"] = ["550 5.1.1 no"]
        client.ask("RSET")
        client.ask("MAIL FROM:<a@example.com>")
        assert client.ask("RCPT TO:<b@example.com>") == "550 5.1.1 no"
        assert hop.connections == 2


@pytest.mark.parametrize(
    ("script", "heard"),
    [
        ({"GREETING": ["554 5.7.1 go away"]}, "451 4.4.1 The next hop does not accept mail now"),
        ({"GREETING": ["421 4.3.2 busy"]}, "451 4.4.1 The next hop does not accept mail now"),
        ({"GREETING": [CLOSE]}, "451 4.4.2 The connection to the next hop was lost"),
        ({"GREETING": [SILENCE]}, "451 4.4.2 The next hop does not answer in time"),
        ({"EHLO": ["421 4.3.2 busy"]}, "451 4.4.1 The next hop does not accept mail from here now"),
        ({"EHLO": [b"250-x\r\n" * 1000]}, "451 4.5.0 The next hop does not speak proper SMTP"),
        ({"EHLO": ["502 what"], "HELO": ["550 no"]}, "451 4.4.1 The next hop does not accept mail from here now"),
    ],
)
def test_no_good_beginning(script: Any, heard: str, caplog: pytest.LogCaptureFixture) -> None:
    limit = 1.0 if heard.endswith("in time") else PATIENCE
    with FakeHop(script) as hop, Front(hop, timeout=limit) as client:
        assert client.ask("MAIL FROM:<a@example.com>") == heard
        [line] = warnings(caplog)
        assert f"next hop 127.0.0.1:{hop.port}: " in line
        assert client.send() == "250 2.0.0 Ok: stored"


def test_helo_where_ehlo_is_not_known() -> None:
    with FakeHop({"EHLO": ["502 what"], "HELO": ["250 hop.test"]}) as hop, Front(hop) as client:
        assert client.send(params=" SIZE=100 BODY=8BITMIME")[:3] == "250"
        assert hop.commands[:3] == ["EHLO mx.test", "HELO mx.test", "MAIL FROM:<a@example.com>"]


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Front(port) as client:
        assert client.ask("MAIL FROM:<a@example.com>") == "451 4.4.1 The next hop cannot be reached"
        assert client.ask("NOOP")[:3] == "250"
        [line] = warnings(caplog)
        assert line.endswith(f"next hop 127.0.0.1:{port}: cannot connect: Connection refused")


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_next_hop_says_no_promise_is_made_that_it_did_not_make(seed: int) -> None:
    chance = random.Random(seed)
    yes, no = ["250 2.0.0 yes", "354 go"], ["550 5.1.1 no", "450 later", "421 bye", "nonsense", b"250-x\r\n" * 101, CLOSE]
    for _ in range(12):
        verbs = ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "."]
        script = {verb: [chance.choice(chance.choice([yes, no]))] for verb in chance.sample(verbs, 2)}
        front = Front(hop := FakeHop(script))  # type: ignore[arg-type]
        with hop, front as client:
            said = []
            for content in (b"one\r\n", b"two\r\n"):
                answers = [client.ask("MAIL FROM:<a@example.com>"), client.ask("RCPT TO:<b@example.com>")]
                answers.append(client.data(content))
                client.ask("RSET")
                assert all(re.match("[245]", answer) for answer in answers), (script, answers)
                if answers[2][0] == "2":
                    said.append(content)
            stored = [body_of(raw) for raw in hop.messages]
            assert set(said) <= set(stored), script
        assert front.sessions.logged(logging.ERROR) == [], script


# --- parameters


@pytest.mark.parametrize(
    ("keywords", "given", "told"),
    [
        ((), " SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x AUTH=<>", ""),
        (("SIZE",), " SIZE=1234", " SIZE=1234"),
        (("8BITMIME",), " BODY=7BIT", " BODY=7BIT"),
        (("8BITMIME",), " BODY=8BITMIME SIZE=5", " BODY=8BITMIME"),
        (("SMTPUTF8",), " SMTPUTF8", " SMTPUTF8"),
        (("DSN",), " RET=FULL ENVID=a+2Bb+3Dc+20d", " RET=FULL ENVID=a+2Bb+3Dc+20d"),
        (("DSN",), " RET=BODY ENVID=a=b", " ENVID=a+3Db"),
        (("DSN",), f" ENVID={'x' * 101}", ""),
        (("DSN",), " ENVID=j+C3+BCrg", ""),
        (("AUTH PLAIN",), " AUTH=e+3Dmc2@example.com", ""),  # we have not logged in
        (("BINARYMIME", "CHUNKING"), " BODY=BINARYMIME", " BODY=BINARYMIME"),
    ],
)
def test_parameters_of_mail(keywords: tuple[str, ...], given: str, told: str) -> None:
    with FakeHop(keywords=keywords) as hop, Front(hop) as client:
        assert client.ask(f"MAIL FROM:<a@example.com>{given}")[:3] == "250"
        assert hop.commands[-1] == f"MAIL FROM:<a@example.com>{told}"


@pytest.mark.parametrize(
    ("keywords", "given", "told"),
    [
        ((), " NOTIFY=NEVER ORCPT=rfc822;b@example.com", ""),
        (("DSN",), " NOTIFY=success,DELAY", " NOTIFY=SUCCESS,DELAY"),
        (("DSN",), " ORCPT=rfc822;a+2Bb@example.com", " ORCPT=rfc822;a+2Bb@example.com"),
        (("DSN",), " ORCPT=utf-8;\\x{FC}+2B\\x{5C}b@example.com", " ORCPT=utf-8;\\x{FC}\\x{2B}\\x{5C}b@example.com"),
        # not as Postfix writes it: RFC 6533 section 3
        (("DSN",), " ORCPT=rfc822;j+C3+BCrg@example.com", " ORCPT=utf-8;j\\x{FC}rg@example.com"),
        (("DSN",), " ORCPT=rfc822;a+2bb=c@example.com NOTIFY=DELAY,", " NOTIFY=DELAY ORCPT=rfc822;a+2Bb+3Dc@example.com"),
        (("DSN",), " ORCPT=x;j+C3+BCrg", " ORCPT=x;j+C3+BCrg"),
        (("DSN",), f" ORCPT=rfc822;{'x' * 500} NOTIFY=", ""),
    ],
)
def test_parameters_of_rcpt(keywords: tuple[str, ...], given: str, told: str) -> None:
    with FakeHop(keywords=keywords) as hop, Front(hop) as client:
        client.ask("MAIL FROM:<a@example.com>")
        assert client.ask(f"RCPT TO:<b@example.com>{given}")[:3] == "250"
        assert hop.commands[-1] == f"RCPT TO:<b@example.com>{told}"


def test_xtext() -> None:
    assert xtext("a+b=c d\u007f!~") == "a+2Bb+3Dc+20d+7F!~"
    assert original_recipient("utf-8;ü 用+=\\@x") == "utf-8;\\x{FC}\\x{20}\\x{7528}\\x{2B}\\x{3D}\\x{5C}@x"


def test_utf8_addresses() -> None:
    with FakeHop(keywords=ALL) as hop, Front(hop) as client:
        client.ask("MAIL FROM:<jürgen@example.com> SMTPUTF8")
        client.ask("RCPT TO:<用户@例子.example>")
        assert client.data("Subject: Grüße\r\n\r\n".encode())[:3] == "250"
        assert hop.commands[1:3] == ["MAIL FROM:<jürgen@example.com> SMTPUTF8", "RCPT TO:<用户@例子.example>"]
        assert "for <用户@例子.example>".encode() in hop.messages[0]


def test_addresses_with_joiners() -> None:
    with FakeHop(keywords=ALL) as hop, Front(hop) as client:
        assert client.ask("MAIL FROM:<a@example.com> SMTPUTF8")[:3] == "250"
        assert client.ask("RCPT TO:<\u0646\u0627\u0645\u0647\u200c\u0627\u06cc@example.com>")[:3] == "250"


def test_utf8_to_a_hop_that_does_not_know_it() -> None:
    with FakeHop() as hop, Front(hop) as client:
        assert client.ask("MAIL FROM:<jürgen@example.com> SMTPUTF8")[:9] == "550 5.6.7"
        client.begin(params=" SMTPUTF8")
        assert client.ask("RCPT TO:<jürgen@example.com>")[:9] == "550 5.6.7"
        assert client.data("Subject: Grüße\r\n\r\n".encode())[:9] == "550 5.6.9"
        assert client.send(params=" SMTPUTF8")[:3] == "250"
        assert len(hop.messages) == 1


def test_eight_bits_to_a_hop_that_has_seven() -> None:
    with FakeHop(keywords=()) as hop, Front(hop) as client:
        assert client.send(content="\r\nGrüße\r\n".encode(), params=" BODY=8BITMIME")[:9] == "554 5.6.3"
        assert client.send(content=CONTENT, params=" BODY=8BITMIME")[:3] == "250"
        assert len(hop.messages) == 1


def test_require_tls_needs_a_verified_next_hop_that_promises_as_much() -> None:
    for keywords in ((), ("REQUIRETLS",)):
        with FakeHop(keywords=keywords) as hop:
            handler = Forward("127.0.0.1", hop.port)(_session())
            with pytest.raises(Reject, match="550 5.7.30"):
                handler.mail("a@example.com", {"REQUIRETLS": True})
            assert hop.verbs() == ["EHLO"]
            handler.close()


def _session() -> Any:
    class Session:
        id, hostname, lmtp = "s1", "mx.test", False

    return Session()


def test_binary_content_goes_in_a_chunk_or_not_at_all() -> None:
    content = b"\r\n\r.\r\n.\r\n\0\xff\n" * 10_000 + b"no end"
    with FakeHop(keywords=ALL) as hop, Front(hop) as client:
        client.begin(params=" BODY=BINARYMIME")
        assert client.bdat(content) == "250 2.0.0 Ok: stored in a chunk"
        assert [body_of(raw) for raw in hop.messages] == [content]
        assert client.send()[:3] == "250"
    with FakeHop() as hop, Front(hop) as client:
        assert client.ask("MAIL FROM:<a@example.com> BODY=BINARYMIME")[:9] == "554 5.6.1"


@pytest.mark.parametrize("off", [-1, 1])
def test_a_chunk_that_is_not_as_long_as_announced_is_no_message(off: int) -> None:
    class Lying(FakeMessage):
        params = {"BODY": "BINARYMIME"}

        @property
        def size(self) -> int:
            return len(self.content) + off

    with FakeHop(keywords=ALL) as hop:
        handler = Forward("127.0.0.1", hop.port)(_session())
        handler.mail("a@example.com", Lying.params)
        handler.rcpt("b@example.com", {})
        with pytest.raises(OSError, match="not as long"):
            handler.message(Lying())  # type: ignore[arg-type]
        hop.idle()
        assert (len(hop.partial), hop.messages) == (1, [])


# --- the content

NASTY = [
    b"", b".", b".\r\n", b"..\r\n.\r\n..a\r\n", b"a\r\n.\r\n.\r\n\r\n.", b"a\n.\nb", b"a\r.\rb\r", b"\r\r\n.\r\r\n", b"\n\r\n\r.",
    b"x" * 100 + b"\r\n." * 50, b"\r\n" * 5, b"\xff\xfe\r\n.\xff", b"a\0b\r\n",
]  # fmt: skip


def receive(wire: bytes) -> bytes:
    """What a server that knows CRLF only takes from the wire; it must be all of it."""
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire)
    assert wire.endswith(b"\r\n.\r\n")
    body, _, rest = (b"\r\n" + wire).partition(b"\r\n.\r\n")
    assert rest == b""
    return (body + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]


@pytest.mark.parametrize("content", NASTY, ids=repr)
def test_encoded_content_is_the_same_wherever_the_borders_of_blocks_are(content: bytes) -> None:
    expected = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    if not expected.endswith(b"\r\n"):
        expected += b"\r\n"
    chance = random.Random(7)
    sizes = [[1] * len(content), [len(content)], *([chance.randint(1, 4) for _ in content] for _ in range(50))]
    for steps in sizes:
        encoder, wire, rest = DataEncoder(), encode_trace(), content
        wire = encoder.encode(wire)
        for step in steps:
            wire += encoder.encode(rest[:step])
            rest = rest[step:]
        assert rest == b""
        wire += encoder.finish() + b".\r\n"
        assert receive(wire) == encode_trace() + (expected if content else b"")


def encode_trace() -> bytes:
    return b"Received: by x\r\n"


@pytest.mark.parametrize(
    "content", [b"a\r\n\0.\r\n", b"\0.\r\n", b"a\n\0\0.\n", b"a\r\0.\r", b"a\r\n\0\r\n"], ids=repr
)
def test_a_line_that_begins_with_nul_is_refused(content: bytes) -> None:
    for size in (1, 2, 3, 100):
        encoder = DataEncoder()
        encoder.encode(encode_trace())
        with pytest.raises(Reject, match="554 5.6.0"):
            for at in range(0, len(content), size):
                encoder.encode(content[at : at + size])


EVIL = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\n\r\nevil"


@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\n", b"\r\n..\r\n"], ids=repr)
@pytest.mark.parametrize("arguments", [(), ("--bare-newlines", "accept")], ids=["", "accept"])
def test_nothing_is_smuggled(end: bytes, arguments: tuple[str, ...]) -> None:
    content = b"Subject: x\r\n\r\n" + b"y" * 65521 + end + EVIL + end + b"end\r\n"
    with FakeHop() as hop, Front(hop, *arguments) as client:
        client.begin()
        assert client.bdat(content)[:3] == "250"
        [raw] = hop.messages
        assert receive(raw + b".\r\n").count(b"evil") == 2
        assert hop.verbs() == ["EHLO", "MAIL", "RCPT", "DATA"]


def test_bare_newlines_in_data_become_crlf() -> None:
    with FakeHop() as hop, Front(hop, "--bare-newlines", "accept") as client:
        assert client.send(content=b"Subject: x\n\none\n.\ntwo\rthree\r\n")[:3] == "250"
        assert body_of(hop.messages[0]) == b"Subject: x\r\n\r\none\r\n..\r\ntwo\r\nthree\r\n"


def test_content_that_is_refused_on_the_way_is_no_message() -> None:
    content = b"x" * 200_000 + b"\r\n\0.\r\n"
    with FakeHop() as hop, Front(hop) as client:
        client.begin()
        assert client.bdat(content)[:9] == "554 5.6.0"
        hop.idle()
        assert hop.messages == []
        assert len(hop.partial) == 1
        assert client.send()[:3] == "250"


@pytest.mark.parametrize("size", [70, 8_000_000], ids=["small", "large"])
@pytest.mark.parametrize(
    ("step", "heard"),
    [("552 5.3.4 too large", "552 5.3.4 too large"), (CLOSE, "451 4.4.2"), ("421 4.3.2 no", "451 4.")],
    ids=["552", "closes", "421"],
)
def test_a_hop_that_ends_in_the_middle_of_the_content(step: object, heard: str, size: int) -> None:
    with FakeHop({"CONTENT": [step]}) as hop, Front(hop) as client:
        client.begin()
        assert client.data(b"x" * size + b"\r\n").startswith(heard)
        assert hop.messages == []
        assert client.send()[:3] == "250"


def test_a_loop_is_ended() -> None:
    with FakeHop() as hop, Front(hop) as client:
        for count, heard in ((101, "554 5.4.6"), (100, "250 2.0.0")):
            field = b"received: by x;\r\n\tMon\r\n"
            assert client.send(content=field * count + b"\r\nReceived: no\r\n")[:9] == heard
        # A piece of a long line that looks like the end of the header is not.
        long = b"X: " + b"x" * (BLOCK - 3) + b"\r\n"
        assert client.send(content=long + b"Received: by x\r\n" * 101)[:9] == "554 5.4.6"
        assert len(hop.messages) == 1


# --- LMTP


def test_plain_smtp_to_lmtp_has_one_recipient_at_a_time() -> None:
    with FakeHop({".": ["250 2.0.0 one", "452 4.2.2 full"]}, lmtp=True) as hop, Front(hop) as client:
        client.begin("b@example.com")
        assert client.ask("RCPT TO:<c@example.com>")[:9] == "452 4.5.3"
        assert client.data() == "250 2.0.0 one"
        client.begin("c@example.com")
        assert client.data() == "452 4.2.2 full"
        assert hop.commands[0] == "LHLO mx.test"
        assert [c for c in hop.commands if c.startswith("RCPT")] == ["RCPT TO:<b@example.com>", "RCPT TO:<c@example.com>"]


def test_one_recipient_means_one_that_was_accepted() -> None:
    with FakeHop({"RCPT": ["550 5.1.1 no"]}, lmtp=True) as hop, Front(hop) as client:
        client.ask("MAIL FROM:<a@example.com>")
        assert client.ask("RCPT TO:<b@example.com>") == "550 5.1.1 no"
        assert client.ask("RCPT TO:<c@example.com>")[:3] == "250"
        assert client.data()[:3] == "250"


def each(client: Client, count: int) -> list[str]:
    client.socket.sendall(b"DATA\r\n")
    assert client.read()[:3] == "354"
    client.socket.sendall(CONTENT + b".\r\n")
    return [client.read() for _ in range(count)]


def test_lmtp_to_lmtp_tells_each_recipient() -> None:
    script = {".": ["452 4.2.2 full", "250 2.0.0 two", "550 5.2.1 closed"]}
    with FakeHop(script, lmtp=True) as hop, Front(hop, bind="lmtp://127.0.0.1:0") as client:  # type: ignore[arg-type]
        client.begin("b@example.com", "c@example.com", "d@example.com")
        assert each(client, 3) == ["452 4.2.2 full", "250 2.0.0 two", "550 5.2.1 closed"]
        hop.script["."] = ["550 5.2.1 no", "450 4.2.1 later"]
        client.begin("b@example.com", "c@example.com")
        assert each(client, 2) == ["550 5.2.1 no", "450 4.2.1 later"]


def test_prdr_to_lmtp_tells_each_recipient() -> None:
    with FakeHop({".": ["550 5.2.1 no", "250 2.0.0 two"]}, lmtp=True) as hop, Front(hop) as client:
        assert "PRDR" in client.keywords
        client.begin("b@example.com", "c@example.com", params=" PRDR")
        assert [answer[:9] for answer in each(client, 4)] == ["353 PRDR:", "550 5.2.1", "250 2.0.0", "250 2.0.0"]


@pytest.mark.parametrize("step", [CLOSE, "421 4.3.2 tired", "nonsense"])
def test_lmtp_that_breaks_between_the_replies(step: object, caplog: pytest.LogCaptureFixture) -> None:
    with FakeHop({".": ["250 2.0.0 one", step]}, lmtp=True) as hop, Front(hop, bind="lmtp://127.0.0.1:0") as client:
        client.begin("b@example.com", "c@example.com", "d@example.com")
        first, second, third = each(client, 3)
        assert first == "250 2.0.0 one"
        assert second[:5] == third[:5] == "451 4"
        assert len(warnings(caplog)) == 1
        client.begin("b@example.com")
        assert each(client, 1) == ["250 2.0.0 Ok: stored"]


def test_a_recipient_named_twice_that_has_it_once_has_it() -> None:
    script = {".": ["250 2.0.0 one", "450 4.2.0 again?"]}
    with FakeHop(script, lmtp=True) as hop, Front(hop, bind="lmtp://127.0.0.1:0") as client:  # type: ignore[arg-type]
        client.begin("b@example.com", "b@example.com")
        assert each(client, 2) == ["250 2.0.0 one", "250 2.0.0 one"]


def test_lmtp_to_smtp_has_the_one_reply_for_all() -> None:
    with FakeHop({".": ["452 4.3.1 full"]}) as hop, Front(hop, bind="lmtp://127.0.0.1:0") as client:
        client.begin("b@example.com", "c@example.com")
        assert each(client, 2) == ["452 4.3.1 full"] * 2


def test_lmtp_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    with FakeHop(lmtp=True, path=path) as hop:
        with Sessions(f"preforksmtp.handlers:Forward({str(path)!r}, lmtp=True)") as sessions:
            client = Client(sessions)
            assert client.send()[:3] == "250"
            client.close()
        hop.idle()
        assert hop.verbs() == ["LHLO", "MAIL", "RCPT", "DATA", "QUIT"]


# --- TLS and AUTH


def test_octets_before_the_handshake_are_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    script = {"STARTTLS": [b"220 go\r\n250 you are under TLS now\r\n"]}
    with FakeHop(script, keywords=("STARTTLS",)) as hop, Front(hop) as client:  # type: ignore[arg-type]
        assert client.ask("MAIL FROM:<a@example.com>")[:9] == "451 4.7.4"
        assert "between its reply to STARTTLS and the handshake" in warnings(caplog)[0]
        assert hop.verbs() == ["EHLO", "STARTTLS"]


def test_what_was_said_before_the_handshake_is_forgotten(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certfile, certificate.keyfile)
    with FakeHop(keywords=("STARTTLS", "SIZE", "DSN"), tls=(context, ("8BITMIME",))) as hop, Front(hop) as client:
        for _ in range(2):  # tickets come unasked, and are not mistaken for replies
            assert client.send(params=" SIZE=100 RET=FULL BODY=8BITMIME")[:3] == "250"
        assert hop.verbs()[:3] == ["EHLO", "STARTTLS", "EHLO"]
        assert hop.commands[3] == "MAIL FROM:<a@example.com> BODY=8BITMIME"
        assert (hop.connections, len(hop.messages)) == (1, 2)


def test_the_password_is_not_in_what_is_printed(password_file: str) -> None:
    assert "wörd" not in repr(Forward("x", username="me", password_file=password_file))


def test_opportunistic_is_content_without() -> None:
    with FakeHop({"STARTTLS": ["454 4.7.0 not now"]}, keywords=("STARTTLS",)) as hop, Front(hop) as client:
        assert client.send()[:3] == "250"
    with FakeHop() as hop, Front(hop) as client:
        assert client.send()[:3] == "250"


@pytest.mark.parametrize(("keywords", "steps"), [((), []), (("STARTTLS",), ["454 4.7.0 not now"])])
def test_require_is_not(keywords: tuple[str, ...], steps: list[object]) -> None:
    with FakeHop({"STARTTLS": steps}, keywords=keywords) as hop, Front(hop, tls="require") as client:
        assert client.ask("MAIL FROM:<a@example.com>")[:9] == "451 4.7.4"
        assert "MAIL" not in hop.verbs()


def test_never_does_not_ask() -> None:
    with FakeHop(keywords=("STARTTLS",)) as hop, Front(hop, tls="never") as client:
        assert client.send()[:3] == "250"
        assert "STARTTLS" not in hop.verbs()


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    (tmp_path / "password").write_text("pass wörd\nnot this\n")
    return str(tmp_path / "password")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("offer", "script", "commands"),
    [
        ("AUTH LOGIN PLAIN", {"AUTH": ["235 2.7.0 Ok"]}, [f"AUTH PLAIN {encoded(chr(0) + 'me' + chr(0) + 'pass wörd')}"]),
        (
            "AUTH LOGIN",
            {"AUTH": ["334 VXNlcm5hbWU6"], encoded("me"): ["334 UGFzc3dvcmQ6"], encoded("pass wörd"): ["235 2.7.0 Ok"]},
            ["AUTH LOGIN", encoded("me"), encoded("pass wörd")],
        ),
    ],
)
def test_login(offer: str, script: Any, commands: list[str], password_file: str) -> None:
    login = {"tls": "never", "username": "me", "password_file": password_file}
    with FakeHop(script, keywords=(offer,)) as hop, Front(hop, **login) as client:
        # Who submitted it first, to a server that knows us; here of a client that nobody vouches for.
        assert client.send(params=" AUTH=c@example.com")[:3] == "250"
        assert hop.commands[1:-3] == commands
        assert hop.commands[-3] == "MAIL FROM:<a@example.com> AUTH=<>"


@pytest.mark.parametrize(
    ("offer", "script"),
    [("AUTH PLAIN", {"AUTH": ["535 5.7.8 wrong"]}), ("AUTH CRAM-MD5", {}), ("SIZE", {}), ("AUTH LOGIN", {"AUTH": ["250 what"]})],
)
def test_no_login(offer: str, script: Any, password_file: str, caplog: pytest.LogCaptureFixture) -> None:
    login = {"tls": "never", "username": "me", "password_file": password_file}
    with FakeHop(script, keywords=(offer,)) as hop, Front(hop, **login) as client:
        assert client.ask("MAIL FROM:<a@example.com>") == "451 4.7.0 The next hop does not accept our login"
        assert len(warnings(caplog)) == 1
        assert "MAIL" not in hop.verbs()


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("''", "host"),
        ("'a b'", "host"),
        ("5", "host"),
        ("'x', 0", "port"),
        ("'x', 65536", "port"),
        ("'x', '25'", "port"),
        ("'x', True", "port"),
        ("'x', timeout=0", "timeout"),
        ("'x', timeout='1'", "timeout"),
        ("'x', final_timeout=-1", "final_timeout"),
        ("'x', hostname='a b'", "hostname"),
        ("'x', tls='yes'", "tls 'yes' is none of"),
        ("'x', tls='never', verify=True", "without TLS"),
        ("'x', cafile='/x'", "verify=True"),
        ("'x', tls='require', cafile='/nonexistent'", "cannot read cafile"),
        ("'/x', tls='require'", "unix socket"),
        ("'x', username='u'", "password_file"),
        ("'x', password_file='/x'", "username"),
        ("'x', username='u', password_file='/nonexistent'", "cannot read password_file"),
        ("'x', username='u', password_file='/dev/null'", "no password"),
        ("'x', tls='never', username='u', password_file='/dev/null'", "in clear"),
        ("'x', tls='opportunistic', username='u', password_file='/dev/null'", "tls must be"),
        ("'x', nonsense=1", "nonsense"),
        ("", "host"),
    ],
)
def test_wrong_arguments_fail_at_the_start(arguments: str, why: str) -> None:
    with pytest.raises(AppError, match=why) as failure:
        load_app(f"preforksmtp.handlers:Forward({arguments})")
    assert "ValueError: Forward: " in str(failure.value) or "TypeError" in str(failure.value)


def test_an_address_in_brackets() -> None:
    assert Forward("[::1]", 25).args[0].host == "::1"


def test_right_arguments_do_not_connect() -> None:
    with FakeHop() as hop:
        hooks = load_app(f"preforksmtp.handlers:Forward('127.0.0.1', {hop.port}, tls='require')")
        assert {"mail", "rcpt", "data", "message", "close"} == hooks.has
        assert hop.connections == 0
        assert str(Forward("mx.example.com", tls="implicit", server_name="other.example.com").args[0])[-4:] == ":465"
        assert str(Forward("::1").args[0]) == "[::1]:25"
        assert str(Forward("mx.example.com", lmtp=True, tls="never").args[0]) == "mx.example.com:24"
        assert str(Forward("run/lmtp", lmtp=True).args[0]) == "run/lmtp"


def test_every_session_has_a_connection_of_its_own() -> None:
    with FakeHop() as hop:
        front = Front(hop)
        with front as first:
            second = Client(front.sessions)
            first.begin()
            second.begin("c@example.com")
            assert (first.data()[:3], second.data()[:3]) == ("250", "250")
            assert hop.connections == 2
            second.close()
        wait_until(lambda: hop.ended == 2, "both have said goodbye")
