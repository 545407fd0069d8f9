"""The status page for people: one HTML document, from a snapshot and the samples of the last 15 minutes.

It brings all it needs with it, and POLICY forbids the browser anything else. Without JavaScript the browser loads it
again every five seconds; with it a script puts a new <main> in place of the old one. Knows what was counted and how
to word it; rates over time are trend.py's, how to draw is plot.py's. Every text goes through `_tag`, which escapes it.
Nothing here fails: what is not known yet is said to be so.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape

from preforksmtp.observe import plot, trend
from preforksmtp.observe.history import Sample
from preforksmtp.observe.plot import Series, brief, latency, size, span
from preforksmtp.observe.snapshot import Facts, Snapshot, WorkerState, quantile
from preforksmtp.prefork.scoreboard import BOUNDS

MINUTES = 15  # the plots reach back
SILENT, LONG = 5.0, 10.0  # seconds without a heartbeat, and in one call of the handler, that deserve attention
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
    "PID", "Gen.", "State", "Age", "Heartbeat", "Sessions now", "Sessions served", "Messages", "Memory", "CPU",
    "Oldest session", "Longest handler", "Retiring",
)  # fmt: skip
_PAGES = (("/metrics", "for Prometheus"), ("/stats", "JSON"), ("/livez", "alive?"), ("/readyz", "ready?"))

_STYLE = """
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --text: #15191e; --dim: #57616c; --line: #d8dde3;
  --ok: #1a7f37; --warn: #8f5b00; --bad: #c4202c; --blue: #2f7fd6; --amber: #d08700; --red: #c8285f }
@media (prefers-color-scheme: dark) { :root { --page: #0d1014; --card: #161a20; --text: #e7eaee; --dim: #9ba6b2;
  --line: #2c343d; --ok: #45bd5c; --warn: #e0ac36; --bad: #ff7676; --blue: #5aa7ff; --amber: #e3a93b; --red: #ff7ba5 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 100rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere } h2 { margin: 1.75rem 0 .6rem; font-size: 1.15rem }
h3 { font-size: .95rem } a { color: inherit } code { font: .92em ui-monospace, monospace; overflow-wrap: anywhere }
header { display: flex; flex-wrap: wrap; gap: .3rem .9rem; align-items: center }
.badge { margin: 0; padding: .1rem .75rem; border-radius: 1rem; font-weight: 700; background: var(--dim);
  color: var(--card) }
.badge.ok { background: var(--ok) } .badge.warn { background: var(--warn) } .badge.bad { background: var(--bad) }
.reason { margin: 0; font-weight: 600 } .none { color: var(--dim) }
.facts { display: flex; flex-wrap: wrap; gap: .1rem 1.4rem; margin: .6rem 0 0; color: var(--dim) }
.facts div { display: flex; flex-wrap: wrap; gap: 0 .4rem } .facts dd { margin: 0; color: var(--text) }
.alarms { margin: .9rem 0 0; padding: .6rem .9rem .6rem 2rem; border-left: .35rem solid var(--warn);
  background: var(--card); font-weight: 600 }
.tiles, .plots { display: grid; gap: .7rem; margin: 0 }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.5rem), 1fr)); margin-top: 1rem }
.plots { grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)) }
.tiles div, .plots figure, .wide { padding: .7rem .9rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card) }
.tiles dt, .tiles small { color: var(--dim); font-size: .85rem } .tiles dd { margin: 0; font-size: 1.5rem }
.tiles dd.warn { color: var(--warn) } .tiles small { display: block }
.wide { overflow-x: auto; padding: 0 } table { border-collapse: collapse; width: 100%; white-space: nowrap }
th, td { padding: .3rem .7rem; border-top: 1px solid var(--line); text-align: left }
thead th { border: 0; color: var(--dim); font-size: .85rem } .number { text-align: right }
.workers th:first-child { position: sticky; left: 0; background: var(--card) } tbody th { font-weight: 400 }
td.warn, .state.warn { color: var(--warn); font-weight: 700 } .state.ok { color: var(--ok) }
.pair { display: grid; gap: 0 .7rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)) }
#silence { position: sticky; top: 0; z-index: 1; margin: 0 0 1rem; padding: .5rem .9rem; background: var(--bad);
  color: var(--card); font-weight: 700 } #silence[hidden] { display: none }
