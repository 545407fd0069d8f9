"""address_syntax: what real clients send, each row under both settings; and what is refused under both.

Every mailbox that is taken has one form, is safe in a trace field and a log, and goes on to a strict next hop.
"""

from __future__ import annotations

import contextlib
import random
import re
import time

import pytest

from preforksmtp import Handler, Reject, quote_address
from preforksmtp.smtp import reply
from preforksmtp.smtp.address import is_mailbox
from preforksmtp.smtp.lenient import PATH_OCTETS, read_forward_path, read_mailbox, read_reverse_path
from preforksmtp.smtp.syntax import SYNTAXES
from tests.fakes import talk

EHLO = "EHLO c.test"
B62 = "bounces+" + "1" * 62

# what follows the colon, and the mailbox that handlers get
TAKEN = [
    # lengths: RFC 5321 section 4.5.3.1 asks for no limits where that is possible
    (f"<{B62}@example.com>", f"{B62}@example.com"),
    (f"<{'x' * 65}@b.example>", "x" * 65 + "@b.example"),
    (f"<{'x' * 1900}@b.example>", "x" * 1900 + "@b.example"),
    (f"<a@{'.'.join(['d' * 60] * 6)}>", f"a@{'.'.join(['d' * 60] * 6)}"),
    (f"<a@{'d' * 64}.example>", f"a@{'d' * 64}.example"),
    # domains
    ("<root@web_1.compose_default>", "root@web_1.compose_default"),
    ("<a@b_c>", "a@b_c"),
    ("<a@_dmarc.example>", "a@_dmarc.example"),
    ("<a@b.example.>", "a@b.example"),
    ("<a@-b.example>", "a@-b.example"),
    ("<a@b-.example->", "a@b-.example-"),
    ("<a@[::1]>", "a@[IPv6:::1]"),
    ("<a@[IPv6::1]>", "a@[IPv6::1]"),
    ("<a@[IPv6:fe80::1%eth0]>", "a@[IPv6:fe80::1%eth0]"),
    ("<a@[localhost]>", "a@[localhost]"),
    ("<.a@[1.2.3.4]>", ".a@[1.2.3.4]"),
    # dots
    ("<ilo.@example.com>", "ilo.@example.com"),
    ("<a..b@docomo.example>", "a..b@docomo.example"),
    ("<.a@x.example>", ".a@x.example"),
    ("<.@x.example>", ".@x.example"),
    # no brackets, or two pairs
    ("a@b.example", "a@b.example"),
    ('"a b"@b.example', '"a b"@b.example'),
    ('"a>b"@b.example', '"a>b"@b.example'),
    ("@one.example,@two.example:a@b.example", "a@b.example"),
    ("<<a@b.example>>", "a@b.example"),
    # blanks
    ("\t<a@b.example>", "a@b.example"),
    (" \t a@b.example", "a@b.example"),
    ("< a@b.example >", "a@b.example"),
    ("<\ta@b.example\t>", "a@b.example"),
    (' < "a b"@b.example >', '"a b"@b.example'),
    # no domain
    ("<root>", "root"),
    ("root", "root"),
    ("<a..b>", "a..b"),
    ('<"john doe">', '"john doe"'),
    ("<@a.example:root>", "root"),
    ("<a!b>", "a!b"),
    # quoted strings and pairs anywhere
    ('<"a"."b"@x.example>', "a.b@x.example"),
    ('<a."b c"@x.example>', '"a.b c"@x.example'),
    ('<"a"b@x.example>', "ab@x.example"),
    (r"<Fred\ Bloggs@x.example>", '"Fred Bloggs"@x.example'),
    (r"Joe.\\Blow@x.example", r'"Joe.\\Blow"@x.example'),
    (r"<Abc\@def@x.example>", '"Abc@def"@x.example'),
    (r"<a\@b>", '"a@b"'),
    (r"<a\>b@x.example>", '"a>b"@x.example'),
    ('<a."\\"b"@x.example>', r'"a.\"b"@x.example'),
    ('<""@x_y>', '""@x_y'),
    # comments, of RFC 822
    ("<a(comment)@x.example>", "a@x.example"),
    ("<(c)a@(c)x.example(c)>", "a@x.example"),
    # a list of one
    ("<a@b.example>,", "a@b.example"),
    ("<a@b.example>;", "a@b.example"),
    ("<a@b.example;>", "a@b.example"),
    ("a@b.example,", "a@b.example"),
    ("<a..b@b.example>;", "a..b@b.example"),
    # what is no atom
    ("<mailto:a@b.example>", '"mailto:a"@b.example'),
    ("<SMTP:a@b.example>", '"SMTP:a"@b.example'),
    # routes
    ("<@a_b,@-c.:u@d.example>", "u@d.example"),
    ("<@[1.2.3.4]:u@d.example>", "u@d.example"),
]  # fmt: skip

