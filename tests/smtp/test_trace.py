"""smtp/trace.py: the trace field (RFC 5321 section 4.4, RFC 3848, RFC 6531 section 4.3)."""

from __future__ import annotations

import re
from email.parser import HeaderParser
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import pytest

from preforksmtp.smtp.message import Message
from preforksmtp.smtp.session import Endpoint, Session
from preforksmtp.smtp.trace import protocol
from preforksmtp.smtp.transaction import Recipient, Transaction


def message(recipients=("b@c",), peer=Endpoint("192.0.2.1", 4000), params=None, **facts):
    session = Session("s1", peer, lambda: Endpoint("192.0.2.2", 25), "", "mx.test")
    for name, value in {"helo": "client.example", "esmtp": True, **facts}.items():
        setattr(session, name, value)
    transaction = Transaction("s1-1", "a@b", params or {}, 0.0)
    transaction.recipients = [Recipient(recipient, {}) for recipient in recipients]
    return Message(session, transaction, 1795852800.0, b"", None, 0)


def trace_field(message):
    return message.received


TLS = SimpleNamespace(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "SMTP"),
        ({"esmtp": 1}, "ESMTP"),
        ({"esmtp": 1, "tls": 1}, "ESMTPS"),
        ({"esmtp": 1, "authenticated": 1}, "ESMTPA"),
        ({"esmtp": 1, "tls": 1, "authenticated": 1}, "ESMTPSA"),
        ({"tls": 1}, "ESMTPS"),
        ({"esmtp": 1, "utf8": 1}, "UTF8SMTP"),
        ({"esmtp": 1, "utf8": 1, "tls": 1, "authenticated": 1}, "UTF8SMTPSA"),
        ({"lmtp": 1}, "LMTP"),
        ({"lmtp": 1, "tls": 1, "authenticated": 1}, "LMTPSA"),
        ({"lmtp": 1, "utf8": 1}, "UTF8LMTP"),
    ],
)
def test_protocol(facts, name):
    assert (
        protocol(**{"lmtp": False, "esmtp": False, "utf8": False, "tls": False, "authenticated": False, **facts})
        == name
    )


def test_the_whole_field():
    lines = trace_field(message()).split("\r\n")
    assert lines[:3] == [
        "Received: from client.example ([192.0.2.1])",
        "\tby mx.test (preforksmtp) with ESMTP",
        "\tid s1-1 for <b@c>;",
    ]
    assert re.fullmatch(r"\t\w{3}, \d\d \w{3} 2026 \d\d:\d\d:\d\d [+-]\d{4}", lines[3])
    assert parsedate_to_datetime(lines[3]).timestamp() == 1795852800.0
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("facts", "start"),
    [
        ({"peer": Endpoint("2001:db8::1", 4000)}, "from client.example ([IPv6:2001:db8::1])"),
        ({"peer": Endpoint("unix", 0)}, "from client.example\r\n"),
        ({"reverse_dns": "pool.example"}, "from client.example (pool.example [192.0.2.1])"),
        ({"helo": "[192.0.2.1]"}, "from [192.0.2.1] ([192.0.2.1])"),
        ({"helo": ""}, "from unknown ([192.0.2.1])"),
    ],
)
def test_from(facts, start):
    assert trace_field(message(**facts)).startswith(f"Received: {start}")


def test_tls_and_auth():
    assert "with ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n" in trace_field(message(tls=TLS, user="alice"))
    assert "alice" not in trace_field(message(tls=TLS, user="alice"))
    assert "with UTF8SMTP\r\n" in trace_field(message(params={"SMTPUTF8": True}))
    assert "with LMTP\r\n" in trace_field(message(lmtp=True))


@pytest.mark.parametrize("recipients", [(), ("b@c", "secret@d")])
def test_blind_copies_are_not_shown(recipients):
    """RFC 5321 section 7.6."""
    assert "for <" not in trace_field(message(recipients))


def test_the_priority_asked_for_is_told():
    """RFC 6710."""
    assert trace_field(message(params={"MT-PRIORITY": -3})).split("\r\n")[2].endswith(" PRIORITY -3;")


def test_it_is_one_field_for_a_parser():
    parsed = HeaderParser().parsestr(trace_field(message(tls=TLS)) + "\r\nSubject: x\r\n\r\n")
    assert parsed.keys() == ["Received", "Subject"]
