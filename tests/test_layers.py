"""The rooms of the package, proven by reading the imports of every file: nobody knows what is not his business."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "preforksmtp"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("mime", "smtp", "net", "prefork", "handlers", "adapters", "observe")

COMMON = "preforksmtp.process.place"  # what any room may know: how root reaches a name. It knows the standard library only

PLUGINS = {"preforksmtp.pytest_plugin": {"pytest"}}  # imported by pytest only


def name_of(file: Path) -> str:
    parts = ["preforksmtp", *file.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(file: Path) -> str:
    return name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]


def imports(file: Path, at_the_top: bool = False) -> set[str]:
    """The full name of everything it imports, `a.b.c` also for `from a.b import c`.

    `at_the_top`: only what is imported when the module is, not in functions and not under TYPE_CHECKING.
    """
    tree = ast.parse(file.read_text())
    found = set()
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = package_of(file).split(".")
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def top(name: str) -> str:
    return name.partition(".")[0]


def own(file: Path) -> set[str]:
    return {name for name in imports(file) if top(name) == "preforksmtp"}


def room(name: str) -> str:
    """The room of a module of ours; "" is the root."""
    second = name.split(".")[1:2]
    return second[0] if second and second[0] in ROOMS else ""


def files_of(wanted: str) -> list[Path]:
    return [file for file in FILES if room(name_of(file)) == wanted and name_of(file).count(".") >= bool(wanted)]


def test_this_reads_what_is_there():
    assert len(FILES) > 40
    assert {room(name_of(file)) for file in FILES} >= {"", "mime", "smtp", "net", "prefork", "handlers", "adapters"}
    assert "preforksmtp.smtp.reply" in own(PACKAGE / "smtp" / "mail.py")
    assert "preforksmtp.smtp.address.is_domain" in own(PACKAGE / "smtp" / "xclient.py")
    assert "preforksmtp.net.wire.Wire" in own(PACKAGE / "service.py")
    assert "socket" in imports(PACKAGE / "net" / "wire.py")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_but_the_standard_library(file):
    known = sys.stdlib_module_names | {"preforksmtp"} | PLUGINS.get(name_of(file), set())
    foreign = {name for name in imports(file) if top(name) not in known}
    assert foreign == set()
    forbidden = {"asyncio", "distutils", "imp", "smtpd", "asyncore", "asynchat"}
    if name_of(file) == "preforksmtp.adapters.aio.host":
        forbidden.remove("asyncio")  # coroutines of foreign handlers need a loop; the server itself has none
    assert not {top(name) for name in imports(file)} & forbidden


@pytest.mark.parametrize(
    "file", [file for name in ("mime", "smtp", "net", "prefork") for file in files_of(name)], ids=name_of
)
def test_a_room_knows_only_itself(file):
    mine = room(name_of(file))
    allowed = {mine, "mime"} if name_of(file) == "preforksmtp.smtp.message" else {mine}
    assert {name for name in own(file) if room(name) not in allowed and not name.startswith(COMMON)} == set()


def test_what_all_rooms_may_know_knows_none_of_them():
    assert own(PACKAGE / "place.py") == set()


@pytest.mark.parametrize("file", [*files_of("mime"), *files_of("smtp")], ids=name_of)
def test_the_protocol_room_knows_no_socket_and_no_process(file):
    forbidden = {
        "socket",
        "ssl",
        "select",
        "selectors",
        "socketserver",
        "subprocess",
        "multiprocessing",
        "signal",
        "smtplib",
    }
    assert not {top(name) for name in imports(file)} & forbidden
    used = {
        node.attr for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }  # fmt: skip
    assert not used & {"fork", "forkpty", "kill", "exec", "system", "popen", "waitpid", "pipe", "environ"}


@pytest.mark.parametrize("file", files_of("net"), ids=name_of)
def test_the_network_room_knows_no_process(file):
    assert not {top(name) for name in imports(file)} & {"signal", "subprocess", "multiprocessing"}


@pytest.mark.parametrize("file", [file for name in ("handlers", "adapters") for file in files_of(name)], ids=name_of)
def test_handlers_know_the_public_names_only(file):
    import preforksmtp

    allowed = {f"preforksmtp.{name}" for name in preforksmtp.__all__}
    assert {name for name in own(file) if name not in allowed and not name.startswith(f"{package_of(file)}.")} == set()


def test_no_plugin_is_imported_by_us():
    assert not {name for file in FILES for name in own(file) if any(name.startswith(plugin) for plugin in PLUGINS)}


def test_only_the_service_joins_protocol_and_network():
    """Others in the root may know one room, or names of both for settings and checks; not a wire and a dialogue."""
    joining = {
        name_of(file) for file in files_of("")
        if {"preforksmtp.net.wire.Wire", "preforksmtp.smtp.dialogue.Dialogue"} <= own(file)
    }  # fmt: skip
    assert joining == {"preforksmtp.connection.service"}


def test_no_import_runs_in_a_circle():
    graph = {name_of(file): set() for file in FILES}
    for file in FILES:
        for name in imports(file, at_the_top=True):
            target = name if name in graph else name.rpartition(".")[0]
            if target in graph and target != name_of(file):
                graph[name_of(file)].add(target)
    graph["preforksmtp"] = set()  # its public names; each module imports its package first in any case
    done: set[str] = set()
    for start in graph:
        _visit(start, graph, [], done)


def _visit(name: str, graph: dict[str, set[str]], path: list[str], done: set[str]) -> None:
    assert name not in path, " -> ".join([*path[path.index(name) :], name]) if name in path else ""
    if name in done:
        return
    for target in sorted(graph[name]):
        _visit(target, graph, [*path, name], done)
    done.add(name)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_opens_with_what_lives_here(file):
    assert ast.get_docstring(ast.parse(file.read_text()))
