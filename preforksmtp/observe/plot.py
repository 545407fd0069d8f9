"""Plots: inline SVG from series of numbers, and numbers as people read them.

Knows nothing of servers and samples: whoever calls brings ages, values, labels, and the names of inks. Labels are
escaped here. None among the values is a gap; without two points to see there is a sentence in place of the plot.
What goes in are finite numbers, and nothing here fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

INTERVALS = 4  # at most, between the ticks of a linear scale
_WIDTH, _HEIGHT = 400, 172
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 394, 8, 148
_DOT = 1.0  # half of the width of a point without neighbours

# Attributes `style` would need a Content-Security-Policy without teeth; an ink is a class that sets --ink.
STYLE = """
.blue { --ink: var(--blue) } .amber { --ink: var(--amber) } .red { --ink: var(--red) } .faint { --ink: var(--dim) }
figure { margin: 0 }
figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; margin-bottom: .25rem }
figcaption h3 { margin: 0 auto 0 0 }
.legend { display: flex; flex-wrap: wrap; gap: 0 .9rem; margin: 0; padding: 0; list-style: none; color: var(--dim) }
.legend li::before { content: ""; display: inline-block; width: .7em; height: .7em; margin-right: .35em;
  border-radius: 2px; background: var(--ink) }
.plot { display: block; width: 100%; height: auto }
.plot text { fill: var(--dim); font-size: 12px }
.plot .grid { stroke: var(--line); fill: none }
.plot .area { fill: var(--ink); fill-opacity: .85 }
.plot .line { stroke: var(--ink); fill: none; stroke-width: 1.6; stroke-linejoin: round }
.plot .line.faint { stroke-dasharray: 5 4 }
.bar { display: inline-block; vertical-align: middle; width: 4rem; height: .6rem }
.bar .rail { fill: var(--line) } .bar .full { fill: var(--ink, var(--blue)) }
"""


@dataclass(frozen=True)
class Series:
    """`values`: one for each age. `ink`: blue, amber, red or faint."""

    label: str
    ink: str
    values: Sequence[float | None]


class Scale(NamedTuple):
    """The y axis, from its first tick to the last."""

    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How high up, from 0 to 1; what is off the scale lies on its edge."""
        low, high = self.ticks[0], self.ticks[-1]
        value = min(max(value, low), high)
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


def linear(most: float, whole: bool = False) -> Scale:
    """From 0 to a round number not below `most`. `whole`: between integers there is nothing to mark."""
    step = _round_up(most / INTERVALS)
    if whole:
        step = max(1.0, step)
    count = max(1, math.ceil(most / step - 1e-9))
    return Scale(tuple(round(step * number, 12) for number in range(count + 1)))


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


def logarithmic(least: float, most: float) -> Scale:
    """Over whole powers of ten, one at least."""
    low = math.floor(round(math.log10(least), 9))
    high = max(low + 1, math.ceil(round(math.log10(most), 9)))
    return Scale(tuple(float(f"1e{power}") for power in range(low, high + 1)), logarithmic=True)


def figure(
    ages: Sequence[float],
    minutes: int,
    title: str,
    series: Sequence[Series],
    scale: Scale,
    say: Callable[[float], str],
    stacked: bool = False,
) -> str:
    """A plot with its title and legend. `ages`: seconds before now, the oldest first; `minutes`: it reaches back;
    `say` words the y values."""
    known = [[value for value in each.values if value is not None] for each in series]
    head = f"<h3>{escape(title)}</h3>"
    if max(map(len, known), default=0) < 2:
        return f'<figure><figcaption>{head}</figcaption><p class="none">no data yet</p></figure>'
    most = [(each, say(max(values)) if values else "none") for each, values in zip(series, known, strict=True)]
    legend = "".join(f'<li class="{each.ink}">{escape(each.label)}, max {escape(top)}</li>' for each, top in most)
    summary = "; ".join(f"{each.label}: at most {top}" for each, top in most)
    drawing = _areas(ages, series, scale, minutes) if stacked else _lines(ages, series, scale, minutes)
    return (
        f'<figure><figcaption>{head}<ul class="legend">{legend}</ul></figcaption>'
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}, last {minutes} minutes. {escape(summary)}">'
        f"{_grid(scale, say, minutes)}{''.join(drawing)}</svg></figure>"
    )


