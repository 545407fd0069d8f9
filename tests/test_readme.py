"""README.md keeps up with the program: what is offered, and the commands it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from preforksmtp import Handler, arguments
from preforksmtp.ctl import _parser
from preforksmtp.net.bind import SCHEMES
from preforksmtp.observe.orders import ORDERS, Order
from preforksmtp.smtp.extensions import KEYWORDS
from preforksmtp.smtp.handler import _HOOKS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
]


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_every_ehlo_keyword_is_in_the_table(keyword: str) -> None:
    assert re.search(rf"^\| ([A-Z0-9-]+, )*{keyword}\b.* \|", README, re.MULTILINE)


@pytest.mark.parametrize("hook", _HOOKS)
def test_every_hook_is_in_the_table(hook: str) -> None:
    assert hasattr(Handler, hook)
    assert f"`{hook}(self" in README


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_in_the_table(scheme: str) -> None:
    assert f"\n| `{scheme}` | " in README


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python3 -m preforksmtp")])
def test_the_commands_are_understood(command: str) -> None:
    _, _, module, *words = shlex.split(command)
    if module == "preforksmtp.ctl":
        assert len(_parser().parse_args(words).order) >= 1
    else:
        arguments.parse(words)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.words)
def test_every_order_is_in_the_table(order: Order) -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", README.partition("| order | does |")[2], re.MULTILINE)
    assert [row for row in rows if re.search(rf"`{order.words}[ `]", row)]


def test_the_files_it_names_are_there() -> None:
    tree = README.partition("## The tree")[2].partition("## Settings")[0]
    for cell in re.findall(r"^\| (`.*?) \| ", tree, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        for name in (first, *(str(Path(first).parent / other) for other in others)):
            assert (ROOT / name).exists(), name


def test_ci_runs_the_test_command() -> None:
    assert [line for line in COMMANDS if line.startswith("python3 -m venv .venv && ")] != []
