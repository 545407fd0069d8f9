"""Root's master beside a user who may write to the folder where its files are: that user swaps them for links to what
is root's, for second names of it, for FIFOs; and root writes, makes, gives away, opens to others and removes nothing
but what it is meant to. Needs root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificate
from tests.processes import PATIENCE, ROOT, wait_until
from tests.program.conftest import Server, Talk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to be led astray")

NOBODY = 65534
DISCARD = "preforksmtp.handlers:Discard()"
LOOPBACK = "127.0.0.1:0"

@pytest.fixture
def tree() -> Iterator[Path]:
    """/tmp/x, of root's alone; in it `secret`, root's, and `open`, nobody's."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    secret = path / "secret"
    secret.mkdir(0o711)
    for name in ("victim", "second"):
        (secret / name).write_text("root's own\n")
        (secret / name).chmod(0o600)
    (path / "open").mkdir()
    os.chown(path / "open", NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that may be done to what is in there."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, content)
    return found


def swap(path: Path, kind: str, target: Path) -> None:
    """What nobody can do in a folder of its own: take a name away, and give it to something else."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.away"))
    elif os.path.lexists(path):
        path.unlink()
    if kind == "link":
        path.symlink_to(target)
    elif kind == "link to nothing":
        path.symlink_to(target.with_name("made"))
    elif kind == "hard link":
        os.link(target, path)
    elif kind == "fifo":
        os.mkfifo(path, 0o666)
    elif kind == "folder":
        path.mkdir()
    elif kind == "own file":
        path.write_text("")
    if kind != "hard link":
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


KINDS = ("link", "link to nothing", "hard link", "fifo", "folder")
NAMES = ("access.log", "dialogue", "run.pid", "ctl.sock", "lmtp.sock", "status.sock")


def begin(tree: Path, *more: str, app: str = DISCARD) -> Server:
    """As root, for nobody, in nobody's folder, with each of NAMES in it."""
    options = ["--access-logfile", "access.log", "--transcript", "dialogue", "-p", "run.pid"]
    options += ["--control-socket", "ctl.sock", "--status-bind", "unix:status.sock?mode=660"]
    return Server(tree / "open", "-b", LOOPBACK, "-b", "lmtp://unix:lmtp.sock?mode=600", "-u", "nobody", *options, *more, app)


def serves(port: int) -> None:
    with Talk(port) as talk:
        talk.begin_data()
        assert talk.ask("Subject: x\r\n\r\n.").startswith("250")
        assert talk.ask("QUIT").startswith("221")


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_swapped_while_it_runs(tree: Path, kind: str) -> None:
    """Reopened, reloaded, stopped: nothing happens to what is root's, and the server serves on."""
    secret, folder = tree / "secret", tree / "open"
    (tree / "conf.py").write_text("bind = ['127.0.0.1:0', 'lmtp://unix:lmtp.sock?mode=600']\n")
    options = ["-c", str(tree / "conf.py")]
    with begin(tree, *options) as server:
        server.ready()
        serves(server.port())
        for name in NAMES:
            assert (folder / name).exists(), name
            swap(folder / name, kind, secret / "victim")
        before = snapshot(secret)
        swapped = snapshot(folder)
        server.send(signal.SIGUSR1)
        server.wait_for("access_logfile: cannot open access.log: .*the old file stays in use")
        serves(server.port())
        (tree / "conf.py").write_text("bind = ['127.0.0.1:0', 'lmtp://unix:lmtp.sock?mode=666']\n")
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        serves(server.port())
        assert server.stop() == 0
        assert "Traceback" not in server.output
    assert snapshot(secret) == before
    assert {name: found for name, found in snapshot(folder).items() if "Maildir" not in name} == swapped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*NAMES, "error.log"])
