"""Who started this process: a new master believes the variable if it was written for it, whoever its parent is now."""

from __future__ import annotations

import os

import pytest

from preforksmtp.prefork.master.upgrade import VARIABLE, find_predecessor


def test_the_number_of_the_old_master() -> None:
    environ = {VARIABLE: f"123456:{os.getpid()}:-1", "OTHER": "1"}
    assert find_predecessor(environ)[0] == 123456
    assert environ == {"OTHER": "1"}


@pytest.mark.parametrize("text", ["", "1", f"{os.getppid()}", "1:2:3:4", "a:b:c", f"123456:{os.getppid()}:5", "1:2:"])
def test_a_first_start(text: str) -> None:
    environ = {VARIABLE: text}
    assert find_predecessor(environ)[0] == 0
    assert not environ


def test_no_variable() -> None:
    assert find_predecessor({})[0] == 0
