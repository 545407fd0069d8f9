"""smtp/address.py: rows of grammar (RFC 5321 section 4.1.2, 4.1.3; RFC 6531 section 3.3)."""

from __future__ import annotations

import time

import pytest

from preforksmtp import Reject
from preforksmtp.smtp import reply
from preforksmtp.smtp.address import (
    is_address_literal,
    is_domain,
    is_helo_name,
    is_host_name,
    is_mailbox,
    quote_address,
    read_forward_path,
    read_reverse_path,
    split_mailbox,
)

LOCAL64 = "x" * 64
DOMAIN63 = "d" * 63

GOOD = [
    ("<a@b>", "a@b"),
    ("<user@example.org>", "user@example.org"),
    ("<User.Name+tag@Example.ORG>", "User.Name+tag@Example.ORG"),
    ("<!#$%&'*+-/=?^_`{|}~@b>", "!#$%&'*+-/=?^_`{|}~@b"),
    ("<a.b.c@b>", "a.b.c@b"),
    ('<"a b"@c>', '"a b"@c'),
    ('<""@c>', '""@c'),
    ('<"a@b"@c>', '"a@b"@c'),
    (r'<"a\"b"@c>', r'"a\"b"@c'),
    (r'<"a\\"@c>', r'"a\\"@c'),
    ('<"a>b"@c>', '"a>b"@c'),
    ('<"a> b"@c>', '"a> b"@c'),  # what looks like the end of the path is not
    ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
    ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
    ("<a@[ipv6:::ffff:192.0.2.1]>", "a@[ipv6:::ffff:192.0.2.1]"),
    ("<a@[x-tag:anything]>", "a@[x-tag:anything]"),
    ("<a@1.2.3>", "a@1.2.3"),
    ("<a@b-c.d--e>", "a@b-c.d--e"),
    ("<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example"),
    ("<@relay:a@b>", "a@b"),
    ("<@one,@two.example:a@b>", "a@b"),
    ("<jürgen@example.org>", "jürgen@example.org"),
    ("<a@bücher.example>", "a@bücher.example"),
    ('<"ü ö"@b>', '"ü ö"@b'),
    ("<用户@例子.广告>", "用户@例子.广告"),
    (f"<{LOCAL64}@b>", f"{LOCAL64}@b"),
    (f"<a@{DOMAIN63}.{DOMAIN63}.{DOMAIN63}>", f"a@{DOMAIN63}.{DOMAIN63}.{DOMAIN63}"),
    (f"<{'ü' * 32}@b>", f"{'ü' * 32}@b"),
]

BAD = [
    "", "<", ">", "a@b", "<a>", "<a@b", "a@b>", "<@b>", "<a@>", "<@>", "<a b@c>", "<a@b c>", "< a@b>", "<a@b >",
    "<.a@b>", "<a.@b>", "<a..b@c>", "<a@.b>", "<a@b.>", "<a@b..c>", "<a@-b>", "<a@b->", "<a@b-.c>", "<a@b_c>",
    "<a@@b>", "<a@b@c>", "<a,b@c>", "<a;b@c>", "<a:b@c>", "<(a)@b>", "<a[b]@c>", "<a\\b@c>", '<"a"b"@c>', '<"a@c>',
    '<a"b"@c>', '<"a\\"@c>', "<a@[1.2.3]>", "<a@[256.0.0.1]>", "<a@[1.2.3.4>", "<a@1.2.3.4]>", "<a@[IPv6:]>",
    "<a@[IPv6:1:2]>", "<a@[IPv6:fe80::1%eth0]>", "<a@[]>", "<a@[nocolon]>", "<a@[tag:]>", "<@a@b>", "<@a:>",
    "<@a,b:c@d>", "<@a,:c@d>", "<@:c@d>", "<<a@b>>", "\"<a@b>\"", "<a\u0080@b>", "<a@b\u0085>",
]  # fmt: skip

TOO_LONG = [
    f"<{LOCAL64}x@b>",
    f"<{'ü' * 32}x@b>",
    f"<a@{DOMAIN63}d>",
    f"<a@{'.'.join(['d' * 60] * 5)}>",
    f"<@{'.'.join(['r' * 60] * 4)}:a@{'d' * 60}>",
    f'<"{"x" * 63}"@b>',
]


@pytest.mark.parametrize("read", [read_reverse_path, read_forward_path])
@pytest.mark.parametrize(("text", "mailbox"), GOOD)
def test_path(read, text, mailbox):
    assert read(text) == (mailbox, len(text))
    assert read(f"{text} SIZE=1") == (mailbox, len(text)), "it ends where the parameters begin"
    assert is_mailbox(mailbox) and quote_address(mailbox) == mailbox


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_path_is_refused_and_never_repaired(text):
    for read in (read_reverse_path, read_forward_path):
        found = read(text)
        assert found is None or found[1] < len(text), "what follows is refused as a parameter"


@pytest.mark.parametrize("text", TOO_LONG)
def test_lengths(text):
    for read, answer in ((read_reverse_path, reply.SENDER_TOO_LONG), (read_forward_path, reply.RECIPIENT_TOO_LONG)):
        with pytest.raises(Reject) as refusal:
            read(text)
        assert refusal.value.reply is answer
    assert (reply.SENDER_TOO_LONG.enhanced, reply.RECIPIENT_TOO_LONG.enhanced) == ("5.1.7", "5.1.3")


