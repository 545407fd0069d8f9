"""Sessions of every kind load nothing of Python's library: it may be closed to the user they run as, or another by now."""

from __future__ import annotations

import os
import shutil
import signal
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.program import every
from tests.program.conftest import Server

NOBODY = 65534
SPOOL_THRESHOLD = 4096

# From the first moment of the worker: each import, and each file of the library that is opened, is noted. But the
# sources that a traceback quotes: without them it has no lines of code, and is a traceback all the same.
CONF = """
import os, sys

_LIBRARY = {library!r}
_NOTES = os.open({notes!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def {hook}:
    def note(event, arguments):
        if event == "import" or (event == "open" and str(arguments[0]).startswith(_LIBRARY)):
            frame = sys._getframe(1)
            while frame is not None and frame.f_globals["__name__"] not in ("app", "linecache"):
                frame = frame.f_back
            if frame is None:
                os.write(_NOTES, f"{{event}} {{arguments[0]}}\\n".encode())
                if {closed} and event == "open":
                    raise PermissionError(13, "Permission denied")

    sys.addaudithook(note)
"""


def write_conf(folder: Path, hook: str, *, closed: bool) -> Path:
    notes = folder / "notes"
    notes.touch()
    library = sysconfig.get_paths()["stdlib"]
    (folder / "conf.py").write_text(CONF.format(library=library, notes=str(notes), hook=hook, closed=closed))
    (folder / "app.py").write_text(every.APP)
    return notes


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that nobody may enter, and write to in part."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    (path / "Maildir").mkdir()
    if os.geteuid() == 0:
        os.chown(path / "Maildir", NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def serve_all(folder: Path, certificate: Certificate, *arguments: str) -> None:
    options = every.options(certificate, SPOOL_THRESHOLD)
    with Server(folder, *options, "-c", "conf.py", *arguments) as server:
        server.ready()
        ports = [server.port("smtp"), server.port("smtp", 1), server.port("smtps"), server.port("lmtp")]
        every.run_all(ports, certificate, SPOOL_THRESHOLD, folder)
        server.send(signal.SIGUSR1)
        assert server.stop() == 0
    faults = [line for line in server.lines if "ERROR" in line and "RuntimeError" not in line]
    assert not faults, server.output
    assert "LookupError" not in server.output


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_is_loaded(folder: Path, certificate: Certificate, log_format: str) -> None:
    notes = write_conf(folder, "post_worker_init(worker)", closed=False)
    serve_all(folder, certificate, "--log-format", log_format, "app:Mail")
    assert notes.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
@pytest.mark.parametrize("app", ["app:Mail", ""])
def test_the_library_is_closed_to_the_workers_user(folder: Path, certificate: Certificate, app: str) -> None:
    """And nothing of it is asked for, from the moment they are that user; but by what the application imports."""
    notes = write_conf(folder, "post_fork(server, worker)", closed=True)
    if app:
        serve_all(folder, certificate, "-u", "nobody", app)
    else:  # the one that is built in
        with Server(folder, "-b", "127.0.0.1:0", "-u", "nobody", "-c", "conf.py") as server:
            server.ready()
            with every.begun(server.port()) as wire:
                assert every.deliver(wire).startswith(b"250")
            assert server.stop() == 0
    assert notes.read_text() == ""
    assert len(list((folder / "Maildir" / "new").iterdir())) >= 1
