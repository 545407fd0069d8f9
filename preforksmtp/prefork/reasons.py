"""Why a worker asks to be replaced: what `retire` of its slot says, and the master reads."""

from __future__ import annotations

# What `retire` of a slot says; the names are the settings that were reached.
REASONS = ("", "max_sessions", "max_worker_memory", "max_worker_age", "handler_timeout")
SESSIONS, MEMORY, AGE, STUCK = range(1, 5)
