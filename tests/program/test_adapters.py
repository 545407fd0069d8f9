"""Handlers of aiosmtpd and of the old smtpd in a real server, as users start it; smtplib is the client."""

from __future__ import annotations

import signal
import smtplib
import threading
from pathlib import Path

import pytest

from tests.processes import PATIENCE
from tests.program.conftest import LOOPBACK, Serve, Server, Talk

AIO = """
import asyncio, os, threading

class Mine:
    \"\"\"Counts without a lock, as one may where all run in one loop; `all_here`: ten messages wait at once.\"\"\"

    def __init__(self):
        self.waiting = 0
        self.all_here = asyncio.Event()

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address.startswith("no"):
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if "together@x.test" in envelope.rcpt_tos:
            self.waiting += 1
            if self.waiting == 10:
                self.all_here.set()
            while not self.all_here.is_set():
                await asyncio.sleep(0.01)
        if "forever@x.test" in envelope.rcpt_tos:
            print("BEGUN", flush=True)
            await asyncio.Event().wait()
        names = [thread.name for thread in threading.enumerate()]
        print("GOT", os.getpid(), session.login_data, envelope.mail_from, *envelope.rcpt_tos,
              "loops", names.count("aiosmtpd loop"), flush=True)
        return "250 Taken"

class Background:
    def __init__(self):
        self.task = asyncio.get_running_loop().create_task(self.work())

    async def work(self):
        try:
            await asyncio.Event().wait()
        finally:
            print("LOOP CLEARED", os.getpid(), flush=True)

    async def handle_DATA(self, server, session, envelope):
        return "250 OK"

class Needy:
    def __init__(self, folder):
        pass
    async def handle_DATA(self, server, session, envelope):
        return "250 OK"

def check(mechanism, login, password):
    return (login, password) == (b"bob", b"secret")
"""

OLD = """
from preforksmtp.adapters import smtpd

class MyServer(smtpd.SMTPServer):
    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        print("GOT", peer[0], mailfrom, rcpttos, repr(data), kwargs, flush=True)
        if b"spam" in data:
            return "554 5.7.1 No spam"

if __name__ == "__main__":
    server = MyServer(("127.0.0.1", 8025), None)
"""

MINE = "preforksmtp.adapters:aiosmtpd('app:Mine', auth_callback='app:check')"


def begin(serve: Serve, folder: Path, code: str, app: str, *arguments: str) -> Server:
    (folder / "app.py").write_text(code)
    return serve("-b", f"{LOOPBACK}?allow_insecure_auth", "--auth-failure-delay", "0.01", *arguments, app)


def client(server: Server) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", server.port(), timeout=PATIENCE)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_handler_of_aiosmtpd(serve: Serve, tmp_path: Path, preload: tuple[str, ...]) -> None:
    server = begin(serve, tmp_path, AIO, MINE, "--workers", "2", *preload).ready()
    with client(server) as smtp:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            smtp.login("bob", "wrong")
        for mechanism in ("PLAIN", "LOGIN"):
            assert mechanism in smtp.esmtp_features["auth"]
        assert smtp.login("bob", "secret")[0] == 235
        refused = smtp.sendmail("a@x.test", ["no@x.test", "b@x.test"], "Subject: x\n\ny\n")
        assert refused == {"no@x.test": (550, b"5.1.1 No such user")}
    server.wait_for(r"^GOT \d+ b'bob' a@x.test b@x.test loops 1")
    assert server.stop() == 0
    assert "Traceback" not in server.output, server.output


def test_ten_sessions_at_once_share_one_loop(serve: Serve, tmp_path: Path) -> None:
    server = begin(serve, tmp_path, AIO, MINE, "--threads", "12").ready()
    failures: list[BaseException] = []

    def send() -> None:
        try:
            with client(server) as smtp:
                smtp.sendmail("a@x.test", ["together@x.test"], "Subject: x\n\ny\n")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures and not any(thread.is_alive() for thread in threads)
    server.wait_for(r"^GOT .*loops 1", count=10)


def test_reload_and_stop_end_the_loop(serve: Serve, tmp_path: Path) -> None:
    server = begin(serve, tmp_path, AIO, "preforksmtp.adapters:aiosmtpd('app:Background')").ready()
    before = server.worker()
    server.send(signal.SIGHUP)
    server.wait_for(rf"^LOOP CLEARED {before}")
    server.wait_for(rf"worker {before} exited with code 0")
    with client(server) as smtp:
        smtp.sendmail("a@x.test", ["b@x.test"], "Subject: x\n\ny\n")
    assert server.stop() == 0
    assert len(server.matches("^LOOP CLEARED")) == 2
    assert "Traceback" not in server.output, server.output


def test_a_hook_that_never_returns_is_cut_off_at_graceful_timeout(serve: Serve, tmp_path: Path) -> None:
    server = begin(serve, tmp_path, AIO, MINE, "--graceful-timeout", "1").ready()
    with Talk(server.port()) as talk:
        talk.begin_data(recipient="forever@x.test")
        talk.send(b"x\r\n.\r\n")
        server.wait_for("^BEGUN")
        assert server.stop() == 0
    assert server.matches("1 sessions cut off") and "takes too long" not in server.output, server.output


def test_a_mistake_is_one_line(serve: Serve, tmp_path: Path) -> None:
    server = begin(serve, tmp_path, AIO, "preforksmtp.adapters:aiosmtpd('app:Needy')", "--workers", "1")
    assert server.wait() == 4
    (line, *_) = server.matches("Needy: missing a required argument: 'folder'")
    assert "the factory raised ValueError" in line.string
    assert not server.matches("^Traceback"), server.output


def test_a_server_of_the_old_smtpd(serve: Serve, tmp_path: Path) -> None:
    server = begin(serve, tmp_path, OLD, "app:MyServer").ready()
    with client(server) as smtp:
        assert smtp.sendmail("a@x.test", ["b@x.test", "c@x.test"], "Subject: x\n\n.y\n") == {}
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("a@x.test", ["b@x.test"], "Subject: spam\n\ny\n")
        assert (refused.value.smtp_code, refused.value.smtp_error) == (554, b"5.7.1 No spam")
    found = server.wait_for("^GOT (.*)")[1]
    assert found == (
        "127.0.0.1 a@x.test ['b@x.test', 'c@x.test'] b'Subject: x\\n\\n.y'"
        " {'mail_options': ['SIZE=18'], 'rcpt_options': []}"
    )
    assert server.stop() == 0
    assert "Traceback" not in server.output, server.output