def test_names_that_are_taken_at_the_start(tree: Path, kind: str, name: str) -> None:
    """One line that says what is wrong with the folder, and exit code 1; but a pid file may take a name that is free."""
    secret, folder = tree / "secret", tree / "open"
    options = {
        "access.log": ["--access-logfile", name], "dialogue": ["--transcript", name], "run.pid": ["-p", name],
        "ctl.sock": ["--control-socket", name], "lmtp.sock": ["-b", f"lmtp://unix:{name}"],
        "status.sock": ["--status-bind", f"unix:{name}"], "error.log": ["--error-logfile", name],
    }[name]  # fmt: skip
    swap(folder / name, kind, secret / "victim")
    before, taken = snapshot(secret), snapshot(folder)
    with Server(folder, "-b", LOOPBACK, "-u", "nobody", *options, DISCARD) as server:
        if (name, kind) == ("run.pid", "hard link"):  # a file: its name is taken over, and that is all
            server.ready()
            assert server.stop() == 0
            assert snapshot(secret) == before
            return
        assert server.wait() == 1
        line = server.lines[-1]
        assert line.startswith("preforksmtp: error: "), server.output
        assert name in line
    assert snapshot(secret) == before
    assert snapshot(folder) == taken


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_a_whole_folder_that_becomes_a_link(tree: Path, user: str) -> None:
    """Logs, pid file and sockets in a folder that nobody can move away."""
    secret, folder = tree / "secret", tree / "open"
    (folder / "logs").mkdir()
    os.chown(folder / "logs", NOBODY, NOBODY)
    options = ["--access-logfile", "logs/access.log", "-p", "logs/run.pid", "--control-socket", "logs/ctl.sock"]
    options += ["-b", "lmtp://unix:logs/lmtp.sock?mode=600", "-b", LOOPBACK]
    with Server(folder, "-u", user, *options, DISCARD) as server:
        server.ready()
        (folder / "logs").rename(folder / "away")
        (folder / "logs").symlink_to(secret)
        os.chown(folder / "logs", NOBODY, NOBODY, follow_symlinks=False)
        for name in ("run.pid", "ctl.sock", "lmtp.sock"):
            (secret / name).write_text("root's own\n")
        before = snapshot(secret)
        server.send(signal.SIGUSR1)
        server.wait_for("cannot open logs/access.log: .*is a symbolic link, and .*the old file stays in use")
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        serves(server.port())
        assert server.stop() == 0
    assert snapshot(secret) == before


def test_workers_of_roots_own_in_a_folder_of_somebody_elses(tree: Path) -> None:
    """What root made there it takes again; not what may be anybody's."""
    secret, folder = tree / "secret", tree / "open"
    with Server(folder, "-b", LOOPBACK, "--access-logfile", "access.log", DISCARD) as server:
        server.ready()
        assert (folder / "access.log").stat().st_uid == 0
        before = snapshot(secret)
        os.rename(folder / "access.log", folder / "1")
        swap(folder / "access.log", "hard link", secret / "victim")
        server.send(signal.SIGUSR1)
        server.wait_for("access_logfile: cannot open access.log: the file has other names besides this one", 2)
        serves(server.port())
        (folder / "access.log").unlink()
        os.rename(folder / "1", folder / "access.log")
        server.send(signal.SIGUSR1)
        serves(server.port())
        assert server.stop() == 0
    assert len((folder / "access.log").read_text().splitlines()) == 2
    assert snapshot(secret) == before


