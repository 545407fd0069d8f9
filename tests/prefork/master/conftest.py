"""`wakeup`, and a `workforce` that has one and no workers: this process is its master, without a loop."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from preforksmtp.prefork.master.wakeup import Wakeup
from preforksmtp.prefork.master.workforce import Workforce


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    before = {number: signal.getsignal(number) for number in signal.valid_signals() if number < signal.SIGRTMIN}
    wakeup = Wakeup(signal.SIGABRT)
    yield wakeup
    wakeup.close()
    for number, handler in before.items():
        if signal.getsignal(number) is not handler and handler is not None:
            signal.signal(number, handler)


@pytest.fixture
def workforce(wakeup: Wakeup) -> Workforce:
    config: Any = SimpleNamespace(workers=1, threads=1, boot_timeout=30.0)
    listeners: Any = SimpleNamespace(every=list)
    workforce = Workforce(
        config, listeners, lambda worker: pytest.fail("nothing boots here"), logging.getLogger("preforksmtp")
    )
    workforce.wakeup = wakeup
    return workforce
