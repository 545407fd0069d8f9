"""handlers/discard.py"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from preforksmtp.handlers import Discard
from tests.handlers.fake import message


def test_discard_accepts_without_a_word() -> None:
    handler: Callable[[Any], object] = Discard()
    assert handler(message()) is None
