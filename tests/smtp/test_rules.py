"""smtp/rules.py: what follows from the settings of a bind."""

from __future__ import annotations

from dataclasses import MISSING, fields
from types import SimpleNamespace

import pytest

from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.rules import Rules
from tests.fakes import make_rules, recording


def rules(**settings):
    return make_rules(Hooks.of_class(recording(message=None, authenticate=True)), **settings)


def test_the_greeting_has_no_enhanced_status_code():
    """RFC 2034 section 4; RFC 5321 section 4.2: the domain comes first."""
    assert rules(hostname="mx.test").greeting.wire == b"220 mx.test ESMTP preforksmtp\r\n"
    assert rules(hostname="mx.test", lmtp=True).greeting.wire == b"220 mx.test LMTP preforksmtp\r\n"
    assert rules(hostname="[192.0.2.1]").helo.wire == b"250 [192.0.2.1]\r\n"


@pytest.mark.parametrize(
    ("bindings", "auto", "always"),
    [
        ((), False, False),
        (("tls-server-end-point",), False, True),  # TLS 1.3 so far, and a resumed session of TLS 1.2
        (("tls-server-end-point", "tls-unique"), True, True),
        (("tls-server-end-point", "tls-exporter"), True, True),
    ],
)
def test_plus_is_offered_where_usual_clients_can_bind(bindings: tuple[str, ...], auto: bool, always: bool) -> None:
    found = dict.fromkeys(bindings, b"x")
    for setting, wanted in (("auto", auto), ("always", always), ("never", False)):
        assert make_rules(Hooks.of_function(print), channel_binding=setting).binds(found) is wanted


def test_a_field_that_is_neither_a_setting_nor_given_is_missed() -> None:
    """So none can be forgotten: Rules has no defaults of its own."""
    known = make_rules(Hooks.of_function(print))
    named = {each.name for each in fields(Rules) if each.init}
    settings = SimpleNamespace(**{name: getattr(known, name) for name in named - {"hooks"}})
    again = Rules.of(settings, hooks=known.hooks)
    assert {name: getattr(again, name) for name in named} == {name: getattr(known, name) for name in named}
    assert Rules.of(settings, hooks=known.hooks, max_errors=99).max_errors == 99
    del settings.max_errors
    with pytest.raises(AttributeError, match="max_errors"):
        Rules.of(settings, hooks=known.hooks)
    assert all(each.default is MISSING for each in fields(Rules) if each.init)
