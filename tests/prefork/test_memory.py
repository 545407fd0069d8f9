"""prefork/memory.py: who can write where, after the fork and after every attempt to get it back."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import mmap
import os
import sys
from collections.abc import Callable

import pytest

from preforksmtp.prefork import memory as module
from preforksmtp.prefork.memory import Memory, restrict
from preforksmtp.prefork.scoreboard import Scoreboard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every child writes where it likes")

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
libc.mremap.restype = ctypes.c_void_p


def in_child(work: Callable[[], bool]) -> int:
    """Its exit code, 0 for True; -N for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 99
        faulthandler.disable()  # pytest's
        try:
            code = int(not work())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_all_is_zero_and_sections_do_not_overlap() -> None:
    memory = Memory(5, 3, 1000)
    parts = [memory.own, *memory.sections]
    assert [len(part) for part in parts] == [5, 1000, 1000, 1000]
    assert not any(word for part in parts for word in part)
    for number, part in enumerate(parts, 1):
        part[:] = memoryview(bytes([number]) * part.nbytes).cast("Q")
    for number, part in enumerate(parts, 1):
        assert bytes(part) == bytes([number]) * part.nbytes
    assert memory.column(0).tolist() == [memory.sections[n][0] for n in range(3)]
    memory.clear(1)
    assert [any(part) for part in parts] == [True, True, False, True]
    assert memory.isolates


@pytest.mark.parametrize("part", ["own", 0, 1, 2])
def test_a_child_writes_to_its_section_and_dies_of_any_other(part: str | int) -> None:
    memory, other = Memory(5, 3, 1000), Memory(0, 3, 10)

    def write() -> bool:
        restrict((memory,), 1)
        assert other.sections[1][0] == 7
        (memory.own if isinstance(part, str) else memory.sections[part])[0] = 77
        return True

    other.sections[1][0] = 7
    assert in_child(write) == (0 if part == 1 else -11)
    assert memory.sections[1][0] == (77 if part == 1 else 0)
    memory.own[0] = memory.sections[2][0] = 1  # the master writes on as before


def test_what_is_written_later_is_read_by_the_child() -> None:
    memory = Memory(2, 2, 2)
    read, write = os.pipe()

    def wait() -> bool:
        restrict((memory,), 0)
        os.write(write, b"x")
        while not memory.own[1]:
            pass
        return memory.sections[1][1] == 8

    pid = os.fork()
    if pid == 0:
        os._exit(int(not wait()))
    os.read(read, 1)
    memory.sections[1][1] = 8
    memory.own[1] = 1
    assert os.waitpid(pid, 0)[1] == 0
    os.close(read)
    os.close(write)


def test_no_way_leads_back() -> None:
    memory = Memory(5, 3, 1000)

    def try_all() -> bool:
        restrict((memory,), 1)
        page = mmap.PAGESIZE
        ways = [libc.mprotect(memory._address + start, size, 3) for n, start, size in memory._files if n != 1]
        assert set(ways) == {-1}
        for name in os.listdir("/proc/self/fd"):
            try:
                assert "memfd" not in os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:
                continue
        number, start, size = memory._files[2]
        assert number == 1
        grown = libc.mremap(memory._address + start, size, size + page, 1)
        ctypes.c_uint64.from_address(grown + size).value = 77  # what lies behind is nobody's
        return True

    assert in_child(try_all) == -7
    assert not any(memory.sections[2])


def test_a_child_of_a_child_and_one_that_keeps_nothing() -> None:
    memory = Memory(5, 3, 1000)

    def write() -> bool:
        restrict()
        return in_child(lambda: bool(memory.sections[0].__setitem__(0, 1)) or True) == -11

    assert in_child(write) == 0


def test_it_goes_when_nobody_looks_any_more() -> None:
    def mapped() -> int:
        with open("/proc/self/maps") as file:
            return sum("memfd:preforksmtp" in line for line in file)

    gc.collect()
    before, descriptors = mapped(), len(os.listdir("/proc/self/fd"))
    board = Scoreboard(2, 2)
    assert mapped() > before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    del board
    gc.collect()
    assert mapped() == before


def test_without_memfd_it_is_shared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    memory = Memory(5, 3, 1000)
    assert not memory.isolates

    def write() -> bool:
        restrict((memory,), 1)
        memory.sections[1][0] = memory.own[0] = 7
        return True

    assert in_child(write) == 0
    assert (memory.sections[1][0], memory.own[0]) == (7, 7)
    memory.clear(1)
    assert not memory.sections[1][0]


def test_a_failure_half_way_leaves_what_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = module.Memory._back

    def back(self: Memory, start: int, size: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(12, "Cannot allocate memory")
        real(self, start, size)

    monkeypatch.setattr(module.Memory, "_back", back)
    memory = Memory(5, 3, 1000)
    assert not memory.isolates
    assert in_child(lambda: all(part.__setitem__(0, 7) is None for part in (memory.own, *memory.sections))) == 0
    assert [part[0] for part in (memory.own, *memory.sections)] == [7] * 4
