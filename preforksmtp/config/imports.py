"""What a config file and its hooks import in the master is forgotten there afterwards.

A worker inherits the modules of its master. A module of the user's that the config file happened to import would be old
code in every worker to come, however often the server is reloaded. So modules that come in while such code runs are
taken out of sys.modules again: who imported them keeps them, and a worker imports them afresh. The standard library
stays, and so does a package with extension modules, many of which cannot be loaded twice.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
from collections.abc import Iterator

_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)


@contextlib.contextmanager
def forgetting_imports() -> Iterator[None]:
    """Whatever the body imports is forgotten at its end."""
    before = set(sys.modules)
    try:
        yield
    finally:
        new = set(sys.modules) - before
        tops = {name.partition(".")[0] for name in new} - sys.stdlib_module_names - {"preforksmtp"}
        fixed = {name.partition(".")[0] for name in new if _is_extension(name)}
        for name in new:
            if name.partition(".")[0] in tops - fixed:
                del sys.modules[name]


def _is_extension(name: str) -> bool:
    return str(getattr(sys.modules.get(name), "__file__", None) or "").endswith(_EXTENSIONS)
