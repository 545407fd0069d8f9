"""The names of metrics that samples may use: those of the table, and those that are agreed on and come with it soon."""

from __future__ import annotations

import re

from preforksmtp.observe.metrics import FAMILIES, PREFIX

# ---- TO COME: delete this table, and its use below, once FAMILIES has all of it (its test says when). ----
TO_COME = (
    "accepted_total", "refused_total", "limits_total", "auth_mechanism_total", "tls_version_total", "tls_failures_total",
    "timeouts_by_limit_total", "handler_errors_total", "handler_deferred_total", "sessions_ended_total",
    "wire_bytes_total", "spool_files", "worker_open_fds", "log_lines_lost_total",
    "certificate_expires_timestamp_seconds", "accept_queue_length", "accept_queue_overflows_total",
    "last_reload_successful", "last_reload_timestamp_seconds", "worker_restarts_total", "saturated",
    "application_healthy", "free_bytes",
)  # fmt: skip
# ---- end of TO COME ----

HISTOGRAMS = ("handler_seconds", "hook_seconds")  # in no row of FAMILIES
TABLE = {PREFIX + family.name for family in FAMILIES}
SERVED = {
    *TABLE,
    *(PREFIX + name for name in TO_COME),
    *(f"{PREFIX}{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")),
}

_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_MATCHERS = re.compile(r"\{[^}]*\}")
_DURATION = re.compile(r"\[[^]]*\]|\boffset\s+\w+")
_NAME = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")
_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "bool"}


def names(expression: str) -> set[str]:
    """The series that a PromQL expression asks for, whatever they are called."""
    for part in (_STRING, _GROUPING, _MATCHERS, _DURATION):
        expression = part.sub(" ", expression)
    return set(_NAME.findall(expression)) - _WORDS
