"""smtp/xclient.py: what trusted peers may say of their client, and that nobody else may."""

from __future__ import annotations

import ipaddress
import random

import pytest

from preforksmtp import Reject
from preforksmtp.smtp.session import NOTHING, Endpoint
from preforksmtp.smtp.xclient import XCLIENT_ATTRIBUTES
from tests.fakes import recording, talk
from tests.smtp.test_lenient import STAMP

EHLO = "EHLO proxy.test"


def trusted(*lines, handler=None, **options):
    def trust(dialogue):
        dialogue.xclient = dialogue.xforward = True

    return talk([EHLO, *lines], handler, before=trust, **options)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("XCLIENT ADDR=198.51.100.7 PORT=99", {"peer": Endpoint("198.51.100.7", 99)}),
        ("xclient addr=198.51.100.7", {"peer": Endpoint("198.51.100.7", 0)}),
        ("XCLIENT ADDR=IPV6:2001:DB8::7 PORT=1", {"peer": Endpoint("2001:db8::7", 1)}),
        ("XCLIENT PORT=7", {"peer": Endpoint("192.0.2.1", 7)}),
        ("XCLIENT NAME=pool.example ADDR=198.51.100.7", {"reverse_dns": "pool.example"}),
        ("XCLIENT NAME=[UNAVAILABLE] ADDR=198.51.100.7", {"reverse_dns": ""}),
        ("XCLIENT ADDR=[UNAVAILABLE]", {"peer": Endpoint("192.0.2.1", 0)}),
        ("XCLIENT HELO=c.example PROTO=ESMTP", {"helo": "c.example", "esmtp": True}),
        ("XCLIENT HELO=c.example PROTO=SMTP", {"helo": "c.example", "esmtp": False}),
        ("XCLIENT LOGIN=alice", {"user": "alice"}),
        ("XCLIENT LOGIN=a+40b", {"user": "a@b"}),
        ("XCLIENT LOGIN=[UNAVAILABLE]", {"user": None}),
        ("XCLIENT DESTADDR=198.51.100.1 DESTPORT=26", {"local": Endpoint("198.51.100.1", 26)}),
        ("XCLIENT DESTPORT=26", {"local": Endpoint("192.0.2.2", 26)}),
        # each for itself: what a client chose is no reason to refuse what its proxy says
        ("XCLIENT HELO=-odd- ADDR=198.51.100.7 LOGIN=a", {"helo": "-odd-", "peer": Endpoint("198.51.100.7", 0), "user": "a"}),
        ("XCLIENT HELO=my+20computer", {"helo": "my computer"}),
        ("XCLIENT HELO=host(x)", {"helo": "host(x)"}),
        ("XCLIENT HELO=<x>", {"helo": "<x>"}),
        ("XCLIENT HELO=M+c3+9cLLER", {"helo": "MÜLLER"}),
        ("XCLIENT HELO=M+DCLLER", {"helo": "M\ufffdLLER"}),
        ("XCLIENT HELO=a=b", {"helo": "a=b"}),
        ("XCLIENT HELO=evil+0D+0Aname LOGIN=a", {"helo": "", "user": "a"}),
        ("XCLIENT NAME=my+20computer LOGIN=a", {"reverse_dns": "", "user": "a"}),
        ("XCLIENT NAME=evil+0Aname ADDR=198.51.100.7", {"reverse_dns": ""}),
        ("XCLIENT NAME=a_b LOGIN=a", {"reverse_dns": "", "user": "a"}),
        ("XCLIENT NAME=b\u00fccher.example LOGIN=a", {"reverse_dns": "", "user": "a"}),
        ("XCLIENT PROTO=QMQP LOGIN=a", {"esmtp": False, "user": "a"}),
        ("XCLIENT LOGIN=a+00b", {"user": None}),
        ("XCLIENT LOGIN=joe+tag@x", {"user": "joe+tag@x"}),  # not encoded
        ("XCLIENT LOGIN=joe+2Btag", {"user": "joe+tag"}),
        # a scope may be any text (RFC 4007 section 11.2)
        ("XCLIENT ADDR=IPV6:fe80::1%eth0 PORT=9", {"peer": Endpoint("fe80::1", 9)}),
        ("XCLIENT ADDR=fe80::1%25)+20by+20evil+20(", {"peer": Endpoint("fe80::1", 0)}),
        ("XCLIENT DESTADDR=fe80::1%eth0", {"local": Endpoint("fe80::1", 25)}),
    ],
)
def test_xclient(line, facts):
    spoken = trusted(line)
    assert spoken.replies[1] == "220 mx.test ESMTP preforksmtp"
    assert {name: getattr(spoken.session, name) for name in facts} == facts


@pytest.mark.parametrize(
    "line",
    [
        "FOO=x",
        "ADDR",
        "ADDR=",
        "ADDR=x",
        "ADDR=300.1.1.1",
        "ADDR=1.2.3.4+0D+0A",
        "PORT=x",
        "PORT=65536",
        "PORT=-1",
        "NAME=",
        "HELO=c.example ADDR=x",
        "ADDR=1.2.3.4%eth0",
        "ADDR=%eth0",
        "LOGIN",
        "DESTADDR=x",
        "DESTPORT=99999",
        "ADDR=192.0.2.7 addr=192.0.2.7",
        "NAME=[UNAVAILABLE] NAME=a.example",
        "",
    ],
)
@pytest.mark.parametrize("command", ["XCLIENT", "XFORWARD"])
def test_bad_attributes(command, line):
    """A trusted peer may pass on what an untrusted one chose."""
    spoken = trusted(f"{command} {line}", "NOOP")
    assert spoken.codes[1:] == [501, 250]
    assert spoken.session.peer == Endpoint("192.0.2.1", 4000)
    assert spoken.session.xforward == NOTHING


