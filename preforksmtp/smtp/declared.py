"""Extensions of the mail's envelope that a handler declares, because only it can honour them (Handler.extensions)."""

from __future__ import annotations

from typing import Any

# What a handler may declare in `Handler.extensions`, and the default of what stands behind the keyword.
DECLARED = {
    "MT-PRIORITY": "",
    "DELIVERBY": "",  # or the least seconds
    "FUTURERELEASE": "604800",  # the most seconds
    "RRVS": "",
    "PRDR": "",
}


def read_declared(extensions: Any) -> dict[str, str]:
    """`Handler.extensions`: names, or a mapping of names to values. Raises ValueError for a name not in DECLARED."""
    values = dict(extensions) if hasattr(extensions, "keys") else dict.fromkeys(extensions)
    read = {}
    for name, value in values.items():
        keyword = str(name).upper()
        if keyword not in DECLARED:
            raise ValueError(f"extensions: {name!r} is none of {', '.join(DECLARED)}")
        if value is not None and not str(value).isdigit() and keyword != "MT-PRIORITY":
            raise ValueError(f"extensions: {name} takes a number of seconds, not {value!r}")
        read[keyword] = DECLARED[keyword] if value is None else str(value)
    return read
