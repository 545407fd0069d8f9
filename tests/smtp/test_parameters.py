"""smtp/parameters.py: rows of each parameter's grammar."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from preforksmtp import Reject
from preforksmtp.smtp import reply
from preforksmtp.smtp.declared import DECLARED
from preforksmtp.smtp.extensions import KEYWORDS
from preforksmtp.smtp.parameters import (
    DROPPED,
    FORGIVEN,
    MAIL_PARAMETERS,
    RCPT_PARAMETERS,
    DeliverBy,
    ValidSince,
    read_parameters,
)

KNOWN = {name: row.read for name, row in {**MAIL_PARAMETERS, **RCPT_PARAMETERS}.items()}
MOMENT = datetime(2026, 11, 24, 8, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("SIZE", "0", 0), ("SIZE", "1000", 1000), ("SIZE", "00012", 12), ("SIZE", "9" * 20, int("9" * 20)),
        ("BODY", "7BIT", "7BIT"), ("BODY", "8bitmime", "8BITMIME"), ("BODY", "BinaryMIME", "BINARYMIME"),
        ("SMTPUTF8", None, True), ("REQUIRETLS", None, True), ("PRDR", None, True),
        ("AUTH", "<>", ""), ("AUTH", "a@b", "a@b"), ("AUTH", "e+3Dmc2@example.com", "e=mc2@example.com"),
        ("RET", "full", "FULL"), ("RET", "HDRS", "HDRS"),
        ("ENVID", "QQ314159", "QQ314159"), ("ENVID", "a+20b", "a b"), ("ENVID", "x" * 100, "x" * 100),
        ("NOTIFY", "NEVER", ("NEVER",)), ("NOTIFY", "success,Failure,DELAY", ("SUCCESS", "FAILURE", "DELAY")),
        ("NOTIFY", "DELAY", ("DELAY",)),
        ("ORCPT", "rfc822;Bob@x.org", "rfc822;Bob@x.org"), ("ORCPT", "rfc822;a+2Bb@x", "rfc822;a+b@x"),
        ("ORCPT", "x-y;z", "x-y;z"), ("ORCPT", "utf-8;ü@x", "utf-8;ü@x"), ("ORCPT", r"utf-8;\x{FC}@x", "utf-8;ü@x"),
        ("ORCPT", r"utf-8;\x{2B}41@x", "utf-8;+41@x"), ("ORCPT", "utf-8;a+5Cx{41}@x", r"utf-8;a\x{41}@x"),  # decoded once
        ("MT-PRIORITY", "-9", -9), ("MT-PRIORITY", "0", 0), ("MT-PRIORITY", "9", 9),
        ("BY", "120;R", DeliverBy(120, "R", False)), ("BY", "-5;nt", DeliverBy(-5, "N", True)),
        ("BY", "+0;N", DeliverBy(0, "N", False)), ("BY", "1;R", DeliverBy(1, "R", False)),
        ("HOLDFOR", "3600", 3600), ("HOLDUNTIL", "2026-11-24T08:00:00Z", MOMENT),
        ("HOLDUNTIL", "2026-11-24T09:00:00.25+01:00", MOMENT),
        ("RRVS", "2026-11-24T08:00:00Z", ValidSince(MOMENT, "R")),
        ("RRVS", "2026-11-24T08:00:00Z;c", ValidSince(MOMENT, "C")),
    ],
)  # fmt: skip
def test_value(name, text, value):
    assert read_parameters({name: text}, KNOWN) == {name: value}


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("SIZE", [None, "", "-1", "+1", "1k", "1.5", "9" * 21, "\u0663", "\u00b2"]),
        ("BODY", [None, "", "9BIT", "8BITMIME,7BIT"]),
        ("SMTPUTF8", ["", "1", "yes"]),
        ("REQUIRETLS", ["1"]),
        ("PRDR", ["1"]),
        ("AUTH", [None, "", "a+b", "a+3", "a+3d", "+0D+0A", "+00", "a=b", "ü", "+FF", "+7F"]),
        ("RET", [None, "", "BODY", "FULL,HDRS"]),
        ("ENVID", [None, "", "x" * 101, "a+0Ab", "a+", "ü"]),
        ("NOTIFY", [None, "", "NEVER,SUCCESS", "SUCCESS,SUCCESS", "SUCCESS,", ",", "LATER"]),
        ("ORCPT", [None, "", "bob@x.org", ";a@b", "rfc822;", "rfc_822;a", "rfc822;a+0Db", "x" * 20 + ";" + "y" * 490,
                   r"utf-8;\x{110000}", r"utf-8;\x{0A}", r"utf-8;\x{D800}", "utf-8;", "-a;b", "a-;b"]),
        ("MT-PRIORITY", [None, "", "-0", "00", "10", "-10", "+1", "1.0", "a"]),
        ("BY", [None, "", "120", "120;", "120;X", "0;R", "-5;R", "1;RN", "9999999999;N", ";R"]),
        ("HOLDFOR", [None, "", "0", "-1", "1.5", "9999999999"]),
        ("HOLDUNTIL", [None, "", "2026-11-24", "2026-13-24T08:00:00Z", "2026-11-24T08:00:00", "2026-11-24 08:00:00Z",
                       "0001-01-01T00:00:00+23:00", "2026-11-24T25:00:00Z"]),
        ("RRVS", [None, "", "yesterday", "2026-11-24T08:00:00Z;X"]),
    ],
)  # fmt: skip
def test_malformed_values(name, texts):
    for text in texts:
        with pytest.raises(Reject) as refusal:
            print(read_parameters({name: text}, KNOWN))
        assert refusal.value.reply == reply.BAD_PARAMETER, text


def test_every_parameter_has_rows_above():
    """A new row of the tables must come with its tests."""
    rows = {mark.args[1][i][0] for test in (test_value, test_malformed_values) for mark in test.pytestmark
            for i in range(len(mark.args[1]))}  # fmt: skip
    assert rows == set(KNOWN)


def test_every_parameter_belongs_to_an_extension():
    extensions = {row.extension for row in (*MAIL_PARAMETERS.values(), *RCPT_PARAMETERS.values())}
    assert extensions - {""} <= set(KEYWORDS)
    assert set(DECLARED) <= set(KEYWORDS)


def test_unknown():
    with pytest.raises(Reject) as refusal:
        read_parameters({"X-UNKNOWN": "1"}, KNOWN)
    assert refusal.value.reply == reply.UNKNOWN_PARAMETER


def test_hold_for_and_hold_until_exclude_each_other():
    with pytest.raises(Reject):
        read_parameters({"HOLDFOR": "5", "HOLDUNTIL": "2026-11-24T08:00:00Z"}, KNOWN)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("AUTH", "a+3d", "a="), ("AUTH", "a=b", "a=b"), ("AUTH", "<>", ""), *[
            ("AUTH", text, "") for text in (None, "", "a+b", "a+3", "+0D+0A", "+00", "ü", "+FF", "+C3+BC", "+7F")
        ],
        ("RET", "full", "FULL"), *[("RET", text, DROPPED) for text in (None, "", "BODY", "FULL,HDRS")],
        ("ENVID", "a+2bb", "a+b"), ("ENVID", "a=b", "a=b"), ("ENVID", "a+", "a+"), ("ENVID", "a+0Ab", "a+0Ab"),
        ("ENVID", "x" * 300, "x" * 300), ("ENVID", "", DROPPED), ("ENVID", None, DROPPED),
        ("NOTIFY", "SUCCESS,", ("SUCCESS",)), ("NOTIFY", ",failure,,DELAY", ("FAILURE", "DELAY")),
        ("NOTIFY", "SUCCESS,SUCCESS", ("SUCCESS",)), ("NOTIFY", "NEVER,NEVER", ("NEVER",)),
        ("NOTIFY", "SUCCESS,LATER", ("SUCCESS",)),
        *[("NOTIFY", text, DROPPED) for text in (None, "", ",", "LATER", "NEVER,SUCCESS")],
        ("ORCPT", "rfc822;a+2bb@x", "rfc822;a+b@x"), ("ORCPT", "rfc822;a=b@x", "rfc822;a=b@x"),
        ("ORCPT", "rfc822;j+C3+BCrg@ex+C3+A4mple.com", "rfc822;jürg@exämple.com"),
        ("ORCPT", "rfc822;a+0Ab@x", "rfc822;a+0Ab@x"), ("ORCPT", "rfc822;a+@x", "rfc822;a+@x"),
        ("ORCPT", r"utf-8;\x{FC}@x", "utf-8;ü@x"), ("ORCPT", "utf-8;j+C3+BC@x", "utf-8;jü@x"),
        ("ORCPT", r"utf-8;\x{fc}+2b@x", "utf-8;ü+@x"), ("ORCPT", "utf-8;a+5Cx{41}@x", r"utf-8;a\x{41}@x"),
        ("ORCPT", r"utf-8;\x{110000}", r"utf-8;\x{110000}"), ("ORCPT", "utf-8;a+C3@x", "utf-8;a+C3@x"),
        ("ORCPT", r"utf-8;\x{0A}", r"utf-8;\x{0A}"), ("ORCPT", "x;" + "y" * 600, "x;" + "y" * 600),
        *[("ORCPT", text, DROPPED) for text in (None, "", "bob@x.org", ";a@b", "rfc822;", "rfc_822;a")],
    ],
)  # fmt: skip
def test_lenient_value(name, text, value):
    """Nothing of these is worth a message."""
    read = {**MAIL_PARAMETERS, **RCPT_PARAMETERS}[name].lenient
    assert read(text) == value
    assert read_parameters({name: text}, {name: read}) == ({} if value is DROPPED else {name: value})


def test_every_lenient_reader_has_rows_above():
    assert {mark.args[1][i][0] for mark in test_lenient_value.pytestmark for i in range(len(mark.args[1]))} == FORGIVEN
