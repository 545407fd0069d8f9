"""app.py: from the text of APP to the hooks of a session, and one clear line for every way it can fail."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from preforksmtp.server.app import AppError, load_app, start_handler

NUMBERS = itertools.count()

GOOD = """
import functools
from preforksmtp import Handler

calls = []

def handler(message): return "default"
def other(message): return "other"
def optional(message, extra=None): return "optional"
def variable(*arguments): return "variable"

class Callable:
    def __init__(self, name="x", **options):
        self.name, self.options = name, options
    def __call__(self, message): return self.name
    def method(self, message): return "method"

ready = Callable("ready")
table = Callable

class Mail(Handler):
    def message(self, message): return "Mail"

class Stream(Handler):
    def stream(self, message, body): return "Stream"

class Stepping(Handler):
    def __init__(self, session, step=1):
        super().__init__(session)
        self.step = step
    def message(self, message): return f"step {self.step}"

stepping = functools.partial(Stepping, step=7)

def factory(*arguments, **keywords):
    calls.append((arguments, keywords))
    return handler

def of_class(step): return functools.partial(Stepping, step=step)

class inner:
    handler = staticmethod(other)

static = print
"""

BAD = """
import functools
from preforksmtp import Handler

number = 5
nothing = None

def no_arguments(): ...
def two(message, session): ...
def keyword_only(*, message): ...
async def coroutine(message): ...

class NotAHandler:
    def message(self, message): ...

class AsyncCallable:
    async def __call__(self, message): ...

awaiting = AsyncCallable()

class Empty(Handler): ...

class OnlyRcpt(Handler):
    def rcpt(self, recipient, params): ...

class AsyncHook(Handler):
    async def message(self, message): ...

class Undeclared(Handler):
    extensions = ("FOO",)
    def message(self, message): ...

class Complete(Handler):
    def message(self, message): ...

instance = Complete(None)

def factory(*arguments): raise ValueError("no\\nsuch database")
def leaving(): raise SystemExit("bye")
def returns_nothing(): return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def module(folder: Path) -> Any:
    """`module(source)` writes a module of a new name and returns that."""
    names = []

    def write(source: str) -> str:
        names.append(f"app_under_test_{next(NUMBERS)}")
        (folder / f"{names[-1]}.py").write_text(source)
        return names[-1]

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]


def answer(hooks: Any) -> Any:
    """What the application says to a message."""
    handler = hooks.shared if hooks.new is None else hooks.new("session")
    return handler.stream(None, None) if hooks.stream else handler.message(None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "default"), (":handler", "default"), (":other", "other"), (":optional", "optional"),
        (":variable", "variable"),
        (":ready", "ready"), (":Callable()", "x"), (":Callable('y')", "y"), (":Callable(name='z', a=1)", "z"),
        (":ready.method", "method"), (":inner.handler", "other"), (":Mail", "Mail"), (":Stream", "Stream"),
        (":stepping", "step 7"), (":of_class(9)", "step 9"), (":of_class(step=-9)", "step -9"),
        (":factory()", "default"),
        (": handler", None), (":static", None),
    ],
)  # fmt: skip
def test_loaded(module, text, says):
    name = module(GOOD)
    if text == ": handler":
        with pytest.raises(AppError):
            load_app(name + text)
        return
    hooks = load_app(name + text)
    assert answer(hooks) == says


def test_the_arguments_of_a_factory_are_literals(module):
    name = module(GOOD)
    load_app(f"{name}:factory('text', 1, -2.5, None, True, [1, (2,)], {{'a': b'x'}}, key={{1, 2}})")
    assert sys.modules[name].calls == [(("text", 1, -2.5, None, True, [1, (2,)], {"a": b"x"}), {"key": {1, 2}})]


def test_a_module_in_a_package(folder):
    (folder / "package_under_test").mkdir()
    (folder / "package_under_test" / "__init__.py").write_text("")
    (folder / "package_under_test" / "app.py").write_text(GOOD)
    try:
        assert answer(load_app("package_under_test.app:other")) == "other"
        with pytest.raises(AppError, match=r"package_under_test has no attribute 'handler'"):
            load_app("package_under_test")
    finally:
        for name in [name for name in sys.modules if name.startswith("package_under_test")]:
            del sys.modules[name]


def test_the_default_application():
    assert load_app("preforksmtp.handlers:Maildir('Maildir')").has == {"message"}


@pytest.mark.parametrize("text", ["preforksmtp.handlers:Discard()", "preforksmtp.handlers:Print()"])
def test_ready_made_handlers(text):
    assert load_app(text).message


def failure(text: str) -> AppError:
    with pytest.raises(AppError) as caught:
        load_app(text)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"app {text!r}"), "it names the setting and its value"
    return caught.value


