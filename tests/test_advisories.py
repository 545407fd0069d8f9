"""What other mail servers were hurt by: for each advisory that concerns a server, the check that would have caught it.

The deeper corpora are elsewhere (tests/smtp/test_body.py for smuggling, tests/net/test_wire.py for STARTTLS): here each
one is asked of a whole dialogue, or of sessions with real sockets.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import smtplib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from preforksmtp import Handler
from tests.certificates import Certificate
from tests.fakes import talk
from tests.program.conftest import certificate as certificate  # the fixture
from tests.sessions import Sessions, hear, reset

ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
NEWLINES = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n\0", b"\0\r\n"]
SMUGGLED = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<admin@example.com>\r\nDATA\r\nevil\r\n.\r\n"


@pytest.fixture
def kept() -> Iterator[list[Any]]:
    yield []


@pytest.mark.parametrize("before", NEWLINES)
@pytest.mark.parametrize("after", NEWLINES)
@pytest.mark.parametrize("cut", [0, 1])
def test_cve_2023_51764_smuggling(before: bytes, after: bytes, cut: int, kept: list[Any]) -> None:
    """CVE-2023-51764, 51765, 51766 (Postfix, Sendmail, Exim), CVE-2023-51747 (James), CVE-2024-27938 (Postal)."""
    spoken = talk(ENVELOPE + b"text" + before + b"." + after + SMUGGLED, lambda message: kept.append(message), cut=cut)
    true_end = before[-2:] == b"\r\n" and after[:2] == b"\r\n"
    if true_end:  # what follows is the client's own; bare newlines before the end refuse the first message only
        assert not kept or kept[0].content == b"text" + before or kept[0].sender == "evil@example.com"
        assert len(kept) == 2 or 550 in spoken.codes or after != b"\r\n"
    else:
        assert not kept
        assert spoken.codes[-1] == 550


def test_cve_2024_27305_what_was_stored_is_one_message_when_sent_on(kept: list[Any]) -> None:
    """CVE-2024-27305 (aiosmtpd): the message as the handler got it, sent again with smtplib, stays one."""
    with Sessions(lambda message: kept.append(message.content), "--bare-newlines", "accept") as sessions:
        for before, after in itertools.product(NEWLINES, NEWLINES):
            client = sessions.begin()
            client.sendall(ENVELOPE + b"text" + before + b"." + after + b"more\r\n.\r\nQUIT\r\n")
            hear(client)
            client.close()
        stored = [content for content in kept if content]
        kept.clear()
        for content in stored:
            relay = smtplib.SMTP()
            relay.sock = sessions.begin()
            relay.getreply()
            relay.sendmail("a@example.com", ["b@example.com"], content)
            relay.quit()
        assert len(kept) == len(stored)


@pytest.mark.parametrize(
    "behind", [b"", b"X", b"NOOP\r\n", b"MAIL FROM:<evil@example.com>\r\n", b"AUTH PLAIN AGIAcw==\r\n"]
)
def test_cve_2011_0411_starttls_command_injection(behind: bytes, certificate: Certificate, kept: list[Any]) -> None:
    """CVE-2011-0411 (Postfix), CVE-2021-33515 (Dovecot), CVE-2024-34083 (aiosmtpd)."""

    class App(Handler):
        def authenticate(self, username: str, password: str) -> bool:
            return True

        def message(self, message: Any) -> None:
            kept.append(message)

    with Sessions(App, "--allow-insecure-auth", *certificate.options) as sessions:
        client = sessions.begin()
        hear(client, "220")
        client.sendall(b"EHLO x\r\nAUTH PLAIN AGIAcw==\r\nMAIL FROM:<a@example.com>\r\nSTARTTLS\r\n" + behind)
        hear(client, "220")
        context = ssl.create_default_context(cafile=str(certificate.certfile))
        tls = context.wrap_socket(client, server_hostname="localhost")
        tls.sendall(b"RCPT TO:<b@example.com>\r\n")
        assert hear(tls, "503").startswith("503 5.5.1 Send EHLO"), "no EHLO, no MAIL, and nothing of what was behind"
        tls.sendall(b"EHLO x\r\n")
        assert "AUTH PLAIN" in hear(tls, "250"), "nobody is authenticated"
        tls.close()
        sessions.over()
        assert not kept


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST /x HTTP/1.0", "Host: example.com", "user-agent: x"])
def test_cve_2021_3618_cross_protocol(line: str) -> None:
    """ALPACA: a browser made to speak to us hears nothing but the end."""
    spoken = talk([line, "EHLO x", "MAIL FROM:<a@example.com>"])
    assert spoken.codes == [554]


def test_cve_2026_45185_tls_cut_inside_bdat(certificate: Certificate, kept: list[Any]) -> None:
    """CVE-2026-45185 (Exim): close_notify in the middle of a chunk, then clear text."""
    with Sessions(lambda message: kept.append(message), *certificate.options) as sessions:
        client = sessions.begin()
        hear(client, "220")
        client.sendall(b"EHLO x\r\nSTARTTLS\r\n")
        hear(client, "220")
        context = ssl.create_default_context(cafile=str(certificate.certfile))
        tls = context.wrap_socket(client, server_hostname="localhost")
        tls.sendall(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nBDAT 100 LAST\r\nhalf")
        hear(tls, "250")
        sessions.consumed()
        tls.settimeout(0)
        with contextlib.suppress(OSError):  # our close_notify is sent; the server's may be here already
            tls.unwrap()
        clear = tls.detach()
        with socket.socket(fileno=clear) as bare:
            bare.settimeout(5)
            try:
                bare.sendall(b"x" * 96 + b"NOOP\r\n")
            except OSError:
                pass  # it was closed already
            sessions.over()
        assert not kept


@pytest.mark.parametrize(
    "size", ["0", "00000000000000000005", "99999999999999999999", "-1", "1e3", "0x10", "", "5 LASTX", "٣"]
)
def test_cve_2017_16943_bdat_sizes(size: str, kept: list[Any]) -> None:
    """CVE-2017-16943, 16944 (Exim): odd sizes, a dot line in a chunk, RSET between chunks."""
    spoken = talk(
        ENVELOPE[:-6] + f"BDAT {size}\r\n".encode() + b"\r\n.\r\nRSET\r\nNOOP\r\n", lambda message: kept.append(message)
    )
    assert not kept
    assert set(spoken.codes) <= {250, 500, 501, 503, 552}
    spoken = talk(ENVELOPE[:-6] + b"BDAT 5\r\n\r\n.\r\nBDAT 0 LAST\r\n", lambda message: kept.append(message.content))
    assert kept == [b"\r\n.\r\n"]


@pytest.mark.parametrize("length", [*range(40), 1023, 1024, 9215, 9216, 9217, 17000])
def test_cve_2018_6789_base64_of_every_length(length: int) -> None:
    """CVE-2018-6789 (Exim): base64 with every length and padding, and past the limit of a line."""

    class App(Handler):
        def authenticate(self, username: str, password: str) -> bool:
            return False

        def message(self, message: Any) -> None: ...

    encoded = base64.b64encode(b"\0" * length).decode()
    for text in {encoded, encoded.rstrip("="), encoded + "=", encoded[:-1]}:
        spoken = talk(["EHLO x", f"AUTH PLAIN {text}", "NOOP"], App, allow_insecure_auth=True, max_errors=0)
        assert spoken.codes[1] in (334, 500, 501, 535)
        assert spoken.codes[-1] in (250, 501)


@pytest.mark.parametrize(
    "verb", ["EHLO", "HELO", "MAIL FROM:", "RCPT TO:", "VRFY", "HELP", "AUTH", "NOOP", "BDAT", "STARTTLS"]
)
@pytest.mark.parametrize("length", [500, 2046, 2050, 12290, 100000])
def test_cve_2019_16928_long_arguments(verb: str, length: int) -> None:
    """CVE-2019-16928 (Exim): a long EHLO; here every verb at its limit and beyond, and the session is in sync."""
    spoken = talk([f"{verb} {'a' * length}", "NOOP"], max_errors=0)
    assert len(spoken.codes) == 2
    assert spoken.codes[1] == 250


@pytest.mark.parametrize(
    "path",
    [
        "<${run{/bin/sh}}@example.com>", "<;sh -c id;@example.com>", "<|/bin/sh>", "<a`id`b@example.com>", "<$(id)@example.com>",
        "<a@example.com;id>", "<a b@example.com>", "<a\t@example.com>", "<a@example.com>;x", "<a@b>>", "<@>", "<a@b@c>", "<a,b@c>",
    ],
)  # fmt: skip
def test_cve_2020_7247_what_the_grammar_does_not_allow_is_refused(path: str, kept: list[Any]) -> None:
    """CVE-2019-10149 (Exim), CVE-2020-7247 (OpenSMTPD): a recipient is data. What is no address gets 5xx."""
    spoken = talk(["EHLO x", "MAIL FROM:<>", f"RCPT TO:{path}"], max_errors=0)
    legal = path in ("<a`id`b@example.com>", "<${run{/bin/sh}}@example.com>")  # atext, and never given to a shell
    assert (spoken.codes[-1] == 250) is legal or spoken.codes[-1] == 500


def test_cve_2020_28022_parameters_given_twice() -> None:
    """CVE-2020-28022 (Exim): the parser of MAIL parameters; duplicates are refused."""
    spoken = talk(
        ["EHLO x", "MAIL FROM:<> SIZE=1 SIZE=1", "MAIL FROM:<> size=1 SIZE=2", "MAIL FROM:<> =", "MAIL FROM:<> SIZE="]
    )
    assert spoken.codes[1:] == [501, 501, 501, 501]


@pytest.mark.parametrize("name", ["__proto__", "constructor", "__class__", "Content-Type", "X" * 5000, "\xff"])
def test_cve_2026_34752_odd_header_names(name: str) -> None:
    """CVE-2026-34752 (Haraka): a header named `__proto__` killed the worker. Also nothing parses MIME unasked."""
    seen: list[Any] = []

    def app(message: Any) -> None:
        seen.append(message.headers.items())
        message.parse()

    spoken = talk(ENVELOPE + f"{name}: x\r\n\r\ny\r\n.\r\n".encode("latin-1"), app)
    assert spoken.codes[-1] == 250
    assert seen


def test_smtp_server_260_control_characters_through_xtext() -> None:
    """smtp-server 260, 261: xtext decodes to what could forge a line. Refused, or by default not decoded."""
    seen: list[Any] = []
    for value in ("ENVID=a+0D+0Ab", "ENVID=a+00", "AUTH=a+0Ab@example.com"):
        assert talk(["EHLO x", f"MAIL FROM:<> {value}"], address_syntax="strict").codes[-1] == 501
        commands = ["EHLO x", f"MAIL FROM:<> {value}", "RCPT TO:<a@example.com> ORCPT=rfc822;a+0Ab", "DATA", ".", "QUIT"]
        assert talk(commands, lambda message: seen.extend([message.params, message.recipients[0].params])).codes[-2] == 250
    assert all(text.isprintable() for params in seen for text in params.values()) and len(seen) == 6
    spoken = talk(["EHLO x", "MAIL FROM:<>", "RCPT TO:<a@example.com> ORCPT=rfc822;a+0Ab"], address_syntax="strict")
    assert spoken.codes[-1] == 501


def test_smtp_server_257_reset_at_every_byte_of_a_command(kept: list[Any]) -> None:
    """smtp-server 257: a reset costs one session; the next client is served."""
    with Sessions(lambda message: kept.append(message)) as sessions:
        for length in range(len(ENVELOPE)):
            client = sessions.begin()
            client.sendall(ENVELOPE[:length])
            sessions.consumed()
            reset(client)
            sessions.over()
        client = sessions.begin()
        client.sendall(ENVELOPE + b"x\r\n.\r\nQUIT\r\n")
        assert hear(client).endswith("221 2.0.0 Bye\r\n")
        client.close()
        assert len(kept) == 1
        assert not [record for record in sessions.records if record.exc_info]


def test_mhale_the_rest_of_a_message_too_large_is_no_command(kept: list[Any]) -> None:
    """mhale/smtpd: on overflow the rest of the message was executed."""
    body = b"x" * 2000 + b"\r\n" + SMUGGLED.replace(b".\r\n", b"") + b"\r\n.\r\n"
    spoken = talk(ENVELOPE + body + b"NOOP\r\n", lambda message: kept.append(message), max_message_size=1000)
    assert spoken.codes[-2:] == [552, 250]
    assert not kept
