"""Servers written for the old smtpd module: ours as their base, and those of Python's own module where it is there."""

from __future__ import annotations

import functools
import smtplib
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp import Handler
from preforksmtp.adapters import smtpd
from preforksmtp.server.app import AppError, load_app, start_handler
from preforksmtp.testing import Server
from tests.fakes import Talk, talk, to_chunks
from tests.processes import PATIENCE
from tests.sessions import Sessions, hear

EHLO, DATA = "EHLO c.test", "DATA"
WHOLE = [EHLO, "MAIL FROM:<a@b.test> SIZE=9 BODY=8BITMIME", "RCPT TO:<c@d.test> NOTIFY=NEVER",
         "RCPT TO:<e@f.test> ORCPT=rfc822;x", DATA, b"Subject: x\r\n\r\n..y\r\n\xc3\xa4\r\n.\r\n"]  # fmt: skip
needs_smtpd = pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.12 has no smtpd")


def run(handler: Any, *lines: Any) -> Talk:
    """One dialogue. A partial of a class is what the command line may find too."""
    if isinstance(handler, functools.partial):
        made = type(
            "Made", (handler.func,), {"__init__": lambda self, *_: handler.func.__init__(self, **handler.keywords)}
        )
        return talk(list(lines) or WHOLE, made)
    return talk(list(lines) or WHOLE, handler)


class Recording(smtpd.SMTPServer):
    calls: list[Any] = []
    status: Any = None

    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        self.calls.append((peer, mailfrom, rcpttos, data, kwargs))
        return self.status


@pytest.fixture(autouse=True)
def _no_calls():
    Recording.calls.clear()


def test_process_message_gets_what_it_got():
    assert run(Recording).codes == [250, 250, 250, 250, 354, 250]
    ((peer, mailfrom, rcpttos, data, kwargs),) = Recording.calls
    assert (peer, type(peer), mailfrom, rcpttos) == (("192.0.2.1", 4000), tuple, "a@b.test", ["c@d.test", "e@f.test"])
    assert {type(address) for address in rcpttos} == {str}
    assert data == b"Subject: x\n\n.y\n\xc3\xa4", "LF, and none at the end"
    assert kwargs == {"mail_options": ["SIZE=9", "BODY=8BITMIME"], "rcpt_options": ["ORCPT=rfc822;x"]}


def test_the_null_sender_and_an_empty_message():
    run(Recording, EHLO, "MAIL FROM:<>", "RCPT TO:<c@d.test>", DATA, b".\r\n")
    assert Recording.calls[0][1:] == ("<>", ["c@d.test"], b"", {"mail_options": [], "rcpt_options": []})


def test_decode_data_gives_text_and_no_options():
    run(functools.partial(Recording, decode_data=True))
    assert Recording.calls[0][3:] == ("Subject: x\n\n.y\nä", {})


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (None, "250 2.0.0 Ok: queued as s1-1"),
        ("", "250 2.0.0 Ok: queued as s1-1"),
        ("250 Thanks", "250 2.0.0 Thanks"),
        ("550 5.1.1 Unknown", "550 5.1.1 Unknown"),
        ("451-wait\r\n451 more", "451-4.3.0 wait\n451 4.3.0 more"),
        ("OK", "451 4.3.0 Local error in processing, try again later"),
        (42, "451 4.3.0 Local error in processing, try again later"),
    ],
)
def test_what_it_returns(status, reply):
    spoken = run(type("Server", (Recording,), {"status": status}))
    assert spoken.replies[-1] == reply
    assert bool(spoken.journal.named("handler_failed")) == reply.startswith("451 4.3.0 L")


def test_constructors_of_old_programs():
    class Star(Recording):
        def __init__(self, *args, **kwargs):
            smtpd.SMTPServer.__init__(self, *args, decode_data=True, **kwargs)
            self.mine = 1

    class Two(Recording):
        def __init__(self, localaddr, remoteaddr):
            super().__init__(localaddr, remoteaddr, enable_SMTPUTF8=True)
            self.mine = 2

    class None_(Recording):
        def __init__(self):
            super().__init__(("localhost", 8025), None)
            self.mine = 3

    class Forgetful(Recording):
        def __init__(self, localaddr):
            self.mine = 4

    class Aware(Recording):
        def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
            self.calls.append((self.session.id, self._localaddr, self.enable_SMTPUTF8, self._decode_data))

    for kind in (Star, Two, None_, Forgetful):
        kind.start(None)
        assert run(kind).codes[-1] == 250
    assert [type(call[3]) for call in Recording.calls] == [str, bytes, bytes, bytes]
    assert run(Aware).codes[-1] == 250
    assert Recording.calls[-1] == ("s1", None, False, False)


