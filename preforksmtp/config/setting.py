"""A setting: one row of the table in settings.py, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from preforksmtp.config.values import ValueType

PREFIX = "PREFORKSMTP_"


@dataclass(frozen=True)
class Setting:
    """One row. `default` may be a function, called only when no value is given; `shown` then describes it."""

    name: str
    flags: tuple[str, ...]
    type: ValueType
    default: Any
    section: str
    help: str
    scope: Literal["process", "session"] = "process"  # "session": may be set for one bind
    environ: tuple[str, ...] = ()  # further variables, asked after the setting's own
    shown: str = ""
    secret: Callable[[Any], Any] | None = None  # hides what --print-config must not show
    positional: bool = False
    reloaded: bool = True  # a reload changes it; else it holds from the next start or upgrade

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, the first found wins."""
        return (PREFIX + self.name.upper(), *self.environ)

    @property
    def full_help(self) -> str:
        """With where and when it may be set."""
        scope = " Per bind." if self.scope == "session" else ""
        return self.help + scope + ("" if self.reloaded else " Not changed by HUP.")

    @property
    def options(self) -> tuple[str, ...]:
        """Its options on the command line: short, long, aliases."""
        if self.positional:
            return ()
        short = tuple(flag for flag in self.flags if not flag.startswith("--"))
        aliases = tuple(flag for flag in self.flags if flag.startswith("--"))
        return (*short, "--" + self.name.replace("_", "-"), *aliases)

    def parse(self, raw: object) -> Any:
        """The value of what was given; None and empty text mean the default. Raises ValueError."""
        value = None if raw is None else self.type.parse(raw)
        if value is not None:
            return value
        default = self.default() if callable(self.default) else self.default
        return default if default is None else self.type.parse(default)
