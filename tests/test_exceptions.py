"""No exception outlives its handling: one that is kept keeps the frames it went through, and all that a client has said.

Python adds to the traceback of an exception each time it is raised. So none is shared, none is raised that something
remembers, and none that was caught is remembered: proved for every line of the package by reading it, and for whole
sessions by looking at what is left of them.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import pkgutil
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import preforksmtp
from preforksmtp import Handler, Reject
from preforksmtp.smtp.dialogue import Dialogue
from preforksmtp.smtp.hooks import Hooks
from preforksmtp.smtp.sasl import MECHANISMS
from preforksmtp.smtp.session import Endpoint, Session
from tests.fakes import FakeTLS, FakeWire, make_rules, recording, to_chunks
from tests.hostile_auth import BINDING, exchanges

ROOT = Path(preforksmtp.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


# --- by reading



def kept(value: object, depth: int = 2) -> bool:
    if isinstance(value, BaseException):
        return True
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else []
    return depth > 0 and any(kept(item, depth - 1) for item in inner)


def test_no_module_and_no_class_holds_one() -> None:
    found = [info.name for info in pkgutil.walk_packages([str(ROOT)], "preforksmtp.") if "__main__" not in info.name]
    assert len(found) > 100
    holders = []
    for name in found:
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            inside = vars(value).items() if isinstance(value, type) and value.__module__ == name else ()
            holders += [f"{name}.{attribute}" for _, item in [(attribute, value), *inside] if kept(item)]
    assert holders == []


class Reader(ast.NodeVisitor):
    """Collects what a module does with exceptions that it should not."""

    def __init__(self) -> None:
        self.faults: list[tuple[int, str]] = []
        self._caught: list[str] = []
        self._freed: list[set[str]] = [set()]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._freed.append({name for part in ast.walk(node) if isinstance(part, ast.Try) for name in freed(part)})
        caught, self._caught = self._caught, []
        self.generic_visit(node)
        self._caught = caught
        self._freed.pop()

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._caught.append(node.name or "")
        self.generic_visit(node)
        self._caught.pop()

    def visit_Raise(self, node: ast.Raise) -> None:
        exc = node.exc
        parts = exc.values if isinstance(exc, ast.BoolOp) else [exc.body, exc.orelse] if isinstance(exc, ast.IfExp) else [exc]
        for part in parts:
            if not (part is None or isinstance(part, ast.Call) or is_class(part) or self._is_free(part)):
                self.faults.append((node.lineno, f"raises {ast.unparse(part)}, which something remembers"))
        self.generic_visit(node)

    def _is_free(self, part: ast.expr) -> bool:
        """A name that is gone when the function is left: Python sees to that where it was caught."""
        return isinstance(part, ast.Name) and (part.id in self._caught or part.id in self._freed[-1])

    def visit_Assign(self, node: ast.Assign) -> None:
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for value in values:
            if isinstance(value, ast.Name) and value.id in self._caught:
                for target in node.targets:
                    if not (isinstance(target, ast.Name) and target.id in self._freed[-1]):
                        self.faults.append((node.lineno, f"keeps {value.id}, which it has caught"))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        keeps = isinstance(node.func, ast.Attribute) and node.func.attr in ("append", "add", "put", "setdefault")
        if keeps and any(isinstance(item, ast.Name) and item.id in self._caught for item in node.args):
            self.faults.append((node.lineno, f"keeps what it has caught: {ast.unparse(node)}"))
        self.generic_visit(node)


def freed(node: ast.Try) -> Iterator[str]:
    """The names that its `finally` deletes, or sets to None."""
    for statement in node.finalbody:
        emptied = isinstance(statement, ast.Assign) and ast.unparse(statement.value) == "None"
        if emptied or isinstance(statement, ast.Delete):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def is_class(node: ast.expr | None) -> bool:
    """By its name: Timeout, _Timeout, socket.timeout; not TIMEOUT, nor self.fault."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    bare = name.strip("_")
    return bare[:1].isupper() and not bare.isupper()


def read(source: str) -> list[tuple[int, str]]:
    reader = Reader()
    reader.visit(ast.parse(source))
    return reader.faults


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_what_is_raised_is_made_for_it_and_what_is_caught_is_not_kept(file: Path) -> None:
    assert read(file.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(): raise _MALFORMED",
        "def f(): raise MALFORMED from None",
        "def f(self): raise self.fault",
        "def f(fault): raise fault",
        "def f():\n  try: g()\n  except E as e: x = e\n  raise x",
        "def f(self):\n  try: g()\n  except E as e: self.e = e",
        "def f(self):\n  try: g()\n  except E as e: self.a, self.e = 1, e",
        "def f(all):\n  try: g()\n  except E as e: all.append(e)",
        "def f():\n  try: g()\n  except E as e: raise x or e",
    ],
)
def test_the_reader_sees_it(source: str) -> None:
    assert read(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(): raise Malformed",
        "def f(): raise module.Malformed from None",
        "def f(): raise fault(1)",
        "def f():\n  try: g()\n  except E as e: raise e",
        "def f():\n  try:\n    try: g()\n    except E as e: x = e\n    raise x\n  finally: del x",
        "def f(self):\n  try: g()\n  except E as e: self.e = e.with_traceback(None)",
    ],
)
def test_the_reader_lets_pass(source: str) -> None:
    assert read(source) == []