def test_logs_in_roots_own_folder_are_given_to_the_workers_user(tree: Path) -> None:
    """Which can open them again, but no others; second names and links of root's are root's affair."""
    (tree / "logs").mkdir(0o755)
    (tree / "elsewhere").mkdir(0o755)
    (tree / "logs" / "dialogue").symlink_to(tree / "elsewhere" / "dialogue")
    (tree / "logs" / "error.log").write_text("")
    os.link(tree / "logs" / "error.log", tree / "elsewhere" / "error.log")
    options = ["--access-logfile", "logs/access.log", "--transcript", "logs/dialogue"]
    with Server(tree, "-b", LOOPBACK, "-u", "nobody", *options, "--error-logfile", "logs/error.log", DISCARD) as server:
        log = tree / "logs" / "error.log"
        wait_until(lambda: "listening on" in log.read_text(), "ready")
        port = int(log.read_text().rpartition(":")[2])
        serves(port)
        assert (tree / "logs" / "access.log").stat().st_uid == NOBODY
        assert (tree / "elsewhere" / "dialogue").stat().st_uid == NOBODY
        assert log.stat().st_uid == 0  # it has two names
        os.rename(tree / "logs" / "access.log", tree / "logs" / "access.1")
        server.send(signal.SIGUSR1)
        wait_until(lambda: (tree / "logs" / "access.log").exists(), "reopened")
        assert (tree / "logs" / "access.log").stat().st_uid == NOBODY
        wait_until(lambda: "access.log" in " ".join(open_files(server.worker())) and "access.1" not in
                   " ".join(open_files(server.worker())), "reopened by the worker")  # fmt: skip
        serves(port)
        assert server.stop() == 0
    assert len((tree / "logs" / "access.log").read_text().splitlines()) == 1


def open_files(pid: int) -> list[str]:
    return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]


def test_devices_and_descriptors_are_logs_as_well(tree: Path) -> None:
    """As containers have it; in a folder of nobody's, with workers of nobody."""
    read, write = os.pipe()
    options = ["--access-logfile", "/dev/stdout", "--error-logfile", "/dev/stderr", "--transcript", f"/dev/fd/{write}"]
    with Server(tree / "open", "-b", LOOPBACK, "-u", "nobody", *options, DISCARD, pass_fds=[write]) as server:
        os.close(write)
        server.ready()
        server.send(signal.SIGUSR1)
        serves(server.port())
        server.wait_for("from=<a@example.com>")
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        serves(server.port())
        server.wait_for("from=<a@example.com>", 2)
        assert server.stop() == 0
        assert "ERROR" not in server.output
    with open(read) as pipe:
        assert pipe.read().count("C: QUIT") == 2
    with Server(tree / "open", "-b", LOOPBACK, "-u", "nobody", "--access-logfile", "/dev/null", DISCARD) as server:
        serves(server.ready().port())
        server.send(signal.SIGUSR1)
        serves(server.port())
        assert server.stop() == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_uid == 0


# -- log_config


def write_log_config(tree: Path, handler: dict[str, object]) -> Path:
    path = tree / "log.json"
    text = {
        "formatters": {"short": {"format": "%(levelname)s|%(message)s"}},
        "handlers": {
            "file": {"formatter": "short", **handler},
            "err": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "short"},
        },
        "loggers": {"preforksmtp": {"handlers": ["file", "err"], "propagate": False}},
    }
    path.write_text(json.dumps(text))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_log_config(tree: Path, kind: str) -> None:
    """Opened with nobody's rights in nobody's folder, at the start, at a rollover, when reopened; and a worker that
    cannot open them serves all the same."""
    secret, folder = tree / "secret", tree / "open"
    handler = {"class": "logging.handlers.RotatingFileHandler", "filename": "own.log", "maxBytes": 300, "backupCount": 2}
    config = write_log_config(tree, handler)
    with Server(folder, "-b", LOOPBACK, "-u", "nobody", "--log-config", str(config), DISCARD) as server:
        server.wait_for(r"INFO\|master \d+: ready")
        port = int(server.wait_for(r"listening on smtp://\S+:(\d+)")[1])
        assert (folder / "own.log").stat().st_uid == NOBODY
        for name in ("own.log", "own.log.1", "own.log.2"):
            swap(folder / name, kind, secret / "victim")
        before = snapshot(secret)
        server.send(signal.SIGUSR1)
        server.wait_for("log_config: cannot open ")
        former = server.worker()
        os.kill(former, signal.SIGKILL)
        wait_until(lambda: server.children() - {former}, "another worker")
        serves(port)
        server.send(signal.SIGHUP)
        server.wait_for("reload done")
        serves(port)
        assert server.stop() == 0
    assert snapshot(secret) == before


