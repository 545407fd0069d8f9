"""Adapters of aiosmtpd that are stopped."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from preforksmtp.adapters import aiosmtpd


@pytest.fixture
def adapt():
    """aiosmtpd(), its loop stopped at the end and the thread proven gone."""
    made: list[Any] = []
    before = set(threading.enumerate())

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(aiosmtpd(*arguments, **options))
        return made[-1]

    yield make
    for adapter in made:
        adapter.stop(None)
    assert set(threading.enumerate()) <= before
