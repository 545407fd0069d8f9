"""What a config file imports is forgotten, except what cannot be loaded twice."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforksmtp.config.imports import forgetting_imports


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("forgettable")]:
        del sys.modules[name]


def test_a_module_and_a_package_are_forgotten(folder: Path) -> None:
    (folder / "forgettable").mkdir()
    (folder / "forgettable" / "__init__.py").write_text("from . import part\n")
    (folder / "forgettable" / "part.py").write_text("VALUE = 1\n")
    with forgetting_imports():
        module = importlib.import_module("forgettable")
    assert not [name for name in sys.modules if name.startswith("forgettable")]
    assert module.part.VALUE == 1  # who imported it keeps it


def test_even_when_the_body_fails(folder: Path) -> None:
    (folder / "forgettable.py").write_text("")
    with pytest.raises(ZeroDivisionError), forgetting_imports():
        importlib.import_module("forgettable")
        raise ZeroDivisionError
    assert "forgettable" not in sys.modules


def test_what_was_there_before_stays(folder: Path) -> None:
    (folder / "forgettable.py").write_text("")
    importlib.import_module("forgettable")
    with forgetting_imports():
        importlib.import_module("forgettable")
    assert "forgettable" in sys.modules


def test_the_standard_library_stays(folder: Path) -> None:
    sys.modules.pop("colorsys", None)
    with forgetting_imports():
        importlib.import_module("colorsys")
    assert "colorsys" in sys.modules


def test_a_package_with_extension_modules_stays(folder: Path) -> None:
    (folder / "forgettable").mkdir()
    (folder / "forgettable" / "__init__.py").write_text("")
    (folder / "forgettable" / "fast.py").write_text("")
    with forgetting_imports():
        importlib.import_module("forgettable.fast").__file__ = f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    assert {"forgettable", "forgettable.fast"} <= sys.modules.keys()
