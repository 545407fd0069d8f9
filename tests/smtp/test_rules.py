"""smtp/rules.py: the replies and parameters that follow from the settings."""

from __future__ import annotations

import pytest

from preforksmtp.smtp.extensions import Standing, offer, offered_mechanisms
from preforksmtp.smtp.hooks import Hooks
from tests.fakes import make_rules, recording


def rules(**settings):
    return make_rules(Hooks.of_class(recording(message=None, authenticate=True)), **settings)


def test_the_greeting_has_no_enhanced_status_code():
    """RFC 2034 section 4; RFC 5321 section 4.2: the domain comes first."""
    assert rules(hostname="mx.test").greeting.wire == b"220 mx.test ESMTP preforksmtp\r\n"
    assert rules(hostname="mx.test", lmtp=True).greeting.wire == b"220 mx.test LMTP preforksmtp\r\n"
    assert rules(hostname="[192.0.2.1]").helo.wire == b"250 [192.0.2.1]\r\n"


def test_the_reply_to_ehlo():
    wire = offer(rules(hostname="mx.test"), Standing()).ehlo.wire
    assert wire.startswith(b"250-mx.test\r\n250-PIPELINING\r\n250-SIZE 33554432\r\n")
    assert wire.endswith(b"\r\n250 HELP\r\n")


def test_an_offer_is_made_once_for_all_clients_of_one_standing():
    found = rules()
    assert offer(found, Standing(tls=True)) is offer(found, Standing(tls=True))
    assert offer(found, Standing(tls=True)) is not offer(found, Standing())


def test_parameters_come_with_their_extension():
    clear, tls = offer(rules(), Standing()), offer(rules(), Standing(tls=True))
    assert set(clear.mail_parameters) == {"SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID"}
    assert set(tls.mail_parameters) == {*clear.mail_parameters, "REQUIRETLS"}
    assert set(clear.rcpt_parameters) == {"NOTIFY", "ORCPT"}


def test_mechanisms():
    assert offered_mechanisms(rules(), Standing()) == ()
    assert offered_mechanisms(rules(), Standing(tls=True)) == ("PLAIN", "LOGIN")
    assert offered_mechanisms(rules(allow_insecure_auth=True), Standing()) == ("PLAIN", "LOGIN")
    assert offered_mechanisms(rules(auth_mechanisms=("plain", "X")), Standing(tls=True)) == ("PLAIN",)


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
