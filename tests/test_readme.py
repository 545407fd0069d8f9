"""README.md keeps up with the program: what is offered, and the commands it shows."""

from __future__ import annotations

import re
import shlex
import shutil
import smtplib
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from preforksmtp import Handler
from preforksmtp.config import arguments
from preforksmtp.control.orders import ORDERS, Order
from preforksmtp.ctl import _parser
from preforksmtp.net.bind import SCHEMES
from preforksmtp.server.app import load_app
from preforksmtp.smtp.extensions import KEYWORDS
from preforksmtp.smtp.hooks import _HOOKS
from preforksmtp.testing import Server

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
]
FILES = {
    found[1]: found[0] for found in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", README, re.DOTALL)
}  # fmt: skip


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


@pytest.mark.parametrize("app", ["app:handler", "files:handler", "mx:Mail", "store:Digest", "old:Inbox"])
def test_the_applications_take_mail(app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = app.partition(":")[0]
    (tmp_path / f"{name}.py").write_text(FILES[f"{name}.py"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        with Server(app) as server, smtplib.SMTP(server.host, server.port) as client:
            client.sendmail("me@example.com", ["you@example.com"], "Subject: hello\n\nIt works.")
            assert len(server.messages) == 1
    finally:
        sys.modules.pop(name, None)


def test_attachments_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message.set_content("text")
    message.add_attachment(b"\0\xff", maintype="application", subtype="pdf", filename="../é.pdf")
    names: dict[str, Any] = {}
    exec(FILES["files.py"], names)
    monkeypatch.chdir(tmp_path)
    with Server(names["handler"], spool_threshold=0) as server, smtplib.SMTP(server.host, server.port) as client:
        client.send_message(message, "me@example.com", ["you@example.com"])
        [received] = server.messages
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "files").iterdir()] == [
        (f"{received.id}-é.pdf", b"\0\xff")
    ]
    assert (received.headers["Subject"], received.text) == ("Grüße", "text\n"), "also when the server is gone"


def test_the_test_passes() -> None:
    names: dict[str, Any] = {}
    exec(FILES["test_mail.py"], names)
    names["test_what_my_code_sends"]()


@pytest.mark.parametrize("command", [line for line in COMMANDS if '"preforksmtp.' in line])
def test_ready_made_handlers_take_these_arguments(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = shlex.split(command)[-1]
    (tmp_path / "myapp.py").write_text("class MyHandler:\n    async def handle_DATA(self, *_):\n        return '250 OK'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda program: program)
    load_app(app)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.words)
def test_every_order_is_in_the_table(order: Order) -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", README.partition("| order | does |")[2], re.MULTILINE)
    assert [row for row in rows if re.search(rf"`{order.words}[ `]", row)]


def test_the_files_it_names_are_there() -> None:
    """Those of INTERNALS.md, to which it sends the reader: with a folder, or a folder alone."""
    assert "(preforksmtp/INTERNALS.md)" in README
    internals = (ROOT / "preforksmtp" / "INTERNALS.md").read_text()
    names = set(re.findall(r"`((?:[a-z]+/)+(?:[a-z_]+\.py)?)`", internals))
    assert len(names) > 40
    for name in names:
        assert (ROOT / "preforksmtp" / name).exists() or (ROOT / name).exists(), name


def test_ci_runs_the_test_command() -> None:
    assert [line for line in COMMANDS if line.startswith("python3 -m venv .venv && ")] != []