# Strict takes them too, and as the same.
ORDINARY = [
    ("<a@b>", "a@b"), (" <a@b>", "a@b"), ("   <a@b>", "a@b"), ("<@one,@two:user@c>", "user@c"), ('<"a b"@x>', '"a b"@x'), ('<"a.b"@x>', '"a.b"@x'),
    ("<user@[1.2.3.4]>", "user@[1.2.3.4]"), ("<user@[IPv6:2001:db8::1]>", "user@[IPv6:2001:db8::1]"),
    ("<user%host@x>", "user%host@x"), ("<a!b@x>", "a!b@x"), ("<user@1.2.3.4>", "user@1.2.3.4"), ("<-a@b>", "-a@b"),
    ("<=?utf-8?q?a?=@b>", "=?utf-8?q?a?=@b"), ("<a/b=c@d>", "a/b=c@d"), ("<o'neill@b>", "o'neill@b"), ('<""@b>', '""@b'),
]  # fmt: skip

# Refused under both: not an address, or not one only.
REFUSED = [
    "", " ", "<", ">", "<a@b", "a@b>", "<<a@b>", "<a@b>>", "<a@b>x", "<a@b>,,", "<a@b>;x", "a@b,;x", ";a@b", ",a@b",
    "<;>", "<,>", ";", "<a@b,>,<c@d>", "<>;", "<>,", '<"">,',
    "<a b@c>", "<a@b c>", "<a @b>", "<a@ b>", "<a\tb@c>", "a b@c", "<a@b> <c@d>", "<a@b>,<c@d>", "<a@b>, <c@d>",
    "<a@b,c@d>", "a@b,c@d", "a@b;c@d", "a@b c@d", "<a@b@c>", "<a@@b>", "a@b@c", "<@a@b>", "a@b <c@d>", "John <a@b>",
    "John Doe <a@b>", '"John Doe" <a@b>', "<a,b@c>", "<a;b@c>", "<group:a@b;>", '<"a@b>', '<a"@b>', '<"a"b"@c>',
    '<"a\tb"@c>', '<"a b@c>', "<a(b@c>", "<a)b@c>", "<a(b c)@d>", "<a(b@c)d@e>", "<a[b@c>", "<a]b@c>", "<a<b@c>",
    "<a>b@c>", "<a@b\\>", "<@b>", "<@>", "<a@>", "<@a:>", "<@a:@b>", "<@a,b:c@d>", "<@:c@d>", "<()>",
    "<a@.b>", "<a@b..c>", "<a@.>", "<a@b...>", "<a@[]>", "<a@[1.2.3.4>", "<a@1.2.3.4]>", "<a@[1.2.3.400]>", "<a@[1.2.3]>",
    "<a@[IPv6:zz]>", "<a@[a b]>", "<a@[x;y]>", "<a@x[1.2.3.4]>", "<a@b:25>", "<a@b/c>", "<a@b!c>", "<a@b?x>",
    "<a@b%c>", "<a@*.b>", '<a@"b">', "<'a@b'>", "<[1.2.3.4]>", "<|a@b;c>", "<;id;@b>", "<a\x01b@c>", "<a\0b@c>",
    "<a@b\x7f>", "<|/bin/sh>", "|/bin/sh", "</etc/passwd>", '<"|x y">', "<$(id)@b>", "<a@b\0>", '<"a\x01b"@c>', '<"a\0"@c>', "<a\u0085b@c>", '<"a\u009bb"@c>', "<a@b\u2028>",
]  # fmt: skip


