"""Where preforksmtpctl finds its socket: no config file is run for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from preforksmtp.config.model import ConfigError
from preforksmtp.control.whereabouts import find_socket
from tests.processes import ROOT

CODE = "open('executed', 'w')\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fault(file: str | None = None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        find_socket(file, environ or {})
    assert len(error.value.errors) == 1
    return error.value.errors[0]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("control_socket = 'a.sock'", "a.sock"),
        ("control_socket: str = 'a.sock'", "a.sock"),
        ("control_socket = 'a.sock'\ncontrol_socket = 'b.sock'", "b.sock"),
        ("chdir = '/srv'\ncontrol_socket = 'a.sock'", "/srv/a.sock"),
        ("chdir = '/srv'\ncontrol_socket = '/run/a.sock'", "/run/a.sock"),
        ("control_socket = '~/a.sock'", os.path.expanduser("~/a.sock")),
        ("import no_such_module\n" + CODE + "control_socket = 'a.sock'", "a.sock"),
    ],
)
def test_written_in_the_config_file(folder: Path, text: str, path: str) -> None:
    (folder / "preforksmtp.conf.py").write_text(text)
    assert find_socket(None, {}) == path
    (folder / "preforksmtp.conf.py").rename(folder / "other.py")
    assert find_socket("other.py", {}) == path
    assert find_socket(None, {"PREFORKSMTP_CMD_ARGS": "-c other.py"}) == path
    assert not (folder / "executed").exists()


def test_the_last_one_counts(folder: Path) -> None:
    environ = {"PREFORKSMTP_CONTROL_SOCKET": "e.sock"}
    assert find_socket(None, environ) == "e.sock"
    (folder / "preforksmtp.conf.py").write_text("control_socket = 'f.sock'")
    assert find_socket(None, environ) == "f.sock"
    environ["PREFORKSMTP_CMD_ARGS"] = "--control-socket c.sock -w 4"
    assert find_socket(None, environ) == "c.sock"


@pytest.mark.parametrize(
    "text",
    [
        CODE + "control_socket = 'a' + '.sock'",
        "import os\ncontrol_socket = os.environ['X']",
        "if True:\n    control_socket = 'a.sock'",
        "control_socket = 'a.sock'\nfor control_socket in 'b':\n    pass",
        "control_socket, x = 'a.sock', 1",
        "chdir = str('/srv')\ncontrol_socket = 'a.sock'",
    ],
)
def test_what_is_computed_is_not_computed_for_an_order(folder: Path, text: str) -> None:
    (folder / "preforksmtp.conf.py").write_text(text)
    assert "is computed there, and an order runs no code; name the socket with --socket PATH" in fault()
    assert not (folder / "executed").exists()


def test_what_cannot_be_read_is_one_line(folder: Path) -> None:
    assert "name the socket with --socket PATH" in fault()
    assert fault("absent.py") == "config file absent.py: cannot be read: No such file or directory"
    (folder / "x.py").write_text("def")
    assert fault("x.py").startswith("config file x.py, line 1: ")
    (folder / "x.py").write_bytes(b"\0")
    assert fault("x.py").startswith("config file x.py")
    (folder / "x.py").write_text("control_socket = 5")
    assert fault("x.py").startswith("control_socket: ")
    (folder / "x.py").write_text("(" * 5000)
    assert fault("x.py").startswith("config file x.py")
    assert fault(environ={"PREFORKSMTP_CMD_ARGS": "--no-such-option"}).startswith("PREFORKSMTP_CMD_ARGS: ")


def test_the_program_runs_nothing_of_the_folder_it_stands_in(folder: Path) -> None:
    (folder / "preforksmtp.conf.py").write_text(CODE + "control_socket = 'none.sock'")
    done = subprocess.run(
        [sys.executable, "-m", "preforksmtp.ctl", "show", "workers"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("preforksmtpctl: error: none.sock: ")
    assert not (folder / "executed").exists()
