"""net/bind.py: the grammar of -b, in rows."""

from __future__ import annotations

import pytest

from preforksmtp.net.bind import Bind, parse_bind


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path", "fd"),
    [
        ("127.0.0.1:8025", "smtp", "127.0.0.1", 8025, None, None),
        ("mail.example.org:25", "smtp", "mail.example.org", 25, None, None),
        ("[::1]:25", "smtp", "::1", 25, None, None),
        ("[fe80::1%eth0]:25", "smtp", "fe80::1%eth0", 25, None, None),
        (":25", "smtp", "", 25, None, None),
        ("*:25", "smtp", "", 25, None, None),
        (":0", "smtp", "", 0, None, None),
        # the scheme gives the port
        ("localhost", "smtp", "localhost", 25, None, None),
        ("smtp://localhost", "smtp", "localhost", 25, None, None),
        ("smtps://[::1]", "smtps", "::1", 465, None, None),
        ("submission://localhost", "submission", "localhost", 587, None, None),
        ("submissions://localhost", "submissions", "localhost", 465, None, None),
        ("lmtp://localhost", "lmtp", "localhost", 24, None, None),
        ("LMTP://localhost:2003", "lmtp", "localhost", 2003, None, None),
        # unix sockets and file descriptors
        ("unix:/run/x.sock", "smtp", None, None, "/run/x.sock", None),
        ("unix:///run/x.sock", "smtp", None, None, "/run/x.sock", None),
        ("unix:x.sock", "smtp", None, None, "x.sock", None),
        ("lmtp://unix:/run/x.sock", "lmtp", None, None, "/run/x.sock", None),
        ("fd://3", "smtp", None, None, None, 3),
        ("smtps://fd://12", "smtps", None, None, None, 12),
    ],
)
def test_addresses(
    text: str, scheme: str, host: str | None, port: int | None, path: str | None, fd: int | None
) -> None:
    assert parse_bind(text) == Bind(text, scheme, host, port, path, fd)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (":25", {}),
        (":25?require_tls", {"require_tls": "true"}),
        (":25?require-tls=false&hostname=mx.test", {"require_tls": "false", "hostname": "mx.test"}),
        (":25?proxy_protocol=10.0.0.0/8,::1", {"proxy_protocol": "10.0.0.0/8,::1"}),
        (":25?hostname=a%26b=c", {"hostname": "a&b=c"}),
        (":25?hostname=", {"hostname": ""}),
        ("unix:/x?mode=660", {"mode": "660"}),
    ],
)
def test_options(text: str, options: dict[str, str]) -> None:
    assert parse_bind(text).options == options


@pytest.mark.parametrize(
    ("scheme", "facts"),
    [
        ("smtp", (False, False, False)),
        ("smtps", (True, False, False)),
        ("submission", (False, True, False)),
        ("submissions", (True, True, False)),
        ("lmtp", (False, False, True)),
    ],
)
def test_scheme_facts(scheme: str, facts: tuple[bool, bool, bool]) -> None:
    bind = parse_bind(f"{scheme}://:25")
    assert (bind.implicit_tls, bind.submission, bind.lmtp) == facts


@pytest.mark.parametrize(("mode", "value"), [("660", 0o660), ("0600", 0o600), ("0o777", 0o777)])
def test_mode(mode: str, value: int) -> None:
    assert parse_bind(f"unix:/x?mode={mode}").mode == value
    assert parse_bind("unix:/x").mode is None


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    bind = parse_bind("unix:@name")
    assert bind.path == "@name" and bind.abstract
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ValueError, match="Linux only"):
        parse_bind("unix:@name")


def test_a_bind_can_be_a_key() -> None:
    assert len({parse_bind(":25?a=1"), parse_bind(":25?a=1"), parse_bind(":25?a=2")}) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the address is missing; ':25' means all addresses"),
        ("smtps://", "the address is missing; ':465' means all addresses"),
        ("25", "a port alone needs a colon: ':25' means all addresses"),
        ("smpt://x", "unknown scheme 'smpt'; did you mean smtp://?"),
        ("submision://x", "unknown scheme 'submision'; did you mean submission://?"),
        ("http://x", "unknown scheme 'http'; one of smtp, smtps, submission, submissions, lmtp"),
        ("lmtp:unix:/x", "a scheme is followed by '://'; write lmtp://unix:/x"),
        ("x:", "the port after ':' is missing"),
        ("x:99999", "'99999' is not a port (0 to 65535)"),
        ("x:-1", "'-1' is not a port (0 to 65535)"),
        ("x:\N{SUPERSCRIPT TWO}5", "'\N{SUPERSCRIPT TWO}5' is not a port (0 to 65535)"),
        ("x:smtp", "'smtp' is not a port (0 to 65535)"),
        ("[::1", "the closing bracket is missing; write [::1]:25"),
        ("[::1]25", "'25' after the bracket is not a port; write [::1]:25"),
        ("[::1]:", "the port after ':' is missing"),
        ("[::g]:25", "'::g' is not an IPv6 address"),
        ("::1", "an IPv6 address needs brackets; write [::1]"),
        ("::1:25", "an IPv6 address needs brackets; write [::1]:25"),
        ("a:b:25", "too many colons; write HOST:PORT or [IPV6]:PORT"),
        ("1.2.3:25", "'1.2.3' is not an IPv4 address"),
        ("256.0.0.1:25", "'256.0.0.1' is not an IPv4 address"),
        ("a b:25", "'a b' is not a host name or IP address"),
        ("/run/x.sock", "'/run/x.sock' is not a host name or IP address"),
        (" x:25", "spaces around it and control characters are not allowed"),
        ("x:25\n", "spaces around it and control characters are not allowed"),
        ("unix:", "the path is missing; write unix:/run/preforksmtp.sock"),
        ("unix:/run/", "/run/ is a folder; write the path of a socket in it"),
        ("unix:/" + "x" * 107, "the path of a unix socket can have 107 bytes at most"),
        ("fd://x", "'x' is not a file descriptor; write fd://3"),
        ("fd://1", "file descriptors 0, 1 and 2 are the standard streams; use 3 or more"),
        (":25?", "'' is not an option; write ?name=value&name=value after the address"),
        (":25?=x", "'=x' is not an option; write ?name=value&name=value after the address"),
        (":25?a=1&a=2", "option a is given twice"),
        (":25?a=%0A", "option a has control characters in its value"),
        (":25?mode=660", "option mode is for unix:/path sockets only"),
        ("unix:/x?mode=9", "mode '9' is not octal permissions; write mode=660"),
        ("unix:/x?mode", "mode 'true' is not octal permissions; write mode=660"),
    ],
)
def test_each_mistake_is_one_clear_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_bind(text)
    assert str(caught.value) == f"bind {text!r}: {reason}"
