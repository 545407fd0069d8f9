"""From command line, environment and config file to one Config, and the one clear line for what is wrong."""

import os
import sys

import pytest

from preforksmtp import reference
from preforksmtp.config.load import CMD_ARGS, load
from preforksmtp.config.model import Config, ConfigError
from preforksmtp.config.settings import BY_NAME, SETTINGS

# One setting of each type: a value for each layer, as it is written there.
LAYERS = ("environment", "config file", CMD_ARGS, "command line")
SAMPLES = {
    "workers": ("2", "3", "4", "5"),
    "max_message_size": ("1K", "'2K'", "3K", "4K"),
    "command_timeout": ("1m", "'2m'", "3m", "4m"),
    "log_format": ("json", "'text'", "json", "text"),
    "bind": ("127.0.0.1:1", "['127.0.0.1:2']", "127.0.0.1:3", "127.0.0.1:4"),
    "env": ("A=1", "{'A': '2'}", "A=3", "A=4"),
    "auth_mechanisms": ("plain", "['LOGIN']", "CRAM-MD5", "XOAUTH2"),
    "app": ("a:b", "'c:d'", "e:f", "g:h"),
    "access_logfile": ("/1", "'/2'", "/3", "/4"),
    "hostname": ("a.org", "'b.org'", "c.org", "d.org"),
    "require_auth": ("yes", "False", "", ""),  # the flag alone
    "proxy_protocol": ("127.0.0.1", "['::1', 'unix']", "10.0.0.0/8", "192.0.2.0/24,unix"),
}


