"""What must hold between settings, and what --check-config finds beyond their values."""

import os
import shutil
import subprocess
import sys

import pytest

from preforksmtp.config.load import load
from preforksmtp.config.model import ConfigError
from preforksmtp.server.check import check, warnings

NO_TLS = "require_tls: needs certfile, or no client can start TLS"
NO_AUTH = "submission takes AUTH over TLS only: set certfile (or allow_insecure_auth)"


@pytest.fixture(autouse=True)
def _same_process(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


def errors(argv=(), environ=None):
    with pytest.raises(ConfigError) as error:
        load(list(argv), environ or {})
    return error.value.errors


@pytest.mark.parametrize(
    ("argv", "lines"),
    [
        (["--keyfile", "k"], ["keyfile: needs certfile as well (command line)"]),
        (["--ca-certs", "k"], ["ca_certs: needs certfile as well (command line)"]),
        (["--cert-reqs", "required"], ["cert_reqs: needs certfile as well (command line)"]),
        (["--cert-reqs", "required", "--certfile", "c"],
         ["cert_reqs: required needs ca_certs to check clients' certificates against (command line)"]),
        (["--require-tls"], [f"{NO_TLS} (command line)"]),
        (["--require-tls", "-b", ":1", "-b", ":2"],
         [f"{NO_TLS} (command line)"]),
        (["-b", "smtps://:465"], ["bind 'smtps://:465': smtps is TLS from the first byte: set certfile"]),
        (["-b", "submission://:7"],
         [f"bind 'submission://:7': {NO_AUTH}"]),
        (["-b", ":25", "-b", ":25?max_errors=3"],
         ["bind: :25 and :25?max_errors=3 are the same address (command line)"]),
        (["--access-logformat", "%(x)s"], ["access_logformat: unknown atom %(x)s (command line)"]),
        (["-b", ":25?worker=3"], ["bind ':25?worker=3': unknown option 'worker'"]),
        (["-b", ":25?require_tl"],
         ["bind ':25?require_tl': unknown option 'require_tl'; did you mean 'require_tls'?"]),
        (["-b", ":25?threads=3"],
         ["bind ':25?threads=3': threads cannot be set for one bind; it is a setting of the whole server"]),
        (["-b", ":25?max_errors=no"],
         ["max_errors: must be a whole number of at least 1, not 'no' (bind :25?max_errors=no)"]),
        (["-b", "fd://3?require_tls"],
         [f"bind 'fd://3?require_tls': {NO_TLS} (bind fd://3?require_tls)"]),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(argv, lines):
    assert errors(argv) == lines


def test_a_bind_that_cannot_be_parsed_names_its_origin():
    (line,) = errors([], {"PREFORKSMTP_BIND": "127.0.0.1:port"})
    assert "127.0.0.1:port" in line
    assert line.endswith("(environment PREFORKSMTP_BIND)")


@pytest.mark.parametrize(
    "argv",
    [
        ["--certfile", "c", "--require-tls", "-b", "smtps://:465", "-b", "submission://:587"],
        ["--require-tls", "-b", ":25?certfile=c"],
        ["--keyfile", "k", "-b", ":25?certfile=c"],
        ["-b", "submission://127.0.0.1:587", "--allow-insecure-auth"],
        ["-b", "127.0.0.1:0", "-b", "127.0.0.1:0"],
    ],
)
def test_settings_that_go_together(argv):
    assert load(argv, {}).action == "run"


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("SCRAM-SHA256", "auth_mechanisms: SCRAM-SHA256 is unknown; did you mean SCRAM-SHA-256? (command line)"),
        ("plain,gssapi", "auth_mechanisms: GSSAPI is unknown; there are EXTERNAL, "),
    ],
)
def test_mechanisms_that_are_not_there(names, line):
    assert any(found.startswith(line) for found in errors(["--auth-mechanisms", names])), errors(
        ["--auth-mechanisms", names]
    )
    (found,) = errors(["-b", f":25?auth_mechanisms={names}"])
    assert found.startswith("bind ':25?")


def test_warnings(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (line,) = warnings(load([], {}))
    assert "workers run as root" in line
    assert warnings(load(["-u", "root"], {})) == []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert warnings(load([], {})) == []
    (line,) = warnings(load(["--require-auth"], {}))
    assert "require_auth without TLS" in line
    assert warnings(load(["--allow-insecure-auth"], {})) == [], "the loopback is no network"
    (line,) = warnings(load(["--allow-insecure-auth", "-b", ":25"], {}))
    assert "in clear" in line


@pytest.mark.parametrize("migrate", [False, True])
def test_reuse_port_says_what_it_costs(monkeypatch, migrate):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("preforksmtp.server.check.queues_migrate", lambda: migrate)
    (line,) = warnings(load(["--reuse-port"], {}))
    assert line.startswith("reuse_port: a connection waits for one worker")
    assert ("may be lost" in line) is not migrate


def test_check_finds_nothing_in_the_default():
    assert check(load([], {})) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_check_loads_the_certificate_of_each_bind():
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=mx",
            "-out",
            "c",
            "-keyout",
            "k",
        ],
        check=True,
        capture_output=True,
    )
    assert check(load(["--certfile", "c", "--keyfile", "k", "-b", "smtps://:465"], {})) == []
    (line,) = check(
        load(["--certfile", "c", "--keyfile", "k", "-b", "smtps://:465", "-b", ":25?keyfile=c"], {})
    )
    assert line.startswith("keyfile")


