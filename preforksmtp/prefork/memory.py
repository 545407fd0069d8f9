"""Shared memory: a part that only the master writes, and sections of which each child writes one, at most.

The master makes it before the fork. A child calls `restrict` before it runs any code that is not ours, and from then on
it can read all of this memory and write to its own section alone: the writable mapping of everything else is gone, and
in its place, at the same address, is one of a descriptor that was opened for reading. A worker that has been taken over
has no way back: mprotect(2) is refused for such a mapping, no descriptor is left that /proc/self/fd could open again,
and since each section is a file of its own, mremap(2) cannot make its section grow into the next one.

Linux, with memfd_create and /proc; elsewhere the memory is anonymous and every child writes where it likes. So nobody
trusts what stands in a section: see scoreboard.py. OSError where there is no memory.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import weakref
from collections.abc import Iterable
from typing import Any

_WORD = 8
_MAP_FIXED = 0x10
_MOVE_TO = 1 | 2  # MREMAP_MAYMOVE, MREMAP_FIXED
_SEALS = 1 | 2 | 4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW: nobody cuts it off under the master
_FAILED = ctypes.c_void_p(-1).value

_every: weakref.WeakSet[Memory] = weakref.WeakSet()  # in this process


class Memory:
    """`own` words of the master's, and `sections` of `size` words each. All zero at first. Sections begin on pages."""

    def __init__(self, own: int, sections: int, size: int) -> None:
        self._first, self._width = _whole_pages(own * _WORD), _whole_pages(size * _WORD)
        length = self._first + sections * self._width
        self._map = mmap.mmap(-1, length)  # shared and anonymous, until a file is mapped in its place
        self._read_only = mmap.mmap(-1, length)  # as a child shall see it
        starts = range(self._first, length, self._width) if sections else ()
        # One file each: section, beginning, length. The first is the master's own.
        self._files = [(-1, 0, self._first)] if self._first else []
        self._files += [(number, start, self._width) for number, start in enumerate(starts)]
        words = memoryview(self._map).cast("Q")
        self.own = words[:own]
        self.sections = [words[start // _WORD : start // _WORD + size] for start in starts]
        self._rest = words[self._first // _WORD :]
        self._address, self._there = _address(self._map), _address(self._read_only)
        self.isolates = True
        try:
            for _, first_octet, octets in self._files:
                self._back(first_octet, octets)
        except (OSError, AttributeError):  # not Linux, no /proc, forbidden
            self.isolates = False
        _every.add(self)

    def column(self, word: int) -> memoryview:
        """This word of each section, to be read at once."""
        return self._rest[word :: self._width // _WORD]

    def clear(self, section: int) -> None:
        """Master: all zero again, at the cost of what was used."""
        start = self._first + section * self._width
        try:
            self._map.madvise(mmap.MADV_REMOVE, start, self._width)
        except (OSError, AttributeError):  # not Linux
            self._map[start : start + self._width] = bytes(self._width)

    def _back(self, start: int, size: int) -> None:
        """Have a file without a name behind these octets."""
        write = os.memfd_create("preforksmtp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.fchmod(write, 0o600)  # or anybody could open it for writing by /proc/self/fd
            os.ftruncate(write, size)
            read = os.open(f"/proc/self/fd/{write}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _call(_mmap, self._there + start, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, read, 0)
            finally:
                os.close(read)
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            _call(_mmap, self._address + start, size, protection, mmap.MAP_SHARED | _MAP_FIXED, write, 0)
            fcntl.fcntl(write, fcntl.F_ADD_SEALS, _SEALS)
        finally:
            os.close(write)

    def _restrict(self, kept: int) -> None:
        """Child, once: put the read-only mappings in the place of all but this section."""
        for number, start, size in self._files:
            if number < 0 or number != kept:
                _call(_mremap, self._there + start, size, size, _MOVE_TO, self._address + start)
        self.isolates = False  # from here on there is nothing more to take away


def restrict(writes: Iterable[Memory] = (), section: int = 0) -> None:
    """Child: from here on write to this section of these, and to nothing else that the master shares. OSError: out of
    memory; the child must end."""
    kept = list(writes)
    for memory in list(_every):
        if memory.isolates:
            memory._restrict(section if memory in kept else -1)


def _whole_pages(octets: int) -> int:
    return (octets + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


_library = ctypes.CDLL(None, use_errno=True)
_mmap = _library.mmap
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_mmap.restype = ctypes.c_void_p
_mremap = getattr(_library, "mremap", None)  # where there is none there is no memfd_create either
if _mremap is not None:
    _mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    _mremap.restype = ctypes.c_void_p


def _call(function: Any, *arguments: int) -> None:
    if function(*arguments) == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