@pytest.fixture(autouse=True)
def _same_process(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


def config_file(text, name="preforksmtp.conf.py"):
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    return os.path.abspath(name)


def errors(argv=(), environ=None):
    with pytest.raises(ConfigError) as error:
        load(list(argv), environ or {})
    assert all("\n" not in line for line in error.value.errors)
    assert str(error.value) == "\n".join(error.value.errors)
    return error.value.errors


def options(name, value):
    if name == "app":
        return [value]
    return [BY_NAME[name].options[-1 if len(BY_NAME[name].options) < 3 else 1], *([value] if value else [])]


# --- precedence


@pytest.mark.parametrize("top", range(-1, len(LAYERS)))
@pytest.mark.parametrize("name", SAMPLES)
def test_the_last_layer_that_has_a_value_wins(name, top):
    given = dict(zip(LAYERS, SAMPLES[name], strict=True))
    environ = {"PREFORKSMTP_" + name.upper(): given["environment"]} if top >= 0 else {}
    path = config_file(f"{name} = {given['config file']}") if top >= 1 else None
    if top >= 2:
        environ[CMD_ARGS] = " ".join(options(name, given[CMD_ARGS]))
    argv = options(name, given["command line"]) if top >= 3 else []
    config = load(argv, environ)
    wanted = [
        (None, "default"),
        (given["environment"].split() if BY_NAME[name].type.repeats else given["environment"],
         "environment PREFORKSMTP_" + name.upper()),
        (eval(given["config file"]), f"config file {path}"),
        (given[CMD_ARGS] or True, CMD_ARGS),
        (given["command line"] or True, "command line"),
    ][top + 1]  # fmt: skip
    assert getattr(config, name) == BY_NAME[name].parse(wanted[0])
    assert config.origin(name) == wanted[1]


SWITCH_NEEDS = {"PREFORKSMTP_CERTFILE": "x", "PREFORKSMTP_ERROR_LOGFILE": "x.log"}  # require_tls, daemon


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_may_be_given_in_every_layer(setting):
    """The default, written out in each layer in turn, comes from there."""
    value = setting.parse(None)
    text = {
        "hostname": "mx.org", "env": "A=b", "auth_mechanisms": "PLAIN", "pythonpath": "/lib", "sni": "mx.org=cert,key",
        "proxy_protocol": "127.0.0.1/32", "xclient": "127.0.0.1/32", "xforward": "127.0.0.1/32",
        "trusted_clients": "127.0.0.1/32", "reload_extra_file": "*.txt", "status_bind": ":9025",
    }.get(setting.name)  # fmt: skip
    if text is None:
        text = value[0] if isinstance(value, tuple) else "x:y" if setting.name == "app" else str(value or "0")
    literal = f"[{text!r}]" if isinstance(value, tuple) else repr(text)
    tls = {"certfile": "x"} if setting.section == "TLS" or setting.name == "require_tls" else {}
    environ = {"PREFORKSMTP_" + name.upper(): text for name, text in tls.items()}
    variable = setting.variables[0]
    assert load([], environ | {variable: f"'{text}'" if setting.type.repeats else text}).origin(
        setting.name
    ) == (f"environment {variable}")
    path = config_file(f"{setting.name} = {literal}", "x.py")
    assert load(["-c", "x.py"], environ).origin(setting.name) == f"config file {path}"
    words = [text] if setting.positional else [setting.options[-1]] + ([] if setting.type.switch else [text])
    if not (setting.positional or setting.type.switch):
        words = [f"{setting.options[-1]}={text}"]
    assert (
        load(words, environ | (SWITCH_NEEDS if setting.type.switch else {})).origin(
            setting.name
        )
        == "command line"
    )


def test_web_concurrency_and_the_settings_own_variable():
    assert load([], {"WEB_CONCURRENCY": "3"}).workers == 3
    assert load([], {"WEB_CONCURRENCY": "3"}).origin("workers") == "environment WEB_CONCURRENCY"
    assert load([], {"WEB_CONCURRENCY": "3", "PREFORKSMTP_WORKERS": "4"}).workers == 4
    assert load([], {"WEB_CONCURRENCY": ""}).workers == 1, "an empty variable is not set"


def test_none_in_the_config_file_is_the_default():
    path = config_file("access_logfile = None")
    config = load([], {"PREFORKSMTP_ACCESS_LOGFILE": "-"})
    assert (config.access_logfile, config.origin("access_logfile")) == (None, f"config file {path}")


def test_switches_can_be_turned_off_again():
    config_file("require_auth = True\nallow_insecure_auth = True")
    assert load([], {}).require_auth is True
    assert load(["--no-require-auth"], {}).require_auth is False


def test_repeated_options_and_app():
    config = load(
        ["-b", ":25", "--bind", "[::1]:26", "-e", "A=1", "-e", "B=2", "app:f('x', y=1)", "-w", "2"], {}
    )
    assert config.bind == (":25", "[::1]:26")
    assert config.env == {"A": "1", "B": "2"}
    assert config.app == "app:f('x', y=1)"
    assert [bind.port for bind in config.binds()] == [25, 26]


def test_a_config_file_of_the_command_line_replaces_the_one_of_cmd_args():
    one = config_file("threads = 1", "one.py")
    two = config_file("threads = 2", "two.py")
    assert load([], {CMD_ARGS: "-c one.py"}).file == one
    assert load(["-c", "two.py"], {CMD_ARGS: "-c one.py"}).file == two
    assert load(["-c", "two.py"], {CMD_ARGS: "-c one.py"}).threads == 2


def test_a_later_load_finds_relative_files_from_the_first_folder(tmp_path):
    config_file("threads = 7")
    (tmp_path / "other").mkdir()
    os.chdir("other")
    assert load([], {}).threads == 100
    assert load([], {}, str(tmp_path)).threads == 7


def test_actions():
    assert load([], {}).action == "run"
    assert load(["--check-config"], {}).action == "check-config"
    assert load(["--print-config"], {}).action == "print-config"


def test_a_config_is_plain_attributes():
    config = load([], {})
    assert vars(config)["workers"] == 1
    assert not hasattr(Config, "__getattr__")
    assert not set(BY_NAME) & set(dir(Config)), "no setting may hide a method"
    with pytest.raises(AttributeError):
        _ = config.worker


def test_apply(monkeypatch, tmp_path):
    monkeypatch.setenv("TEST_APPLY", "old")
    (tmp_path / "site").mkdir()
    load(["--chdir", "site", "-e", "TEST_APPLY=new", "--pythonpath", str(tmp_path)], {}).apply()
    assert os.environ["TEST_APPLY"] == "new"
    assert os.getcwd() == str(tmp_path / "site")
    assert sys.path[:2] == [str(tmp_path), str(tmp_path / "site")]


def test_apply_names_chdir():
    with pytest.raises(ConfigError, match=r"^chdir: cannot change to nowhere: No such file or directory$"):
        load(["--chdir", "nowhere"], {}).apply()


# --- the config file


def test_what_may_stand_in_a_config_file_beside_settings(tmp_path):
    (tmp_path / "sitemodule.py").write_text("LIMIT = 5\n")
    config_file(
        """
from __future__ import annotations
import os, os.path as p
from os import environ
from pathlib import Path
from sitemodule import LIMIT
_base = Path("/srv")
class Tool: pass
def compute(): return LIMIT
threads = compute()
spool_dir = _base / "spool"
"""
    )
    config = load([], {})
    assert (config.threads, config.spool_dir) == (5, "/srv/spool")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("worker = 8", "unknown setting 'worker'; did you mean 'workers'?"),
        ("WORKERS = 8", "unknown setting 'WORKERS'; did you mean 'workers'?"),
        ("accesslog = '-'", "unknown setting 'accesslog'; did you mean 'access_logfile'?"),
        ("loglevel = 'info'", "unknown setting 'loglevel'; did you mean 'log_level'?"),
        ("def max_recipient(): pass", "unknown setting 'max_recipient'; did you mean 'max_recipients'?"),
        ("zzz = 1", "unknown setting 'zzz'; a name of your own must begin with an underscore"),
    ],
)
def test_a_misspelt_name_in_the_config_file(text, line):
    path = config_file(text)
    assert errors() == [f"config file {path}: {line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("workers = 2\nthreads = (", "line 2: '(' was never closed"),
        ("workers = 2\n\nthreads = nothing", "line 3: NameError: name 'nothing' is not defined"),
        ("import sys\nsys.exit(3)", "line 2: sys.exit(3) is called; raise an exception instead"),
        ("def f():\n    raise OSError('a\\nb')\nf()", "line 2: OSError: a b"),
        ("import nowhere_to_be_found", "line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import json\njson.loads('{')", "line 2: JSONDecodeError: Expecting property name"),
    ],
)
def test_a_broken_config_file_is_one_line(text, line):
    path = config_file(text)
    (found,) = errors()
    assert found.startswith(f"config file {path}, {line}")


