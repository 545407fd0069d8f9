"""What is counted and said where somebody looks: refusals by stage, limits, hooks, octets, and the line of a session."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from preforksmtp import Handler, Reject
from preforksmtp.connection.journal import Deferrals, SessionJournal
from preforksmtp.connection.observed import ObservedJournal, SummingJournal
from tests.fakes import recording
from tests.sessions import Sessions, hear

EHLO = b"EHLO c.test\r\n"
OPEN = EHLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
MESSAGE = OPEN + b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n"
QUIT = b"QUIT\r\n"


def run(sessions: Sessions, sent: bytes) -> str:
    """All that the server says to one session, and its end."""
    with sessions.begin() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        said = hear(client)
    sessions.over()
    return said


def observe(handler: object, sent: bytes, *arguments: str, journal: type[SessionJournal] = ObservedJournal) -> dict[str, int]:
    with Sessions(handler, *arguments, journal=journal) as sessions:
        run(sessions, sent)
        return sessions.tallies()


def refusing(hook: str, answer: Exception) -> object:
    return recording(**{"message": None, hook: answer})


@pytest.mark.parametrize(
    ("handler", "arguments", "sent", "wanted"),
    [
        (recording(message=None), (), MESSAGE + QUIT, {}),
        (refusing("rcpt", Reject(550, "5.1.1 no")), (), OPEN + OPEN[len(EHLO):] + QUIT,
         {"refused rcpt 550 5.1.1": 2, "refused mail 503 5.5.1": 1}),
        (refusing("mail", Reject(451, "4.7.1 x")), (), EHLO + b"mail from:<a@b>\r\n" + QUIT,
         {"refused mail 451 4.7.1": 1}),
        (refusing("connect", Reject(554, "5.7.1 x")), (), QUIT, {"refused connect 554 5.7.1": 1}),
        (refusing("helo", Reject(550, "x")), (), EHLO + QUIT, {"refused helo 550 5.7.1": 1}),
        (refusing("data", Reject(554, "x")), (), MESSAGE[:-len(b"Subject: x\r\n\r\nhello\r\n.\r\n")] + QUIT,
         {"refused data 554 5.7.1": 1}),
        (refusing("message", Reject(450, "x")), (), MESSAGE + QUIT, {"refused message 450 4.2.0": 1}),
        (recording(message=None), (), b"XYZZY\r\nVRFY\r\n" + QUIT,
         {"refused command 500 5.5.1": 1, "refused command 501 5.5.4": 1}),
        (recording(message=None), ("--max-errors", "1"), b"XYZZY\r\n" * 2,
         {"refused command 500 5.5.1": 2, "refused session 421 4.7.0": 1, "limit max_errors": 1}),
        (recording(message=None), ("--max-message-size", "5"), MESSAGE + QUIT,
         {"refused message 552 5.3.4": 1, "limit max_message_size": 1}),
        (recording(message=None), ("--max-recipients", "1"), OPEN + b"RCPT TO:<e@f>\r\n" + QUIT,
         {"refused rcpt 452 4.5.3": 1, "limit max_recipients": 1}),
        (recording(message=None, authenticate=False), ("--allow-insecure-auth", "--auth-failure-delay", "0"),
         EHLO + b"AUTH PLAIN AHUAcA==\r\n" + QUIT, {"refused auth 535 5.7.8": 1}),
    ],
)  # fmt: skip
def test_refusals(handler, arguments, sent, wanted):
    found = observe(handler, sent, *arguments)
    assert {key: n for key, n in found.items() if key.startswith(("refused", "limit"))} == wanted


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (OPEN + b"RSET\r\n" + QUIT, {"accepted mail": 1, "accepted rcpt": 1}),
        (EHLO + b"MAIL FROM:<a@b>\r\n" + QUIT, {"accepted mail": 1}),
        (OPEN + b"RCPT TO:<e@f>\r\n", {"accepted mail": 1, "accepted rcpt": 2}),
        (MESSAGE + QUIT, {}),
    ],
)
def test_a_transaction_that_comes_to_nothing_was_accepted_too(sent, wanted):
    found = observe(recording(message=None), sent)
    assert {key: n for key, n in found.items() if key.startswith("accepted")} == wanted


@pytest.mark.parametrize(
    ("sent", "arguments", "end"),
    [
        (MESSAGE + QUIT, (), "quit"),
        (MESSAGE, (), "left"),
        (b"XYZZY\r\n" * 3, ("--max-errors", "1"), "limit"),
    ],
)
def test_how_sessions_end(sent, arguments, end):
    with Sessions(recording(message=None), *arguments, journal=ObservedJournal) as sessions:
        run(sessions, sent)
        found = {key: n for key, n in sessions.tallies().items() if key.startswith("ended")}
        assert (found, sessions.count("quits")) == (({}, 1) if end == "quit" else ({f"ended {end}": 1}, 0))


def test_a_timeout_by_its_setting():
    with Sessions(recording(message=None), "--command-timeout", "0.05", journal=ObservedJournal) as sessions:
        with sessions.begin() as client:
            hear(client)
        sessions.over()
        found = sessions.tallies()
    assert found["timeout command_timeout"] == 1
    assert found["ended timeout"] == 1


def test_octets_are_those_of_the_client():
    with Sessions(recording(message=None), journal=ObservedJournal) as sessions:
        said = run(sessions, MESSAGE + QUIT)
        assert sessions.count("octets_in") == len(MESSAGE + QUIT)
        assert sessions.count("octets_out") == len(said)


def test_hooks_are_timed_and_their_faults_counted():
    found = observe(refusing("rcpt", OSError("x")), OPEN + QUIT)
    assert sum(n for key, n in found.items() if key.startswith("hook rcpt ")) == 1
    assert found["hook_ns rcpt"] > 0
    assert found["hook_error rcpt"] == 1


class Failing(Handler):
    def message(self, message):
        try:
            raise ConnectionError("the database\nis gone")
        except ConnectionError as error:
            raise Reject(451, "4.3.0 try later") from error


def test_a_deferral_with_a_cause_is_an_error_line_now_and_then():
    with Sessions(Failing, journal=ObservedJournal) as sessions:
        for _ in range(3):
            run(sessions, MESSAGE + QUIT)
        assert sessions.tallies()["hook_deferred message"] == 3
        lines = [record for record in sessions.records if record.levelname == "ERROR"]
    assert len(lines) == 1
    text = lines[0].getMessage()
    assert text.endswith("the handler's message answered 451 4.3.0 try later because of ConnectionError: the database\nis gone")


def test_deferrals_are_told_of_once_a_minute():
    now = [0.0]
    deferrals = Deferrals(lambda: now[0])
    assert [deferrals.due("a") for _ in range(3)] == [1, 0, 0]
    assert deferrals.due("b") == 1
    now[0] = 60.0
    assert deferrals.due("a") == 3


# --- lines


@pytest.mark.parametrize("journal", [SessionJournal, ObservedJournal])
def test_refused_recipients_and_senders_are_lines(journal):
    handler = recording(message=None, rcpt=Reject(550, "5.1.1 no such user"))
    with Sessions(handler, journal=journal) as sessions:
        run(sessions, EHLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\nMAIL FROM:<\r\n" + QUIT)
        lines = [record.getMessage() for record in sessions.records if record.getMessage().startswith("refused")]
        fields = [record.fields for record in sessions.records if hasattr(record, "stage") or hasattr(record, "fields")]
    assert len(lines) == 2
    assert "stage=rcpt" in lines[0]
    assert 'helo=c.test user=- stage=rcpt reply="550 5.1.1 no such user" from=<a@b> to=<c@d>' in lines[0]
    assert "stage=mail" in lines[1]
    assert fields[0]["recipient"] == "c@d"
    assert fields[0]["code"] == 550


def test_a_client_cannot_forge_a_field_of_such_a_line():
    handler = recording(message=None, rcpt=Reject(550, "no"))
    with Sessions(handler) as sessions:
        run(sessions, OPEN[:-len(b"RCPT TO:<c@d>\r\n")] + b'RCPT TO:<"x> peer=[192.0.2.1]:25 <y"@d>\r\n' + QUIT)
        (line,) = [record.getMessage() for record in sessions.records if record.getMessage().startswith("refused")]
    assert line.count(" peer=[") == 1


AUTH = ("--allow-insecure-auth", "--auth-failure-delay", "0")


@pytest.mark.parametrize(
    ("hook", "line", "wanted"),
    [
        ({"authenticate": True}, b"AUTH PLAIN AHUAcA==", "auth ok session=%s peer=[127.0.0.1]:%d mechanism=PLAIN user=u"),
        ({"authenticate": False}, b"AUTH PLAIN AHUAcA==", "auth failed session=%s peer=[127.0.0.1]:%d mechanism=PLAIN user=u"),
        # "my pass word!" where the name belongs
        ({"authenticate": False}, b"AUTH PLAIN AG15IHBhc3Mgd29yZCEAcA==", "auth failed session=%s peer=[127.0.0.1]:%d mechanism=PLAIN user=-"),
        ({"password": None}, b"AUTH PLAIN AHUAcA==", "auth failed session=%s peer=[127.0.0.1]:%d mechanism=PLAIN user=-"),
        ({"password": "other"}, b"AUTH PLAIN AHUAcA==", "auth failed session=%s peer=[127.0.0.1]:%d mechanism=PLAIN user=u"),
    ],
)  # fmt: skip
def test_auth_is_a_line(hook, line, wanted):
    with Sessions(recording(message=None, **hook), *AUTH) as sessions:
        run(sessions, EHLO + line + b"\r\n" + QUIT)
        (found,) = [record for record in sessions.records if record.getMessage().startswith("auth ")]
    fields = found.fields
    assert found.getMessage() == wanted % (fields["session"], fields["port"])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_line_of_a_session(tmp_path: Path, log_format: str):
    handler = recording(message=None, rcpt=Reject(550, "5.1.1 no"))
    arguments = ("--log-format", log_format)
    with Sessions(handler, *arguments, folder=tmp_path, journal=SummingJournal) as sessions:
        said = run(sessions, EHLO + b"MAIL FROM:<a@b>\r\n" + b"rcpt to:<c@d>\r\n" * 2 + b"XYZZY\r\n" + QUIT)
        (line,) = (tmp_path / "access.log").read_text().splitlines()
    if log_format == "json":
        fields = json.loads(line)
        assert (fields["commands"], fields["refused"]) == (
            {"ehlo": 1, "mail": 1, "rcpt": 2, "quit": 1}, {"rcpt": 2, "": 1},
        )  # fmt: skip
        assert (fields["end"], fields["out"], fields["messages"]) == ("quit", len(said), 0)
    else:
        assert "helo=c.test tls=- user=- ehlo=1 mail=1 rcpt=0/2 quit=1 commands=3/5 messages=0 in=" in line
        assert line.endswith(" end=quit")
