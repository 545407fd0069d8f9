"""The loop of a worker, and what aiosmtpd() makes of a handler at the start."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp import Handler
from preforksmtp.adapters import aiosmtpd
from preforksmtp.adapters.aio.host import Loop
from preforksmtp.server.app import AppError, load_app, start_handler
from tests.adapters.foreign import BODY, DATA, EHLO, MAIL, WHOLE, Data, Log
from tests.fakes import Talk, talk
from tests.processes import PATIENCE, wait_until

# --- the loop


def test_a_hook_that_is_cancelled_does_not_hang_its_session(adapt):
    class Cancelled(Data):
        async def handle_DATA(self, server, session, envelope):
            asyncio.current_task().cancel()
            await asyncio.sleep(3600)

    assert talk([*WHOLE, "NOOP"], adapt(Cancelled)).codes[-2:] == [451, 250]


def test_the_end_of_the_loop_does_not_hang_a_session(adapt):
    begun = threading.Event()

    class Endless(Data):
        async def handle_DATA(self, server, session, envelope):
            begun.set()
            await asyncio.Event().wait()

    adapter = adapt(Endless)
    spoken: list[Talk] = []
    thread = threading.Thread(target=lambda: spoken.append(talk(WHOLE, adapter)))
    thread.start()
    assert begun.wait(PATIENCE)
    adapter.stop(None)
    thread.join(PATIENCE)
    assert spoken[0].codes[-1] == 451
    assert talk([], adapter).wire.output == b"451 4.3.0 Local error in processing, try again later\r\n", "not made anew"
    adapter.start(None)
    assert talk([EHLO], adapter).codes == [250]


def test_a_hook_that_blocks_the_loop_is_left_behind_at_the_end():
    blocked, release = threading.Event(), threading.Event()

    class Blocking(Data):
        def handle_DATA(self, server, session, envelope):
            blocked.set()
            release.wait(PATIENCE)
            return "250 OK"

    adapter = aiosmtpd(Blocking)
    spoken: list[Talk] = []
    thread = threading.Thread(target=lambda: spoken.append(talk(WHOLE, adapter)))
    thread.start()
    assert blocked.wait(PATIENCE)
    adapter.stop(None)
    thread.join(PATIENCE)
    assert spoken[0].codes[-1] == 451, "although the hook still runs"
    release.set()
    wait_until(lambda: "aiosmtpd loop" not in {thread.name for thread in threading.enumerate()}, "the loop has ended")


def test_neither_stop_nor_systemexit_ends_the_loop(adapt):
    class Rude(Data):
        async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
            envelope.rcpt_tos.append(address)
            if address.startswith("stop"):
                server.loop.stop()
            else:
                server.loop.call_soon(exit_)
            return "250 OK"

    def exit_():
        raise SystemExit(3)

    log = Log()
    adapter = adapt(Rude)
    adapter.start(SimpleNamespace(log=log))
    spoken = talk([EHLO, MAIL, "RCPT TO:<stop@d.test>", "RCPT TO:<exit@d.test>", DATA, BODY], adapter)
    assert spoken.codes == [250, 250, 250, 250, 354, 250]
    assert log.lines == ["a task of the aiosmtpd handler raised"]


def test_tasks_of_the_handler_are_cancelled_at_the_end(adapt):
    ended = threading.Event()

    class Background(Data):
        async def handle_DATA(self, server, session, envelope):
            self.task = asyncio.get_running_loop().create_task(self.work())
            await asyncio.sleep(0)
            return "250 OK"

        async def work(self):
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

    adapter = adapt(Background)
    assert talk(WHOLE, adapter).codes[-1] == 250
    assert not ended.is_set()
    adapter.stop(None)
    assert ended.is_set()


def test_a_loop_that_was_stopped_refuses(adapt):
    loop = Loop(Log())  # type: ignore[arg-type]
    assert loop.run(lambda: 42) == 42
    loop.stop()
    loop.stop()
    with pytest.raises(RuntimeError, match="has ended"):
        loop.run(lambda: 42)


# --- the start


def app(tmp_path, monkeypatch, code: str, expression: str) -> Any:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "aio_app", raising=False)
    (tmp_path / "aio_app.py").write_text(code)
    hooks = load_app(f"preforksmtp.adapters:aiosmtpd({expression})")
    try:
        start_handler("x:y", hooks.handler, SimpleNamespace())  # type: ignore[arg-type]
        return hooks
    finally:
        hooks.handler.stop(None)


CODE = """
import abc

class Mine:
    def __init__(self, folder):
        if not folder:
            raise OSError("no folder")
    async def handle_DATA(self, server, session, envelope):
        return "250 OK"

class Abstract(abc.ABC):
    @abc.abstractmethod
    async def handle_DATA(self, server, session, envelope): ...

class Crooked:
    async def handle_EHLO(self, hostname): ...

class Nothing:
    pass

instance = Mine("x")
def function(message): pass
def check(mechanism, login, password): return True
"""


def test_on_the_command_line(tmp_path, monkeypatch):
    hooks = app(
        tmp_path, monkeypatch, CODE, "'aio_app:Mine', 'folder', auth_callback='aio_app:check', decode_data=True"
    )
    assert (hooks.has, hooks.handler.__name__) == ({"message", "authenticate"}, "Mine")
    assert issubclass(hooks.handler, Handler)
    assert app(tmp_path, monkeypatch, CODE, "'aio_app:instance'").has == {"message"}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("'aio_app'", "the factory raised ValueError: aiosmtpd handler 'aio_app': expected module:attribute"),
        ("'nowhere_app:Mine'", "the factory raised ValueError: aiosmtpd handler 'nowhere_app:Mine': no module named"),
        ("'aio_app:Min'", "aio_app has no attribute 'Min'"),
        ("'aio_app:Mine'", "Mine: missing a required argument: 'folder'; they follow it: aiosmtpd('module:Class', 'arg"),
        ("'aio_app:Mine', ''", "Mine.start raised OSError: no folder"),
        ("'aio_app:Abstract'", "Abstract is abstract: derive a class from it with handle_DATA"),
        ("'aio_app:Crooked'", "Crooked.start raised ValueError: Crooked.handle_EHLO takes 1 arguments; aiosmtpd gives"),
        ("'aio_app:Nothing'", "is no handler of aiosmtpd: it has no method such as handle_DATA"),
        ("'aio_app:function'", "is no handler of aiosmtpd"),
        ("'aio_app:instance', 1", "is an instance already: it takes no arguments"),
        ("'aio_app:instance', authenticator='aio_app:chek'", "authenticator 'aio_app:chek': aio_app has no attribute"),
        ("'aio_app:instance', auth_callback=1", "auth_callback must be a function, not 1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_at_the_start(tmp_path, monkeypatch, expression, words):
    with pytest.raises(AppError) as caught:
        app(tmp_path, monkeypatch, CODE, expression)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_handler_without_handle_data_takes_all_mail_but_says_so(adapt):
    class Only:
        async def handle_VRFY(self, server, session, envelope, address):
            return "252 x"

    log = Log()
    adapter = adapt(Only)
    adapter.start(SimpleNamespace(log=log))
    assert talk(WHOLE, adapter).codes[-1] == 250
    assert log.lines == ["Only has no handle_DATA: mail is accepted and thrown away, as by aiosmtpd"]
