"""Completion of preforksmtpctl, as bash runs it."""

from __future__ import annotations

import subprocess

import pytest

from preforksmtp.control.completion import script
from preforksmtp.control.orders import ORDERS


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("re", {"reload", "restart", "reopen"}),
        ("show ''", {order.words.split()[1] for order in ORDERS if order.words.startswith("show ")}),
        ("-j worker d", {"drain", "dump"}),
        ("show --s", {"--socket", "--sort"}),
        ("nonsense ''", set()),
    ],
)
def test_bash(words: str, wanted: set[str]) -> None:
    number = len(words.split())
    ask = (
        f"{script('bash', ['--socket', '--sort', '--json'])}\nCOMP_WORDS=(preforksmtpctl {words}); COMP_CWORD={number}\n"
        '_preforksmtpctl; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == wanted


def test_zsh_reads_it_through_bashcompinit() -> None:
    assert script("zsh", []).startswith("autoload -U +X bashcompinit && bashcompinit\n")
