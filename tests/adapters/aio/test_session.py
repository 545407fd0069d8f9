"""Hooks written for aiosmtpd, over a whole dialogue; with stand-ins for its classes. See test_against_aiosmtpd.py."""

from __future__ import annotations

import asyncio
import base64
import enum
import threading
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from preforksmtp import Reject
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.session import Endpoint
from tests.adapters.foreign import BODY, DATA, EHLO, MAIL, RCPT, WHOLE, Data, Log
from tests.fakes import FakeTLS, Talk, talk

# --- DATA


def test_a_message_arrives_with_its_envelope(adapt):
    data = Data("250 Taken")
    lines = [EHLO, "MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME SMTPUTF8", "RCPT TO:<c@d.test> NOTIFY=NEVER",
             "RCPT TO:<e@f.test> ORCPT=rfc822;x", DATA, BODY, "QUIT"]  # fmt: skip
    spoken = talk(lines, adapt(data))
    assert spoken.replies[-2:] == ["250 2.0.0 Taken", "221 2.0.0 Bye"]
    ((session, envelope, thread),) = data.seen
    assert vars(envelope) == {
        "mail_from": "a@b.test", "mail_options": ["SIZE=10", "BODY=8BITMIME", "SMTPUTF8"], "smtp_utf8": True,
        "rcpt_tos": ["c@d.test", "e@f.test"], "rcpt_options": ["NOTIFY=NEVER", "ORCPT=rfc822;x"],
        "content": b"Subject: x\r\n\r\ny\r\n", "original_content": b"Subject: x\r\n\r\ny\r\n",
    }  # fmt: skip
    assert {type(address) for address in envelope.rcpt_tos} == {str}
    assert (type(session.peer), session.peer, session.host_name) == (tuple, ("192.0.2.1", 4000), "c.test")
    assert (session.extended_smtp, session.ssl, session.authenticated) == (True, None, None)
    assert (session.auth_data, session.login_data, session.proxy_data) == (None, None, None)
    assert thread == "aiosmtpd loop"


def test_the_null_sender_is_what_aiosmtpd_makes_of_it(adapt):
    data = Data()
    talk([EHLO, "MAIL FROM:<>", RCPT, DATA, BODY], adapt(data))
    assert data.seen[0][1].mail_from == "<>"


def test_decode_data(adapt):
    data = Data()
    talk([EHLO, MAIL, RCPT, DATA, "ä".encode() + b"\xff\r\n.\r\n"], adapt(data, decode_data=True))
    envelope = data.seen[0][1]
    assert (envelope.content, envelope.original_content) == ("ä\udcff\r\n", "ä".encode() + b"\xff\r\n")


def test_each_message_has_a_fresh_envelope(adapt):
    data = Data()
    talk([*WHOLE, "MAIL FROM:<second@b.test>", "RCPT TO:<two@d.test>", DATA, BODY], adapt(data))
    assert [envelope.mail_from for _, envelope, _ in data.seen] == ["a@b.test", "second@b.test"]
    assert data.seen[1][1].rcpt_tos == ["two@d.test"]
    assert data.seen[0][0] is data.seen[1][0], "but the session is the same"


STATUSES = [
    ("250 OK", "250 2.0.0 OK"),
    ("550 5.7.1 Spam", "550 5.7.1 Spam"),
    ("451 later", "451 4.3.0 later"),
    ("250-one\r\n250 two", "250-2.0.0 one\n250 2.0.0 two"),
    (b"250 octets", "250 2.0.0 octets"),
    (None, "451 4.3.0 Error: the handler has given no valid status"),
    ("OK", "451 4.3.0 Error: the handler has given no valid status"),
    ("250 OK\r\nforged", "451 4.3.0 Error: the handler has given no valid status"),
    ("354 more", "451 4.3.0 Error: the handler has given no valid status"),
    (KeyError("x"), "451 4.3.0 Local error in processing, try again later"),
    (SystemExit(3), "451 4.3.0 Local error in processing, try again later"),
    (asyncio.CancelledError(), "451 4.3.0 Local error in processing, try again later"),
    (Reject(552, "5.2.2 full"), "552 5.2.2 full"),
]


