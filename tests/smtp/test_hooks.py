"""smtp/hooks.py: what a handler overrides decides what is offered."""

from __future__ import annotations

import functools

import pytest

from preforksmtp import Handler
from preforksmtp.smtp.hooks import _HOOKS, Hooks
from tests.fakes import recording


@pytest.mark.parametrize("name", _HOOKS)
def test_a_hook_is_there_where_it_is_overridden(name):
    hooks = Hooks.of_class(recording(**{name: None}))
    assert [hook for hook in _HOOKS if getattr(hooks, hook)] == [name]
    assert hooks.has == {name}


def test_an_inherited_override_counts():
    class Base(Handler):
        def rcpt(self, recipient, params): ...

    class Derived(Base):
        def message(self, message): ...

    assert Hooks.of_class(Derived).has == {"rcpt", "message"}


def test_mechanisms_follow_from_the_hooks():
    assert Hooks.of_class(recording(message=None)).mechanisms == ()
    assert Hooks.of_class(recording(authenticate=True)).mechanisms == ("PLAIN", "LOGIN")


def test_a_function_is_the_message_hook_of_every_session():
    hooks = Hooks.of_function(lambda message: message * 2)
    assert hooks.has == {"message"}
    assert hooks.new is None
    assert hooks.shared.message(21) == 42
    assert hooks.handler is None


def test_a_function_may_declare_extensions():
    def function(message): ...

    function.extensions = ["PRDR"]
    assert Hooks.of_function(function).extensions == {"PRDR": ""}


def test_an_instance_for_each_session():
    handler = recording(message=None)
    hooks = Hooks.of_class(handler)
    one, two = hooks.new("session 1"), hooks.new("session 2")
    assert (one.session, two.session) == ("session 1", "session 2")
    assert hooks.handler is handler


def test_a_partial_makes_them():
    class Counting(Handler):
        def __init__(self, session, *, step):
            super().__init__(session)
            self.step = step

        def message(self, message): ...

    hooks = Hooks.of_class(Counting, functools.partial(Counting, step=3))
    assert hooks.new("session").step == 3
    assert hooks.handler is Counting
