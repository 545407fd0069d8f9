"""place.py: where root goes, and where it does not let itself be led."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from preforksmtp.process import place
from preforksmtp.process.place import Here, check_chosen, named_descriptor, reach, reading, who_decides

BOB = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's rules")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of root's alone, under one of root's alone."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def bobs(root: Path) -> Path:
    folder = root / "bobs"
    folder.mkdir()
    os.chown(folder, BOB, BOB)
    return folder


@pytest.fixture
def sticky(root: Path) -> Path:
    folder = root / "sticky"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    folder, shaky, refused = os.getcwd(), Here.shaky, Here.refused
    yield
    os.chdir(folder)
    Here.shaky, Here.refused = shaky, refused


def give(path: Path, uid: int = BOB) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


def others(path: Path | str, follow: bool = True) -> str:
    with reach(str(path), follow=follow) as found:
        return found.others


def content(path: Path) -> bytes:
    with reading(str(path)) as fd:
        return os.read(fd, 100)


def refusal(path: Path) -> str:
    with pytest.raises(OSError) as error, reading(str(path)):
        pass
    return error.value.strerror or ""


# -- who decides


@needs_root
def test_in_roots_own_folder_links_are_followed(root: Path) -> None:
    (root / "real").mkdir()
    (root / "real" / "file").write_text("x")
    (root / "folder").symlink_to("real")
    (root / "absolute").symlink_to(root / "folder" / "file")
    for path in (root / "folder" / "file", root / "absolute", root / "real" / ".." / "folder" / "." / "file"):
        assert others(path) == ""
        assert content(path) == b"x"


@needs_root
def test_a_name_that_nothing_has_yet(root: Path) -> None:
    with reach(str(root / "new")) as found:
        assert (found.others, found.inode()) == ("", None)
        os.close(found.open(os.O_WRONLY | os.O_CREAT))
        assert found.inode() is not None
    with pytest.raises(FileNotFoundError):
        reach(str(root / "no" / "new"))


@needs_root
@pytest.mark.parametrize(
    ("uid", "gid", "mode", "line"),
    [
        (BOB, 0, 0o755, "belongs to uid 65534"),
        (0, 0, 0o777, "anybody may write to"),
        (0, BOB, 0o775, "group 65534 may write to"),
        (0, 0, 0o775, ""),
        (0, BOB, 0o755, ""),
        (0, 0, 0o1777, "anybody may write to"),
    ],
)
def test_who_may_put_something_there(root: Path, uid: int, gid: int, mode: int, line: str) -> None:
    folder = root / "folder"
    folder.mkdir()
    os.chown(folder, uid, gid)
    folder.chmod(mode)
    assert (line in others(folder / "new")) if line else others(folder / "new") == ""
    assert (line in who_decides(str(folder))) if line else who_decides(str(folder)) == ""
    (folder / "inner").mkdir()
    with reach(str(folder / "inner" / "new")) as found:
        expected = "" if mode & stat.S_ISVTX else line
        assert (expected in found.shaky) if expected else found.shaky == ""


@needs_root
def test_users_trusted_like_root(bobs: Path) -> None:
    with reach(str(bobs / "x"), also=(BOB,)) as found:
        assert found.others == ""
    assert who_decides(str(bobs), also=(BOB,)) == ""


@needs_root
def test_in_a_sticky_folder_only_roots_own_is_settled(sticky: Path, root: Path) -> None:
    (sticky / "mine").write_text("x")
    (sticky / "bobs").write_text("x")
    give(sticky / "bobs")
    os.link(sticky / "mine", root / "another name")
    (sticky / "single").write_text("x")
    assert "anybody may write" in others(sticky / "mine")  # it has two names: anybody may have given it this one
    assert others(sticky / "single") == ""
    assert "anybody may write" in others(sticky / "bobs")
    (root / "real").mkdir()
    (sticky / "link").symlink_to(root / "real")  # as Kubernetes mounts a secret
    assert others(sticky / "link" / "new") == ""


# -- links


@needs_root
@pytest.mark.parametrize("where", ["bobs", "sticky", "anybody's"])
def test_a_link_that_somebody_else_may_have_put_is_not_followed(
    root: Path, bobs: Path, sticky: Path, where: str
) -> None:
    anybodys = root / "anybody's"
    anybodys.mkdir()
    anybodys.chmod(0o777)
    folder = {"bobs": bobs, "sticky": sticky, "anybody's": anybodys}[where]
    (root / "secret").mkdir()
    (root / "secret" / "file").write_text("x")
    give_link = folder / "link"
    give_link.symlink_to(root / "secret")
    give(give_link)
    with pytest.raises(OSError, match="is a symbolic link, and .*: remove it, or use a folder"):
        reach(str(give_link / "file"))
    (folder / "direct").symlink_to(root / "secret" / "file")
    give(folder / "direct")
    with pytest.raises(OSError, match="is a symbolic link, and "):
        reach(str(folder / "direct"), follow=True)
    with reach(str(folder / "direct")) as found, pytest.raises(OSError, match="is a symbolic link"):
        found.open(os.O_WRONLY)


@needs_root
def test_nor_one_of_roots_behind_a_folder_that_may_be_another_one(root: Path, bobs: Path) -> None:
    (bobs / "roots").mkdir()
    (bobs / "roots" / "link").symlink_to(root)
    with pytest.raises(OSError, match="is a symbolic link, and .*/bobs belongs to uid"):
        reach(str(bobs / "roots" / "link" / "x"))


@needs_root
def test_links_in_a_circle(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        reach(str(root / "a"), follow=True)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Too many levels"):
        reach(str(root / "a" / "x"))
    assert len(os.listdir("/proc/self/fd")) == descriptors


# -- reading


@needs_root
def test_what_root_reads_in_a_folder_of_somebody_elses(root: Path, bobs: Path) -> None:
    (bobs / "roots").write_text("x")
    (bobs / "bobs").write_text("x")
    (bobs / "carols").write_text("x")
    (root / "secret").write_text("x")
    os.link(root / "secret", bobs / "hard")
    give(bobs / "bobs")
    give(bobs / "carols", 4242)
    os.mkfifo(bobs / "fifo")
    assert content(bobs / "roots") == content(bobs / "bobs") == b"x"
    assert "belongs to uid 4242, and" in refusal(bobs / "carols")
    assert "hard links" in refusal(bobs / "hard")
    assert "no regular file" in refusal(bobs / "fifo")
    assert "Is a directory" in refusal(bobs / ".")


@needs_root
def test_a_hard_link_in_roots_own_folder_is_roots_affair(root: Path) -> None:
    (root / "one").write_text("x")
    os.link(root / "one", root / "two")
    assert content(root / "two") == b"x"


@needs_root
def test_check_chosen_of_a_folder_of_nobody_elses(root: Path) -> None:
    (root / "x").write_text("x")
    with reach(str(root / "x")) as found:
        check_chosen(found, give(root / "x").stat())  # root put it there, whosever it is


# -- what is done to a name


@needs_root
def test_change_mode_never_goes_through_a_link(root: Path) -> None:
    (root / "file").write_text("x")
    (root / "secret").write_text("x")
    (root / "secret").chmod(0o600)
    with reach(str(root / "file")) as found:
        inode = found.inode()
        assert inode is not None
        found.change_mode(0o640, inode)
        assert stat.S_IMODE((root / "file").stat().st_mode) == 0o640
        (root / "file").unlink()
        (root / "file").symlink_to("secret")
        with pytest.raises(OSError, match="another file has its name"):
            found.change_mode(0o666, inode)
    assert stat.S_IMODE((root / "secret").stat().st_mode) == 0o600


def test_remove_and_rename(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with reach(str(tmp_path / "a")) as found:
        found.rename("b")
        assert [path.name for path in tmp_path.iterdir()] == ["b"]
    with reach(str(tmp_path / "b")) as found:
        found.remove((0, 0))
        assert (tmp_path / "b").exists()
        found.remove(found.inode())
        assert not (tmp_path / "b").exists()


@needs_root
def test_the_folder_stays_the_one_that_was_reached(root: Path, bobs: Path) -> None:
    (bobs / "logs").mkdir()
    give(bobs / "logs")
    (root / "secret").mkdir()
    with reach(str(bobs / "logs" / "new")) as found:
        (bobs / "logs").rename(bobs / "away")
        (bobs / "logs").symlink_to(root / "secret")
        os.close(found.open(os.O_WRONLY | os.O_CREAT))
        assert found.address == f"/proc/self/fd/{found.folder}/new"
    assert os.listdir(root / "secret") == []
    assert os.listdir(bobs / "away") == ["new"]


# -- the current folder


@needs_root
def test_a_name_that_starts_from_a_folder_of_somebody_elses_choice(root: Path, bobs: Path) -> None:
    (bobs / "real").mkdir()
    place.change_folder(str(bobs / "real"))
    with reach("new") as found:  # root's own folder, but bob may rename it
        assert "belongs to uid" in found.shaky
    (bobs / "link").symlink_to(root)
    place.change_folder(str(bobs / "link"))
    assert os.getcwd() == str(root)
    with pytest.raises(OSError, match="is a symbolic link, and"):
        reach("new")
    assert others(root / "new") == ""
    place.change_folder(str(root))
    assert others("new") == ""
    place.change_folder("bobs")
    assert "the current folder belongs to uid" in others("new")
    with pytest.raises(FileNotFoundError):
        place.change_folder("nowhere")


# -- descriptors by name


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/dev/stdout", 1),
        ("/dev/stderr", 2),
        ("/dev/fd/63", 63),
        ("/proc/self/fd/7", 7),
        ("/dev/null", None),
        ("/proc/1/fd/7", None),
        ("/dev/fd/x", None),
        ("stdout", None),
    ],
)
def test_descriptors_by_name(path: str, number: int | None) -> None:
    assert named_descriptor(path) == number
    if number is not None:
        with reach(path) as found:
            assert found.descriptor == number


def test_a_link_to_standard_output(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/stdout")  # as images of containers have it
    with reach(str(tmp_path / "log"), follow=True) as found:
        assert found.descriptor == 1


# -- anybody but root


def test_anybody_but_root_goes_by_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    with reach(str(tmp_path / "link"), follow=True) as found:
        assert (found.folder, found.others) == (None, "")
        os.close(found.open(os.O_RDONLY))
        found.rename("other")
    assert (tmp_path / "other").is_symlink()
    assert who_decides(tempfile.gettempdir()) == ""
