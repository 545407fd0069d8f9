"""mime/fields.py, and mime/folding.py: the fields that parse() gives."""

from __future__ import annotations

import copy
import email
import email.policy
import pickle
from datetime import datetime, timedelta, timezone
from email import errors
from email.message import EmailMessage

import pytest

from preforksmtp.mime.fields import Field, RawValue

# Fields of which the standard library makes the same, text and attributes.
SAME = [
    ("Subject", "=?utf-8?q?caf=C3=A9?= and more"),
    ("X-Anything", "some words"),
    ("Date", "Mon, 24 Nov 2025 08:00:00 +0100"),
    ("Date", "24 Nov 2025 08:00 GMT"),
    ("Resent-Date", "Mon, 24 Nov 2025 08:00:00 -0000"),
    ("From", "Ann <a@b.example>"),
    ("To", '"Doe, Ann" <a@b.example>, c@d.example, G: e@f.example;'),
    ("Sender", "a@b.example"),
    ("Reply-To", "=?utf-8?q?J=C3=B6rg?= <j@x.example>"),
    ("MIME-Version", "1.0"),
    ("MIME-Version", "1.0 (produced by x)"),
    ("Content-Type", "text/plain"),
    ("Content-Type", 'Multipart/Mixed; boundary="b"'),
    ("Content-Disposition", 'attachment; filename="a.txt"'),
    ("Content-Transfer-Encoding", "BASE64"),
    ("Message-ID", "<a@b.example>"),
]
ATTRIBUTES = ("datetime", "addresses", "groups", "address", "version", "major", "minor", "content_disposition", "cte", "maintype",
              "subtype", "content_type", "name")  # fmt: skip


@pytest.mark.parametrize(("name", "value"), SAME)
def test_as_the_standard_library(name: str, value: str) -> None:
    library, ours = email.policy.default.header_factory(name, value), Field(name, value)
    if not hasattr(library, "cte"):
        assert ours == library
    for attribute in ATTRIBUTES:
        assert getattr(ours, attribute, None) == getattr(library, attribute, None), attribute
    assert dict(getattr(ours, "params", {})) == dict(getattr(library, "params", {}))
    assert not ours.defects
    if ours.isascii():
        assert ours.fold(policy=email.policy.default) == f"{name}: {value if hasattr(ours, 'cte') else ours}\n"


@pytest.mark.parametrize(
    ("name", "value", "text", "attribute", "wanted"),
    [
        ("To", "(c):", "(c):", "addresses", ()),
        ("From", "a@[", "a@[", "addresses", ()),
        ("From", "a@b, c d@e", "a@b, c d@e", "addresses", "(Address(display_name='', username='a', domain='b'),)"),
        ("Sender", "", "", "addresses", ()),
        ("Sender", "a@b, c@d", "a@b, c@d", "address", "Address(display_name='', username='a', domain='b')"),
        ("Sender", "@", "@", "address", "Address(display_name='', username='', domain='')"),
        ("Date", "yesterday", "yesterday", "datetime", None),
        ("Date", "", "", "datetime", None),
        ("Date", "Mon, 99 Foo 99999999999999 99:99:99 +9999", "Mon, 99 Foo 99999999999999 99:99:99 +9999", "datetime", None),
        ("Date", "1 Jan 2025 00:00:00 +99999999", "1 Jan 2025 00:00:00 +99999999", "datetime", None),
        ("Date", "9" * 10_000, "9" * 10_000, "datetime", None),
        ("MIME-Version", "x", "x", "version", None),
        ("MIME-Version", "9" * 5000 + ".0", "9" * 5000 + ".0", "version", None),
        ("Content-Type", "text", "text", "content_type", "text/plain"),
        ("Content-Type", "; x=y", "; x=y", "content_type", "text/plain"),
        ("Content-Disposition", "", "", "content_disposition", None),
    ],
)
def test_not_understood(name: str, value: str, text: str, attribute: str, wanted: object) -> None:
    field = Field(name, value)
    assert str(field) == text
    assert getattr(field, attribute) == wanted or repr(getattr(field, attribute)) == wanted
    assert field.defects
    assert isinstance(field.defects[0], errors.MessageDefect)
    assert field.name == name
    assert field.max_count is None


def test_message_id_and_type_that_make_cpython_raise() -> None:
    assert Field("Message-ID", "<[..]@[..]>") == "<[..]@[..]>"
    assert Field("Content-Type", "text/plain; name*").params == {"name": ""}


