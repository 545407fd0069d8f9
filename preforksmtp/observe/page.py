"""The status page for people: one HTML document, from a snapshot and the samples of the last 15 minutes.

It brings all it needs with it, and POLICY forbids the browser anything else. Without JavaScript the browser loads it
again every five seconds; with it a script puts a new <main> in place of the old one. Knows what was counted and how
to word it; rates over time are trend.py's, how to draw is plot.py's. Every text goes through `_tag`, which escapes it.
Nothing here fails: what is not known yet is said to be so.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape

from preforksmtp.observe import plot, trend
from preforksmtp.observe.alarms import BAD, LONG, SILENT, alarms
from preforksmtp.observe.history import Sample
from preforksmtp.observe.html import Html, labelled, table, tag
from preforksmtp.observe.plot import Series, brief, latency, size, span
from preforksmtp.observe.snapshot import Facts, Snapshot, WorkerState, hook_buckets, quantile
from preforksmtp.observe.style import SCRIPT, STYLE
from preforksmtp.prefork.scoreboard import BOUNDS
from preforksmtp.prefork.tallies import labels

MINUTES = 15  # the plots reach back
SHOWN = 20  # of the events, the last ones
UNKNOWN = "\N{EN DASH}"

_LABELS = {
    "sessions": "Sessions accepted",
    "messages": "Messages accepted (2xx)",
    "rejected": "Messages rejected (5xx)",
    "deferred": "Messages deferred (4xx)",
    "recipients": "Recipients of accepted messages",
    "bytes": "Bytes of accepted messages",
    "tls": "TLS handshakes",
    "auth_ok": "Authentications",
    "auth_failed": "Authentications failed",
    "timeouts": "Sessions timed out",
    "errors": "Errors of handler or server",
    "refused": "Connections refused by a limit",
    "greeted": "Greetings (EHLO, HELO, LHLO)",
    "quits": "Sessions ended by QUIT",
    "octets_in": "Octets received, by sessions that are over",
    "octets_out": "Octets sent, by sessions that are over",
    "reloads": "Reloads",
    "reloads_failed": "Reloads failed",
    "workers_forked": "Workers started",
    "workers_died": "Workers died unasked",
    "workers_hung": "Workers killed because they hung",
    "workers_recycled": "Workers recycled",
    "messages_interrupted": "Messages in the handler when their worker died",
}
_TONES = {"ready": "ok", "busy": "warn", "starting": "warn", "stopping": "warn", "draining": "warn", "booting": "warn"}
_COLUMNS = (
    "PID", "State", "Sessions now", "Messages", "Longest handler", "Memory", "CPU", "Age", "Heartbeat",
    "Sessions served", "Oldest session", "Gen.", "Retiring",
)  # fmt: skip
_PAGES = (("/metrics", "for Prometheus"), ("/stats", "JSON"), ("/livez", "alive?"), ("/readyz", "ready?"))

def render(snapshot: Snapshot, facts: Facts, samples: Sequence[Sample]) -> str:
    """The whole document."""
    past = [sample for sample in samples if snapshot.time - 60 * MINUTES <= sample.time < snapshot.time]
    present = _sample(snapshot)
    change, minute = trend.recent([*past, present], 10), trend.recent([*past, present], 60)
    parts = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<noscript><meta http-equiv="refresh" content="5"></noscript>',
        tag("title", f"{snapshot.condition} {UNKNOWN} {facts.name}{f' on {facts.host}' if facts.host else ''}"),
        f'<style>{STYLE}</style></head>\n<body><p id="silence" role="alert" hidden></p>\n',
        tag("main", *_head(snapshot, facts, minute), _tiles(snapshot, change, minute), *_plots(snapshot, past),
            *_workers(snapshot), tag("div.pair", *_tallied(snapshot)), tag("div.pair", *_past(snapshot, facts)),
            tag("div.pair", _totals(snapshot), _histogram(snapshot))),
        "\n<footer>", *(Html(f'<a href="{path}">{path} {escape(what)}</a>') for path, what in _PAGES), "</footer>\n",
        f"<script>{SCRIPT}</script></body></html>\n",
    )  # fmt: skip
    return "".join(parts)


def _sample(snapshot: Snapshot) -> Sample:
    gauges = (snapshot.active, snapshot.limit, snapshot.count("ready"), snapshot.queued)
    return Sample(snapshot.time, *gauges, snapshot.readings.sessions, snapshot.readings.handler_buckets)


def _head(snapshot: Snapshot, facts: Facts, minute: trend.Change) -> Iterator[Html]:
    found = alarms(snapshot, facts, minute)
    bad = any(alarm.severity == BAD for alarm in found)
    tone = "bad" if bad else "warn" if found else _TONES.get(snapshot.condition, "")
    why = snapshot.unready or ("all session threads are busy" if snapshot.saturated else "")
    reason = [tag("p.reason", why)] if why else []
    yield tag("header", tag("h1", facts.name), tag(f"p.badge.{tone}", snapshot.condition), *reason)
    clock = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(snapshot.time))
    known = [("Version", facts.version), ("Master", str(facts.master)), ("Up", span(snapshot.uptime)), ("As of", clock)]
    listeners = [tag("dd", tag("code", listener)) for listener in facts.listeners] or [tag("dd", "none")]
    yield tag("dl.facts", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in known),
               tag("div", tag("dt", "Listening on"), *listeners))  # fmt: skip
    if found:
        yield tag("ul.alarms", *(
            tag(f"li.{alarm.severity}", f"\N{WARNING SIGN} {alarm.text}", *_moment(alarm.time)) for alarm in found
        ))  # fmt: skip


def _moment(moment: float) -> Iterator[Html]:
    if moment:
        yield tag("time", f" since {_clock(moment)}")


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _tiles(snapshot: Snapshot, change: trend.Change, minute: trend.Change) -> Html:
    """Those that have something to say."""
    shares = [_worded(quantile(minute.buckets, share), latency) for share in (0.5, 0.95, 0.99)]
    rejected, deferred = (_worded(change.rate(counter)) for counter in ("rejected", "deferred"))
    full = snapshot.active >= snapshot.limit > 0
    queue = [_tile("Queue", str(snapshot.queued), "waiting to be accepted", full)] if snapshot.queued else []
    tiles = [
        _tile("Sessions", f"{snapshot.active} / {snapshot.limit}", "now / limit", full),
        _tile("Messages/s", _worded(change.rate("messages")), "accepted, last 10 s"),
        _tile("Refused/s", _worded(change.rate("rejected", "deferred")), f"{rejected} rejected, {deferred} deferred"),
        _tile("Recipients/s", _worded(change.rate("recipients")), "last 10 s"),
        _tile("Bytes/s", _worded(change.rate("bytes"), size), "last 10 s"),
        *(_tile("Handler", value, f"{share}, last minute") for share, value in zip(("p50", "p95", "p99"), shares,
                                                                                 strict=True)),
        *queue,
        _tile("Workers", f"{snapshot.count('ready')} / {snapshot.wanted}", "ready / wanted",
              snapshot.count("ready") < snapshot.wanted),
    ]  # fmt: skip
    return tag("dl.tiles", *(tile for tile in tiles if f">{UNKNOWN}<small" not in tile))


def _worded(value: float | None, say: Callable[[float], str] = brief) -> str:
    return UNKNOWN if value is None else say(value)


def _tile(name: str, value: str, detail: str, warn: bool = False) -> Html:
    return tag("div", tag("dt", name), tag("dd.warn" if warn else "dd", value, tag("small", detail)))


def _plots(snapshot: Snapshot, past: Sequence[Sample]) -> Iterator[Html]:
    points = list(trend.points(past, snapshot.time))
    series = functools.partial(_series, points)
    results = [
        series("accepted", "blue", _rate("messages")),
        series("deferred", "amber", _rate("deferred")),
        series("rejected", "red", _rate("rejected")),
    ]
    stacks = [sum(value or 0.0 for value in values) for values in zip(*(each.values for each in results), strict=True)]
    active, limit = series("active", "blue", _gauge("active")), series("limit", "faint", _gauge("limit"))
    sessions = [active, limit] if _most(limit) <= max(10.0, 4 * _most(active)) else [active]
    shares = [
        series(f"p{share}", ink, _quantile(share / 100)) for share, ink in ((50, "blue"), (95, "amber"), (99, "red"))
    ]
    least = min((value for value in shares[0].values if value), default=0.001)
    flow, queue = series("accepted", "blue", _rate("bytes")), series("waiting", "blue", _gauge("queued"))
    ages = [snapshot.time - point.time if point else 0.0 for point in points]
    figure = functools.partial(plot.figure, ages, MINUTES)
    drawn = (
        figure("Messages/s", results, plot.linear(max(stacks, default=0.0)), brief, stacked=True),
        figure(f"Sessions, limit {snapshot.limit}", sessions, plot.linear(max(map(_most, sessions)), True), brief),
        figure("Handler", shares, plot.logarithmic(least, max(least, _most(shares[2]))), latency),
        figure("Bytes/s", [flow], plot.linear(_most(flow)), size),
        figure("Queue", [queue], plot.linear(_most(queue), True), brief),
    )
    yield tag("h2", f"Last {MINUTES} minutes")
    yield tag("div.plots", *map(Html, drawn))


_Curve = Callable[[trend.Point], float | None]


def _series(points: Sequence[trend.Point | None], label: str, ink: str, curve: _Curve) -> Series:
    return Series(label, ink, [curve(point) if point else None for point in points])


def _rate(counter: str) -> _Curve:
    return lambda point: point.change.rate(counter)


def _gauge(name: str) -> _Curve:
    return lambda point: float(getattr(point, name))


def _quantile(share: float) -> _Curve:
    return lambda point: quantile(point.change.buckets, share)


def _most(series: Series) -> float:
    return max((value for value in series.values if value is not None), default=0.0)


def _workers(snapshot: Snapshot) -> Iterator[Html]:
    yield tag("h2", "Workers")
    if not snapshot.workers:
        yield tag("p.none", "no workers")
        return
    head = tag("thead", tag("tr", *(tag("th@col", column) for column in _COLUMNS)))
    rows = tag("tbody", *(_worker(worker) for worker in snapshot.workers))
    opening = '<div class="wide workers" id="workers" role="region" aria-label="Workers" tabindex="0">'
    yield Html(f"{opening}{tag('table', head, rows)}</div>")


def _worker(worker: WorkerState) -> Html:
    load = worker.active / worker.limit if worker.limit else 0.0
    now = f"{worker.active} / {worker.limit} "
    cells = (
        tag("th@row", str(worker.pid)),
        tag(f"td.state.{_TONES.get(worker.state, '')}", worker.state + (", unwell" if worker.unwell else "")),
        tag("td", now, _bar(load, "blue" if load < 1 else "amber")),
        tag("td", f"{worker.messages:,}"),
        _watched(worker.longest, LONG) if worker.longest else tag("td", UNKNOWN),
        tag("td", size(worker.memory) if worker.memory else UNKNOWN),
        tag("td", f"{worker.cpu:.1f} s"),
        tag("td", span(worker.age)),
        _watched(worker.silent, SILENT),
        tag("td", f"{worker.sessions:,}"),
        tag("td", span(worker.oldest) if worker.oldest else UNKNOWN),
        tag("td", str(worker.generation)),
        tag("td", worker.retiring),
    )
    return tag("tr", *(labelled(cell, column) for cell, column in zip(cells, _COLUMNS, strict=True)))


def _bar(share: float, ink: str = "blue") -> Html:
    return Html(plot.bar(share, ink))


def _watched(seconds: float, most: float) -> Html:
    return tag("td.warn", f"\N{WARNING SIGN} {span(seconds)}") if seconds > most else tag("td", span(seconds))


# Tables of what has names of its own: the title, the heads, the family of tallies.
_FAMILIES = (
    ("Refused", ("Stage", "Reply", "Status", "Times"), "refused"),
    ("Limits reached", ("Setting", "Times"), "limit"),
    ("AUTH", ("Mechanism", "Outcome", "Times"), "auth"),
    ("TLS", ("Version", "Handshakes"), "tls"),
    ("Timeouts", ("Setting", "Sessions"), "timeout"),
    ("Sessions ended", ("How", "Sessions"), "ended"),
    ("The application failed", ("Hook", "Times"), "hook_error"),
    ("Put off for a cause", ("Hook", "Times"), "hook_deferred"),
)


def _tallied(snapshot: Snapshot) -> Iterator[Html]:
    """What there is of it."""
    rows: dict[str, list[tuple[int, list[str]]]] = {}
    for key, count in snapshot.readings.tallies.items():
        family, names = labels(key)
        rows.setdefault(family, []).append((count, [name or UNKNOWN for name in names]))
    for title, heads, family in _FAMILIES:
        found = [(count, names) for count, names in rows.get(family, ()) if len(names) == len(heads) - 1]
        if found:
            lines = [[*names, f"{count:,}"] for count, names in sorted(found, key=lambda row: (-row[0], row[1]))]
            yield tag("section", tag("h2", title), table(heads, lines, {len(heads) - 1}))
    hooks = {hook: counts for hook, counts in hook_buckets(snapshot.readings.tallies).items() if sum(counts)}
    if hooks:
        lines = [
            [hook, f"{sum(counts):,}", *(_worded(quantile(counts, share), latency) for share in (0.5, 0.95, 0.99))]
            for hook, counts in sorted(hooks.items())
        ]
        titles = ("Hook", "Calls", "p50", "p95", "p99")
        yield tag("section", tag("h2", "Hooks"), table(titles, lines, range(1, 5)))


def _past(snapshot: Snapshot, facts: Facts) -> Iterator[Html]:
    """What has happened, and what was set."""
    if snapshot.events:
        lines = [[_clock(event.time), event.kind, event.text] for event in reversed(snapshot.events)]
        yield tag("section", tag("h2", "What has happened"), table(("When", "What", "Why"), lines[:SHOWN]))
    if facts.settings:
        rows = [[name, value, origin] for name, value, origin in facts.settings]
        yield tag("section", tag("h2", "Settings that differ from the default"), table(("Name", "Value", "From"), rows))
    if facts.certificates:
        rows = [[file, bind, _clock(end)] for bind, file, end in facts.certificates]
        yield tag("section", tag("h2", "Certificates"), table(("File", "Bind", "Ends"), rows))


def _totals(snapshot: Snapshot) -> Html:
    counted = {**snapshot.readings.sessions, **snapshot.readings.master}
    rows = [tag("tr", tag("th@row", _LABELS.get(name, name)), tag("td.number", f"{total:,}"))
            for name, total in counted.items()]  # fmt: skip
    head = tag("thead", tag("tr", tag("th@col", "Since the master began"), tag("th.number@col", "Total")))
    return tag("section", tag("h2", "Totals"), tag("div.wide", tag("table", head, tag("tbody", *rows))))


def _histogram(snapshot: Snapshot) -> Html:
    buckets = snapshot.readings.handler_buckets
    most = max(*buckets, 1)
    labels = [*(f"up to {latency(bound)}" for bound in BOUNDS), f"over {latency(BOUNDS[-1])}"]
    rows = [tag("tr", tag("th@row", label), tag("td.number", f"{count:,}"), tag("td", _bar(count / most)))
            for label, count in zip(labels, buckets, strict=True)]  # fmt: skip
    titles = (tag("th@col", "The handler took"), tag("th.number@col", "Messages"), tag("th@col", "Share"))
    table = tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *rows))
    return tag("section", tag("h2", "Handler"), tag("div.wide", table))
