"""Confinement: a worker whose privileges are dropped signals its own process and what it starts, and nobody else.

All workers run as one user, so one that was taken over could kill its siblings, the status process, and the first
worker of each reload, again and again. Landlock (landlock(7), Linux 6.12) takes that away for good, from this thread
and those that it starts. It needs no_new_privileges. A second wall: where there is none we do without.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # system calls, the same on all architectures that matter
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_SCOPES_SIGNALS = 6  # the first version that does
_RULESET = (ctypes.c_uint64 * 3)(0, 0, 1 << 1)  # no rights on files, none on ports; LANDLOCK_SCOPE_SIGNAL


def confine_signals() -> bool:
    """Worker, main thread, once no_new_privileges is set. Does it hold?"""
    if sys.platform != "linux":
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    if call(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION) < _SCOPES_SIGNALS:
        return False
    ruleset = call(_CREATE_RULESET, ctypes.byref(_RULESET), ctypes.c_size_t(ctypes.sizeof(_RULESET)), 0)
    if ruleset < 0:
        return False
    try:
        return bool(call(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)
