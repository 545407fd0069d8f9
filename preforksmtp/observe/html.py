"""Elements of the status page. Every text goes through `tag`, which escapes it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from html import escape


class Html(str):
    """Markup. Any other str is text and gets escaped."""

    __slots__ = ()


def tag(kind: str, *inner: str) -> Html:
    """`kind`: as in "td.number", an element and its classes; "th@col" has a scope instead."""
    opening, closing = _tags(kind)
    return Html(opening + "".join([each if type(each) is Html else escape(each) for each in inner]) + closing)


@functools.cache
def _tags(kind: str) -> tuple[str, str]:
    name, _, scope = kind.partition("@")
    name, *classes = name.split(".")
    attributes = f' class="{" ".join(filter(None, classes))}"' if any(classes) else ""
    if scope:
        attributes += f' scope="{scope}"'
    return f"<{name}{attributes}>", f"</{name}>"


def labelled(cell: Html, label: str) -> Html:
    """A cell that says what it is where its column has no head: on a narrow screen."""
    name, _, rest = cell.partition(">")
    return Html(f'{name} data-label="{escape(label)}">{rest}')


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> Html:
    """A table whose first column has the names of the rows; columns of `numbers` are aligned at the right."""
    heads = [tag("th.number@col" if n in numbers else "th@col", title) for n, title in enumerate(titles)]
    lines = [
        tag("tr", *(
            tag("th@row" if n == 0 else "td.number" if n in numbers else "td", cell) for n, cell in enumerate(row)
        ))
        for row in rows
    ]  # fmt: skip
    return tag("div.wide.free", tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines)))