def test_check_lists_everything(tmp_path):
    (tmp_path / "file").write_text("")
    config = load(
        [
            "--certfile", "no.pem", "--error-logfile", "no/error.log", "--access-logfile", str(tmp_path),
            "--spool-dir", "no/spool", "--pythonpath", "no/lib", "-b", ":25", "-b", ":26?certfile=file",
        ],
        {},
    )  # fmt: skip
    found = check(config)
    assert found[2:] == [
        "error_logfile: the folder no does not exist",
        f"access_logfile: {tmp_path} is a folder",
        "spool_dir: the folder no/spool does not exist",
        "pythonpath: no/lib is no folder",
    ]
    assert "certfile" in found[0]
    assert "no.pem" in found[0]
    assert "certfile" in found[1]


def test_check_writable(tmp_path):
    (tmp_path / "log").mkdir()
    assert check(load(["--log-file", "log/error.log", "--spool-dir", "log"], {})) == []
    assert not os.listdir("log"), "nothing is made by a check"


def test_check_not_writable(tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != "log")  # root may write anywhere
    assert check(load(["--log-file", "log/error.log"], {})) == [
        "error_logfile: the folder log is not writable"
    ]


# --- logs


def test_a_daemon_may_have_its_logs_in_syslog_but_no_transcript_on_a_terminal():
    load(["-D", "--log-syslog", "--access-logfile", "-"], {})
    assert errors(["-D", "--log-syslog", "--transcript", "-"]) == [
        "transcript: must be a file, for a daemon has no terminal (command line)"
    ]


def test_targets_of_syslog():
    assert errors([], {"PREFORKSMTP_LOG_SYSLOG_TO": "udp:514"}) == [
        "log_syslog_to: must be unix:///dev/log, udp://host:port or tcp://host:port, not 'udp:514' "
        "(environment PREFORKSMTP_LOG_SYSLOG_TO)"
    ]
    assert check(load(["--log-syslog", "--log-syslog-to", "unix:///no/log"], {})) == [
        "log_syslog_to: cannot reach unix:///no/log: No such file or directory"
    ]
    assert check(load(["--log-syslog-to", "unix:///no/log"], {})) == [], "not asked for"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("log.json", "[", "log_config: log.json: JSONDecodeError: Expecting value: line 1 column 2 (char 1)"),
        ("log.json", '{"version": 2}', "log_config: log.json: ValueError: Unsupported version: 2"),
    ],
)
def test_log_config(tmp_path, name, text, line):
    (tmp_path / name).write_text(text)
    assert check(load(["--log-config", name], {})) == [line]


def test_files_of_logs():
    assert check(load(["--log-config", "none.ini", "--transcript", "no/where"], {})) == [
        "transcript: the folder no does not exist",
        "log_config: cannot read none.ini: No such file or directory",
    ]
