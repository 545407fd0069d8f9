"""HUP on the real program: new code and new settings without a lost message, and a failure that changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import smtplib
import socket
import ssl
import sys
import time
from pathlib import Path

import pytest

from tests.certificates import Certificate, make_certificate
from tests.processes import Program, descriptors, stat, wait_until
from tests.program.conftest import LOOPBACK, Serve, Server, Talk
from tests.program.load import Load, write_app

CONFIG = "workers = 2\ngraceful_timeout = 5\nboot_timeout = 10\n"


def write_config(folder: Path, text: str = "") -> None:
    (folder / "preforksmtp.conf.py").write_text(f"bind = {LOOPBACK!r}\n{CONFIG}{text}")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_app(tmp_path)
    write_config(tmp_path)
    return tmp_path


def reload(server: Server, outcome: str = r"reload done") -> None:
    before = len(server.matches(outcome))
    server.send(signal.SIGHUP)
    server.wait_for(outcome, count=before + 1)


def version(server: Server, port: int | None = None) -> str:
    """The version of the code that a new session meets."""
    with Talk(port or server.port()) as talk:
        talk.begin_data()
        talk.send(b"Message-ID: <version@test>\r\n\r\n.\r\n")
        return talk.read().split()[-1]


# -- success


def test_new_code(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    old = server.children()
    assert version(server) == "1"
    write_app(app, "2")
    reload(server)
    assert version(server) == "2"
    wait_until(lambda: not old & server.children(), "old workers gone")
    assert len(server.children()) == 2


def test_new_code_of_a_module_that_the_config_file_imports(serve: Serve, app: Path) -> None:
    write_config(app, "import app as _app\n")
    server = serve("app:handler").ready()
    assert version(server) == "1"
    write_app(app, "2")
    reload(server)
    assert version(server) == "2"


def test_new_settings(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    write_config(app, "workers = 3\nhostname = 'new.example.com'\nerror_logfile = 'error.log'\n")
    server.send(signal.SIGHUP)
    wait_until(lambda: (app / "error.log").exists() and "reload done" in (app / "error.log").read_text(), "reload")
    with Talk(server.port()) as talk:
        assert "new.example.com" in talk.greeting
    wait_until(lambda: len(server.children()) == 3, "old workers gone")


def test_more_workers_and_threads_than_the_scoreboard_was_made_for(serve: Serve, app: Path) -> None:
    write_config(app, "workers = 1\nthreads = 2\n")
    server = serve("app:handler").ready()
    write_config(app, "workers = 40\nthreads = 7\n")
    reload(server)
    wait_until(lambda: len(server.children()) == 40, "40 workers")
    write_config(app, "workers = 1\nthreads = 2\n")
    reload(server)
    wait_until(lambda: len(server.children()) == 1, "1 worker")
    assert version(server) == "1"


def test_scaling_is_forgotten(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    server.send(signal.SIGTTIN)
    wait_until(lambda: len(server.children()) == 3, "one worker more")
    reload(server)
    wait_until(lambda: len(server.children()) == 2, "as configured")


def test_under_load(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    started = server.children()
    with Load(("127.0.0.1", server.port()), app, clients=50) as load:
        for number in range(10):
            write_app(app, str(number))
            reload(server)
            load.progress()
    load.assert_sound()
    assert load.versions["9"]
    wait_until(lambda: len(server.children()) == 2, "old workers gone")
    assert not started & server.children()


def test_many_reloads_leave_the_master_as_it_was(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    reload(server)
    wait_until(lambda: len(server.children()) == 2, "old workers gone")
    before = descriptors(server.pid)
    for _ in range(6):
        reload(server)
    wait_until(lambda: len(server.children()) == 2, "old workers gone")
    assert descriptors(server.pid) == before


def test_a_burst_of_hups_ends_with_the_workers_wanted(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    started = server.children()
    for _ in range(20):
        server.send(signal.SIGHUP)
    server.wait_for("reload done", count=1)
    write_app(app, "2")
    server.send(signal.SIGHUP)
    wait_until(lambda: len(server.matches("reload done")) == len(server.matches("reloading$")) > 1, "the last reload")
    assert version(server) == "2"
    wait_until(lambda: len(server.children()) == 2 and not started & server.children(), "two new workers")


def test_open_sessions_outlive_a_reload_until_their_transaction_ends(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    with Talk(server.port()) as talk:
        talk.begin_data()
        reload(server)
        talk.send(b"Message-ID: <open@test>\r\n\r\n.\r\n")
        assert talk.read().startswith("250 ")
        assert talk.read().startswith("421 4.3.2 ") or not talk.read()


# -- listeners


def test_binds_come_and_go_and_the_one_that_stays_never_refuses(serve: Serve, app: Path) -> None:
    keep, gone, come = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    ports = [sock.getsockname()[1] for sock in (keep, gone, come)]
    for sock in (keep, gone, come):
        sock.close()
    write_config(app, f"bind = ['127.0.0.1:{ports[0]}', '127.0.0.1:{ports[1]}']\n")
    server = serve("app:handler").ready()
    write_config(app, f"bind = ['127.0.0.1:{ports[0]}?hostname=kept.example.com', '127.0.0.1:{ports[2]}']\n")
    with Load(("127.0.0.1", ports[0]), app) as load:
        reload(server)
        load.progress()
        with Talk(ports[0]) as talk:
            assert "kept.example.com" in talk.greeting
    load.assert_sound()
    assert version(server, ports[2]) == "1"
    wait_until(lambda: refuses(ports[1]), "the port that was removed refuses")


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_a_unix_socket_stays_and_goes_with_its_bind(serve: Serve, app: Path) -> None:
    write_config(app, "bind = ['unix:a.sock', '127.0.0.1:0']\n")
    server = serve("app:handler").ready()
    inode = os.stat(app / "a.sock").st_ino
    write_config(app, "bind = ['unix:a.sock?mode=600', 'unix:b.sock', '127.0.0.1:0']\n")
    reload(server)
    assert os.stat(app / "a.sock").st_ino == inode
    assert os.stat(app / "a.sock").st_mode & 0o777 == 0o600
    assert (app / "b.sock").exists()
    write_config(app, "bind = '127.0.0.1:0'\n")
    reload(server)
    assert not (app / "a.sock").exists()
    assert not (app / "b.sock").exists()


# -- failure


FAILURES: dict[str, tuple[str, str | None, str]] = {
    # config file, app.py (None: as it was), what the log says
    "syntax": ("workers = = 2\n", None, r"preforksmtp.conf.py, line \d: invalid syntax"),
    "unknown setting": ("wokers = 2\n", None, "unknown setting 'wokers'; did you mean 'workers'"),
    "sys.exit": ("import sys\nsys.exit(0)\n", None, "sys.exit"),
    "os._exit": ("import os\nos._exit(0)\n", None, "evaluated the configuration exited with code 0"),
    "crash": ("import os\nos.kill(os.getpid(), 11)\n", None, "evaluated the configuration was killed by SIGSEGV"),
    "hang": ("import time\ntime.sleep(3600)\n", None, "longer than boot_timeout 2 s"),
    "certificate": ("certfile = 'absent.pem'\n", None, "certfile absent.pem does not exist"),
    "bind": ("bind = '127.0.0.1:smtp'\n", None, "127.0.0.1:smtp"),
    "foreign address": ("bind = '192.0.2.1:2525'\n", None, "cannot listen on 192.0.2.1:2525"),
    "log file": ("error_logfile = 'absent/log'\n", None, "error_logfile: "),
    "app does not compile": ("", "def handler(message:", "syntax error in"),
    "app fails": ("", "import absent", "imports 'absent', which is not installed"),
    "app exits": ("", "import sys\nsys.exit(0)", "importing app raised SystemExit"),
    "app dies": ("", "import os\nos.kill(os.getpid(), 9)", "was killed by SIGKILL before it was ready"),
    "app hangs": ("", "import time\ntime.sleep(3600)", "not ready after boot_timeout 2 s"),
    "post_fork": ("def post_fork(server, worker):\n    1 / 0\n", None, "hook post_fork raised ZeroDivisionError"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_changes_nothing(serve: Serve, app: Path, name: str) -> None:
    config, code, line = FAILURES[name]
    patience = "boot_timeout = 2\n" if "hang" in name else ""
    write_config(app, patience)
    server = serve("app:handler").ready()
    workers = server.children()
    fds = descriptors(server.pid)
    with Load(("127.0.0.1", server.port()), app, clients=4) as load:
        write_config(app, f"{patience}{config}")
        if code is not None:
            (app / "app.py").write_text(code)
        reload(server, "reload failed, former configuration and workers go on: ")
        load.progress()
    load.assert_sound()
    assert not load.turned_away
    assert server.matches(line), server.output
    assert len(server.matches("reload failed")) == 1
    wait_until(lambda: server.children() == workers, "the old workers and nobody else")
    assert descriptors(server.pid) == fds
    if name in ("syntax", "app fails"):
        write_config(app)
        write_app(app, "3")
        reload(server)
        assert version(server) == "3"


def test_settings_that_hold_from_the_next_start_are_named(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    write_config(app, "name = 'other'\n")
    reload(server)
    server.wait_for("name has changed, but holds from the next start or upgrade only")
    write_config(app, "name = 'preforksmtp'\n")
    reload(server)
    assert len(server.matches("holds from the next start")) == 1


def test_an_address_in_use_fails_at_once(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        write_config(app, f"bind = ['127.0.0.1:0', '127.0.0.1:{port}', 'unix:c.sock']\n")
        before = time.monotonic()
        reload(server, f"reload failed.*cannot listen on 127.0.0.1:{port}: another program uses it")
        assert time.monotonic() - before < 4  # for which a start tries again
    assert not (app / "c.sock").exists()


UNHURRIED = "boot_timeout = graceful_timeout = 60\n"  # a stop that waits for either ends too late for the test


@pytest.mark.parametrize("where", ["config", "app"])
def test_term_in_the_middle(serve: Serve, app: Path, where: str) -> None:
    write_config(app, UNHURRIED)
    server = serve("app:handler").ready()
    hang = "import os, time\nos.write(2, b'hanging\\n')\ntime.sleep(3600)\n"
    if where == "config":
        write_config(app, UNHURRIED + hang)
    else:
        (app / "app.py").write_text(hang)
    server.send(signal.SIGHUP)
    server.wait_for("^hanging$")
    assert server.stop() == 0


def test_the_master_waits_for_no_slow_config_file_when_it_must_stop(serve: Serve, app: Path) -> None:
    """The second evaluation, in the master, is interrupted by the signal."""
    write_config(app, UNHURRIED)
    server = serve("app:handler").ready()
    write_config(
        app,
        f"{UNHURRIED}import os, time\nif os.getpid() == {server.pid}:\n"
        "    os.write(2, b'evaluating %d\\n' % os.getpid())\n    time.sleep(3600)\n",
    )
    server.send(signal.SIGHUP)
    server.wait_for(f"^evaluating {server.pid}$")
    assert server.stop() == 0


def test_kill_of_the_master_in_a_rehearsal_leaves_nobody(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    write_config(app, "import os, time\nos.write(2, b'hanging\\n')\ntime.sleep(3600)\n")
    server.send(signal.SIGHUP)
    server.wait_for("^hanging$")
    server.send(signal.SIGKILL)
    server.wait()
    wait_until(lambda: not server.group(), "all gone")


def test_kill_of_a_canary_is_not_the_end(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    old = server.children()
    (app / "app.py").write_text("import os, time\nos.write(2, b'canary %d\\n' % os.getpid())\ntime.sleep(3600)\n")
    server.send(signal.SIGHUP)
    canary = int(server.wait_for(r"^canary (\d+)$")[1])
    assert server.children() - old == {canary}
    write_app(app, "2")
    os.kill(canary, signal.SIGKILL)
    server.wait_for("reload done")
    assert version(server) == "2"


def test_a_dead_worker_is_replaced_while_a_reload_hangs(serve: Serve, app: Path) -> None:
    server = serve("app:handler").ready()
    old = server.children()
    write_config(app, "import os, time\nos.write(2, b'hanging\\n')\ntime.sleep(3600)\n")
    server.send(signal.SIGHUP)
    server.wait_for("^hanging$")
    victim = min(old)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: stat(victim) is None and len(server.children() - old) == 2, "a replacement")
    assert not server.matches("next attempt|reload failed")  # at once, and not when the reload is given up
    assert version(server) == "1"


# -- certificates


class Impatient(Server):
    """Looks at its certificates five times a second instead of every ten seconds."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        program = (
            "import sys, preforksmtp.server.reconfigure as r; r.INTERVAL = 0.2; from preforksmtp.cli import main; sys.exit(main())"
        )
        Program.__init__(self, [sys.executable, "-c", program, *arguments], cwd=folder)


def test_new_certificates_come_with_new_workers(app: Path, certificate: Certificate) -> None:
    other = make_certificate(app)
    shutil.copy(certificate.certfile, app / "c.pem")
    shutil.copy(certificate.keyfile, app / "k.pem")
    write_config(app, "certfile = 'c.pem'\nkeyfile = 'k.pem'\n")
    with Impatient(app, "app:handler") as server:
        server.ready()
        before = peer_certificate(server.port())
        (app / "c.pem").write_text("nothing")
        server.wait_for("TLS certificates have changed, but do not load; the old ones stay in use")
        shutil.copy(other.keyfile, app / "k.pem")
        shutil.copy(other.certfile, app / "c.pem")
        server.wait_for(r"replacing all workers \(certificates\) done")
        after = peer_certificate(server.port())
        assert before == ssl.PEM_cert_to_DER_cert(certificate.certfile.read_text())
        assert after == ssl.PEM_cert_to_DER_cert(other.certfile.read_text())
        assert server.stop() == 0


def peer_certificate(port: int) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", port, timeout=15) as client:
        client.starttls(context=context)
        assert isinstance(client.sock, ssl.SSLSocket)
        return client.sock.getpeercert(True)
