"""The program as a new user meets it: it starts with nothing, says each mistake in one line, and exits accordingly."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from preforksmtp import __version__
from tests.certificates import Certificate
from tests.processes import ROOT
from tests.program.conftest import LOOPBACK, Serve, Talk

BROKEN_APPS = {
    "missing": ("absent:handler", "", "no module named 'absent'"),
    "file name": ("app.py", "", "leave out .py"),
    "attribute": ("app:handlr", "def handler(message): pass", "has no attribute 'handlr'; did you mean 'handler'?"),
    "syntax": ("app:handler", "def handler(message:", "syntax error in "),
    "raises": ("app:handler", "1 / 0", "importing app raised ZeroDivisionError: division by zero"),
    "exits": ("app:handler", "raise SystemExit(7)", "importing app raised SystemExit: 7"),
    "imports": ("app:handler", "import absent", "app imports 'absent', which is not installed"),
    "not callable": ("app:handler", "handler = 1", "is int, not a callable"),
    "arguments": ("app:handler", "def handler(): pass", "is called with one argument, the message"),
    "factory": ("app:handler(x)", "def handler(x): pass", "the arguments of the factory must be literals"),
    "start": (
        "app:Mail",
        "import preforksmtp\nclass Mail(preforksmtp.Handler):\n"
        " def message(self, message): pass\n @classmethod\n def start(cls, worker): raise OSError('no database')",
        "Mail.start raised OSError: no database",
    ),
}

# Command line -> exit code, what the only line about it says.
MISTAKES = {
    "option": (["--wrokers", "2"], 2, "unrecognized arguments: --wrokers"),
    "value": (["-w", "many"], 2, "--workers"),
    "bind": (["-b", "127.0.0.1:smtp"], 1, "127.0.0.1:smtp"),
    "scheme": (["-b", "http://127.0.0.1:80"], 1, "http"),
    "bind option": (["-b", "127.0.0.1:0?hostnam=x"], 1, "hostnam"),
    "foreign address": (["-b", "192.0.2.1:2525"], 1, "192.0.2.1:2525"),
    "certificate": (["--certfile", "absent.pem"], 1, "certfile absent.pem does not exist"),
    "key": (["--keyfile", "absent.pem"], 1, "keyfile: needs certfile"),
    "implicit TLS": (["-b", "smtps://127.0.0.1:0"], 1, "set certfile"),
    "config file": (["-c", "absent.conf.py"], 1, "absent.conf.py"),
    "log file": (["--error-logfile", "absent/log"], 1, "error_logfile: cannot open absent/log"),
    "folder": (["--chdir", "absent"], 1, "chdir: "),
    "log format": (["--access-logformat", "%(nonsense)s"], 1, "unknown atom %(nonsense)s"),
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "preforksmtp", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Standard error without the warning that CI gets for being root."""
    lines = done.stderr.splitlines()
    return [line for line in lines if not ("run as root" in line and re.search("warning", line, re.IGNORECASE))]


def test_without_app_it_stores_mail_in_a_maildir(serve: Serve) -> None:
    server = serve("-b", LOOPBACK).ready()
    with smtplib.SMTP("127.0.0.1", server.port(), timeout=15) as client:
        client.sendmail("me@example.com", ["you@example.com"], "Subject: hello\n\nIt works.")
    assert server.stored() == [b"Subject: hello\r\n\r\nIt works.\r\n"]
    assert server.stop() == 0
    # CI is root, and hears of that.
    assert [line for line in server.lines if "[WARNING]" in line and "run as root" not in line] == []


def test_a_bare_start_listens_where_the_readme_says(tmp_path: Path) -> None:
    shown = run(tmp_path, "--print-config").stdout
    assert 'bind = ["127.0.0.1:8025"]' in " ".join(shown.split())
    assert "preforksmtp.handlers:Maildir('Maildir')" in shown


