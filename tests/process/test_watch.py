"""What a watch over files tells of, and when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preforksmtp.process.watch import FileWatch, mark


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("1")
    return tmp_path


def watch_of(*paths: str) -> FileWatch:
    watch = FileWatch()
    for path in paths:
        watch.add(path, mark(path))
    assert watch.changed() == watch.changed() == []
    return watch


def test_a_change_is_told_once_and_when_it_has_rested(folder: Path) -> None:
    watch = watch_of("a")
    (folder / "a").write_text("12")
    assert watch.changed() == []
    (folder / "a").write_text("123")
    assert watch.changed() == []
    assert watch.changed() == ["a"]
    assert watch.changed() == []


def test_a_change_between_its_use_and_the_first_look(folder: Path) -> None:
    watch = FileWatch()
    used = mark("a")
    (folder / "a").write_text("12")
    watch.add("a", used)
    assert [watch.changed(), watch.changed()] == [[], ["a"]]


def test_what_is_watched_already_keeps_its_mark(folder: Path) -> None:
    watch = watch_of("a")
    (folder / "a").write_text("12")
    watch.add("a", mark("a"))
    assert [watch.changed(), watch.changed()] == [[], ["a"]]


def test_replaced_removed_and_back(folder: Path) -> None:
    watch = watch_of("a")
    (folder / "b").write_text("1")
    os.utime("b", ns=(os.stat("a").st_atime_ns, os.stat("a").st_mtime_ns))
    os.replace("b", "a")
    assert [watch.changed(), watch.changed()] == [[], ["a"]]
    os.unlink("a")
    assert [watch.changed(), watch.changed()] == [[], ["a"]]
    (folder / "a").write_text("1")
    assert [watch.changed(), watch.changed()] == [[], ["a"]]


def test_patterns_tell_of_new_files(folder: Path) -> None:
    (folder / "sub").mkdir()
    watch = watch_of()
    watch.add_patterns(["**/*.txt", "a"])
    assert watch.changed() == watch.changed() == []
    (folder / "sub" / "b.txt").write_text("")
    (folder / "sub" / "b.py").write_text("")
    (folder / "sub" / "folder.txt").mkdir()
    assert [watch.changed(), watch.changed()] == [[], ["sub/b.txt"]]
    watch.add_patterns(["**/*.txt"])
    os.unlink("sub/b.txt")
    assert [watch.changed(), watch.changed()] == [[], ["sub/b.txt"]]


def test_a_name_that_no_file_can_have(folder: Path) -> None:
    assert mark("a\0b") == ()
    assert list(watch_of("a\0b", "absent")) == ["a\0b", "absent"]
