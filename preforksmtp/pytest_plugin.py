"""For pytest: `smtp_server` and `make_smtp_server`, fixtures of every test where preforksmtp is installed.

Where it is only on the path, write `pytest_plugins = ["preforksmtp.pytest_plugin"]` in conftest.py. The only file that
imports pytest, which imports it; the server itself is imported by the first test that asks for one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from preforksmtp.testing import Server


@pytest.fixture
def smtp_server() -> Iterator[Server]:
    """An SMTP server on a free port (host, port) that collects what it gets (messages). See preforksmtp.testing."""
    from preforksmtp.testing import Server

    with Server() as server:
        yield server


@pytest.fixture
def make_smtp_server() -> Iterator[Callable[..., Server]]:
    """`make_smtp_server(app, **settings)`: as many running servers as the test needs, stopped at its end."""
    from preforksmtp.testing import Server

    with contextlib.ExitStack() as stack:
        yield lambda app=None, **settings: stack.enter_context(Server(app, **settings))