def envelope(sender, recipient, **rules):
    """What was answered to MAIL and to RCPT, and what the handler saw."""
    seen = []

    class Mail(Handler):
        def mail(self, sender, params):
            seen.append(sender)

        def rcpt(self, recipient, params):
            seen.append(str(recipient))

        def message(self, message): ...

    hello = "LHLO c.test" if rules.get("lmtp") else EHLO
    spoken = talk([hello, f"MAIL FROM:{sender}", f"RCPT TO:{recipient}", "NOOP"], Mail, **rules)
    assert spoken.codes[-1] == 250
    return spoken.codes[1:3], seen


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize(("text", "mailbox"), TAKEN)
def test_taken_by_lenient_refused_by_strict(text, mailbox, lmtp):
    assert envelope(text, text, lmtp=lmtp) == ([250, 250], [mailbox] * 2)
    assert envelope(text, "<x@y>", address_syntax="strict", lmtp=lmtp)[0] in ([501, 503], [500, 503])
    codes, seen = envelope("<x@y>", text, address_syntax="strict", lmtp=lmtp)
    assert (codes, seen) in (([250, 501], ["x@y"]), ([250, 500], ["x@y"]))


@pytest.mark.parametrize(("text", "mailbox"), TAKEN)
@pytest.mark.parametrize("blank", [" ", "  ", "\t", " \t "])
def test_with_parameters_behind(text, mailbox, blank):
    codes, seen = envelope(f"{text}{blank}SIZE=10{blank}BODY=8BITMIME", f"{text}{blank}NOTIFY=DELAY{blank}ORCPT=x;y")
    assert (codes, seen) == ([250, 250], [mailbox] * 2)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("text", "mailbox"), ORDINARY)
def test_taken_by_both(text, mailbox, syntax):
    assert envelope(text, text, address_syntax=syntax) == ([250, 250], [mailbox] * 2)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("text", REFUSED)
def test_refused_by_both(text, syntax):
    for parameters in ("", " SIZE=1"):
        codes, seen = envelope(f"{text}{parameters}", "<x@y>", address_syntax=syntax)
        assert codes in ([501, 503], [500, 503]) and seen == []
    for parameters in ("", " NOTIFY=NEVER"):
        codes, seen = envelope("<x@y>", f"{text}{parameters}", address_syntax=syntax)
        assert codes in ([250, 501], [250, 500]) and seen == ["x@y"]


@pytest.mark.parametrize("text", ["<>", "< >", "<\t>", '""', '<"">', "<> SIZE=1", "<> AUTH=<>", " <>", "<>\tBODY=7BIT"])
def test_null(text):
    """A sender, and never a recipient."""
    assert envelope(text, "<x@y>") == ([250, 250], ["", "x@y"])
    assert envelope("<x@y>", text) == ([250, 501], ["x@y"])


@pytest.mark.parametrize(
    "command",
    [
        "MAIL\tFROM:<a@b>", "MAIL \t FROM:<a@b>", "MAIL  FROM:<a@b>", "MAIL FROM :<a@b>", "MAIL\tfrom\t:\t<a@b>\t",
        "mail from:<a@b>", "MaIl FrOm:<a@b>", "MAIL FROM: \t <a@b> \t SIZE=1", "MAIL FROM:<a@b>\tSIZE=1\tBODY=7BIT",
    ],
)  # fmt: skip
def test_blanks_between_words(command):
    assert talk([EHLO, command]).codes == [250, 250]
    rcpt = re.sub("(?i)from", "TO", re.sub("(?i)mail", "RCPT", command)).replace("SIZE=1", "NOTIFY=NEVER")
    rcpt = rcpt.replace("BODY=7BIT", "ORCPT=x;y")
    assert talk([EHLO, "MAIL FROM:<a@b>", rcpt]).codes == [250, 250, 250]
    strict = talk([EHLO, command], address_syntax="strict").codes
    assert strict == [250, 250] if re.fullmatch("(?i)mail from: *<a@b>(?: .*)?", command) and "\t" not in command else [501]


@pytest.mark.parametrize("command", ["MAILFROM:<a@b>", "MAIL FROM<a@b>", "MAIL FROM <a@b>", "MAIL TO:<a@b>", "MAIL FROMX:<a@b>"])
def test_no_command(command):
    assert talk([EHLO, command]).codes[1] in (500, 501)


@pytest.mark.parametrize("line", ["NOOP\tx", "NOOP\t", "RSET\t", "VRFY\tx", "AUTH\tPLAIN", "HELP\tme", "noop \t"])
def test_verbs_may_be_followed_by_tabs(line):
    plain = line.replace("\t", " ")
    assert talk([EHLO, line, "NOOP"]).replies[1:] == talk([EHLO, plain, "NOOP"]).replies[1:]