def test_raw_octets() -> None:
    assert Field("Subject", "caf\udcc3\udca9 \udcff") == "café \ufffd"
    assert Field("To", "J\udcc3\udcb6rg <j@x>").addresses[0].display_name == "Jörg"
    assert Field("Content-Type", "text/plain; charset=\udcff").params == {"charset": "\ufffd"}


@pytest.mark.parametrize("name", ["Subject", "To", "Content-Type", "Content-Disposition", "Message-ID", "Date", "X"])
def test_no_line_ends(name: str) -> None:
    field = Field(name, "=?utf-8?q?x/y=0d=0aBcc:_e=40x?= <a@b>; n*=utf-8''%0d%0aBcc:%20e")
    assert len(str(field).splitlines()) == 1
    for policy in (email.policy.default, email.policy.SMTP, email.policy.compat32, email.policy.SMTPUTF8):
        written = field.fold(policy=policy)
        assert all(line[:1] in (" ", "\t") for line in written.rstrip("\r\n").splitlines()[1:])
        message = EmailMessage()
        message[name] = field
        message.set_payload("body")
        assert email.message_from_string(message.as_string()).get_all("Bcc") is None


FOLDED = [
    ("Subject", "short", "Subject: short\n"),
    ("Subject", "", "Subject: \n"),
    ("Subject", "word " * 30, "Subject:" + " word" * 14 + "\n" + " word" * 15 + "\n word \n"),
    ("Subject", "x" * 200, "Subject: " + "x" * 200 + "\n"),
    ("Subject", "é", "Subject: =?utf-8?b?w6k=?=\n"),
    ("To", "=?utf-8?q?J=C3=B6rg?= <j@x>, k@x", "To: =?utf-8?b?SsO2cmc=?= <j@x>, k@x\n"),
    ("To", "=?utf-8?q?Fr=C3=A9?=: =?utf-8?q?a=2Cb?= <j@x>;", 'To: =?utf-8?q?Fr=C3=A9?=: "a,b" <j@x>;\n'),
    ("To", "grüße@x", "To: =?utf-8?b?Z3LDvMOfZUB4?=\n"),
    ("Content-Type", "text/plain; name==?utf-8?q?=C3=A9?=; x=\"a b\"", "Content-Type: text/plain; name*=utf-8''%C3%A9; x=\"a b\"\n"),
    ("Content-Disposition", "attachment; filename*=utf-8''%C3%A9", "Content-Disposition: attachment; filename*=utf-8''%C3%A9\n"),
]


@pytest.mark.parametrize(("name", "value", "folded"), FOLDED)
def test_fold(name: str, value: str, folded: str) -> None:
    assert Field(name, value).fold(policy=email.policy.default) == folded


def test_fold_in_utf_8() -> None:
    assert Field("Subject", "é").fold(policy=email.policy.SMTPUTF8) == "Subject: é\r\n"


def test_fold_what_the_standard_library_never_ends() -> None:
    name = "x" * 80
    field = Field("Content-Type", f'text/plain; {name}="{"y" * 200}"; é=é; {"z" * 300}*=utf-8\'\'%C3%A9')
    assert field.fold(policy=email.policy.default).startswith("Content-Type: text/plain;")


def test_raw_values_are_written_as_they_came() -> None:
    value = RawValue("Subject", "one\n  two")
    assert value.fold(policy=email.policy.default) == "Subject: one\n  two\n"
    assert value.fold(policy=email.policy.SMTP) == "Subject: one\r\n  two\r\n"
    assert RawValue("Subject", "\n caf\udcc3\udca9").fold(policy=email.policy.SMTP) == "Subject: =?utf-8?b?Y2Fmw6k=?=\r\n"


@pytest.mark.parametrize("field", [Field("To", "Ann <a@b>"), Field("Date", "x"), Field("Content-Type", "a/b; c=d"), RawValue("A", "b\udcff")])
def test_copies(field: Field) -> None:
    for twin in (copy.copy(field), copy.deepcopy(field), pickle.loads(pickle.dumps(field))):
        assert type(twin) is type(field)
        assert (twin, twin.name, getattr(twin, "addresses", None)) == (field, field.name, getattr(field, "addresses", None))


def test_a_date_is_a_datetime() -> None:
    wanted = datetime(2025, 11, 24, 8, tzinfo=timezone(timedelta(hours=1)))
    assert Field("Date", "Mon, 24 Nov 2025 08:00:00 +0100 (CET)").datetime == wanted
