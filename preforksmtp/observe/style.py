"""How the status page looks and renews itself: its style, its script, and the policy that forbids everything else."""

from __future__ import annotations

import base64
import hashlib

from preforksmtp.observe import plot

STYLE = """
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
.alarms { margin: .9rem 0 0; padding: 0; list-style: none; font-weight: 600 }
.alarms li { margin: .3rem 0; padding: .5rem .9rem; border-left: .35rem solid var(--warn); background: var(--card);
  overflow-wrap: anywhere } .alarms li.bad { border-color: var(--bad); color: var(--bad) }
.alarms time { color: var(--dim); font-weight: 400 }
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
.free td, .free th { white-space: normal; overflow-wrap: anywhere }
@media (max-width: 40rem) { .workers thead { position: absolute; clip-path: inset(50%) }
  .workers tr { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1rem; border-top: 1px solid var(--line);
    padding: .4rem 0 } .workers th, .workers td { display: flex; justify-content: space-between; gap: .5rem; border: 0;
    padding: .1rem .7rem; white-space: normal } .workers th:first-child { position: static; grid-column: 1 / -1 }
  .workers [data-label]::before { content: attr(data-label); color: var(--dim) } }
#silence { position: sticky; top: 0; z-index: 1; margin: 0 0 1rem; padding: .5rem .9rem; background: var(--bad);
  color: var(--card); font-weight: 700 } #silence[hidden] { display: none }
footer { margin-top: 1.75rem; color: var(--dim) } footer a { margin-right: 1.2rem }
""" + plot.STYLE  # fmt: skip

SCRIPT = """
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
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
