"""SASLprep: user names and passwords as both sides of a SASL exchange compare them (RFC 4013, on RFC 3454).

It looks at each character, and normalization can make eighteen of one; so what it is given is bounded, and what comes
of it as well, before anything is done for every character.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


MOST = 1024  # octets of a name or password before, and characters after it; RFC 4616 section 2 asks for 255 octets


def saslprep(text: str, *, stored: bool = False) -> str:
    """`text` prepared. Raises ValueError for what is prohibited, or too long; `stored` text has no unassigned code
    point."""
    if text.isascii() and text.isprintable():
        return text  # nothing to map
    if len(text) > MOST:
        raise ValueError("too long")
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if len(prepared) > MOST:
        raise ValueError("too long")
    for char in prepared:
        if any(prohibited(char) for prohibited in _PROHIBITED):
            raise ValueError("prohibited character")
        if stored and stringprep.in_table_a1(char):
            raise ValueError("unassigned code point")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """RFC 3454 section 6: a text with right-to-left characters begins and ends with one, and has none of the others."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    if any(map(stringprep.in_table_d2, text)):
        raise ValueError("mixed directions")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("must begin and end in its direction")