@pytest.mark.parametrize("command", ["XCLIENT ADDR=198.51.100.7", "XFORWARD ADDR=198.51.100.7"])
def test_nobody_else(command):
    spoken = talk([EHLO, command])
    assert spoken.replies[1].startswith("550 5.7.0")
    assert spoken.session.peer.host == "192.0.2.1"
    assert command.split()[0] not in spoken.replies[0]


def test_xclient_begins_the_session_anew():
    handler = recording(message=None, connect=None, close=None, authenticate=True)
    spoken = trusted(
        "AUTH PLAIN AHUAcA==",
        "XCLIENT ADDR=198.51.100.7",
        "MAIL FROM:<a@b>",
        EHLO,
        handler=handler,
        allow_insecure_auth=True,
    )
    assert spoken.codes == [250, 235, 220, 503, 250]
    assert spoken.session.user is None
    assert [event[0] for event in handler.events] == ["connect", "authenticate", "close", "connect", "close"]


@pytest.mark.parametrize(
    ("refusal", "codes"), [(Reject(554, "5.7.1 no"), [554, 503]), (Reject(421, "4.7.0 no"), [421])]
)
def test_the_new_client_may_be_refused(refusal, codes):
    def connect(handler):
        if handler.session.peer.host == "198.51.100.7":
            raise refusal

    spoken = trusted("XCLIENT ADDR=198.51.100.7", "NOOP", handler=recording(message=None, connect=connect))
    assert spoken.codes[1:] == codes


@pytest.mark.parametrize("command", ["XCLIENT ADDR=198.51.100.7", "XFORWARD ADDR=198.51.100.7"])
def test_not_in_a_transaction(command):
    assert trusted("MAIL FROM:<a@b>", command).codes[2] == 503


def test_xforward_is_noted_for_one_message():
    seen = []
    spoken = trusted(
        "XFORWARD NAME=c.example ADDR=198.51.100.7",
        "XFORWARD IDENT=42 SOURCE=REMOTE",
        "MAIL FROM:<a@b>",
        "RCPT TO:<c@d>",
        "DATA",
        b".\r\n",
        "XFORWARD NAME=d.example",
        "MAIL FROM:<a@b>",
        "RSET",
        handler=lambda message: seen.append(message.session.xforward),
    )
    assert spoken.codes == [250, 250, 250, 250, 250, 354, 250, 250, 250, 250]
    assert seen == [{"NAME": "c.example", "ADDR": "198.51.100.7", "IDENT": "42", "SOURCE": "REMOTE"}]
    assert spoken.session.xforward == NOTHING == {}


def test_xforward_takes_each_attribute_for_itself():
    spoken = trusted("XFORWARD NAME=-a PROTO=QMQP HELO=my+20pc SOURCE=X IDENT=a+0Ab ADDR=fe80::1%x")
    assert spoken.codes == [250, 250]
    assert spoken.session.xforward == {
        "NAME": "", "PROTO": "", "HELO": "my pc", "SOURCE": "", "IDENT": "", "ADDR": "fe80::1"
    }  # fmt: skip


def test_an_odd_name_under_strict_is_unavailable():
    spoken = trusted("XCLIENT HELO=-odd- LOGIN=a", address_syntax="strict")
    assert (spoken.codes[1], spoken.session.helo, spoken.session.user) == (220, "", "a")


@pytest.mark.parametrize("command", ["RSET", EHLO, "HELO proxy.test", "STARTTLS"])
def test_xforward_ends_with_what_ends_a_transaction(command):
    """Also before MAIL; and RFC 3207 section 4.2: what was said in clear is forgotten."""
    spoken = trusted("XFORWARD HELO=spike.example", command, EHLO, "MAIL FROM:<a@b>", offer_tls=True)
    assert spoken.codes == [250, 250, 220 if command == "STARTTLS" else 250, 250, 250]
    assert spoken.session.xforward is NOTHING


def test_whatever_a_proxy_passes_on_is_safe():
    """Fuzz: only 220, 250 or 501; names, addresses and logins of one printable line; a well-formed trace field."""
    chance = random.Random(11)
    names = [*XCLIENT_ATTRIBUTES, "FOO", "helo", ""]
    pieces = ["a", ".", "-", "_", "+0D+0A", "+00", "+20", "+c3+bc", "+ff", "+", "=", ")", "(", ";", "[1.2.3.4]", "::1", "%", "1.2.3.4",
              "IPV6:fe80::1%", "25", "by", "ü", "[UNAVAILABLE]", "ESMTP", "<", '"', "\\"]  # fmt: skip
    taken = 0
    for _ in range(4000):
        words = [f"{chance.choice(names)}={''.join(chance.choices(pieces, k=chance.randrange(4)))}" for _ in range(chance.randrange(1, 4))]
        received = []
        spoken = trusted(
            f"XCLIENT {' '.join(words)}", EHLO if chance.random() < 0.5 else "NOOP", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", b".\r\n",
            handler=lambda message, received=received: received.append((message.received, message.session)),
        )  # fmt: skip
        assert spoken.codes[1] in (220, 501), words
        taken += spoken.codes[1] == 220
        for field, session in received:
            assert STAMP.fullmatch(field), (words, field)
            assert all(text.isprintable() for text in (session.helo, session.user or "", session.reverse_dns, session.peer.host))
            ipaddress.ip_address(session.peer.host)
    assert taken > 500