@pytest.mark.parametrize(("status", "reply"), STATUSES, ids=[repr(row[0]) for row in STATUSES])
def test_what_handle_data_returns(adapt, status, reply):
    adapter = adapt(Data(status))
    log = Log()
    adapter.start(SimpleNamespace(log=log))
    spoken = talk([*WHOLE, "NOOP"], adapter)
    assert spoken.replies[-2:] == [reply, "250 2.0.0 Ok"], "and the session goes on"
    assert bool(log.lines) == ("no valid status" in reply)
    assert bool(spoken.journal.named("handler_failed")) == reply.startswith("451 4.3.0 L")


def test_plain_functions_run_in_the_loops_thread_too(adapt):
    threads = set()

    class Plain:
        def handle_RCPT(self, server, session, envelope, address, rcpt_options):
            threads.add(threading.current_thread())
            assert asyncio.get_running_loop() is server.loop is session.loop
            envelope.rcpt_tos.append(address)
            return "250 OK"

        def handle_DATA(self, server, session, envelope):
            threads.add(threading.current_thread())
            return "250 OK"

    assert talk(WHOLE, adapt(Plain)).codes == [250, 250, 250, 354, 250]
    assert {thread.name for thread in threads} == {"aiosmtpd loop"} and len(threads) == 1


def test_a_class_is_made_once_in_the_loops_thread(adapt):
    made = []

    class Counting(Data):
        def __init__(self, status="250 OK"):
            super().__init__(status)
            made.append(asyncio.get_running_loop())

    adapter = adapt(Counting, "250 argued")
    assert made == []
    assert talk(WHOLE, adapter).replies[-1] == "250 2.0.0 argued"
    talk(WHOLE, adapter)
    assert len(made) == 1


def test_the_old_process_message(adapt):
    seen = []

    class Old:
        def process_message(self, *arguments):
            seen.append(arguments)
            return "550 no" if len(seen) == 2 else None

    assert talk([*WHOLE, MAIL, RCPT, DATA, BODY], adapt(Old)).codes[4::4] == [250, 550]
    assert seen[0] == (("192.0.2.1", 4000), "a@b.test", ["c@d.test"], b"Subject: x\r\n\r\ny\r\n")


# --- MAIL, RCPT, RSET


