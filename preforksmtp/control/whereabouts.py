"""Where the control socket of a server is, found out without running anything: a config file is looked at, not obeyed.

An order needs no code. As for the server itself, the last of these counts: PREFORKSMTP_CONTROL_SOCKET, the config file
(-c, or ./preforksmtp.conf.py), PREFORKSMTP_CMD_ARGS. In the file it must stand as plain text. Fails with ConfigError.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping

from preforksmtp.config import arguments
from preforksmtp.config.model import ConfigError
from preforksmtp.config.setting import PREFIX
from preforksmtp.config.settings import BY_NAME

_NAMES = ("control_socket", "chdir")
_LONGEST = 1 << 20  # bytes of a config file


def find_socket(file: str | None, environ: Mapping[str, str]) -> str:
    """The path, as seen from the current folder. `file`: the config file, if it was named."""
    given: dict[str, object] = {name: text for name in _NAMES if (text := environ.get(PREFIX + name.upper()))}
    try:
        cmd_args = arguments.parse_text(environ.get(PREFIX + "CMD_ARGS", ""))
    except ValueError as error:
        raise ConfigError([f"{PREFIX}CMD_ARGS: {error}"]) from None
    file = file or cmd_args.config_file
    if file is not None or os.path.exists(arguments.CONFIG_FILE):
        given |= _written_in(os.path.expanduser(file or arguments.CONFIG_FILE))
    given |= {name: value for name, value in cmd_args.given.items() if name in _NAMES}
    try:
        paths = {name: BY_NAME[name].parse(value) for name, value in given.items()}
    except ValueError as error:
        raise ConfigError([f"control_socket: {error}"]) from None
    if not paths.get("control_socket"):
        raise ConfigError(["the configuration has no control_socket; name the socket with --socket PATH"])
    return os.path.join(paths.get("chdir") or "", paths["control_socket"])


def _written_in(file: str) -> dict[str, object]:
    """What a config file assigns to these names."""
    try:
        with open(file, "rb") as opened:
            tree = ast.parse(opened.read(_LONGEST), file)
    except OSError as error:
        raise ConfigError([f"config file {file}: cannot be read: {error.strerror}"]) from None
    except SyntaxError as error:
        raise ConfigError([f"config file {file}, line {error.lineno or 1}: {error.msg}"]) from None
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL byte, or nesting no person writes
        raise ConfigError([f"config file {file}: {error}"]) from None
    found: dict[str, object] = {}
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(statement.value, ast.Constant):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name) and target.id in _NAMES:
                    found[target.id] = statement.value.value
                    target.id = ""  # read
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _NAMES and isinstance(node.ctx, ast.Store):
            line = f"config file {file}, line {node.lineno}: {node.id} is computed there, and an order runs no code"
            raise ConfigError([f"{line}; name the socket with --socket PATH"])
    return found