def test_a_rollover_in_a_folder_that_becomes_a_link(tree: Path) -> None:
    """It renames by name, with nobody's rights."""
    secret, folder = tree / "secret", tree / "open"
    secret.chmod(0o755)
    (secret / "own.log").write_text("root's own\n")
    (folder / "logs").mkdir()
    os.chown(folder / "logs", NOBODY, NOBODY)
    before = snapshot(secret)
    handler = {"class": "logging.handlers.RotatingFileHandler", "filename": "logs/own.log", "maxBytes": 60, "backupCount": 2}
    config = write_log_config(tree, handler)
    with Server(folder, "-b", LOOPBACK, "-u", "nobody", "--log-config", str(config), DISCARD) as server:
        server.wait_for(r"listening on smtp://")
        assert (folder / "logs" / "own.log.2").exists()
        (folder / "logs").rename(folder / "away")
        (folder / "logs").symlink_to(secret)
        os.chown(folder / "logs", NOBODY, NOBODY, follow_symlinks=False)
        os.kill(server.worker(), signal.SIGKILL)
        server.wait_for("Permission denied")  # of logging itself, as it complains
        assert server.stop() == 0
    assert snapshot(secret) == before


def test_log_config_is_code_and_taken_from_root_only(tree: Path) -> None:
    config = write_log_config(tree, {"class": "logging.FileHandler", "filename": str(tree / "own.log")})
    os.chown(config, NOBODY, NOBODY)
    with Server(tree, "-b", LOOPBACK, "-u", "nobody", "--log-config", str(config), DISCARD) as server:
        assert server.wait() == 1
        assert "it belongs to uid 65534, so root would obey somebody else" in server.output


def test_a_rollover_where_others_may_write_is_not_for_root(tree: Path) -> None:
    handler = {"class": "logging.handlers.RotatingFileHandler", "filename": "own.log", "maxBytes": 500}
    config = write_log_config(tree, handler)
    with Server(tree / "open", "-b", LOOPBACK, "-u", "root", "--log-config", str(config), DISCARD) as server:
        assert server.wait() == 1
        assert "root renames no files where others may write" in server.output


# -- certificates


def test_certificates_in_a_folder_of_the_workers_user(tree: Path, certificate: Certificate) -> None:
    """A FIFO does not hold up the master, and no key of somebody else's is loaded through a link."""
    secret, folder = tree / "secret", tree / "open"
    for name in ("certfile", "keyfile"):
        shutil.copy(getattr(certificate, name), folder / name)
        shutil.copy(getattr(certificate, name), secret / name)
    options = ["--certfile", "certfile", "--keyfile", "keyfile"]
    patch = "from preforksmtp.server import reconfigure as reload; reload.INTERVAL = 0.1"
    with Server(folder, "-b", LOOPBACK, "-u", "nobody", *options, DISCARD, patch=patch) as server:
        server.ready()
        for kind in ("fifo", "link"):
            swap(folder / "keyfile", kind, secret / "keyfile")
            server.wait_for("TLS certificates have changed, but do not load", 1 if kind == "fifo" else 2)
            serves(server.port())
        server.send(signal.SIGHUP)
        server.wait_for("reload failed, .*keyfile keyfile cannot be read: .*symbolic link")
        serves(server.port())
        assert server.stop() == 0


# -- the config file, and code


@pytest.mark.parametrize(
    ("where", "uid", "mode", "refusal"),
    [
        ("open", NOBODY, 0o644, "it belongs to uid 65534"),
        ("open", 0, 0o644, "the current folder belongs to uid 65534|open belongs to uid 65534"),
        (".", NOBODY, 0o600, "it belongs to uid 65534"),
        (".", 0, 0o666, "anybody may write to it"),
        (".", 0, 0o644, ""),
        ("sticky", 0, 0o644, ""),
        ("sticky", NOBODY, 0o644, "it belongs to uid 65534"),
    ],
)
def test_root_runs_no_config_file_of_somebody_elses(tree: Path, where: str, uid: int, mode: int, refusal: str) -> None:
    (tree / "sticky").mkdir()
    (tree / "sticky").chmod(0o1777)
    file = tree / where / "preforksmtp.conf.py"
    file.write_text("open('executed', 'w')\n")
    os.chown(file, uid, uid)
    file.chmod(mode)
    with Server(tree / where, "--check-config", DISCARD) as server:
        assert server.wait() == (1 if refusal else 0)
    assert (tree / where / "executed").exists() == (not refusal)
    if refusal:
        assert any(f"config file {file}: cannot be read: " in line for line in server.lines), server.output
        assert server.matches(refusal)
        assert server.matches("let only root write there")