@pytest.mark.parametrize(
    ("expression", "line"),
    [
        ("number", "is int, not a callable; a function of one message is expected"),
        ("nothing", "is NoneType, not a callable; a function of one message is expected"),
        ("misssing", "has no attribute 'misssing'"),
        ("no_argument", "has no attribute 'no_argument'; did you mean 'no_arguments'?"),
        ("number.real.foo", "has no attribute 'foo'"),
        (
            "no_arguments",
            "takes (), but is called with one argument, the message; a factory is given with its parentheses: ",
        ),
        ("two", "takes (message, session), but is called with one argument"),
        ("keyword_only", "takes (*, message), but is called with one argument"),
        ("coroutine", "is a coroutine function; handlers are plain blocking functions"),
        ("awaiting", "is a coroutine function; handlers are plain blocking functions"),
        ("NotAHandler", "is a class that is not a preforksmtp.Handler; derive it from Handler, or make an instance: "),
        ("NotAHandler()", "is NotAHandler, not a callable"),
        ("Empty", "Empty overrides neither message nor stream: mail would be lost"),
        ("OnlyRcpt", "OnlyRcpt overrides neither message nor stream: mail would be lost"),
        ("AsyncHook", "AsyncHook.message is a coroutine; message must be a plain blocking method"),
        ("Undeclared", "'FOO' is none of "),
        ("instance", "is an instance of a Handler; give the class, each session makes its own instance"),
        ("factory('x')", "the factory raised ValueError: no such database"),
        ("leaving()", "the factory raised SystemExit: bye"),
        ("returns_nothing()", "is NoneType, not a callable"),
        ("two(1)", "the factory raised TypeError: two() missing 1 required positional argument: 'session'"),
        ("number()", "int is not callable; leave out the parentheses"),
        ("factory(number)", "the arguments of the factory must be literals, such as 'text' or 1"),
        ("factory(x=number)", "the arguments of the factory must be literals"),
        ("factory(1 + 'a')", "the arguments of the factory must be literals"),
        ("factory(*[1])", "the arguments of the factory must be literals"),
        ("factory(**{'a': 1})", "the arguments of the factory must be literals"),
        ("factory({[]: 1})", "the arguments of the factory must be literals"),
        ("factory(open('x'))", "the arguments of the factory must be literals"),
        ("factory(", "what follows the colon is not a name or a call with literals"),
        ("1", "what follows the colon is not a name or a call with literals"),
        ("a b", "what follows the colon is not a name or a call with literals"),
        ("lambda message: None", "what follows the colon is not a name or a call with literals"),
        ("factory('a')('b')", "what follows the colon is not a name or a call with literals"),
        ("number[0]", "what follows the colon is not a name or a call with literals"),
    ],
)
def test_what_is_no_application(module, expression, line):
    name = module(BAD)
    assert line in str(failure(f"{name}:{expression}"))


@pytest.mark.parametrize(
    "text", ["", ":handler", "app-x:handler", "1app", "my app:x", "./app.py:handler", "a..b", ".a"]
)
def test_what_is_no_module(text):
    assert "expected module:attribute, such as app:handler (a dotted name, not a file name)" in str(failure(text))


def test_no_such_module(folder):
    line = str(failure("no_such_module_here:handler"))
    assert "no module named 'no_such_module_here'" in line
    assert str(folder) in line, "where it looked"
    assert "--chdir" in line
    assert failure("no_such_module_here").trace == "", "a traceback would only say the same"


def test_a_file_name_in_place_of_a_module(module):
    name = module(GOOD)
    assert "(leave out .py)" in str(failure(f"{name}.py:handler"))


def test_the_module_needs_what_is_not_installed(module):
    name = module("import something_not_installed\n")
    error = failure(f"{name}:handler")
    assert f"{name} imports 'something_not_installed', which is not installed" in str(error)
    assert f"{name}.py" in error.trace


def test_a_syntax_error(module, folder):
    name = module("x = 1\ndef handler(message:\n")
    line = str(failure(f"{name}:handler"))
    assert "syntax error in " in line
    assert f"{name}.py, line 2:" in line


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("raise ValueError('first\\nsecond')", "raised ValueError: first second"),
        ("import sys; sys.exit(3)", "raised SystemExit: 3"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("1/0", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_the_module_raises(module, source, line):
    name = module(f"def load():\n    {source}\nload()\n")
    error = failure(f"{name}:handler")
    assert f"importing {name} {line}" in str(error)
    assert f"{name}.py" in error.trace
    assert "in load" in error.trace
    assert "importlib" not in error.trace, "only the application's own frames"
    assert "preforksmtp/server/app.py" not in error.trace


def test_the_trace_of_a_factory(module):
    error = failure(f"{module(BAD)}:factory(1)")
    assert "in factory" in error.trace
    assert error.trace.endswith("ValueError: no\nsuch database\n")


def test_start(module):
    name = module(
        "from preforksmtp import Handler\n"
        "class Good(Handler):\n"
        "    @classmethod\n"
        "    def start(cls, worker): cls.worker = worker\n"
        "    def message(self, message): ...\n"
        "class Bad(Good):\n"
        "    @classmethod\n"
        "    def start(cls, worker): raise OSError('no database')\n"
    )
    hooks = load_app(f"{name}:Good")
    start_handler(f"{name}:Good", hooks.handler, "the worker")
    assert hooks.handler.worker == "the worker"
    with pytest.raises(AppError, match=r": Bad\.start raised OSError: no database$") as caught:
        start_handler(f"{name}:Bad", load_app(f"{name}:Bad").handler, None)
    assert "in start" in caught.value.trace