def test_version_and_help(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"preforksmtp {__version__}\n"
    shown = run(tmp_path, "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: preforksmtp [OPTIONS] [APP]\n")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(tmp_path: Path, name: str) -> None:
    arguments, code, text = MISTAKES[name]
    done = run(tmp_path, "-b", LOOPBACK, *arguments)
    lines = [line for line in errors(done) if not line.startswith("usage: ")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("preforksmtp: error: ")
    assert text in lines[0]


def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(tmp_path, "-b", bind)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("preforksmtp: error: ")
    assert bind in last
    assert "another program uses it" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", BROKEN_APPS)
def test_an_app_that_cannot_be_loaded_is_told_once_and_ends_the_start_with_4(tmp_path: Path, name: str) -> None:
    app, source, text = BROKEN_APPS[name]
    (tmp_path / "app.py").write_text(source + "\n")
    done = run(tmp_path, "-b", LOOPBACK, "-w", "1", app)
    told = [line for line in done.stderr.splitlines() if text in line]
    assert done.returncode == 4, done.stderr
    assert len(told) == 1, done.stderr
    assert "[ERROR] app " in told[0]
    assert "Traceback" not in done.stderr
    assert "preforksmtp/" not in done.stderr.replace(told[0], "")  # the user's own frames at most


def test_an_app_that_breaks_the_worker_ends_the_start_with_3(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import time\ntime.sleep(60)\n")
    done = run(tmp_path, "-b", LOOPBACK, "--boot-timeout", "0.5", "app:handler")
    assert done.returncode == 3, done.stderr
    assert "boot_timeout" in done.stderr


def test_check_config(tmp_path: Path, certificate: Certificate) -> None:
    (tmp_path / "app.py").write_text("def handler(message): pass\n")
    good = run(tmp_path, "--check-config", *certificate.options, "-b", "smtps://127.0.0.1:0", "app:handler")
    assert (good.returncode, good.stdout, errors(good)) == (0, "preforksmtp: configuration is ok\n", [])
    bad = run(tmp_path, "--check-config", "--certfile", "absent.pem", "--spool-dir", "absent", "app:handlr")
    assert bad.returncode == 1
    lines = errors(bad)
    assert all(line.startswith("preforksmtp: error: ") for line in lines)
    assert [next(word for word in ("certfile", "spool_dir", "handlr") if word in line) for line in lines] == [
        "certfile", "spool_dir", "handlr",
    ]  # fmt: skip


def test_check_config_binds_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(tmp_path, "--check-config", "-b", f"127.0.0.1:{taken.getsockname()[1]}").returncode == 0


def test_print_config_names_the_origin(tmp_path: Path) -> None:
    (tmp_path / "preforksmtp.conf.py").write_text("threads = 7\n")
    shown = run(tmp_path, "--print-config", "-w", "3").stdout.splitlines()
    rows = {line.split(" = ")[0].strip(): line for line in shown}
    assert rows["workers"].endswith("# command line")
    assert rows["threads"].endswith(f"# config file {tmp_path / 'preforksmtp.conf.py'}")
    assert rows["timeout"].endswith("# default")


def test_the_readme_command_of_a_handler_function(serve: Serve, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (tmp_path / "app.py").write_text(text.partition("```python\n# app.py\n")[2].partition("```")[0])
    server = serve("-b", LOOPBACK, "app:handler").ready()
    with Talk(server.port()) as client:
        client.begin_data("me@example.com", "you@example.com")
        client.send(b"Subject: hello\r\n\r\nIt works.\r\n.\r\n")
        assert client.read() == "250 2.0.0 Ok: thank you"
    server.wait_for(r"me@example.com \['you@example.com'\] 29 hello")


@pytest.mark.parametrize("name, app", [("app", "handler"), ("mx", "Mail"), ("store", "Digest")])
def test_the_readme_handlers_load(tmp_path: Path, name: str, app: str) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    source = text.partition(f"```python\n# {name}.py\n")[2].partition("```")[0]
    assert source
    (tmp_path / f"{name}.py").write_text(source)
    done = run(tmp_path, "--check-config", f"{name}:{app}")
    assert (done.returncode, errors(done)) == (0, [])
