"""The line of a whole session."""

from __future__ import annotations

import json

from preforksmtp.logs.error import format_time
from preforksmtp.logs.sessions import SessionRecord, json_line, text_line

RECORD = SessionRecord(
    time=1795852800.0, session_id="S1", peer_host="192.0.2.7", peer_port=40000, bind="smtp://:25",
    helo="client.example", tls="TLSv1.3", user="alice", commands={"EHLO": 1, "MAIL": 2, "RCPT": 5, "QUIT": 1},
    refusals={"RCPT": 2, "": 3}, messages=2, received=3456, sent=789, seconds=1.2344, end="quit", worker=3,
)  # fmt: skip


def test_text():
    assert text_line(RECORD) == (
        f"{format_time(RECORD.time)} session=S1 peer=[192.0.2.7]:40000 bind=smtp://:25 helo=client.example "
        "tls=TLSv1.3 user=alice ehlo=1 mail=2 rcpt=3/5 quit=1 commands=7/9 messages=2 in=3456 out=789 time=1.234 "
        "end=quit\n"
    )


def test_nothing():
    assert text_line(SessionRecord(time=RECORD.time, end="left")).endswith(
        " session= peer=[]:- bind=- helo=- tls=- user=- commands=0 messages=0 in=0 out=0 time=0.000 end=left\n"
    )


def test_more_refused_than_given():
    """A body that is refused counts as its DATA."""
    line = text_line(SessionRecord(commands={"DATA": 1}, refusals={"DATA": 2}))
    assert " data=0/1 commands=0/1 " in line


def test_what_a_client_says_cannot_forge_a_field():
    line = text_line(SessionRecord(helo="x end=quit\r\nsession=2", user='a "b"'))
    assert line.count("\n") == 1
    assert line.count(" end=") == 1
    assert r"user=a\x20\x22b\x22" in line


def test_json():
    fields = json.loads(json_line(RECORD))
    assert fields["session"] == "S1"
    assert fields["commands"] == {"ehlo": 1, "mail": 2, "rcpt": 5, "quit": 1}
    assert fields["refused"] == {"rcpt": 2, "": 3}
    assert (fields["in"], fields["out"], fields["end"]) == (3456, 789, "quit")
