"""The table of settings -> one Config, joined in this order: default, environment variable, config file,
PREFORKSMTP_CMD_ARGS, command line; the last that has a value wins.

Reads the command line, the environment and the config file, once; a Config is plain attributes, one a
setting, each with its origin. Nothing is bound and nothing of the process is changed before Config.apply().
Everything wrong is gathered into one ConfigError, whose lines each name the setting or file and where the
value came from.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from preforksmtp.config import arguments
from preforksmtp.config.configfile import nearest, read_config_file
from preforksmtp.config.settings import BY_NAME, HOOKS, HOOKS_BY_NAME, PREFIX, SETTINGS
from preforksmtp.config.values import shell_words
from preforksmtp.process import trust
from preforksmtp.process.place import change_folder
from preforksmtp.server.check import ConfigError, check, cross_check

if TYPE_CHECKING:
    from preforksmtp.net.bind import Bind

__all__ = ["Config", "ConfigError", "check", "load"]

CMD_ARGS = PREFIX + "CMD_ARGS"

Given = dict[str, tuple[object, str]]  # setting -> what was given, and where


class Config:
    """One attribute for each setting (config.workers ...), already of its type: cheap to read in a session. One for
    each hook too, a function or None.

    action: what the command line asked for, "run", "check-config" or "print-config".
    file: the config file that was read, or None.
    """

    if TYPE_CHECKING:
        # The attributes are the rows of the table, which a type checker cannot see. At run time there is no
        # such method: a misspelt name is an AttributeError.
        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self,
        values: Mapping[str, Any],
        origins: Mapping[str, str],
        action: str = "run",
        file: str | None = None,
    ) -> None:
        self.__dict__.update(dict.fromkeys(HOOKS_BY_NAME))  # None: not defined
        self.__dict__.update(values)
        self.action = action
        self.file = file
        self._origins = dict(origins)

    def origin(self, name: str) -> str:
        """Where the value of a setting comes from: "default", "environment NAME", "config file PATH" ..."""
        return self._origins[name]

    def binds(self) -> "list[Bind]":
        """The values of `bind`, parsed."""
        from preforksmtp.net.bind import parse_bind

        return [parse_bind(text) for text in self.bind]

    def for_bind(self, bind: "Bind") -> "Config":
        """This config as one listener sees it: the options of its bind and what its scheme implies applied.

        Raises ConfigError for an option that is unknown, wrong or no affair of one bind.
        """
        from preforksmtp.net.bind import BIND_OPTIONS

        origin = f"bind {bind.text}"
        allowed = [setting.name for setting in SETTINGS if setting.scope == "session"]
        errors = [
            _refuse_option(bind, name) for name in bind.options if name not in (*BIND_OPTIONS, *allowed)
        ]
        given: Given = {name: (text, origin) for name, text in bind.options.items() if name in allowed}
        if bind.submission and "require_auth" not in given:
            given["require_auth"] = (True, origin)  # RFC 6409 4.3
        values, origins, wrong = _parse(given)
        if errors or wrong:
            raise ConfigError([*errors, *wrong])
        mine = {row.name: getattr(self, row.name) for row in (*SETTINGS, *HOOKS)}
        return Config(mine | values, self._origins | origins, self.action, self.file)

    def apply(self) -> None:
        """Make the process as the config wants it: env, chdir, and the folders that imports start from."""
        os.environ.update(self.env)
        if self.chdir is not None:
            try:
                change_folder(self.chdir)
            except OSError as error:
                raise ConfigError([f"chdir: cannot change to {self.chdir}: {error.strerror}"]) from None
        make_importable(*self.pythonpath, os.getcwd())
        try:
            trust.settle(self.file, self.user, self.group)
        except OSError as error:
            raise ConfigError([f"config file {self.file}: cannot be used: {error.strerror}"]) from None


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
    values, origins, wrong = _parse({setting.name: (None, "default") for setting in SETTINGS} | given)
    if errors or wrong:
        raise ConfigError([*errors, *wrong])
    config = Config(values | hooks, origins, action, file)
    wrong = cross_check(config)
    if wrong:
        raise ConfigError(wrong)
    return config


def make_importable(*folders: str) -> None:
    """Put folders first in the import path, in this order."""
    first = list(dict.fromkeys(os.path.abspath(folder) for folder in folders))
    sys.path[:] = first + [folder for folder in sys.path if folder not in first]


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


def _parse(given: Given) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """What was given -> values, their origins, and one line for each that will not do."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    errors: list[str] = []
    for name, (raw, origin) in given.items():
        try:
            values[name] = BY_NAME[name].parse(raw)
            origins[name] = origin
        except ValueError as error:
            errors.append(f"{name}: {error} ({origin})")
    return values, origins, errors


def _refuse_option(bind: "Bind", name: str) -> str:
    from preforksmtp.net.bind import BIND_OPTIONS

    if name in BY_NAME:
        return f"bind {bind.text!r}: {name} cannot be set for one bind; it is a setting of the whole server"
    known = [*BIND_OPTIONS, *(setting.name for setting in SETTINGS if setting.scope == "session")]
    return f"bind {bind.text!r}: unknown option {name!r}{nearest(name, known)}"
