"""The table: every row is well formed, and each type of value takes and refuses what it should."""

import os
import pathlib

import pytest

from preforksmtp.config import values
from preforksmtp.config.networks import Networks
from preforksmtp.config.settings import BY_NAME, SECTIONS, SETTINGS


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_row_is_well_formed(setting):
    assert setting.section in SECTIONS
    assert setting.help.endswith(".")
    assert setting.parse(None) == setting.parse(setting.parse(None)), "a type takes its own result back"
    assert setting.variables[0] == "PREFORKSMTP_" + setting.name.upper()


def test_names_options_and_variables_are_unique():
    for facts in ("options", "variables"):
        found = [fact for setting in SETTINGS for fact in getattr(setting, facts)]
        assert len(found) == len(set(found))
    assert len(BY_NAME) == len(SETTINGS)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("app", "preforksmtp.handlers:Maildir('Maildir')"), ("bind", ("127.0.0.1:8025",)), ("workers", 1),
        ("threads", 100), ("timeout", 30.0), ("boot_timeout", 60.0), ("graceful_timeout", 30.0),
        ("max_message_size", 33554432), ("max_recipients", 1000), ("command_timeout", 300.0),
        ("data_timeout", 180.0), ("spool_threshold", 1048576), ("tls_min_version", "1.2"),
        ("access_logfile", None), ("bare_newlines", "reject"), ("require_tls", False),
    ],
)  # fmt: skip
def test_defaults_of_the_contract(name, default):
    value = BY_NAME[name].parse(None)
    assert value == default
    assert type(value) is type(default)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (values.integer(1), "8", 8),
        (values.integer(1), 8, 8),
        (values.integer(1, words={"auto": lambda: 6}), "Auto", 6),
        (values.size(), 10, 10),
        (values.size(), "33554432", 33554432),
        (values.size(), "32M", 33554432),
        (values.size(), "32MB", 33554432),
        (values.size(), "1 MiB", 1048576),
        (values.size(), "1.5k", 1536),
        (values.size(), "2 GiB", 2**31),
        (values.size(), "0", 0),
        (values.cidrs(), "127.0.0.1, ::1", Networks(("127.0.0.1", "::1"))),
        (values.cidrs(), ["10.0.0.0/8", "unix"], Networks(("10.0.0.0/8", "unix"))),
        (values.cidrs(), "", Networks()),
        (values.named_certificates(), "MX.Example.Org.=a.pem,a.key", {"mx.example.org": ("a.pem", "a.key")}),
        (values.named_certificates(), "a.org=a.pem;*.b.org=b,k", {"a.org": ("a.pem", None), "*.b.org": ("b", "k")}),
        (values.named_certificates(), ["a.org=a", "b.org=b=c,k"], {"a.org": ("a", None), "b.org": ("b=c", "k")}),
        (values.named_certificates(), {"a.org": ("a", "k"), "b.org": pathlib.Path("/b")},
         {"a.org": ("a", "k"), "b.org": ("/b", None)}),
        (values.named_certificates(), {"a.org": ("a", None)}, {"a.org": ("a", None)}),
        (values.share(), 0.9, 0.9),
        (values.share(), "90%", 0.9),
        (values.share(), " .5 ", 0.5),
        (values.share(), 1, 1.0),
        (values.share(), "0", 0.0),
        (values.seconds(), 30, 30.0),
        (values.seconds(), "0.5", 0.5),
        (values.seconds(), "500ms", 0.5),
        (values.seconds(), "5m", 300.0),
        (values.seconds(), "1h", 3600.0),
        (values.seconds(zero=True), "0", 0.0),
        (values.boolean(), True, True),
        (values.boolean(), "yes", True),
        (values.boolean(), "OFF", False),
        (values.boolean(), 0, False),
        (values.string(), "", None),
        (values.path(), pathlib.Path("/etc/x"), "/etc/x"),
        (values.path(), "~/x", os.path.expanduser("~") + "/x"),
        (values.choice("1.2", "1.3"), 1.3, "1.3"),
        (values.choice("text", "json"), "JSON", "json"),
        (values.words("A", upper=True), "plain, login", ("PLAIN", "LOGIN")),
        (values.words("A"), ["a", "b"], ("a", "b")),
        (values.words("A", commas_only=True), "/a b,/c", ("/a b", "/c")),
        (values.patterns(), "*.txt", ("*.txt",)),
        (values.patterns(), ["a/**", pathlib.Path("b c")], ("a/**", "b c")),
        (values.addresses(), ":25", (":25",)),
        (values.addresses(), [":25", "[::1]:26"], (":25", "[::1]:26")),
        (values.variables(), "A=b=c", {"A": "b=c"}),
        (values.variables(), ["A=1", "B="], {"A": "1", "B": ""}),
        (values.variables(), {"A": "1"}, {"A": "1"}),
        (values.hostname(), "mx.example.org", "mx.example.org"),
        (values.hostname(), "localhost", "localhost"),
        (values.hostname(), "[192.0.2.1]", "[192.0.2.1]"),
        (values.hostname(), "[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
    ],
)
def test_a_type_takes(kind, raw, value):
    assert kind.parse(raw) == value
    assert value is None or kind.parse(value) == value, "a type takes its own result back"


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (values.integer(1), "0"),
        (values.integer(1), "eight"),
        (values.integer(1), 1.5),
        (values.integer(1), True),
        (values.integer(1), None),
        (values.integer(1, 10), 11),
        (values.integer(1), "auto"),
        (values.size(), "-1"),
        (values.size(), "32 Q"),
        (values.size(), 1.5),
        (values.size(), "9999999T"),
        (values.size(), "9" * 400),
        (values.seconds(), 0),
        (values.seconds(), -1),
        (values.seconds(), "nan"),
        (values.seconds(), float("inf")),
        (values.seconds(), "5 minutes"),
        (values.seconds(), True),
        (values.boolean(), "maybe"),
        (values.boolean(), 2),
        (values.string(), 5),
        (values.string(), "a\0b"),
        (values.path(), b"x"),
        (values.choice("a", "b"), "c"),
        (values.words("A"), 5),
        (values.words("A"), {1, "a"}),
        (values.addresses(), []),
        (values.addresses(), [""]),
        (values.addresses(), 25),
        (values.patterns(), 5),
        (values.patterns(), ["a", None]),
        (values.variables(), "A"),
        (values.variables(), "1A=x"),
        (values.variables(), {"A": 1}),
        (values.hostname(), ""),
        (values.hostname(), "192.0.2.1"),
        (values.hostname(), "my_host"),
        (values.hostname(), "mx..org"),
        (values.hostname(), "-mx.org"),
        (values.hostname(), "mx.org\r\nQUIT"),
        (values.hostname(), "mx org"),
        (values.hostname(), "m\u00fcnchen.example"),
        (values.hostname(), "[mx]"),
        (values.hostname(), "a" * 64 + ".org"),
        (values.share(), 1.5),
        (values.share(), "101%"),
        (values.share(), "-1"),
        (values.share(), "nan"),
        (values.share(), "half"),
        (values.share(), True),
        (values.cidrs(), "localhost"),
        (values.cidrs(), "10.0.0.0/33"),
        (values.cidrs(), "10.0.0.1/8"),  # a slip: the host, or its network?
        (values.cidrs(), 10),
        (values.cidrs(), [10]),
        (values.named_certificates(), "a.pem,a.key"),
        (values.named_certificates(), "=a.pem"),
        (values.named_certificates(), "a.org="),
        (values.named_certificates(), "a.org=,k"),
        (values.named_certificates(), "a.org=a,b,c"),
        (values.named_certificates(), "a.*.org=a"),
        (values.named_certificates(), "192.0.2.1=a"),
        (values.named_certificates(), "[192.0.2.1]=a"),
        (values.named_certificates(), "m\u00fcnchen.example=a"),
        (values.named_certificates(), {"a.org": 5}),
        (values.named_certificates(), 5),
    ],
)
def test_a_type_refuses(kind, raw):
    with pytest.raises(ValueError, match="must") as error:
        kind.parse(raw)
    assert "\n" not in str(error.value)


def test_hostname_hints_at_brackets():
    with pytest.raises(ValueError, match=r"did you mean \[192\.0\.2\.1\]\?"):
        values.hostname().parse("192.0.2.1")