def test_a_config_file_that_is_not_there():
    path = os.path.abspath("no.py")
    assert errors(["-c", "no.py"]) == [f"config file {path}: cannot be read: No such file or directory"]


# --- wrong values


def test_wrong_values_name_setting_and_origin_and_all_are_reported():
    path = config_file("threads = 0\nbind = 25\nchdri = '/'")
    timeout = "environment PREFORKSMTP_TIMEOUT"
    found = errors([], {"PREFORKSMTP_TIMEOUT": "soon", CMD_ARGS: "--nonsense", "PREFORKSMTP_BIND": "'"})
    assert found == [
        f"{CMD_ARGS}: unrecognized arguments: --nonsense",
        "bind: must be words as in a shell: No closing quotation (environment PREFORKSMTP_BIND)",
        f"config file {path}: unknown setting 'chdri'; did you mean 'chdir'?",
        f"bind: must be an address or a list of addresses, not 25 (config file {path})",
        f"threads: must be a whole number of at least 1, not 0 (config file {path})",
        f"timeout: must be a number of seconds above 0, such as 30, 1.5 or 5m, not 'soon' ({timeout})",
    ]


def test_cmd_args_that_no_shell_could_read():
    assert errors([], {CMD_ARGS: "-w '"}) == [f"{CMD_ARGS}: No closing quotation"]
    assert errors([], {CMD_ARGS: "-w x"})[0].startswith(
        f"{CMD_ARGS}: argument -w/--workers: must be a whole number"
    )


@pytest.mark.parametrize(
    "argv", [["-w", "x"], ["--worker", "2"], ["a:b", "c:d"], ["--log-format", "xml"], ["-b"]]
)
def test_a_wrong_command_line_is_argparse_exit_2(argv, capsys):
    with pytest.raises(SystemExit) as end:
        load(argv, {})
    assert end.value.code == 2
    assert "preforksmtp: error:" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--version"], ["-v"]])
def test_help_and_version_exit_0(argv, capsys):
    with pytest.raises(SystemExit) as end:
        load(argv, {})
    assert end.value.code == 0
    assert "preforksmtp" in capsys.readouterr().out


# --- for one bind


def test_for_bind():
    config = load(["-b", ":25?max_message_size=1M&hostname=mx.org&require_auth", "-b", "127.0.0.1:26"], {})
    one, two = (config.for_bind(bind) for bind in config.binds())
    assert (one.max_message_size, one.hostname, one.require_auth) == (1048576, "mx.org", True)
    assert one.origin("hostname") == f"bind {config.bind[0]}"
    assert one.origin("threads") == "default"
    assert one.threads == config.threads
    assert (two.max_message_size, two.require_auth) == (config.max_message_size, False)
    assert config.max_message_size == 33554432


def test_for_bind_of_a_submission_requires_auth():
    config = load(
        ["--certfile", "c", "-b", "submission://:587", "-b", "submissions://:466?require_auth=no"], {}
    )
    assert [config.for_bind(bind).require_auth for bind in config.binds()] == [True, False]


def test_for_bind_leaves_the_options_of_the_socket_alone():
    config = load(["-b", "unix:/run/x.sock?mode=660"], {})
    assert config.for_bind(config.binds()[0]).max_errors == 10


# --- --print-config


def test_print_config_shows_values_and_origins_and_no_secrets():
    config = load(
        ["-e", "DB=hunter2", "app:make('x', password='hunter2')", "-w", "2"], {"PREFORKSMTP_TIMEOUT": "9"}
    )
    lines = {line.split(" = ")[0].strip(): line for line in reference.describe(config).splitlines()}
    assert list(lines) == list(BY_NAME)
    assert lines["workers"].split() == ["workers", "=", "2", "#", "command", "line"]
    assert lines["timeout"].split() == ["timeout", "=", "9", "#", "environment", "PREFORKSMTP_TIMEOUT"]
    assert "make('x', password='********')" in lines["app"]
    assert "DB" in lines["env"]
    assert "hunter2" not in "".join(lines.values())
