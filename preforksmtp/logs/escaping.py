r"""How what a client chose is written into a line, so that it can neither begin a line nor shift or forge a field: in
"quotes", in <angle brackets>, or bare, where a space would end it. \x0d, \u2028 and the like are as Python writes them.
"""

from __future__ import annotations

from functools import lru_cache


def escape(text: str) -> str:
    r"""Text that prints on one line: control and invisible characters as \x0d, \u2028 ..."""
    if text.isprintable():
        return text
    text = text.translate(_CONTROLS)
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else escape_character(char) for char in text])


@lru_cache(256)
def escape_character(char: str) -> str:
    r"""One character as Python would write it: \x0d, \u2028, \U000e0001."""
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_CONTROLS = {code: escape_character(chr(code)) for code in (*range(0x20), *range(0x7F, 0xA0))}  # nearly all that come


def in_quotes(text: str) -> str:
    """Text that stands between two "."""
    return escape(text.replace("\\", "\\\\").replace('"', '\\"'))


def in_brackets(text: str) -> str:
    """Text that stands between < and >."""
    return _without(text, ' "<>\\')


@lru_cache(256)
def bare(text: str) -> str:
    """Text that a space ends; "-" for none."""
    return _without(text, ' "\\') or "-"


def _without(text: str, unsafe: str) -> str:
    for char in unsafe:
        if char in text:
            return "".join(escape_character(c) if c in unsafe or not c.isprintable() else c for c in text)
    return escape(text)
