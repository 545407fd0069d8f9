"""smtp/extensions.py: who is offered what."""

from __future__ import annotations

import re
from typing import Any

import pytest

from preforksmtp import Handler
from preforksmtp.smtp.extensions import Standing, offer, offered, offered_mechanisms
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.rules import Rules
from tests.fakes import make_rules

ALWAYS = {
    "PIPELINING": "",
    "SIZE": "33554432",
    "8BITMIME": "",
    "SMTPUTF8": "",
    "ENHANCEDSTATUSCODES": "",
    "CHUNKING": "",
    "BINARYMIME": "",
    "DSN": "",
    "LIMITS": "RCPTMAX=1000",
    "HELP": "",
}


class Plain(Handler):
    def message(self, message: Any) -> None: ...


class Login(Plain):
    def authenticate(self, username: str, password: str) -> bool:
        return True


class Queue(Plain):
    def etrn(self, argument: str) -> None: ...


class Lists(Plain):
    def verify(self, argument: str) -> None: ...

    def expand(self, argument: str) -> None: ...


class Declaring(Plain):
    extensions = {"MT-PRIORITY": None, "DELIVERBY": 240, "RRVS": None, "PRDR": None, "FUTURERELEASE": 60}


def difference(handler: type[Handler], standing: Standing = Standing(), **rules: Any) -> dict[str, str | None]:
    """What differs from ALWAYS; None: it is missing."""
    found = offered(make_rules(Hooks.of_class(handler), **rules), standing)
    return {name: found.get(name) for name in {**ALWAYS, **found} if found.get(name) != ALWAYS.get(name)}


@pytest.mark.parametrize(
    ("handler", "standing", "rules", "expected"),
    [
        (Plain, Standing(), {}, {}),
        (Plain, Standing(tls=True), {}, {"REQUIRETLS": ""}),
        (Plain, Standing(tls=True), {"lmtp": True}, {}),
        (Plain, Standing(), {"max_message_size": 1000}, {"SIZE": "1000"}),
        (Plain, Standing(), {"max_message_size": 0}, {"SIZE": ""}),
        (Plain, Standing(), {"max_recipients": 5, "max_messages": 3, "max_recipient_domains": 2}, {"LIMITS": "RCPTMAX=5 MAILMAX=3 RCPTDOMAINMAX=2"}),
        (Plain, Standing(), {"offer_tls": True}, {"STARTTLS": ""}),
        (Plain, Standing(tls=True), {"offer_tls": True}, {"REQUIRETLS": ""}),
        (Login, Standing(), {}, {}),
        (Login, Standing(), {"allow_insecure_auth": True}, {"AUTH": "PLAIN LOGIN"}),
        (Login, Standing(tls=True), {}, {"AUTH": "PLAIN LOGIN", "REQUIRETLS": ""}),
        (Login, Standing(tls=True, authenticated=True), {}, {"REQUIRETLS": ""}),
        (Login, Standing(), {"allow_insecure_auth": True, "auth_mechanisms": ("login",)}, {"AUTH": "LOGIN"}),
        (Login, Standing(), {"allow_insecure_auth": True, "auth_mechanisms": ("FOO",)}, {}),
        (Plain, Standing(), {"allow_insecure_auth": True}, {}),
        (Queue, Standing(), {}, {"ETRN": ""}),
        (Lists, Standing(), {}, {"VRFY": "", "EXPN": ""}),  # RFC 5321 section 3.5.2
        (Plain, Standing(xclient=True), {}, {"XCLIENT": "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"}),
        (Plain, Standing(xforward=True), {}, {"XFORWARD": "NAME ADDR PORT PROTO HELO IDENT SOURCE"}),
    ],
)
def test_offer(handler, standing, rules, expected):
    assert difference(handler, standing, **rules) == expected


def test_what_a_handler_declares():
    found = difference(Declaring)
    until = found.pop("FUTURERELEASE")
    assert found == {"MT-PRIORITY": "", "DELIVERBY": "240", "RRVS": "", "PRDR": ""}
    assert until is not None
    assert re.fullmatch(r"60 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", until)
    assert "PRDR" not in difference(Declaring, lmtp=True)


# --- the offer


def login(**settings: Any) -> Rules:
    return make_rules(Hooks.of_class(Login), **settings)


def test_the_reply_to_ehlo() -> None:
    wire = offer(login(hostname="mx.test"), Standing()).ehlo.wire
    assert wire.startswith(b"250-mx.test\r\n250-PIPELINING\r\n250-SIZE 33554432\r\n")
    assert wire.endswith(b"\r\n250 HELP\r\n")


def test_an_offer_is_made_once_for_all_clients_of_one_standing() -> None:
    found = login()
    assert offer(found, Standing(tls=True)) is offer(found, Standing(tls=True))
    assert offer(found, Standing(tls=True)) is not offer(found, Standing())


def test_parameters_come_with_their_extension() -> None:
    clear, tls = offer(login(), Standing()), offer(login(), Standing(tls=True))
    assert set(clear.mail_parameters) == {"SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID"}
    assert set(tls.mail_parameters) == {*clear.mail_parameters, "REQUIRETLS"}
    assert set(clear.rcpt_parameters) == {"NOTIFY", "ORCPT"}


def test_mechanisms() -> None:
    assert offered_mechanisms(login(), Standing()) == ()
    assert offered_mechanisms(login(), Standing(tls=True)) == ("PLAIN", "LOGIN")
    assert offered_mechanisms(login(allow_insecure_auth=True), Standing()) == ("PLAIN", "LOGIN")
    assert offered_mechanisms(login(auth_mechanisms=("plain", "X")), Standing(tls=True)) == ("PLAIN",)