def test_a_chunk_whose_words_are_apart_by_tabs():
    spoken = talk([EHLO, "MAIL FROM:<a@b>", "RCPT TO:<a@b>", b"BDAT\t2\tLAST\r\nab", "QUIT\t"])
    assert spoken.codes == [250, 250, 250, 250, 221]


@pytest.mark.parametrize("line", ["NOOP\x01", "NOOP a\0b", "MAIL FROM:<a@b>\x0b", "DATA\x0c", "\tNOOP\x7f", "NOOP \x1b[2J"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_control_characters_are_refused(line, syntax):
    assert talk([EHLO, line], address_syntax=syntax).codes[1] == 500


def test_a_line_of_mail_and_rcpt_has_room_for_a_path_and_for_parameters():
    """Postfix names the recipient in both."""
    long = "x" * 1400 + "@example.com"
    spoken = talk([EHLO, "MAIL FROM:<a@b>", f"RCPT TO:<{long}> ORCPT=rfc822;{long} NOTIFY=NEVER"])
    assert spoken.codes == [250, 250, 250]
    assert talk([EHLO, f"MAIL FROM:<{'x' * PATH_OCTETS}@b>", "NOOP"]).replies[1] == "501 5.1.7 Path too long"
    for length, answer in ((1000, "250 2.1.5 Recipient ok"), (1030, "501 5.1.3 Path too long")):  # of two octets each
        assert talk([EHLO, "MAIL FROM:<a@b> SMTPUTF8", f"RCPT TO:<{'ü' * length}@b>"]).replies[2] == answer
    assert talk([EHLO, f"MAIL FROM:<{'x' * 4096}@b>", "NOOP"]).codes == [250, 500, 250]


# --- UTF-8


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("text", "code"),
    [("<ü@b>", 553), ("<a@ü.example>", 553), ("<a@ü.example> SMTPUTF8", 250), ("<ü@b> SMTPUTF8", 250)],
)
def test_utf8_addresses(text, code, syntax):
    assert talk([EHLO, f"MAIL FROM:{text}"], address_syntax=syntax).codes[1] == code


@pytest.mark.parametrize(("text", "mailbox"), [("ü..ö@b_ü", "ü..ö@b_ü"), ("<ü>", "ü"), ("<ü.\\ ö@b>", '"ü. ö"@b')])
def test_lenient_utf8_addresses(text, mailbox):
    assert envelope(f"{text} SMTPUTF8", text) == ([250, 250], [mailbox] * 2)
    assert envelope(text, "<x@y>")[0] == [553, 503]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_octets_that_are_no_utf8(syntax):
    assert talk([EHLO, b"MAIL FROM:<j\xfcrgen@b> SMTPUTF8\r\n", b"NOOP \xff\r\n"], address_syntax=syntax).codes == [250, 501, 501]


# --- parameters


def parameters(mail, rcpt, **rules):
    seen = []

    class Mail(Handler):
        def message(self, message):
            seen.extend([message.params, message.recipients[0].params])

    spoken = talk([EHLO, f"MAIL FROM:<a@b>{mail}", f"RCPT TO:<c@d>{rcpt}", "DATA", b".\r\n"], Mail, **rules)
    return spoken.codes[1:3], seen


@pytest.mark.parametrize(
    ("mail", "rcpt", "params"),
    [
        (" AUTH=", "", ({"AUTH": ""}, {})),
        (" AUTH", "", ({"AUTH": ""}, {})),
        (" AUTH=a+zz", "", ({"AUTH": ""}, {})),
        (" AUTH=x=y SIZE=1", "", ({"AUTH": "", "SIZE": 1}, {})),
        (" RET=BODY", "", ({}, {})),
        (" RET= ENVID= SIZE=2", "", ({"SIZE": 2}, {})),
        (" ENVID=a=b", "", ({"ENVID": "a=b"}, {})),
        (" ENVID=" + "x" * 200, "", ({"ENVID": "x" * 200}, {})),
        (" ENVID=a+3db", "", ({"ENVID": "a=b"}, {})),
        ("", " NOTIFY=SUCCESS,", ({}, {"NOTIFY": ("SUCCESS",)})),
        ("", " NOTIFY=FAILURE,FAILURE", ({}, {"NOTIFY": ("FAILURE",)})),
        ("", " NOTIFY=NEVER,SUCCESS", ({}, {})),
        ("", " NOTIFY= ORCPT=", ({}, {})),
        ("", " ORCPT=a@b", ({}, {})),
        ("", " ORCPT=rfc822;a+2bb", ({}, {"ORCPT": "rfc822;a+b"})),
        ("", " ORCPT=rfc822;" + "x" * 600, ({}, {"ORCPT": "rfc822;" + "x" * 600})),
        ("", " ORCPT=rfc822;j+C3+BCrg@ex+C3+A4mple.com", ({}, {"ORCPT": "rfc822;jürg@exämple.com"})),
        (" SMTPUTF8", " ORCPT=rfc822;j+C3+BCrg@ex+C3+A4mple.com", ({"SMTPUTF8": True}, {"ORCPT": "rfc822;jürg@exämple.com"})),
        (" ENVID=ü", " ORCPT=rfc822;ü", ({}, {})),  # not without SMTPUTF8
        (" SMTPUTF8 ENVID=ü", " ORCPT=rfc822;ü", ({"SMTPUTF8": True, "ENVID": "ü"}, {"ORCPT": "rfc822;ü"})),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lmtp", [False, True])
def test_secondary_parameters_never_lose_mail(mail, rcpt, params, lmtp, monkeypatch):
    monkeypatch.setattr(f"{__name__}.EHLO", "LHLO c.test" if lmtp else EHLO)
    assert parameters(mail, rcpt, lmtp=lmtp) == ([250, 250], list(params))
    assert parameters(mail, rcpt, lmtp=lmtp, address_syntax="strict")[0] in ([501, 503], [250, 501], [553, 503])


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("FOO", 555), ("FOO=BAR", 555), ("FOO=BAR=BAZ", 501), ("SIZE", 501), ("SIZE=", 501), ("SIZE=x", 501),
        ("SIZE=-1", 501), ("SIZE=1 SIZE=1", 501), ("AUTH=<> AUTH=<>", 501), ("BODY=9BIT", 501), ("SMTPUTF8=1", 501),
        ("=1", 501), (",", 501), ("<c@d>", 501), ("NOTIFY=NEVER", 555), ("SIZE=1=2", 501), ("#$%=!@#", 501),
    ],
)  # fmt: skip
def test_bad_parameters_stay_refused(text, code, syntax):
    assert talk([EHLO, f"MAIL FROM:<a@b> {text}"], address_syntax=syntax).codes[1] == code


# --- the name in EHLO, HELO and LHLO

NAMES = [
    "fe80::1", "[::1]", "[IPv6:fe80::1%eth0]", "[localhost]", "MÜLLER-PC", "John's-iPhone", "localhost:8080", "foo bar",
    "-odd-", "my computer", "host(x)", "<x>", '"x"', "x;y", "[300.1.1.1]", "[1.2.3.4", "a" * 256, "a" * 1900, ".", "-",
    "a,b", "a@b", "例え.jp", "x by y with z id 1 for <a@b>", "x; Mon, 1 Jan 2024 00:00:00 +0000", "\\", "%s", "=x", "a  b",
]  # fmt: skip
STAMP = re.compile(
    r"Received: from (?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9.]+\]|\[IPv6:[0-9a-f:.]+\])"
    r"(?: \((?:[a-z0-9.-]+ )?\[(?:IPv6:)?[0-9a-f.:]+\]\))?(?: \(HELO [!-'*-\[\]-~]+\))?\r\n"
    r"\tby mx\.test \(preforksmtp\) with [A-Z0-9]+(?: \(TLS[^()]*\))?\r\n"
    r"\tid [A-Za-z0-9-]+(?: for <[^ <>()\\,;]+@[^ <>()\\,;]+>)?;\r\n\t[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9: +-]+"
)


def trace_of(greeting, recipient="<c@d.example>", **rules):
    seen = []
    talk([greeting, "MAIL FROM:<a@b>", f"RCPT TO:{recipient}", "DATA", b".\r\n"],
         lambda message: seen.append((message.session.helo, message.received)), **rules)  # fmt: skip
    return seen[0]


@pytest.mark.parametrize("verb", ["EHLO", "HELO", "LHLO"])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_taken_and_safe_in_received(name, verb):
    helo, received = trace_of(f"{verb} {name}", lmtp=verb == "LHLO")
    assert helo == name
    assert STAMP.fullmatch(received), received
    assert all(len(line) <= 998 for line in received.split("\r\n"))
    assert talk([f"{verb} {name}"], lmtp=verb == "LHLO", address_syntax="strict").codes == [501]


@pytest.mark.parametrize(("name", "helo"), [
    (b"M\xdcLLER-PC", "M\ufffdLLER-PC"), (b"\xff", "\ufffd"), (b"a\xc2\xa0b", "a\ufffdb"), (b"a\xe2\x80\xaeb", "a\ufffdb"),
    (b"\tx", "x"), (b"x\t", "x"), (b"  x ", "x"), (b"\xef\xbb\xbfx", "\ufffdx"),
])  # fmt: skip
def test_octets_of_any_kind(name, helo):
    given, received = trace_of(b"EHLO " + name + b"\r\n")
    assert given == helo and STAMP.fullmatch(received)


@pytest.mark.parametrize("name", ["", " ", "\t", "a\tb", "a\0b", "a\x1bb", "a\x7f", "a\u0085b", "a\x9bb"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_name(name, syntax):
    assert talk([f"EHLO {name}", "NOOP"], address_syntax=syntax).codes in ([501, 250], [500, 250])


def test_the_handler_decides_over_the_name():
    class Picky(Handler):
        def helo(self, name):
            if " " in name:
                raise Reject(550, "5.7.1 no blanks")

        def message(self, message): ...

    assert talk(["EHLO foo bar", "EHLO foo", "EHLO -"], Picky).codes == [550, 250, 250]


def test_names_that_may_stand_in_received_do():
    for name, shown in [("c.test", "c.test"), ("c.test.", "c.test"), ("[192.0.2.7]", "[192.0.2.7]"),
                        ("[IPv6:::1]", "[IPv6:::1]"), ("1.2.3.4", "1.2.3.4")]:  # fmt: skip
        assert trace_of(f"EHLO {name}")[1].startswith(f"Received: from {shown} ([192.0.2.1])\r\n")
    for name in ("my_pc", "[x-tag:;(]"):
        shown = name.replace(";(", "??")
        assert trace_of(f"EHLO {name}")[1].startswith(f"Received: from unknown ([192.0.2.1]) (HELO {shown})\r\n")


@pytest.mark.parametrize(("recipient", "clause"), [
    ("<c@d.example>", " for <c@d.example>"), ("<a..b@d.example>", ' for <"a..b"@d.example>'), ("<root>", ""), ("<a@b_c>", ""),
    (f"<{B62}@example.com>", ""), ("<a@-b>", ""), ('<"a b"@x>', ""), ('<"x> ; by y <"@x>', ""), ("<postmaster>", ""),
])  # fmt: skip
def test_the_for_clause(recipient, clause):
    received = trace_of("EHLO c.test", recipient)[1]
    assert STAMP.fullmatch(received)
    assert re.search(r"\tid \S+?( for [^;]*)?;\r", received)[1] == (clause or None)


# --- all that is taken


def test_hostile_input_takes_no_time():
    started = time.process_time()
    for text in ("<" + "a." * 2000, "<@" + "a," * 2000, '<"' + "\\a" * 2000, "<a@" + "b-" * 2000, "<a@[" + ":" * 4000,
                 "<" + '"a"' * 1300 + "@", "<" + "(a)" * 1300, "<" * 4000, '"' * 4001, "\\" * 4001, "a@" * 2000,
                 "<a@[" + "f:" * 2000 + "x]>", "<@" + "[::1],@" * 500 + ":a@b>", "<a" + "(" * 4000 + ")" * 4000 + "@b>"):  # fmt: skip
        for read in (read_reverse_path, read_forward_path):
            with contextlib.suppress(Reject):
                assert read(text) is None
    assert time.process_time() - started < 0.5, "milliseconds where it is linear, for ever where it backtracks"


ALPHABET = [*'aZ0-_.@:,;<>()[]"\\ \t', "ü", "\0", "\r\n", "a.b", '"x y"', "<a@b>", "@c:", "[::1]", "\\ ", "(c)", "\u2028", "%!"]


def test_whatever_is_taken_is_safe_and_goes_on():
    """Fuzz: one form for each mailbox, no control characters, balanced, one address; a strict form where there is one."""
    chance = random.Random(9)
    taken = 0
    for _ in range(60_000):
        text = "".join(chance.choices(ALPHABET, k=chance.randrange(1, 12)))
        if chance.random() < 0.7:
            text = f"<{text}>"
        for read in (read_reverse_path, read_forward_path):
            try:
                found = read(text)
            except Reject as refusal:
                assert refusal.reply in (reply.SENDER_TOO_LONG, reply.RECIPIENT_TOO_LONG)
                continue
            if found is None or text[found[1] : found[1] + 1] not in ("", " ", "\t"):
                continue
            mailbox, end = found
            assert 0 < end <= len(text)
            if not mailbox:
                assert read is read_reverse_path
                continue
            taken += 1
            check(mailbox, text)
    assert taken > 1000


def check(mailbox, text):
    unquoted = re.sub(r'"(?:[^"\\]|\\.)*"', "Q", mailbox)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", mailbox), text
    assert not re.search(r'[ \t"<>(),;\\]', unquoted) and unquoted.count("@") <= 1, (text, mailbox)
    assert read_mailbox(mailbox) == mailbox, "what was read once is read as the same again"
    onward = quote_address(mailbox)
    assert read_mailbox(onward) in (mailbox, onward)
    local, at, domain = unquoted.partition("@")
    if at and len(mailbox) < 60 and re.fullmatch(r"(?:[aZ0ü]+(?:-+[aZ0ü]+)*)(?:\.(?:[aZ0ü]+(?:-+[aZ0ü]+)*))*", domain):
        assert is_mailbox(onward), (text, onward)
        strict = SYNTAXES["strict"].read_recipient(f"<{onward}>")
        assert strict == (onward, len(onward) + 2)


def test_whatever_is_in_a_parameter_is_safe():
    chance = random.Random(10)
    pieces = ["+", "+C3", "+bc", "+0D", "+0A", "+00", "a", "=", "ü", ";", "rfc822;", "utf-8;", "\\x{", "D800}", "41}", "<>", ",", "NEVER"]
    known = {name: row.lenient for table in _tables() for name, row in table.items() if row.lenient}
    for _ in range(20_000):
        value = "".join(chance.choices(pieces, k=chance.randrange(0, 6)))
        for name, read in known.items():
            found = read(value)
            if isinstance(found, str):
                assert found.isprintable(), (name, value)


def _tables():
    from preforksmtp.smtp.parameters import MAIL_PARAMETERS, RCPT_PARAMETERS

    return MAIL_PARAMETERS, RCPT_PARAMETERS


# --- smuggling


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO x\rMAIL FROM:<a@b>\r\n", b"MAIL FROM:<a\r@b>\r\n", b"MAIL FROM:<a\n@b>\r\n",
        b"MAIL FROM:<a@b>\r\r\n", b"MAIL FROM:<a@b>\n\r\n", b'MAIL FROM:<"a\r\nRCPT TO:<c@d>"@b>\r\n', b"MAIL FROM:a@b\rSIZE=1\r\n",
        b"MAIL FROM:<a@b> ENVID=x\rDATA\r\n", b"MAIL FROM:<a@b>\x0bSIZE=1\r\n", b"MAIL FROM:<a@b>\x0cSIZE=1\r\n",
        b"MAIL FROM:<a@b>\xc2\x85DATA\r\n", b"MAIL FROM:<a@b>\xe2\x80\xa8DATA\r\n", b"MAIL FROM:<a@b>\x1cDATA\r\n",
        b"NOOP\x00\rMAIL FROM:<a@b>\r\n", b"MAIL FROM:<a@b> AUTH=+0D+0ARCPT\rx\r\n",
    ],
)  # fmt: skip
def test_no_line_hides_another(octets, syntax):
    """Each line that ends with LF has one reply, none of what is within it is run, and the session is in sync."""
    begun = []

    class Mail(Handler):
        def mail(self, sender, params):
            begun.append(sender)

        def message(self, message): ...

    for cut in (0, 1):
        spoken = talk([EHLO, octets, "NOOP"], Mail, cut=cut, address_syntax=syntax)
        assert spoken.codes[0] == 250 and spoken.codes[-1] == 250
        assert all(code in (500, 501, 503) for code in spoken.codes[1:-1])
        assert len(spoken.codes) == 2 + octets.count(b"\n")
    assert begun == []
