"""The names of metrics that samples may use: those of the table, and the parts of histograms."""

from __future__ import annotations

import re

from preforksmtp.observe.metrics import FAMILIES, HISTOGRAMS, PREFIX

TABLE = {PREFIX + family.name for family in FAMILIES}
SERVED = {
    *TABLE,
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
