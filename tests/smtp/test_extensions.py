"""smtp/extensions.py: who is offered what."""

from __future__ import annotations

import re
from typing import Any

import pytest

from preforksmtp import Handler
from preforksmtp.smtp.declared import DECLARED, read_declared
from preforksmtp.smtp.extensions import Standing, offered
from preforksmtp.smtp.hooks import Hooks
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


def test_declarations():
    assert read_declared(()) == {}
    assert read_declared(["prdr", "FUTURERELEASE"]) == {"PRDR": "", "FUTURERELEASE": DECLARED["FUTURERELEASE"]}
    assert read_declared({"DELIVERBY": 5, "MT-PRIORITY": "MIXER"}) == {"DELIVERBY": "5", "MT-PRIORITY": "MIXER"}


@pytest.mark.parametrize("wrong", [["FOO"], ["PIPELINING"], {"FUTURERELEASE": "soon"}, {"DELIVERBY": -1}])
def test_a_wrong_declaration(wrong):
    with pytest.raises(ValueError, match="extensions: "):
        read_declared(wrong)