class Envelopes:
    """handle_MAIL and handle_RCPT set what they accept themselves, or nothing."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        self.seen.append(("MAIL", address, mail_options, envelope.smtp_utf8))
        if address.startswith("no"):
            return "550 not you"
        if not address.startswith("unset"):
            envelope.mail_from = address
            envelope.mail_options.extend(mail_options)
        return "250 sender fine"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        self.seen.append(("RCPT", envelope.mail_from, address, rcpt_options))
        if address.startswith("no"):
            return "551 5.1.6 gone"
        if not address.startswith("unset"):
            envelope.rcpt_tos.append(address.upper())
        return "250 recipient fine"

    async def handle_RSET(self, server, session, envelope):
        self.seen.append(("RSET", envelope.mail_from, list(envelope.rcpt_tos)))
        return "250 clean"

    async def handle_DATA(self, server, session, envelope):
        self.seen.append(("DATA", envelope.mail_from, envelope.rcpt_tos))
        return "250 OK"


def test_mail_and_rcpt(adapt):
    handler = Envelopes()
    lines = [EHLO, "MAIL FROM:<no@b.test>", "MAIL FROM:<a@b.test> SIZE=3 SMTPUTF8", "RCPT TO:<no@d.test>",
             "RCPT TO:<c@d.test> NOTIFY=NEVER", DATA, BODY]  # fmt: skip
    spoken = talk(lines, adapt(handler))
    assert spoken.replies[1:5] == [
        "550 5.7.1 not you", "250 2.0.0 sender fine", "551 5.1.6 gone", "250 2.0.0 recipient fine",
    ]  # fmt: skip
    assert spoken.codes[5:] == [354, 250]
    assert handler.seen == [
        ("MAIL", "no@b.test", [], False),
        ("MAIL", "a@b.test", ["SIZE=3", "SMTPUTF8"], True),
        ("RCPT", "a@b.test", "no@d.test", []),
        ("RCPT", "a@b.test", "c@d.test", ["NOTIFY=NEVER"]),
        ("DATA", "a@b.test", ["C@D.TEST"]),
    ]


def test_hooks_that_set_nothing_have_accepted_nothing(adapt):
    spoken = talk([EHLO, "MAIL FROM:<unset@b.test>", RCPT], adapt(Envelopes))
    assert spoken.replies[-1] == "503 5.5.1 Error: need MAIL command"
    spoken = talk([EHLO, MAIL, "RCPT TO:<unset@d.test>", DATA, RCPT, DATA, BODY], adapt(Envelopes))
    assert spoken.replies[3] == "503 5.5.1 Error: need RCPT command"
    assert spoken.codes[4:] == [250, 354, 250]


def test_the_envelope_is_fresh_after_rset_and_ehlo_and_a_refused_body(adapt):
    handler = Envelopes()
    talk([EHLO, MAIL, RCPT, "RSET", MAIL, RCPT, EHLO, MAIL, RCPT, DATA, b"bare\nline\r\n.\r\n", MAIL, RCPT, DATA, BODY],
         adapt(handler))  # fmt: skip
    assert [row for row in handler.seen if row[0] in ("RSET", "DATA")] == [
        ("RSET", None, []), ("RSET", None, []), ("DATA", "a@b.test", ["C@D.TEST"]),
    ]  # fmt: skip


def test_rset_may_be_refused(adapt):
    class Refusing(Data):
        async def handle_RSET(self, server, session, envelope):
            return "421 enough"

    assert talk([EHLO, "RSET", "NOOP"], adapt(Refusing)).replies[1:] == ["421 4.3.2 enough"]


# --- HELO, EHLO


def test_ehlo_in_both_forms_and_helo(adapt):
    seen: list[Any] = []

    class New(Data):
        async def handle_HELO(self, server, session, envelope, hostname):
            seen.append(("HELO", hostname, session.extended_smtp))
            session.host_name = hostname
            return f"250 {server.hostname}"

        async def handle_EHLO(self, server, session, envelope, hostname, responses):
            seen.append(("EHLO", hostname, session.extended_smtp, responses[0], responses[-1]))
            if hostname == "bad.test":
                return ["550 go away"]
            if hostname != "unset.test":
                session.host_name = hostname
            return [*responses[:-1], "250-X-OWN", responses[-1]]

    class Old(Data):
        async def handle_EHLO(self, server, session, envelope, hostname):
            session.host_name = hostname
            return "250 HELP" if hostname != "bad.test" else "550 5.7.1 go away"

    new = talk(["EHLO bad.test", MAIL, "EHLO unset.test", MAIL, "HELO h.test", MAIL, "RSET", EHLO, MAIL], adapt(New))
    assert new.codes == [550, 503, 250, 503, 250, 250, 250, 250, 250]
    assert new.replies[3] == "503 5.5.1 Error: send HELO first"
    assert "X-OWN" not in new.replies[2], "only a refusal of what it returns is honoured"
    assert seen[0] == ("EHLO", "bad.test", True, "250-mx.test", "250 HELP")
    assert seen[2] == ("HELO", "h.test", False)
    old = talk(["EHLO bad.test", "HELO h.test", MAIL, "RSET", EHLO, MAIL], adapt(Old))
    assert old.replies[0] == "550 5.7.1 go away"
    assert old.codes[1:] == [250] * 5, "HELO has no hook and is remembered without"


def test_a_refused_ehlo_leaves_the_open_transaction(adapt):
    class Picky(Data):
        async def handle_EHLO(self, server, session, envelope, hostname, responses):
            if hostname == "bad.test":
                return ["550 go away"]
            session.host_name = hostname
            return responses

    data = Picky()
    talk([EHLO, MAIL, RCPT, "EHLO bad.test", DATA, BODY], adapt(data))
    assert data.seen[0][1].mail_from == "a@b.test"


# --- VRFY, QUIT, STARTTLS, PROXY


def test_only_what_the_handler_has_is_offered(adapt):
    assert Hooks.of_class(adapt(Data)).has == {"message"}

    class Verifying(Data):
        async def handle_VRFY(self, server, session, envelope, address):
            return f"250 <{address}>" if "@" in address else "502 Could not VRFY " + address

    spoken = talk([EHLO, "VRFY <x@y.test>", "VRFY x@y.test", "VRFY x"], adapt(Verifying))
    assert "VRFY" in spoken.replies[0] and "VRFY" not in talk([EHLO], adapt(Data)).replies[0]
    assert spoken.replies[1:] == ["250 2.0.0 <x@y.test>"] * 2 + ["502 5.5.1 Could not VRFY x"]
    assert Hooks.of_class(adapt(Data, auth_callback=lambda *_: True)).mechanisms == ("PLAIN", "LOGIN")


def test_quit_is_called_at_the_end_of_a_session(adapt):
    seen = []

    class Leaving(Data):
        async def handle_QUIT(self, server, session, envelope):
            seen.append(session.peer)
            return "221 Bye"

    talk([EHLO, "QUIT"], adapt(Leaving))
    assert seen == [("192.0.2.1", 4000)]


@pytest.mark.parametrize("secure", [True, False])
def test_starttls(adapt, secure):
    seen: list[Any] = []

    class Secured(Data):
        def handle_STARTTLS(self, server, session, envelope):
            seen.append((session.ssl, session.host_name, envelope.mail_from, server.session is session))
            return secure

    data = Secured()
    spoken = talk([EHLO, MAIL, b"STARTTLS\r\n", *WHOLE], adapt(data), offer_tls=True)
    facts = {"peercert": None, "cipher": ("TLS_FAKE", "TLSv1.3", None)}
    assert seen == [(facts, None, None, True)], "all is new, and asked once"
    if secure:
        assert spoken.codes[-1] == 250 and data.seen[0][0].ssl == facts
    else:
        assert spoken.replies[3] == "554 5.7.0 Command refused due to lack of security"
        assert spoken.codes[4:7] == [503, 503, 503]


def test_without_its_hook_starttls_makes_the_session_new_all_the_same(adapt):
    data = Data()
    talk([*WHOLE, b"STARTTLS\r\n", *WHOLE], adapt(data), offer_tls=True)
    assert [session.ssl is not None for session, _, _ in data.seen] == [False, True]
    assert data.seen[0][0] is not data.seen[1][0]


def proxied(spoken_dialogue):
    spoken_dialogue.session.proxy = Endpoint("127.0.0.1", 9)


def test_proxy(adapt):
    seen: list[Any] = []

    class Proxied(Data):
        async def handle_PROXY(self, server, session, envelope, proxy_data):
            assert session.proxy_data is proxy_data and proxy_data
            seen.append((str(proxy_data.src_addr), proxy_data.src_port, str(proxy_data.dst_addr), proxy_data.dst_port))
            return len(seen) == 1

    adapter = adapt(Proxied)
    assert talk([EHLO], adapter).codes == [250] and seen == [], "no proxy"
    assert talk([EHLO], adapter, before=proxied).codes == [250]
    assert seen == [("192.0.2.1", 4000, "192.0.2.2", 25)]
    assert talk([EHLO], adapter, before=proxied).wire.output == b"421 4.7.0 Connection refused\r\n"


class LeftToTheServer:
    """Hooks that leave it to the server, as with aiosmtpd.smtp.MISSING."""

    MISSING: Any = enum.Enum("Missing", "MISSING")["MISSING"]

    async def missing(self, *_):
        return self.MISSING

    handle_MAIL = handle_RCPT = handle_DATA = handle_VRFY = handle_RSET = missing

    async def handle_EHLO(self, server, session, envelope, hostname):
        return self.MISSING


def test_hooks_that_leave_it_to_the_server(adapt):
    spoken = talk([*WHOLE, MAIL, "RSET", "VRFY x"], adapt(LeftToTheServer))
    assert spoken.codes == [250, 250, 250, 354, 250, 250, 250, 252]


# --- handle_exception


def test_handle_exception_gives_the_status(adapt):
    class Caught(Envelopes):
        async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
            raise LookupError(address)

        async def handle_exception(self, error):
            if error.args == ("worse@d.test",):
                raise ZeroDivisionError
            return f"542 {type(error).__name__}" if error.args != ("none@d.test",) else None

    spoken = talk([EHLO, MAIL, RCPT, "RCPT TO:<worse@d.test>", "RCPT TO:<none@d.test>"], adapt(Caught))
    assert spoken.replies[2] == "542 5.0.0 LookupError"
    assert spoken.codes[3:] == [451, 451]
    assert [type(error) for _, error in spoken.journal.named("handler_failed")] == [ZeroDivisionError]


# --- AUTH


class Result:
    """As aiosmtpd.smtp.AuthResult."""

    def __init__(self, success, handled=True, message=None, auth_data=None):
        self.success, self.handled, self.message, self.auth_data = success, handled, message, auth_data


def plain(username: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{username}\0{password}".encode()).decode()


def login(username: str, password: str) -> list[str]:
    return ["AUTH LOGIN", *(base64.b64encode(word.encode()).decode() for word in (username, password))]


def authenticated(lines: list[str], adapter: Any) -> Talk:
    return talk([EHLO, *lines], adapter, allow_insecure_auth=True)


def test_an_authenticator(adapt):
    data = Data()
    seen: list[Any] = []

    def check(server, session, envelope, mechanism, auth_data):
        seen.append((server.event_handler is data, session.host_name, mechanism, tuple(auth_data), repr(auth_data)))
        if auth_data.password == b"b\xc3\xa4d":
            return Result(False, handled=False)
        if auth_data.password == b"locked":
            return Result(False, handled=False, message="454 4.7.0 Locked")
        return Result(auth_data.password == b"right", auth_data=auth_data)

    adapter = adapt(data, authenticator=check)
    assert authenticated([plain("bob", "bäd")], adapter).replies[1] == "535 5.7.8 Authentication credentials invalid"
    assert authenticated([plain("bob", "locked")], adapter).replies[1] == "454 4.7.0 Locked"
    assert authenticated([plain("bob", "wrong")], adapter).codes[1] == 535
    spoken = authenticated([*login("bob", "right"), MAIL, RCPT, DATA, BODY], adapter)
    assert spoken.replies[3] == "235 2.7.0 Authentication successful" and spoken.codes[-1] == 250
    session = data.seen[0][0]
    assert (session.authenticated, session.login_data, session.auth_data.password) == (True, b"bob", b"right")
    assert seen[0][:4] == (True, "c.test", "PLAIN", (b"bob", "bäd".encode()))
    assert "right" not in seen[-1][-1], "a password in a log"


@pytest.mark.parametrize("verdict", [None, False, "yes", 1, Result(1), Result("yes"), ValueError("x")], ids=repr)
def test_nothing_but_success_lets_in(adapt, verdict):
    async def check(*arguments):
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    assert authenticated([plain("a", "b")], adapt(Data, authenticator=check)).codes[1] in (535, 451)


def test_an_auth_callback(adapt):
    seen = []

    def check(*arguments):
        seen.append(arguments)
        return arguments[2] == b"right"

    adapter = adapt(Data, auth_callback=check)
    assert [authenticated([plain("bob", word)], adapter).codes[1] for word in ("right", "wrong")] == [235, 535]
    assert seen[0] == ("PLAIN", b"bob", b"right")


class Missing(NamedTuple):
    name: str = "MISSING"


def test_handle_auth_decides_or_leaves_it_to_the_others(adapt):
    class Deciding(Data):
        async def handle_AUTH(self, server, session, envelope, args):
            mechanism, response = args
            _, username, _ = base64.b64decode(response).split(b"\0")
            return {b"a": "235 welcome", b"b": "550 no", b"c": Missing(), b"d": None, b"e": "250 strange"}[username]

    adapter = adapt(Deciding, auth_callback=lambda mechanism, login, password: password == b"right")
    codes = [authenticated([plain(*pair)], adapter).codes[1] for pair in (
        ("a", "x"), ("b", "x"), ("c", "x"), ("c", "right"), ("d", "x"), ("e", "x"))]  # fmt: skip
    assert codes == [235, 550, 535, 235, 535, 535]


def test_auth_methods_of_the_handler(adapt):
    class ByPlain(Data):
        async def auth_PLAIN(self, server, args):
            return base64.b64decode(args[1]).split(b"\0")[2] == b"right"

    class ByLogin(Data):
        async def auth_mine(self, server, args):
            password = await server.challenge_auth("Password")
            assert (args[0], base64.b64decode(args[1])) == ("LOGIN", b"bob")
            return Result(password == b"right")

        auth_mine.__auth_mechanism_name__ = "LOGIN"  # as aiosmtpd's decorator does

    class ByToken(Data):
        async def auth_X__TOKEN(self, server, args):
            return True

    for kind in (ByPlain, ByLogin):
        adapter = adapt(kind)
        assert [authenticated([plain("bob", word)], adapter).codes[1] for word in ("right", "wrong")] == [235, 535]
    log = Log()
    adapter = adapt(ByToken)
    adapter.start(SimpleNamespace(log=log))
    assert Hooks.of_class(adapter).mechanisms == ()
    assert log.lines == ["ByToken: no AUTH X-TOKEN, only methods for PLAIN and LOGIN are used"]


def test_an_exception_is_never_a_yes(adapt):
    class Caught(Data):
        async def handle_exception(self, error):
            return "235 welcome" if error.args == ("yes",) else "454 4.7.0 later"

    def check(server, session, envelope, mechanism, data):
        raise LookupError(data.login.decode())

    adapter = adapt(Caught, authenticator=check)
    assert [authenticated([plain(name, "x")], adapter).codes[1] for name in ("yes", "no")] == [535, 454]


# --- the server object


def test_the_server_has_facts_and_no_way_to_the_wire(adapt):
    errors = []

    class Curious(Data):
        async def handle_DATA(self, server, session, envelope):
            assert (server.hostname, server.event_handler) == ("mx.test", self)
            assert server.session is session and server.envelope is envelope
            info = server.transport.get_extra_info
            assert (info("peername"), info("sockname")) == (("192.0.2.1", 4000), ("192.0.2.2", 25))
            assert (info("cipher")[0], info("socket"), info("x", 1)) == ("TLS_FAKE", None, 1)
            for attempt in (lambda: server.push("250 x"), lambda: server.challenge_auth("")):
                try:
                    await attempt()
                except NotImplementedError as error:
                    errors.append(str(error))
            try:
                server.enqueue("x")
            except AttributeError as error:
                errors.append(str(error))
            try:
                server.transport.close()
            except NotImplementedError as error:
                errors.append(str(error))
            return "250 OK"

    def tls(dialogue):
        dialogue.session.tls = FakeTLS()

    assert talk(WHOLE, adapt(Curious), before=tls).codes[-1] == 250
    assert [error.partition(":")[0].split(";")[0] for error in errors] == [
        "preforksmtp has no server.push",
        "preforksmtp has no server.challenge_auth but in auth_PLAIN and auth_LOGIN",
        "preforksmtp has no server.enqueue",
        "preforksmtp has no transport.close",
    ]