# --- by looking at what is left


NO_USER = Reject(550, "5.1.1 no such user")
DOWN = OSError("database")


class Own(Reject):
    pass


OWN = Own(550, "5.1.1 no such user")
MAIL, RCPT = "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"
BODY = ["DATA", b"x" * 300 + b"\r\n", b"y" * 300 + b"\r\n.\r\n"]


def swallow(self: Handler, message: Any, body: Any) -> None:
    """Reads on and on, whatever is raised."""
    for _ in range(50):
        try:
            body.read1()
        except Reject:
            pass


Served = Callable[[], FakeWire]


class BreakingWire(FakeWire):
    """At the end of its script it raises a new `fault`."""

    def __init__(self, script: Any, fault: type[BaseException]) -> None:
        super().__init__(to_chunks(script))
        self._fault = fault

    def _receive(self) -> None:
        if not self._script:
            raise self._fault
        super()._receive()


def serve(script: Any, handler: type[Handler], fault: type[BaseException] = EOFError, **rules: Any) -> FakeWire:
    """As tests.fakes.talk, which keeps the fault for its tests to see, with all that it holds."""
    wire = BreakingWire(script, fault)
    session = Session("s1", Endpoint("192.0.2.1", 4000), lambda: Endpoint("192.0.2.2", 25), "smtp://:25", "mx.test")
    dialogue = Dialogue(wire, session, make_rules(Hooks.of_class(handler), **rules), Silent())
    if "tls" in rules.get("hostname", ""):
        session.tls = FakeTLS(peer_certificate={"subject": ()}, bindings={BINDING: b"x"})
    with contextlib.suppress(EOFError, OSError):
        dialogue.run()
    return wire


class Silent:
    """A journal that says nothing."""

    def commands(self, verbs: Any) -> Any:
        return verbs

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def converse(*lines: Any, fault: type[BaseException] = EOFError, **acts: Any) -> Served:
    handler = recording(**acts)

    def session() -> FakeWire:
        wire = serve(["EHLO c.test", *lines], handler, fault, max_message_size=200, spool_threshold=100)
        handler.events.clear()
        return wire

    return session


def auth(seed: int) -> Served:
    chance = Random(seed)

    class All(Handler):
        def password(self, username: str) -> str | None:
            return "secret" if username == "bob" else None

        def token(self, username: str, token: str) -> bool:
            return False

        def certificate(self, certificate: Any) -> None:
            return None

    def session() -> FakeWire:
        lines: list[bytes] = []
        for mechanism in MECHANISMS:
            lines += exchanges(chance, mechanism)
        long = b"AUTH SCRAM-SHA-256 " + b"biwsbj0" + b"eHh4" * 2000 + b"\r\n"
        return serve([b"EHLO c.test\r\n", *lines, long], All, hostname="tls.test", max_auth_failures=0, max_errors=0)

    return session


SESSIONS: dict[str, Served] = {
    "AUTH of every mechanism": auth(1),
    "a refusal that a handler shares": converse(MAIL, *[RCPT] * 20, rcpt=NO_USER, message=None),
    "a refusal of its own class that a handler shares": converse(MAIL, *[RCPT] * 20, rcpt=OWN, message=None),
    "an error that a handler shares": converse(MAIL, *[RCPT] * 20, rcpt=DOWN, message=None),
    "a body too large": converse(MAIL, RCPT, *BODY, message=None),
    "a stream too large": converse(MAIL, RCPT, *BODY, stream=swallow),
    "a stream that breaks": converse(MAIL, RCPT, "DATA", b"x" * 90, stream=swallow, fault=ConnectionResetError),
    "a stream that times out": converse(MAIL, RCPT, "DATA", b"x" * 90, stream=swallow, fault=TimeoutError),
    "a stream of chunks given up": converse(MAIL, RCPT, b"BDAT 3\r\nabc", "RSET", stream=swallow),
    "a chunk too large": converse(MAIL, RCPT, b"BDAT 300 LAST\r\n" + b"x" * 300, stream=swallow),
    "a bare newline": converse(MAIL, RCPT, "DATA", b"a\nb\r\n.\r\n", stream=swallow, message=None),
    "a disk that is full": converse(MAIL, RCPT, "DATA", b"x" * 150 + b"\r\n.\r\n", stream=swallow, message=None),
    "a drain": converse(MAIL, "RSET", fault=InterruptedError),
}


@pytest.fixture(autouse=True)
def no_room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "a disk that is full" in request.node.name:
        def full(**_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("preforksmtp.smtp.body.tempfile.TemporaryFile", full)


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_a_session_that_is_over_is_gone(session: Served) -> None:
    """At once: nothing that refers to itself waits for the collector."""
    session()
    gc.collect()
    gc.disable()
    try:
        wire = weakref.ref(session())
        assert wire() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_memory_is_flat(session: Served) -> None:
    for _ in range(30):
        session()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(5):
            session()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            session()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000, f"{grown} octets of a hundred sessions are left"
