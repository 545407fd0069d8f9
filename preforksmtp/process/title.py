"""The name of a process as ps, top and pgrep show it (/proc/self/comm).

Linux only: elsewhere, and where /proc is not mounted, nothing happens and nothing fails.
"""

from __future__ import annotations

import contextlib

LONGEST = 15  # bytes; the kernel cuts the rest


def set_title(name: str, role: str) -> None:
    """ "mx" and "master" -> "mx: master"; a long name keeps the first letter of the role."""
    for title in (f"{name}: {role}", f"{name} {role[0]}", f"{_cut(name, LONGEST - 2)} {role[0]}"):
        if len(title.encode()) <= LONGEST:
            break
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(title.encode())


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode("utf-8", "ignore")