def test_the_longest_path():
    """RFC 5321 section 4.5.3.1.3: 256 octets with its punctuation."""
    domain = ".".join(["d" * 55] * 3) + "."
    rest = 256 - len(f"<{LOCAL64}@{domain}>")
    assert 0 < rest <= 63
    path = f"<{LOCAL64}@{domain}{'e' * rest}>"
    assert read_forward_path(path)[1] == 256
    with pytest.raises(Reject):
        read_forward_path(path.replace("e>", "ee>"))


def test_null_sender():
    assert read_reverse_path("<>") == ("", 2)
    assert read_reverse_path("<> SIZE=5") == ("", 2)
    assert read_forward_path("<>") is None


@pytest.mark.parametrize("name", ["Postmaster", "postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(name):
    assert read_forward_path(f"<{name}>") == (name, 12)
    assert read_reverse_path(f"<{name}>") is None


@pytest.mark.parametrize("text", ["<postmaste>", "<postmaster", "<postmasterx>", "<po\u017ftmaster>"])
def test_nobody_else_does(text):
    assert read_forward_path(text) is None


@pytest.mark.parametrize(
    ("mailbox", "quoted"),
    [
        ("a..b@x", '"a..b"@x'), (".a@x", '".a"@x'), ("a.@x", '"a."@x'), (".@x", '"."@x'), ("a.@x_y", '"a."@x_y'),
        ("ü.@b", '"ü."@b'), ("a.b@x", "a.b@x"), ('"a..b"@x', '"a..b"@x'), ('"a@b"@x', '"a@b"@x'), ("", ""),
        ("root", "root"), ("a.", '"a."'), ('"a@b"', '"a@b"'), ("a@b_c", "a@b_c"), ("a@[1.2.3.4]", "a@[1.2.3.4]"),
    ],
)  # fmt: skip
def test_quoted_for_a_strict_next_hop(mailbox, quoted):
    assert quote_address(mailbox) == quoted == quote_address(quoted)


@pytest.mark.parametrize(
    ("mailbox", "parts"),
    [
        ("a@b", ("a", "@", "b")), ("root", ("root", "", "")), ('"a@b"', ('"a@b"', "", "")),
        ('"a@b"@c', ('"a@b"', "@", "c")), ("", ("", "", "")), ("a@[IPv6:::1]", ("a", "@", "[IPv6:::1]")),
    ],
)  # fmt: skip
def test_parts(mailbox, parts):
    assert split_mailbox(mailbox) == parts


@pytest.mark.parametrize(
    "text",
    ["<" + "a." * 20000, "<@" + "a," * 20000, "<" + '"' + "\\a" * 20000, "<a@" + "b-" * 20000, "<a@[" + "x" * 40000],
)
def test_hostile_input_takes_no_time(text):
    started = time.process_time()
    assert read_forward_path(text) is None
    assert time.process_time() - started < 0.5, "milliseconds where it is linear, for ever where it backtracks"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", True), ("a.b", True), ("1.2", True), ("a-b", True), ("ü.example", True), ("d" * 63, True),
        (".".join(["d" * 63] * 3 + ["d" * 62]), True),
        ("", False), (".", False), ("a.", False), (".a", False), ("-a", False), ("a-", False), ("a_b", False),
        ("a b", False), ("d" * 64, False), (".".join(["d" * 63] * 4), True),
        (".".join(["d" * 63] * 4 + ["x"]), False), ("a\n", False),
    ],
)  # fmt: skip
def test_domain(text, expected):
    assert is_domain(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("mx.example.org", True), ("localhost", True), ("192.0.2.1", False), ("bücher.example", False), ("a\r\nb", False)],
)
def test_host_name(text, expected):
    assert is_host_name(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[127.0.0.1]", True), ("[IPv6:::1]", True), ("[IPV6:2001:db8::1]", True), ("[tag:x]", True),
        ("127.0.0.1", False), ("[127.0.0.1", False), ("127.0.0.1]", False), ("[]", False), ("[127.1]", False),
        ("[::1]", False), ("[IPv6:127.0.0.1]", False), ("[1.2.3.4.5]", False), ("[01.2.3.4]", False),
        ("[a b:c]", False),
        ("[1.2.3.4]\n", False),
    ],
)  # fmt: skip
def test_address_literal(text, expected):
    assert is_address_literal(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("client.example.org", True), ("localhost", True), ("my_pc", True), ("host.example.", True), ("1.2.3.4", True),
        ("[192.0.2.1]", True), ("[IPv6:2001:db8::1]", True), ("a" * 255, True), ("x", True),
        ("", False), ("a b", False), ("-a", False), ("a-", False), ("[192.0.2.1", False), ("[300.1.1.1]", False),
        ("a" * 256, False), ("ü.example", False), ("a;b", False), ("<a>", False), ("a(b)", False), ("a\n", False),
    ],
)  # fmt: skip
def test_helo_name(text, expected):
    assert is_helo_name(text) is expected
