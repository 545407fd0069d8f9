"""The config file: a Python file whose global names are settings.

Runs the file and sorts its names; what the values mean is settings.py's affair. Whatever the file does
wrong (syntax, exception, sys.exit) comes back as one line with file and line number, and so does every name
that is no setting. Root runs no file that another user may change (trust.py).
"""

import ast
import difflib
import inspect
import types
from collections.abc import Iterable
from typing import Any

from preforksmtp.config.imports import forgetting_imports
from preforksmtp.config.settings import BY_NAME, HOOKS_BY_NAME
from preforksmtp.prefork.atfork import Confined
from preforksmtp.prefork.reclaim import replaced
from preforksmtp.process.trust import left_out, read_code


def read_config_file(path: str) -> tuple[dict[str, Any], list[str]]:
    """The settings a file makes, and its errors: one line each."""
    try:
        source = read_code(path)
    except OSError as error:
        return {}, [f"config file {path}: cannot be read: {error.strerror}"]
    try:
        tree = ast.parse(source, path)
        code = compile(tree, path, "exec")
    except SyntaxError as error:
        return {}, [f"config file {path}, line {error.lineno or 1}: {error.msg}"]
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL byte, or nesting no person writes
        return {}, [f"config file {path}: {error}"]
    names: dict[str, Any] = {"__file__": path, "__name__": "__config__", "__builtins__": __builtins__}
    try:
        with Confined(f"config file {path}"), forgetting_imports():
            exec(code, names)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {}, [f"config file {path}, line {_line(error, path)}: {_what(error)}"]
    fault = replaced()
    if fault:
        return {}, [f"config file {path}: {fault}"]
    return _settings(path, names, _imported(tree))


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'workers'?", or nothing if no name is near."""
    near = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _settings(path: str, names: dict[str, Any], imported: set[str]) -> tuple[dict[str, Any], list[str]]:
    settings: dict[str, Any] = {}
    errors: list[str] = []
    for name, value in names.items():
        if name in BY_NAME:
            settings[name] = value
        elif name in HOOKS_BY_NAME:
            if value is not None:
                settings[name] = value
                errors += [f"config file {path}: {line}" for line in _check_hook(name, value)]
        elif not _is_users_own(name, value, imported):
            hint = nearest(name, [*BY_NAME, *HOOKS_BY_NAME]) or "; a name of your own must begin with an underscore"
            errors.append(f"config file {path}: unknown setting {name!r}{hint}")
    return settings, errors


def _is_users_own(name: str, value: object, imported: set[str]) -> bool:
    """May a name that is no setting stand in the file? What is imported or begins with _, and tools.

    A function is a tool unless its name is nearly that of a setting: then it is one misspelt.
    """
    if name.startswith("_") or name in imported or isinstance(value, (type, types.ModuleType)):
        return True
    known = [*BY_NAME, *HOOKS_BY_NAME]
    return callable(value) and not difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)


def _check_hook(name: str, value: object) -> list[str]:
    """A hook that cannot be called as it will be is an error now, not in the middle of the night."""
    wanted = f"hook {name} must be a function of ({', '.join(HOOKS_BY_NAME[name].arguments)})"
    if not callable(value):
        return [f"{wanted}, not {value!r}"]
    if inspect.iscoroutinefunction(value):
        return [f"{wanted}, and not a coroutine"]
    try:
        signature = inspect.signature(value)
        signature.bind(*HOOKS_BY_NAME[name].arguments)
    except ValueError:
        return []  # a builtin does not tell
    except TypeError:
        return [f"{wanted}, but takes {signature}"]
    return []


def _imported(tree: ast.Module) -> set[str]:
    """The names that import statements bind: `from os import environ` makes no setting."""
    return {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }


def _line(error: BaseException, path: str) -> int:
    """The last line of the file itself on the way to the error, which may lie in a module it called."""
    line, step = 1, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _what(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return (
            f"sys.exit({error.code if error.code is not None else ''}) is called; raise an exception instead"
        )
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        text += left_out()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