def test_one_that_has_moved_on_to_message_starts():
    class Moved(smtpd.SMTPServer):
        def message(self, message):
            return "moved"

    Moved.start(None)
    assert run(Moved).replies[-1] == "250 2.0.0 moved"


def test_a_partial_gives_the_options(tmp_path, monkeypatch):
    code = "import functools\n" + SERVERS + "\ndecoded = functools.partial(Mine, decode_data=True)\n"
    with Sessions(loaded(tmp_path, monkeypatch, code, "smtpd_app:decoded")) as sessions, sessions.begin() as client:
        client.sendall(b"".join(to_chunks([*WHOLE, "QUIT"])))  # type: ignore[arg-type]
        assert "550 5.7.1 str" in hear(client)


def test_the_debugging_server(capsys):
    run(smtpd.DebuggingServer)
    assert capsys.readouterr().out.splitlines() == [
        "---------- MESSAGE FOLLOWS ----------",
        "mail options: ['SIZE=9', 'BODY=8BITMIME']",
        "rcpt options: ['ORCPT=rfc822;x']",
        "",
        "b'Subject: x'",
        "b'X-Peer: 192.0.2.1'",
        "b''",
        "b'.y'",
        "b'\\xc3\\xa4'",
        "------------ END MESSAGE ------------",
    ]


# --- the function


def test_a_function_an_object_and_a_class():
    calls = []

    def function(peer, mailfrom, rcpttos, data, mail_options=None, rcpt_options=None):
        calls.append((mailfrom, data[:9], mail_options))
        return "550 no" if len(calls) == 1 else None

    class Plain:
        def process_message(self, peer, mailfrom, rcpttos, data):
            calls.append((self, data[:9]))

    assert run(smtpd.process_message(function)).replies[-1] == "550 5.7.1 no"
    plain = Plain()
    run(smtpd.process_message(plain, decode_data=True))
    run(smtpd.process_message(Plain, decode_data=True))
    assert calls[:2] == [("a@b.test", b"Subject: ", ["SIZE=9", "BODY=8BITMIME"]), (plain, "Subject: ")]
    assert isinstance(calls[2][0], Plain)


def test_it_is_called_for_one_message_at_a_time():
    inside, together = [], []
    begun, release = threading.Event(), threading.Event()

    def function(*arguments, **kwargs):
        inside.append(1)
        together.append(len(inside))
        begun.set()
        assert release.wait(PATIENCE)
        inside.pop()

    adapter = smtpd.process_message(function)
    threads = [threading.Thread(target=run, args=(adapter,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(PATIENCE)
    threads[0].join(0.05)  # time for the other to come in, if it could
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert together == [1, 1]


SERVERS = """
from preforksmtp import Handler
from preforksmtp.adapters import smtpd

class Mine(smtpd.SMTPServer):
    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        return "550 " + type(data).__name__

class Lazy(smtpd.SMTPServer):
    pass

class Crooked(Mine):
    def __init__(self, one, two, three):
        pass

class Addressed(Mine):
    def __init__(self, localaddr, remoteaddr):
        super().__init__(localaddr, remoteaddr)
        self.port = localaddr[1]

class Keeper(Mine):
    def __init__(self, localaddr, remoteaddr):
        super().__init__(localaddr, remoteaddr)
        self.message = []

class Short(smtpd.SMTPServer):
    def process_message(self, peer, mailfrom):
        pass

class Plain(smtpd.SMTPServer):
    def process_message(self, peer, mailfrom, rcpttos, data):
        return "550 plain " + type(data).__name__

class Handled(Handler):
    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        pass

class Old:
    def process_message(self, peer, mailfrom, rcpttos, data):
        return "550 old"

class Needy(Old):
    def __init__(self, folder):
        pass

class Empty:
    pass

async def coroutine(peer, mailfrom, rcpttos, data, **kwargs): pass
number = 1
"""


def loaded(tmp_path, monkeypatch, code: str, app: str) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "smtpd_app", raising=False)
    (tmp_path / "smtpd_app.py").write_text(code)
    return app


PROCESS = "preforksmtp.adapters.smtpd:process_message"


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("smtpd_app:Lazy", "Lazy.start raised ValueError: Lazy does not override process_message: mail would be lost"),
        ("smtpd_app:Crooked", "Crooked.__init__ takes (self, one, two, three); (localaddr, remoteaddr) is expected"),
        (f"{PROCESS}('smtpd_app:Old')", "unexpected keyword argument 'mail_options'; without **kwargs it needs decode"),
        (f"{PROCESS}('smtpd_app:Needy')", "Needy: missing a required argument: 'folder'; make an instance of it in"),
        ("smtpd_app:Addressed", "Addressed.__init__, with None for the addresses, raised TypeError("),
        ("smtpd_app:Keeper", "Keeper: self.message is a method of preforksmtp.Handler; call yours otherwise"),
        ("smtpd_app:Short", "(peer, mailfrom, rcpttos, data) is expected"),
        (f"{PROCESS}('smtpd_app:Handled')", "Handled is a preforksmtp.Handler already: give it as APP itself"),
        (f"{PROCESS}('smtpd_app:Empty')", "class Empty has no process_message"),
        (f"{PROCESS}('smtpd_app:number')", "1 is no function and has no process_message"),
        (f"{PROCESS}('smtpd_app:coroutine')", "coroutine is a coroutine function; process_message is a plain one"),
        (f"{PROCESS}('smtpd_app')", "smtpd server 'smtpd_app': expected module:attribute"),
        (f"{PROCESS}('smtpd_app:Mined')", "smtpd_app has no attribute 'Mined'"),
    ],
)
def test_mistakes_are_one_line_at_the_start(tmp_path, monkeypatch, app, words):
    with pytest.raises(AppError) as caught:
        hooks = load_app(loaded(tmp_path, monkeypatch, SERVERS, app))
        start_handler(app, hooks.handler, SimpleNamespace())  # type: ignore[arg-type]
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_on_the_command_line(tmp_path, monkeypatch):
    hooks = load_app(loaded(tmp_path, monkeypatch, SERVERS, f"{PROCESS}('smtpd_app:Old', decode_data=True)"))
    assert hooks.has == {"message"}
    hooks = load_app(loaded(tmp_path, monkeypatch, SERVERS, "smtpd_app:Mine"))
    assert hooks.has == {"message"} and issubclass(hooks.handler, Handler)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("app", "reply"),
    [
        ("smtpd_app:Mine", "550 5.7.1 bytes"),
        ("smtpd_app:Plain", "550 5.7.1 plain bytes"),  # takes no options, so it gets none
        (f"{PROCESS}('smtpd_app:Mine')", "550 5.7.1 bytes"),
        (f"{PROCESS}('smtpd_app:Mine', decode_data=True)", "550 5.7.1 str"),
    ],
)
def test_servers_of_ours(tmp_path, monkeypatch, app, reply):
    with Server(loaded(tmp_path, monkeypatch, SERVERS, app)) as server, smtplib.SMTP(*server.address) as client:
        client.ehlo()
        client.mail("a@b.test")
        client.rcpt("c@d.test")
        code, text = client.data("hello")
        assert f"{code} {text.decode()}" == reply


