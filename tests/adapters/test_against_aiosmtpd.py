"""aiosmtpd itself, where it is installed: its own handlers, and one script spoken to it and to the adapter."""

from __future__ import annotations

import ast
import base64
import importlib.util
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.foreign import EHLO, WHOLE
from tests.fakes import talk
from tests.processes import PATIENCE
from tests.sessions import Sessions

handlers = pytest.importorskip("aiosmtpd.handlers")
smtp = pytest.importorskip("aiosmtpd.smtp")
controller = pytest.importorskip("aiosmtpd.controller")


def plain(username: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{username}\0{password}".encode()).decode()


def test_the_handlers_of_aiosmtpd(adapt, tmp_path, capsys):
    messages = []

    class Own(handlers.AsyncMessage):
        async def handle_message(self, message):
            messages.append(message)

    def check(server, session, envelope, mechanism, auth_data):
        assert isinstance(auth_data, smtp.LoginPassword)
        return smtp.AuthResult(success=auth_data.password == b"right", handled=False, auth_data=auth_data)

    for adapter in (adapt(handlers.Sink), adapt(handlers.Debugging), adapt(handlers.Mailbox, str(tmp_path / "box"))):
        assert talk(WHOLE, adapter).codes == [250, 250, 250, 354, 250]
    assert "X-Peer: ('192.0.2.1', 4000)" in capsys.readouterr().out
    (file,) = (tmp_path / "box" / "new").iterdir()
    assert b"X-MailFrom: a@b.test" in file.read_bytes()
    adapter = adapt(Own, authenticator=check)
    assert [
        talk([EHLO, plain("bob", word)], adapter, allow_insecure_auth=True).codes[1] for word in ("right", "wrong")
    ] == [235, 535]
    assert talk(WHOLE, adapter).codes[-1] == 250
    assert (messages[0]["X-RcptTo"], messages[0].get_payload()) == ("c@d.test", "y\r\n")


class Noting:
    """Every hook, with all that it can see."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def note(self, name, session, envelope, *arguments):
        facts = (session.host_name, session.extended_smtp, session.authenticated, session.auth_data)
        state = {key: list(value) if isinstance(value, list) else value for key, value in vars(envelope).items()}
        self.calls.append((name, facts, state, *arguments))

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        self.note("EHLO", session, envelope, hostname, responses[0][:4], responses[-1])
        session.host_name = hostname
        return responses

    async def handle_HELO(self, server, session, envelope, hostname):
        self.note("HELO", session, envelope, hostname)
        session.host_name = hostname
        return f"250 {server.hostname}"

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        self.note("MAIL", session, envelope, address, mail_options)
        if address.startswith("raise"):
            raise LookupError(address)
        if address.startswith("no"):
            return "553 no"
        if not address.startswith("unset"):
            envelope.mail_from = address
            envelope.mail_options.extend(mail_options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        self.note("RCPT", session, envelope, address, rcpt_options)
        if address.startswith("no"):
            return "550 no"
        if not address.startswith("unset"):
            envelope.rcpt_tos.append(address)
        return "250-more\r\n250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.note("DATA", session, envelope)
        return "250 OK"

    async def handle_RSET(self, server, session, envelope):
        self.note("RSET", session, envelope)
        return "250 OK"

    async def handle_VRFY(self, server, session, envelope, address):
        self.note("VRFY", session, envelope, address)
        return "252 perhaps"

    async def handle_exception(self, error):
        return f"542 {type(error).__name__}"


def check(server, session, envelope, mechanism, auth_data):
    server.event_handler.note("AUTH", session, envelope, mechanism, auth_data, type(auth_data))
    return smtp.AuthResult(success=auth_data.password == b"right", handled=False, auth_data=auth_data)


SCRIPT = [
    "MAIL FROM:<a@b.c>", "EHLO one.test", plain("bob", "wrong"), plain("bob", "right"), "RCPT TO:<a@b.c>",
    "MAIL FROM:<no@x.y>", "MAIL FROM:<raise@x.y>", "MAIL FROM:<unset@x.y>", "RCPT TO:<a@b.c>", "RSET",
    "MAIL FROM:<a@b.c> SIZE=12 body=8bitmime", "RCPT TO:<no@x.y>", "RCPT TO:<unset@x.y>", "DATA", "RCPT TO:<c@d.e>",
    "RCPT TO:<f@g.h>", "DATA", "Subject: x\r\n\r\n..dot\r\n.", "MAIL FROM:<>", "RCPT TO:<c@d.e>", "DATA", ".",
    "VRFY someone@x.y", "MAIL FROM:<a@b.c> SMTPUTF8", "RCPT TO:<c@d.e>", "RSET", "HELO two.test", "MAIL FROM:<a@b.c>",
    "RCPT TO:<c@d.e>", "DATA", "x\r\n.", "QUIT",
]  # fmt: skip


def speak(connection: socket.socket) -> list[str]:
    """The code of each reply."""
    codes = []
    with connection, connection.makefile("rb") as file:
        for line in ["", *SCRIPT]:
            if line:
                connection.sendall(line.encode() + b"\r\n")
            answer = file.readline()
            while answer[3:4] == b"-":
                answer = file.readline()
            codes.append(answer[:3].decode())
    return codes


def test_the_same_calls_and_the_same_replies(adapt):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = Noting(), Noting()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = {"auth_require_tls": False, "authenticator": check, "enable_SMTPUTF8": True}
        server = controller.Controller(theirs, hostname="127.0.0.1", port=port, **options)
        server.start()
        try:
            expected = speak(socket.create_connection(("127.0.0.1", port), PATIENCE))
        finally:
            server.stop()
        arguments = ("--allow-insecure-auth", "--auth-failure-delay", "0")
        with Sessions(adapt(ours, authenticator=check), *arguments) as sessions:
            assert speak(sessions.begin()) == expected
    assert ours.calls == theirs.calls and len(ours.calls) == 24


# --- the addresses of its own test-suite

REFUSED_HERE = {"anne@machine(comment).  example"}  # blanks inside an address


def rows() -> dict[str, list[str]]:
    """The lists of its test_smtp.py, read without running it: it needs packages that we do not have."""
    spec = importlib.util.find_spec("aiosmtpd")
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "tests" / "test_smtp.py"
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(file.read_text())) if file.exists() else ():
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and target.id.endswith("_addresses"):
            found[target.id] = eval(compile(ast.Expression(node.value), str(file), "eval"), dict(found))
    return found


ROWS = rows()


@pytest.mark.parametrize("address", ROWS.get("valid_rcptto_addresses", ()), ids=lambda address: address[:50])
def test_its_valid_addresses_are_taken(adapt, address):
    handler = Noting()
    spoken = talk([EHLO, f"MAIL FROM:{address}", "RSET", "MAIL FROM:<a@b>", f"RCPT TO:{address}"], adapt(handler))
    assert spoken.codes[1::3] == ([501, 501] if address in REFUSED_HERE else [250, 250])
    if address not in REFUSED_HERE:
        told = [call[3] for call in handler.calls if call[0] in ("MAIL", "RCPT")]
        assert told[0] == told[2], "one form for both"


@pytest.mark.parametrize("address", ROWS.get("invalid_email_addresses", ()))
def test_its_invalid_addresses_are_refused(adapt, address):
    spoken = talk([EHLO, f"MAIL FROM: {address}", f"MAIL FROM: {address} SIZE=1", "MAIL FROM:<a@b>", f"RCPT TO: {address}"],
                  adapt(Noting()))  # fmt: skip
    assert spoken.codes == [250, 501, 501, 250, 501]


def test_its_rows_are_there():
    assert not ROWS or (len(ROWS["valid_rcptto_addresses"]) > 40 and len(ROWS["invalid_email_addresses"]) == 2)
