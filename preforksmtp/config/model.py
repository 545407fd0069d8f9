"""Config: one attribute for each setting, and ConfigError, which says everything that is wrong with one.

A Config is plain data, read once and never changed; `for_bind` gives it as one listener sees it, and `apply` makes the
process as it says. Values that will not do are gathered, one line each, naming the setting and where the value came
from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from preforksmtp.config.configfile import nearest
from preforksmtp.config.settings import BY_NAME, HOOKS, HOOKS_BY_NAME, SETTINGS
from preforksmtp.net.bind import BIND_OPTIONS, Bind, parse_bind
from preforksmtp.process import trust
from preforksmtp.process.place import change_folder

Given = dict[str, tuple[object, str]]  # setting -> what was given, and where


class ConfigError(Exception):
    """The configuration cannot be used; `errors` holds one clear line for each fault."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


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

    def binds(self) -> list[Bind]:
        """The values of `bind`, parsed."""
        return [parse_bind(text) for text in self.bind]

    def for_bind(self, bind: Bind) -> Config:
        """This config as one listener sees it: the options of its bind and what its scheme implies applied.

        Raises ConfigError for an option that is unknown, wrong or no affair of one bind.
        """
        origin = f"bind {bind.text}"
        allowed = [setting.name for setting in SETTINGS if setting.scope == "session"]
        errors = [
            _refuse_option(bind, name) for name in bind.options if name not in (*BIND_OPTIONS, *allowed)
        ]
        given: Given = {name: (text, origin) for name, text in bind.options.items() if name in allowed}
        if bind.submission and "require_auth" not in given:
            given["require_auth"] = (True, origin)  # RFC 6409 section 4.3
        values, origins, wrong = parse_all(given)
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


def make_importable(*folders: str) -> None:
    """Put folders first in the import path, in this order."""
    first = list(dict.fromkeys(os.path.abspath(folder) for folder in folders))
    sys.path[:] = first + [folder for folder in sys.path if folder not in first]


def parse_all(given: Given) -> tuple[dict[str, Any], dict[str, str], list[str]]:
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


def _refuse_option(bind: Bind, name: str) -> str:
    if name in BY_NAME:
        return f"bind {bind.text!r}: {name} cannot be set for one bind; it is a setting of the whole server"
    known = [*BIND_OPTIONS, *(setting.name for setting in SETTINGS if setting.scope == "session")]
    return f"bind {bind.text!r}: unknown option {name!r}{nearest(name, known)}"