# --- Python's own module


@needs_smtpd
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_server_of_pythons_own_smtpd_without_a_socket(capsys):
    import smtpd as old

    class Mine(old.SMTPServer):
        def __init__(self, *arguments):
            raise AssertionError("it would open a socket")

        def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
            print(self.socket, self._decode_data, repr(self).split()[0][-5:], peer, data, kwargs)
            with pytest.raises(AttributeError):
                _ = self.nothing
            return "550 Mine"

    assert run(smtpd.process_message(Mine)).replies[-1] == "550 5.7.1 Mine"
    assert capsys.readouterr().out == (
        "None False .Mine ('192.0.2.1', 4000) b'Subject: x\\n\\n.y\\n\\xc3\\xa4'"
        " {'mail_options': ['SIZE=9', 'BODY=8BITMIME'], 'rcpt_options': ['ORCPT=rfc822;x']}\n"
    )


@needs_smtpd
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("decode", [False, True])
def test_it_is_given_exactly_what_the_old_module_gives(decode):
    """The same octets through the old module's own channel."""
    import smtpd as old

    class Sock:
        def getpeername(self):
            return "192.0.2.1", 4000

        def setblocking(self, flag):
            pass

        def fileno(self):
            return -1

        def send(self, data):
            return len(data)

    calls: list[Any] = []
    server = SimpleNamespace(process_message=lambda *arguments, **kwargs: calls.append((arguments, kwargs)))
    channel = old.SMTPChannel(server, Sock(), ("192.0.2.1", 4000), decode_data=decode, map={})
    lines = [EHLO, f"MAIL FROM:<a@b.test> SIZE=9{'' if decode else ' BODY=8BITMIME'}", "RCPT TO:<c@d.test>",
             "RCPT TO:<e@f.test>", DATA]  # fmt: skip
    for line in lines:
        channel.collect_incoming_data(line.encode())
        channel.found_terminator()
    channel.collect_incoming_data(WHOLE[-1].removesuffix(b"\r\n.\r\n"))  # type: ignore[union-attr]
    channel.found_terminator()

    def function(*arguments, **kwargs):
        calls.append((arguments, kwargs))

    run(smtpd.process_message(function, decode_data=decode), *lines, WHOLE[-1])
    assert len(calls) == 2 and calls[0] == calls[1]
