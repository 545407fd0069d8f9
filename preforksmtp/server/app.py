"""APP: from "module:attribute" or "module:factory('literal', key=1)" to the Hooks a session uses.

Runs in each worker after the fork (with preload in the master, before). Fails with AppError: one line that says what is
wrong and what to do; where the application's own code raised, `trace` holds that part of the traceback.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import os
import re
import traceback
from types import ModuleType
from typing import Any

from preforksmtp.prefork.atfork import Confined
from preforksmtp.prefork.reclaim import replaced
from preforksmtp.process import trust
from preforksmtp.smtp.handler import Handler
from preforksmtp.smtp.hooks import Hooks

DEFAULT_ATTRIBUTE = "handler"


_PLACE = re.compile(r'  File "([^"]+)", line (\d+)')


class AppError(Exception):
    """The application cannot be loaded."""

    def __init__(self, line: str, trace: str = "") -> None:
        super().__init__(line)
        self.trace = trace

    @property
    def line(self) -> str:
        """What is wrong, and where in the application that was: "app.py, line 24: ..."."""
        places = _PLACE.findall(self.trace)
        return f"{os.path.basename(places[-1][0])}, line {places[-1][1]}: {self}" if places else str(self)


def load_app(text: str) -> Hooks:
    """Import the application `text` names and find out what it offers."""
    with Confined(f"app {text!r}"):
        hooks = _load(text)
    _check_threads(text)
    return hooks


def _load(text: str) -> Hooks:
    module_name, _, expression = text.partition(":")
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise AppError(f"app {text!r}: expected module:attribute, such as app:handler (a dotted name, not a file name)")
    module = _import(text, module_name)
    try:
        tree = ast.parse(expression or DEFAULT_ATTRIBUTE, mode="eval").body
    except SyntaxError:
        raise AppError(f"app {text!r}: what follows the colon is not a name or a call with literals") from None
    if isinstance(tree, ast.Call):
        value = _call(text, _attribute(text, module, tree.func), tree)
    else:
        value = _attribute(text, module, tree)
    return examine_app(text, value)


def examine_app(text: str, value: Any) -> Hooks:
    """What a function, a Handler subclass or a partial of one offers. `text` names it where it is no good: AppError."""
    try:
        return _hooks(text, value)
    except (ValueError, TypeError) as error:  # Handler.extensions
        raise AppError(f"app {text!r}: {_describe(error)}") from None


def start_handler(text: str, handler: type[Handler], worker: Any) -> None:
    """Worker: call the class's `start`."""
    try:
        with Confined(f"{handler.__name__}.start"):
            handler.start(worker)
    except BaseException as error:  # the application's code
        raise AppError(f"app {text!r}: {handler.__name__}.start raised {_describe(error)}", _trace(error)) from None
    _check_threads(text)


def _check_threads(text: str) -> None:
    fault = replaced()
    if fault:
        raise AppError(f"app {text!r}: {fault}")


def _import(text: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            hint = " (leave out .py)" if name.endswith(".py") else ""
            raise AppError(
                f"app {text!r}: no module named {missing!r}{hint}; looked in {os.getcwd()} and Python's import path"
                f" (--chdir and --pythonpath add to it){trust.left_out()}"
            ) from None
        raise AppError(f"app {text!r}: {name} imports {missing!r}, which is not installed", _trace(error)) from None
    except SyntaxError as error:
        raise AppError(f"app {text!r}: syntax error in {error.filename}, line {error.lineno}: {error.msg}") from None
    except BaseException as error:  # whatever the module does at import, SystemExit too
        raise AppError(f"app {text!r}: importing {name} raised {_describe(error)}", _trace(error)) from None


def _attribute(text: str, module: ModuleType, tree: ast.expr) -> Any:
    names: list[str] = []
    while isinstance(tree, ast.Attribute):
        names.insert(0, tree.attr)
        tree = tree.value
    if not isinstance(tree, ast.Name):
        raise AppError(f"app {text!r}: what follows the colon is not a name or a call with literals")
    value: Any = module
    for name in (tree.id, *names):
        if not hasattr(value, name):
            near = difflib.get_close_matches(name, [key for key in dir(value) if not key.startswith("_")], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AppError(f"app {text!r}: {module.__name__} has no attribute {name!r}{hint}")
        value = getattr(value, name)
    return value


def _call(text: str, factory: Any, tree: ast.Call) -> Any:
    try:
        arguments = [ast.literal_eval(argument) for argument in tree.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords if keyword.arg}
    except (ValueError, TypeError):  # TypeError: an unhashable key
        raise AppError(f"app {text!r}: the arguments of the factory must be literals, such as 'text' or 1") from None
    if len(keywords) != len(tree.keywords):
        raise AppError(f"app {text!r}: the arguments of the factory must be literals, such as 'text' or 1")
    if not callable(factory):
        raise AppError(f"app {text!r}: {type(factory).__name__} is not callable; leave out the parentheses")
    try:
        return factory(*arguments, **keywords)
    except BaseException as error:  # the application's code
        raise AppError(f"app {text!r}: the factory raised {_describe(error)}", _trace(error)) from None


def _hooks(text: str, value: Any) -> Hooks:
    handler = value.func if isinstance(value, functools.partial) else value
    if isinstance(handler, type) and issubclass(handler, Handler):
        return _of_class(text, handler, value)
    if isinstance(value, Handler):
        raise AppError(f"app {text!r} is an instance of a Handler; give the class, each session makes its own instance")
    if isinstance(value, type):
        raise AppError(
            f"app {text!r} is a class that is not a preforksmtp.Handler; "
            f"derive it from Handler, or make an instance: {text}(...)"
        )
    if not callable(value):
        raise AppError(f"app {text!r} is {type(value).__name__}, not a callable; a function of one message is expected")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(type(value), "__call__", None)):  # noqa: B004
        raise AppError(f"app {text!r} is a coroutine function; handlers are plain blocking functions")
    _check_arguments(text, value)
    return Hooks.of_function(value)


def _of_class(text: str, handler: type[Handler], new: Any) -> Hooks:
    for name, method in inspect.getmembers(handler, inspect.iscoroutinefunction):
        raise AppError(f"app {text!r}: {method.__qualname__} is a coroutine; {name} must be a plain blocking method")
    hooks = Hooks.of_class(handler, new)
    if not hooks.message and not hooks.stream:
        raise AppError(f"app {text!r}: {handler.__name__} overrides neither message nor stream: mail would be lost")
    return hooks


def _check_arguments(text: str, function: Any) -> None:
    """A function that cannot take a message is a mistake to be found at the start, not at the first mail."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin does not tell
    try:
        signature.bind(object())
    except TypeError:
        raise AppError(
            f"app {text!r}: takes {signature}, but is called with one argument, the message;"
            f" a factory is given with its parentheses: {text}()"
        ) from None


def _describe(error: BaseException) -> str:
    """The exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trace(error: BaseException) -> str:
    """The traceback from where the application's own code begins."""
    frames = traceback.extract_tb(error.__traceback__)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ours = (package, os.path.dirname(importlib.__file__), "<frozen importlib")
    own = [frame for frame in frames if not frame.filename.startswith(ours)]
    return "".join(traceback.format_list(own)) + "".join(traceback.format_exception_only(type(error), error))
