"""connection/terms.py: what the settings of a bind come to."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from preforksmtp.config.load import load
from preforksmtp.config.settings import BY_NAME
from preforksmtp.connection.terms import Terms, endpoint, make_terms
from preforksmtp.net.bind import parse_bind
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.rules import Rules
from preforksmtp.smtp.session import Endpoint

# Fields of Rules that are no setting: worked out from several, or made by whoever runs the sessions.
COMPUTED = {
    *("hooks", "lmtp", "offer_tls", "accept_bare_newlines", "accept_pipelined_body", "salt_key", "spool_dir", "room"),
    "stressed",
}
NAMED = [each.name for each in fields(Rules) if each.init and each.name not in COMPUTED]


def terms(*arguments: str, bind: str = "127.0.0.1:25", address: Any = ("127.0.0.1", 25), **options: Any) -> Terms:
    settings = load(["--hostname", "mx.test", *arguments], environ={}, folder="/")
    parsed = parse_bind(bind)
    return make_terms(settings.for_bind(parsed), parsed, address, None, Hooks.of_function(print), **options)


@pytest.mark.parametrize("name", NAMED)
def test_a_rule_is_the_setting_of_its_name(name: str) -> None:
    settings = load(["--hostname", "mx.test"], environ={}, folder="/")
    assert name in BY_NAME
    assert getattr(terms().rules, name) == getattr(settings, name)


def test_what_is_set_reaches_the_session() -> None:
    rules = terms("--max-errors", "7", "--error-delay", "0.5", "--require-auth").rules
    assert (rules.max_errors, rules.error_delay, rules.require_auth) == (7, 0.5, True)
    assert rules.greeting.text == "mx.test ESMTP preforksmtp"


@pytest.mark.parametrize(("value", "accepted"), [("accept", True), ("reject", False)])
def test_words_of_a_setting_become_a_yes_or_no(value: str, accepted: bool) -> None:
    rules = terms("--bare-newlines", value, "--pipelined-body", value).rules
    assert (rules.accept_bare_newlines, rules.accept_pipelined_body) == (accepted, accepted)


def test_relative_folders_begin_where_the_server_was_started() -> None:
    assert terms(folder="/srv").rules.spool_dir is None
    assert terms("--spool-dir", "spool", folder="/srv").rules.spool_dir == "/srv/spool"
    assert terms("--spool-dir", "/var/spool", folder="/srv").rules.spool_dir == "/var/spool"


def test_a_salt_key_is_never_shared_by_chance() -> None:
    assert terms().rules.salt_key != terms().rules.salt_key
    assert terms(salt_key=b"k" * 32).rules.salt_key == b"k" * 32


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (("192.0.2.1", 25), Endpoint("192.0.2.1", 25)),
        (("::ffff:192.0.2.1", 25, 0, 0), Endpoint("192.0.2.1", 25)),
        (("2001:db8::1", 25, 0, 0), Endpoint("2001:db8::1", 25)),
        ("/run/smtp.sock", Endpoint("unix", 0)),
    ],
)
def test_endpoint(address: Any, found: Endpoint) -> None:
    assert endpoint(address) == found
    assert terms(address=address).local == found


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
def test_a_listener_on_every_address_is_asked_for_each_session(everywhere: str) -> None:
    assert terms(address=(everywhere, 25)).local is None
