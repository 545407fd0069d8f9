"""smtp/handler.py: the contract that users subclass."""

from __future__ import annotations

from preforksmtp import Handler
from preforksmtp.smtp.hooks import _HOOKS


def test_every_hook_is_a_documented_method_of_handler():
    for name in (*_HOOKS, "start", "stop"):
        assert getattr(Handler, name).__doc__


def test_what_is_not_overridden_does_no_harm():
    handler = Handler("session")
    Handler.start(None)
    Handler.stop(None)
    assert handler.authenticate("user", "password") is False
    assert handler.token("user", "token") is False
    for name in set(_HOOKS) - {"authenticate", "token"}:
        arguments = {"mail": 2, "rcpt": 2, "stream": 2}
        arguments |= dict.fromkeys(
            ("helo", "message", "verify", "expand", "etrn", "help", "password", "certificate"), 1
        )
        assert getattr(handler, name)(*[None] * arguments.get(name, 0)) is None