def test_sudo_tells_whose_config_file_root_may_run(tree: Path) -> None:
    file = tree / "open" / "preforksmtp.conf.py"
    file.write_text("")
    os.chown(file, NOBODY, NOBODY)
    environ = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)}
    with Server(tree / "open", "--check-config", DISCARD, env=environ) as server:
        assert server.wait() == 0, server.output
    with Server(tree / "open", "--check-config", "-u", "nobody", DISCARD, env=environ) as server:
        assert server.wait() == 1  # a worker could change it
        assert server.matches("it belongs to uid 65534")


PLANTED = """
import os
with open("/proc/self/status") as status:
    uid = [line.split()[2] for line in status if line.startswith("Uid:")]
with open({notes!r}, "a") as notes:
    notes.write(f"{{__name__}} {{uid}}\\n")
raise ImportError(__name__)
"""


def test_modules_that_are_planted_while_it_runs(tree: Path) -> None:
    """In a folder that code is imported from root's master imports nothing that workers can have put there."""
    folder, notes = tree / "open", tree / "notes"
    notes.touch()
    notes.chmod(0o666)
    (folder / "app.py").write_text("def handler(message):\n    pass\n")
    options = ["--status-bind", LOOPBACK, "--control-socket", "ctl.sock", "-w", "2", "--pythonpath", str(folder)]
    with Server(folder, "-b", LOOPBACK, "-u", "nobody", *options, "app") as server:
        server.ready()
        for name in sys.stdlib_module_names - set(sys.builtin_module_names):
            if not name.startswith("_") and not (folder / f"{name}.py").exists():
                (folder / f"{name}.py").write_text(PLANTED.format(notes=str(notes)))
        (folder / "preforksmtp").mkdir()
        (folder / "preforksmtp" / "__init__.py").write_text(PLANTED.format(notes=str(notes)))
        serves(server.port())
        for number in (signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
            server.send(number)
        server.send(signal.SIGHUP)
        server.wait_for("reload done|reload failed")
        server.send(signal.SIGUSR2)
        server.wait_for("has taken over|upgrade failed|no upgrade")
        if sys.version_info >= (3, 11):
            assert server.matches("has taken over"), server.output
            new = int(server.wait_for(r"the new master is (\d+)")[1])
            server.wait()
            os.kill(new, signal.SIGTERM)
            wait_until(lambda: not server.group(), "all of it is gone")
        else:
            assert server.stop() == 0
    roots = [line for line in notes.read_text().splitlines() if line.endswith("['0']")]
    assert not roots, server.output


# -- the control socket's other end


def test_an_impostor_at_the_control_socket(tree: Path) -> None:
    folder = tree / "open"
    script = f"""
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
os.setgid({NOBODY}); os.setuid({NOBODY})
sock.bind("ctl.sock"); sock.listen()
print("listening", flush=True)
peer, _ = sock.accept()
peer.sendall(b'{{"ok": true, "result": "lies"}}\\n')
sys.stdin.read()
"""
    for options, code in (((), 3), (("-u", "nobody"), 0)):
        with subprocess.Popen(
            [sys.executable, "-c", script], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as impostor:
            assert impostor.stdout is not None
            assert impostor.stdout.readline() == "listening\n"
            done = subprocess.run(
                [sys.executable, "-m", "preforksmtp.ctl", "-s", "ctl.sock", *options, "reload"],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
                timeout=PATIENCE,
            )  # fmt: skip
            impostor.kill()
        assert done.returncode == code, done.stderr
        if code:
            assert "uid 65534 answers there, neither root nor you" in done.stderr
        (folder / "ctl.sock").unlink()
