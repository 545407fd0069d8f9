"""Which hooks a handler of aiosmtpd has, and which of ours each of them makes necessary.

Facts and pure functions: nothing here calls a hook, and nothing fails.
"""

from __future__ import annotations

from typing import Any

MECHANISMS = ("PLAIN", "LOGIN")  # of the auth_... methods of a handler

# Hooks of ours, and the foreign ones (as hooks_of() names them) that make each necessary. `message` is always.
_MAIL = frozenset(("HELO", "EHLO", "STARTTLS", "MAIL", "RCPT", "VRFY"))
NEEDED_BY: dict[str, frozenset[str]] = {
    "connect": frozenset(("PROXY",)),
    "helo": frozenset(("HELO", "EHLO", "STARTTLS")),
    "mail": _MAIL,
    "rcpt": _MAIL,
    "data": frozenset(("RCPT",)),
    "verify": frozenset(("VRFY",)),
    "reset": _MAIL | {"RSET"},
    "authenticate": frozenset(("AUTH", "auth")),
    "close": frozenset(("QUIT",)),
}


def hooks_of(handler: Any) -> frozenset[str]:
    """DATA for handle_DATA; "exception", "process_message"; "AUTH" too where it has auth_PLAIN or auth_LOGIN."""
    hooks = {name.removeprefix("handle_") for name in dir(handler) if name.startswith("handle_")}
    if hasattr(handler, "process_message"):
        hooks.add("process_message")
    if auth_methods_of(handler).keys() & set(MECHANISMS):
        hooks.add("auth")
    return frozenset(hooks)


def auth_methods_of(handler: Any) -> dict[str, str]:
    """The name of the method of each mechanism that a handler has itself, as aiosmtpd finds them."""
    methods = ((name, getattr(handler, name)) for name in dir(handler) if name.startswith("auth_"))
    return {
        getattr(method, "__auth_mechanism_name__", name.removeprefix("auth_").replace("__", "-")): name
        for name, method in methods
        if callable(method)
    }
