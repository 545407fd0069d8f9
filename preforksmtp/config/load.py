"""The table of settings -> one Config, joined in this order: default, environment variable, config file,
PREFORKSMTP_CMD_ARGS, command line; the last that has a value wins.

Reads the command line, the environment and the config file, once; a Config is plain attributes, one a
setting, each with its origin. Nothing is bound and nothing of the process is changed before Config.apply().
Everything wrong is gathered into one ConfigError, whose lines each name the setting or file and where the
value came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from preforksmtp.config import arguments
from preforksmtp.config.configfile import nearest, read_config_file
from preforksmtp.config.cross import cross_check
from preforksmtp.config.model import Config, ConfigError, Given, make_importable, parse_all
from preforksmtp.config.setting import PREFIX
from preforksmtp.config.settings import BY_NAME, HOOKS_BY_NAME, SETTINGS
from preforksmtp.config.values import shell_words
from preforksmtp.process import trust

CMD_ARGS = PREFIX + "CMD_ARGS"

def load(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None, folder: str | None = None
) -> Config:
    """The configuration of a command line (this process's own), or ConfigError with every error found.

    `folder` is where relative config files start from, for a load after apply() changed the current one.
    argparse itself ends the process for --help, --version (0) and for a usage error (2).
    """
    environ = os.environ if environ is None else environ
    folder = folder or os.getcwd()
    command_line = arguments.parse(sys.argv[1:] if argv is None else argv)
    errors: list[str] = []
    try:
        cmd_args = arguments.parse_text(environ.get(CMD_ARGS, ""))
    except ValueError as error:
        errors.append(f"{CMD_ARGS}: {error}")
        cmd_args = arguments.Arguments()
    given, wrong = _from_environment(environ)
    errors += wrong
    # The config file may import the user's own modules, as the application does.
    make_importable(os.path.join(folder, command_line.given.get("chdir", "")))
    trust.pass_over()
    path = _config_path(command_line.config_file or cmd_args.config_file, folder)
    hooks: dict[str, Any] = {}
    if path is not None:
        from_file, wrong = read_config_file(path)
        hooks = {name: from_file.pop(name) for name in HOOKS_BY_NAME if name in from_file}
        given |= {name: (value, f"config file {path}") for name, value in from_file.items()}
        errors += wrong
    given |= {name: (value, CMD_ARGS) for name, value in cmd_args.given.items()}
    given |= {name: (value, "command line") for name, value in command_line.given.items()}
    return _join(given, errors, hooks, command_line.action, path)


def make(values: Mapping[str, object], origin: str) -> Config:
    """The defaults and these values of settings and hooks, as a config file may give them. ConfigError."""
    given: Given = {name: (value, origin) for name, value in values.items() if name in BY_NAME}
    hooks = {name: value for name, value in values.items() if name in HOOKS_BY_NAME}
    known = (*BY_NAME, *HOOKS_BY_NAME)
    errors = [f"{name}: no such setting{nearest(name, known)} ({origin})" for name in values if name not in known]
    return _join(given, errors, hooks)


def _join(
    given: Given, errors: Sequence[str], hooks: dict[str, Any], action: str = "run", file: str | None = None
) -> Config:
    values, origins, wrong = parse_all({setting.name: (None, "default") for setting in SETTINGS} | given)
    if errors or wrong:
        raise ConfigError([*errors, *wrong])
    config = Config(values | hooks, origins, action, file)
    wrong = cross_check(config)
    if wrong:
        raise ConfigError(wrong)
    return config


def _config_path(asked: str | None, folder: str) -> str | None:
    path = os.path.join(folder, os.path.expanduser(asked or arguments.CONFIG_FILE))
    return path if asked or os.path.exists(path) else None


def _from_environment(environ: Mapping[str, str]) -> tuple[Given, list[str]]:
    """Values of environment variables. An empty one is not set: compose files and units leave such."""
    given: Given = {}
    errors: list[str] = []
    for setting in SETTINGS:
        variable = next((name for name in setting.variables if environ.get(name)), None)
        if variable is None:
            continue
        try:
            value: object = shell_words(environ[variable]) if setting.type.repeats else environ[variable]
        except ValueError as error:
            errors.append(f"{setting.name}: {error} (environment {variable})")
            continue
        given[setting.name] = (value, f"environment {variable}")
    return given, errors