footer { margin-top: 1.75rem; color: var(--dim) } footer a { margin-right: 1.2rem }
""" + plot.STYLE  # fmt: skip

_SCRIPT = """
"use strict";
(() => {
  const banner = document.getElementById("silence");
  let heard = new Date(), asking = false;
  const say = text => { banner.textContent = text; banner.hidden = !text; };
  const scroller = () => document.querySelector("main .wide");
  async function again() {
    if (document.hidden || asking) return;
    if (!getSelection().isCollapsed) return say("standing still while text is selected");
    asking = true;
    const patience = new AbortController(), timer = setTimeout(() => patience.abort(), 5000);
    try {
      const answer = await fetch("/", { cache: "no-store", signal: patience.signal });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = page.querySelector("main"), left = scroller()?.scrollLeft ?? 0;
      const focused = document.activeElement?.id;
      document.querySelector("main").replaceWith(main);
      if (scroller()) scroller().scrollLeft = left;
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      document.title = page.title;
      heard = new Date();
      say("");
    } catch {
      say("no answer since " + heard.toTimeString().slice(0, 8));
    } finally {
      clearTimeout(timer);
      asking = false;
    }
  }
  setInterval(again, 2000);
  document.addEventListener("visibilitychange", again);
})();
"""


def _hash(block: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render(snapshot: Snapshot, facts: Facts, samples: Sequence[Sample]) -> str:
    """The whole document."""
    past = [sample for sample in samples if snapshot.time - 60 * MINUTES <= sample.time < snapshot.time]
    parts = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<noscript><meta http-equiv="refresh" content="5"></noscript>',
        _tag("title", f"{snapshot.condition} {UNKNOWN} {facts.name}"),
        f'<style>{_STYLE}</style></head>\n<body><p id="silence" role="alert" hidden></p>\n',
        _tag("main", *_head(snapshot, facts), _tiles(snapshot, past), *_plots(snapshot, past), *_workers(snapshot),
             _tag("div.pair", _totals(snapshot), _histogram(snapshot))),
        "\n<footer>", *(_Html(f'<a href="{path}">{path} {escape(what)}</a>') for path, what in _PAGES), "</footer>\n",
        f"<script>{_SCRIPT}</script></body></html>\n",
    )  # fmt: skip
    return "".join(parts)


class _Html(str):
    """Markup. Any other str is text and gets escaped."""

    __slots__ = ()


def _tag(kind: str, *inner: str) -> _Html:
    """`kind`: as in "td.number", an element and its classes; "th@col" has a scope instead."""
    opening, closing = _tags(kind)
    return _Html(opening + "".join([each if type(each) is _Html else escape(each) for each in inner]) + closing)


@functools.cache
def _tags(kind: str) -> tuple[str, str]:
    name, _, scope = kind.partition("@")
    name, *classes = name.split(".")
    attributes = f' class="{" ".join(filter(None, classes))}"' if any(classes) else ""
    if scope:
        attributes += f' scope="{scope}"'
    return f"<{name}{attributes}>", f"</{name}>"


def _head(snapshot: Snapshot, facts: Facts) -> Iterator[_Html]:
    tone = _TONES.get(snapshot.condition, "") if snapshot.alive else "bad"
    why = snapshot.unready or ("all session threads are busy" if snapshot.saturated else "")
    reason = [_tag("p.reason", why)] if why else []
    yield _tag("header", _tag("h1", facts.name), _tag(f"p.badge.{tone}", snapshot.condition), *reason)
    clock = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(snapshot.time))
    known = [("Version", facts.version), ("Master", str(facts.master)), ("Up", span(snapshot.uptime)), ("As of", clock)]
    listeners = [_tag("dd", _tag("code", listener)) for listener in facts.listeners] or [_tag("dd", "none")]
    yield _tag("dl.facts", *(_tag("div", _tag("dt", name), _tag("dd", value)) for name, value in known),
               _tag("div", _tag("dt", "Listening on"), *listeners))  # fmt: skip
    alarms = list(_alarms(snapshot))
    if alarms:
        yield _tag("ul.alarms", *(_tag("li", f"\N{WARNING SIGN} {alarm}") for alarm in alarms))


def _alarms(snapshot: Snapshot) -> Iterator[str]:
    if not snapshot.alive:
        yield f"the master has been silent for {span(snapshot.silent)}"
    if snapshot.count("ready") < snapshot.wanted and not snapshot.stopping:
        yield f"{snapshot.count('ready')} of {snapshot.wanted} workers are ready"
    silent = [str(worker.pid) for worker in snapshot.workers if worker.silent > SILENT]
    if silent:
        yield f"no heartbeat for more than {SILENT:g} s: {', '.join(silent)}"
    stuck = [str(worker.pid) for worker in snapshot.workers if worker.longest > LONG]
    if stuck:
        yield f"in one call of the handler for more than {LONG:g} s: {', '.join(stuck)}"


def _tiles(snapshot: Snapshot, past: Sequence[Sample]) -> _Html:
    readings = snapshot.readings
    gauges = (snapshot.active, snapshot.limit, snapshot.count("ready"), snapshot.queued)
    present = Sample(snapshot.time, *gauges, readings.sessions, readings.handler_buckets)
    change, minute = trend.recent([*past, present], 10), trend.recent([*past, present], 60)
    shares = [_worded(quantile(minute.buckets, share), latency) for share in (0.5, 0.95, 0.99)]
    rejected, deferred = (_worded(change.rate(counter)) for counter in ("rejected", "deferred"))
    full = snapshot.active >= snapshot.limit > 0
    return _tag(
        "dl.tiles",
        _tile("Sessions", f"{snapshot.active} / {snapshot.limit}", "now / limit", full),
        _tile("Messages/s", _worded(change.rate("messages")), "accepted, last 10 s"),
        _tile("Refused/s", _worded(change.rate("rejected", "deferred")), f"{rejected} rejected, {deferred} deferred"),
        _tile("Recipients/s", _worded(change.rate("recipients")), "last 10 s"),
        _tile("Bytes/s", _worded(change.rate("bytes"), size), "last 10 s"),
        _tile("Handler", shares[0], "p50, last minute"),
        _tile("Handler", shares[1], "p95, last minute"),
        _tile("Handler", shares[2], "p99, last minute"),
        _tile("Queue", str(snapshot.queued), "waiting to be accepted", snapshot.queued > 0 and full),
        _tile("Workers", f"{snapshot.count('ready')} / {snapshot.wanted}", "ready / wanted",
              snapshot.count("ready") < snapshot.wanted),
    )  # fmt: skip


def _worded(value: float | None, say: Callable[[float], str] = brief) -> str:
    return UNKNOWN if value is None else say(value)


def _tile(name: str, value: str, detail: str, warn: bool = False) -> _Html:
    return _tag("div", _tag("dt", name), _tag("dd.warn" if warn else "dd", value, _tag("small", detail)))


def _plots(snapshot: Snapshot, past: Sequence[Sample]) -> Iterator[_Html]:
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
    yield _tag("h2", f"Last {MINUTES} minutes")
    yield _tag("div.plots", *map(_Html, drawn))


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


def _workers(snapshot: Snapshot) -> Iterator[_Html]:
    yield _tag("h2", "Workers")
    if not snapshot.workers:
        yield _tag("p.none", "no workers")
        return
    head = _tag("thead", _tag("tr", *(_tag("th@col", column) for column in _COLUMNS)))
    rows = _tag("tbody", *(_worker(worker) for worker in snapshot.workers))
    opening = '<div class="wide workers" id="workers" role="region" aria-label="Workers" tabindex="0">'
    yield _Html(f"{opening}{_tag('table', head, rows)}</div>")


def _worker(worker: WorkerState) -> _Html:
    load = worker.active / worker.limit if worker.limit else 0.0
    now = f"{worker.active} / {worker.limit} "
    return _tag(
        "tr",
        _tag("th@row", str(worker.pid)),
        _tag("td", str(worker.generation)),
        _tag(f"td.state.{_TONES.get(worker.state, '')}", worker.state),
        _tag("td", span(worker.age)),
        _watched(worker.silent, SILENT),
        _tag("td", now, _bar(load, "blue" if load < 1 else "amber")),
        _tag("td", f"{worker.sessions:,}"),
        _tag("td", f"{worker.messages:,}"),
        _tag("td", size(worker.memory) if worker.memory else UNKNOWN),
        _tag("td", f"{worker.cpu:.1f} s"),
        _tag("td", span(worker.oldest) if worker.oldest else UNKNOWN),
        _watched(worker.longest, LONG) if worker.longest else _tag("td", UNKNOWN),
        _tag("td", worker.retiring),
    )


def _bar(share: float, ink: str = "blue") -> _Html:
    return _Html(plot.bar(share, ink))


def _watched(seconds: float, most: float) -> _Html:
    return _tag("td.warn", f"\N{WARNING SIGN} {span(seconds)}") if seconds > most else _tag("td", span(seconds))


def _totals(snapshot: Snapshot) -> _Html:
    counted = {**snapshot.readings.sessions, **snapshot.readings.master}
    rows = [_tag("tr", _tag("th@row", _LABELS.get(name, name)), _tag("td.number", f"{total:,}"))
            for name, total in counted.items()]  # fmt: skip
    head = _tag("thead", _tag("tr", _tag("th@col", "Since the master began"), _tag("th.number@col", "Total")))
    return _tag("section", _tag("h2", "Totals"), _tag("div.wide", _tag("table", head, _tag("tbody", *rows))))


def _histogram(snapshot: Snapshot) -> _Html:
    buckets = snapshot.readings.handler_buckets
    most = max(*buckets, 1)
    labels = [*(f"up to {latency(bound)}" for bound in BOUNDS), f"over {latency(BOUNDS[-1])}"]
    rows = [_tag("tr", _tag("th@row", label), _tag("td.number", f"{count:,}"), _tag("td", _bar(count / most)))
            for label, count in zip(labels, buckets, strict=True)]  # fmt: skip
    titles = (_tag("th@col", "The handler took"), _tag("th.number@col", "Messages"), _tag("th@col", "Share"))
    table = _tag("table", _tag("thead", _tag("tr", *titles)), _tag("tbody", *rows))
    return _tag("section", _tag("h2", "Handler"), _tag("div.wide", table))
