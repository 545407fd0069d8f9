"""The rooms of the package, proven by reading every import of every file.

Each rule is a function of the modules that returns its violations, one line each. It holds for the package, and finds
the violation that is planted for it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "preforksmtp"
LINES, FUNCTION_LINES = 400, 60

# Which rooms of ours each room may import besides itself. "" is the root: what a user names.
MAY_IMPORT: dict[str, set[str]] = {
    "process": set(),  # any process stands on it
    "mime": set(),
    "logs": {"process"},  # how root opens a name where others may write; a callable for it would only hide that
    "smtp": {"mime"},
    "net": {"process"},
    "prefork": set(),
    "prefork/worker": {"prefork"},
    "prefork/master": {"prefork", "prefork/worker"},
    # Facts: the grammar of a bind, names of mechanisms, atoms, syslog's facilities, the number of processors. And what
    # keeps the code of a config file, which runs in root's master, from doing harm there (prefork, process).
    "config": {"", "logs", "net", "prefork", "process", "smtp"},
    "connection": {"config", "logs", "net", "prefork", "prefork/worker", "smtp"},
    "observe": {"prefork", "prefork/master", "prefork/worker", "process"},
    "control": {"config", "logs", "observe", "prefork", "prefork/master", "prefork/worker"},
    "handlers": {"", "handlers/forward"},
    "handlers/forward": {""},
    "adapters": {"", "adapters/aio"},
    "adapters/aio": {"", "adapters"},
    "server": {
        *("", "config", "connection", "control", "logs", "net", "observe"),
        *("prefork", "prefork/master", "prefork/worker", "process", "smtp"),
    },
}
PUBLIC = {"Attachment", "Handler", "Message", "Reject", "Reply", "ScramSecret", "Session", "quote_address"}
PLUGINS = {"preforksmtp.pytest_plugin": {"pytest"}}  # imported by pytest only
OLD_MODULES = {"asyncio", "distutils", "imp", "smtpd", "asyncore", "asynchat"}
SOCKETS = {"socket", "ssl", "select", "selectors", "socketserver", "smtplib"}
PROCESSES = {"subprocess", "multiprocessing", "signal"}
PROCESS_CALLS = {"fork", "forkpty", "kill", "exec", "system", "popen", "waitpid", "pipe", "environ"}


@dataclass(frozen=True)
class Module:
    """One file: its full name, whether it is a package, and its source."""

    name: str
    source: str
    package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def room(self) -> str:
        """The folder it stands in, "" for the root."""
        parts = self.name.split(".")[1:]
        return "/".join(parts if self.package else parts[:-1])

    def imports(self) -> dict[str, int]:
        """The full name of everything it imports, `a.b.c` also for `from a.b import c`, and the line."""
        found: dict[str, int] = {}
        above = self.name.split(".") if self.package else self.name.split(".")[:-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name: node.lineno for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                start = above[: len(above) - node.level + 1] if node.level else []
                base = ".".join([*start, *([node.module] if node.module else [])])
                found |= {f"{base}.{alias.name}": node.lineno for alias in node.names}
        return found


Modules = dict[str, Module]
Rule = Callable[[Modules], list[str]]


def read_package() -> Modules:
    modules = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = ["preforksmtp", *file.relative_to(PACKAGE).with_suffix("").parts]
        package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if package else parts)
        modules[name] = Module(name, file.read_text(), package)
    return modules


def top(name: str) -> str:
    return name.partition(".")[0]


def ours(modules: Modules, module: Module) -> Iterator[tuple[str, str, int]]:
    """Each import of ours: the module it reaches, its full name, and the line."""
    for name, line in module.imports().items():
        if top(name) == "preforksmtp":
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module.name:
                yield target, name, line


# --- the rules


def nothing_but_the_standard_library(modules: Modules) -> list[str]:
    found = []
    for module in modules.values():
        known = sys.stdlib_module_names | {"preforksmtp"} | PLUGINS.get(module.name, set())
        # Coroutines of foreign handlers need a loop; the server itself has none.
        old = OLD_MODULES - {"asyncio"} if module.name == "preforksmtp.adapters.aio.host" else OLD_MODULES
        found += [
            f"{module.name}:{line} imports {name}"
            for name, line in module.imports().items()
            if top(name) not in known or top(name) in old
        ]
    return found


def no_plugin_is_imported(modules: Modules) -> list[str]:
    return [
        f"{module.name}:{line} imports {name}"
        for module in modules.values() for target, name, line in ours(modules, module) if target in PLUGINS
    ]  # fmt: skip


def rooms_import_what_they_may(modules: Modules) -> list[str]:
    found = []
    for module in modules.values():
        if module.room and module.room not in MAY_IMPORT:
            found.append(f"{module.name}: the room {module.room} is not in the table")
            continue
        for target, name, line in ours(modules, module):
            room = modules[target].room
            if module.room and room != module.room and room not in MAY_IMPORT[module.room]:
                found.append(f"{module.name}:{line} imports {name}")
    return found


def handlers_know_the_public_names_only(modules: Modules) -> list[str]:
    return [
        f"{module.name}:{line} imports {name}"
        for module in modules.values() if top(module.room.replace("/", ".")) in ("handlers", "adapters")
        for target, name, line in ours(modules, module)
        if not (target == "preforksmtp" and name.rpartition(".")[2] in PUBLIC)
        and target.split(".")[1:2] != module.name.split(".")[1:2]
    ]  # fmt: skip


def only_the_connection_joins_wire_and_dialogue(modules: Modules) -> list[str]:
    both = {"preforksmtp.net.wire", "preforksmtp.smtp.dialogue"}
    return [
        f"{module.name} joins {' and '.join(sorted(both))}"
        for module in modules.values()
        if module.room != "connection" and both <= {target for target, _, _ in ours(modules, module)}
    ]


def no_import_runs_in_a_circle(modules: Modules) -> list[str]:
    """Imports in functions and under TYPE_CHECKING counted."""
    graph = {name: sorted({target for target, _, _ in ours(modules, module)}) for name, module in modules.items()}
    graph["preforksmtp"] = []  # each module imports its package first in any case
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in graph[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def the_protocol_knows_no_socket_and_no_process(modules: Modules) -> list[str]:
    return _foreign(modules, "smtp", SOCKETS | PROCESSES) + [
        f"{module.name}:{node.lineno} uses os.{node.attr}"
        for module in modules.values() if module.room == "smtp"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        and node.attr in PROCESS_CALLS
    ]  # fmt: skip


def the_network_knows_no_process(modules: Modules) -> list[str]:
    return _foreign(modules, "net", PROCESSES)


def the_configuration_opens_nothing(modules: Modules) -> list[str]:
    """But for the config file itself, which configfile.py reads."""
    return _foreign(modules, "config", SOCKETS | PROCESSES) + [
        f"{module.name}:{node.lineno} opens a file"
        for module in modules.values() if module.room == "config" and module.name != "preforksmtp.config.configfile"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "os.open", "io.open")
    ]  # fmt: skip


def _foreign(modules: Modules, room: str, forbidden: set[str]) -> list[str]:
    return [
        f"{module.name}:{line} imports {name}"
        for module in modules.values() if module.room == room
        for name, line in module.imports().items() if top(name) in forbidden
    ]  # fmt: skip


def imports_are_absolute(modules: Modules) -> list[str]:
    return [
        f"{module.name}:{node.lineno} imports relatively"
        for module in modules.values() for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]  # fmt: skip


def files_and_functions_are_short(modules: Modules) -> list[str]:
    found = []
    for module in modules.values():
        lines = module.source.count("\n")
        if lines > LINES:
            found.append(f"{module.name} has {lines} lines")
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(f"{module.name}:{node.lineno} {node.name} has {length} lines")
    return found


def every_module_opens_with_what_lives_here(modules: Modules) -> list[str]:
    return [module.name for module in modules.values() if not ast.get_docstring(module.tree)]


def citations_have_one_form(modules: Modules) -> list[str]:
    """RFC 5321 section 4.1.2."""
    wrong = re.compile(r"RFC\d|RFC \d+,? (?:§|sec\.|s\. ?\d|\d+\.\d|Section)")
    return [
        f"{module.name}:{number} {line.strip()}"
        for module in modules.values()
        for number, line in enumerate(module.source.splitlines(), 1) if wrong.search(line)
    ]  # fmt: skip


# --- each rule, and the violation it must find

PLANTED: list[tuple[Rule, str, str]] = [
    (nothing_but_the_standard_library, "preforksmtp.net.planted", "import requests"),
    (nothing_but_the_standard_library, "preforksmtp.server.planted", "def f():\n    import asyncio"),
    (no_plugin_is_imported, "preforksmtp.cli", "from preforksmtp import pytest_plugin"),
    (rooms_import_what_they_may, "preforksmtp.smtp.planted", "from preforksmtp.net import wire"),
    (rooms_import_what_they_may, "preforksmtp.net.planted", "from preforksmtp.smtp.reply import Reply"),
    (rooms_import_what_they_may, "preforksmtp.prefork.planted", "from preforksmtp.net.wire import Wire"),
    (rooms_import_what_they_may, "preforksmtp.prefork.worker.planted", "from preforksmtp.prefork.master import child"),
    (rooms_import_what_they_may, "preforksmtp.logs.planted", "from preforksmtp.config import settings"),
    (rooms_import_what_they_may, "preforksmtp.newroom.planted", "import os"),
    (handlers_know_the_public_names_only, "preforksmtp.handlers.planted", "from preforksmtp.smtp.reply import Reply"),
    (handlers_know_the_public_names_only, "preforksmtp.adapters.planted", "from preforksmtp.handlers import maildir"),
    (
        only_the_connection_joins_wire_and_dialogue,
        "preforksmtp.server.planted",
        "from preforksmtp.net.wire import Wire\nfrom preforksmtp.smtp.dialogue import Dialogue",
    ),
    (no_import_runs_in_a_circle, "preforksmtp.smtp.reply", "from preforksmtp.smtp.dialogue import Dialogue"),
    (
        no_import_runs_in_a_circle,
        "preforksmtp.smtp.reply",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from preforksmtp.smtp.dialogue import Dialogue",
    ),
    (
        no_import_runs_in_a_circle,
        "preforksmtp.prefork.master.workforce",
        "def f():\n    from preforksmtp.prefork.master.master import Master",
    ),
    (the_protocol_knows_no_socket_and_no_process, "preforksmtp.smtp.planted", "import socket"),
    (the_protocol_knows_no_socket_and_no_process, "preforksmtp.smtp.planted", "import os\nos.fork()"),
    (the_network_knows_no_process, "preforksmtp.net.planted", "import signal"),
    (the_configuration_opens_nothing, "preforksmtp.config.planted", "open('x')"),
    (the_configuration_opens_nothing, "preforksmtp.config.planted", "import socket"),
    (imports_are_absolute, "preforksmtp.smtp.planted", "from . import reply"),
    (files_and_functions_are_short, "preforksmtp.smtp.planted", "\n" * (LINES + 1)),
    (files_and_functions_are_short, "preforksmtp.smtp.planted", "def f():\n" + "    pass\n" * FUNCTION_LINES),
    (every_module_opens_with_what_lives_here, "preforksmtp.smtp.planted", "import os"),
    (citations_have_one_form, "preforksmtp.smtp.planted", "# RFC 5321 4.5.3"),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in PLANTED))
MODULES = read_package()


def test_this_reads_what_is_there():
    assert len(MODULES) > 100
    assert {module.room for module in MODULES.values()} - {""} == set(MAY_IMPORT)
    assert "preforksmtp.smtp.reply.Reject" in MODULES["preforksmtp.smtp.address"].imports()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule):
    assert rule(MODULES) == []


@pytest.mark.parametrize("rule, name, source", PLANTED, ids=[f"{rule.__name__}-{name}" for rule, name, _ in PLANTED])
def test_a_planted_violation_is_found(rule: Rule, name: str, source: str):
    assert any(name in line for line in rule(MODULES | {name: Module(name, source)}))


def test_the_public_names_are_the_public_names():
    import preforksmtp

    assert set(preforksmtp.__all__) >= PUBLIC