def _grid(scale: Scale, say: Callable[[float], str], minutes: int) -> str:
    parts = []
    for tick in scale.ticks:
        y = _y(scale.share(tick))
        parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(say(tick))}</text>')
    for minute, anchor, text in (
        (minutes, "start", f"{minutes} min ago"),
        *((minute, "middle", f"{minute} min") for minute in range(minutes - 5, 0, -5)),
        (0, "end", "now"),
    ):
        x = _x(minute * 60, minutes)
        parts.append(f'<path class="grid" d="M{x:.1f},{_BOTTOM}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{text}</text>')
    return "".join(parts)


def _lines(ages: Sequence[float], series: Sequence[Series], scale: Scale, minutes: int) -> Iterator[str]:
    for each in series:
        runs = runs_of(ages, each.values)
        curve = "".join(_path([(_x(age, minutes), _y(scale.share(value))) for age, value in run]) for run in runs)
        yield f'<path class="line {each.ink}" d="{curve}"/>'


def _areas(ages: Sequence[float], series: Sequence[Series], scale: Scale, minutes: int) -> Iterator[str]:
    """One upon the other, the first at the bottom."""
    floor = [0.0] * len(ages)
    for each in series:
        upper = [None if value is None else below + value for below, value in zip(floor, each.values, strict=True)]
        lower = [None if value is None else below for below, value in zip(floor, each.values, strict=True)]
        shape = ""
        for high, low in zip(runs_of(ages, upper), runs_of(ages, lower), strict=True):
            edge = [_broad([(_x(age, minutes), _y(scale.share(value))) for age, value in run]) for run in (high, low)]
            shape += _path([*edge[0], *reversed(edge[1])]) + "Z"
        yield f'<path class="area {each.ink}" d="{shape}"/>'
        floor = [value or 0.0 for value in upper]


def runs_of(ages: Sequence[float], values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """What lies between the gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for age, value in zip(ages, values, strict=True):
        if value is not None:
            runs[-1].append((age, value))
        elif runs[-1]:
            runs.append([])
    return runs if runs[-1] else runs[:-1]


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in _broad(points))


def _broad(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A point alone would not be seen."""
    if len(points) > 1:
        return points
    ((x, y),) = points
    return [(x - _DOT, y), (x + _DOT, y)]


def _x(age: float, minutes: int) -> float:
    return _RIGHT - (_RIGHT - _LEFT) * age / (minutes * 60)


def _y(share: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * share


def bar(share: float, ink: str = "blue") -> str:
    """From 0 to 1, beside a number that says the same."""
    length = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<svg class="bar {ink}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="8"/><rect class="full" width="{length:.1f}" height="8"/></svg>'
    )


def brief(value: float) -> str:
    """Three digits: 0.25, 12.5, 1.5k."""
    return "".join(_scaled(value))


def size(value: float) -> str:
    """Bytes: 1.5 kB."""
    number, letter = _scaled(value)
    return f"{number} {letter}B"


def _scaled(value: float) -> tuple[str, str]:
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit * 0.9995:  # what %.3g would round up to 1e+03
            return f"{value / unit:.3g}", letter
    return f"{value:.3g}", ""


def latency(seconds: float) -> str:
    """How long a call took: 2.5 ms, 1.2 s."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else span(seconds)


def span(seconds: float) -> str:
    """How long something has lasted, in its two biggest units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    unit, name, smaller, below = next(row for row in _UNITS if whole >= row[0])
    return f"{whole // unit} {name} {whole % unit // smaller} {below}"


_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
