"""observe/page.py, plot.py: the page is well-formed, safe, and says what was counted."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from preforksmtp.observe import page, plot
from preforksmtp.observe.history import History, Sample
from preforksmtp.observe.page import render
from preforksmtp.observe.snapshot import Facts, Snapshot, take
from preforksmtp.observe.style import POLICY
from preforksmtp.prefork.reasons import AGE
from preforksmtp.prefork.scoreboard import (
    BUCKETS,
    BYTES,
    COUNTERS,
    DEFERRED,
    DRAINING,
    MASTER_COUNTERS,
    MESSAGES,
    READY,
    RECIPIENTS,
    REJECTED,
    SESSIONS,
    SINCE,
    Scoreboard,
    Slot,
)

NASTY = "<b>\"x\"&'"
FACTS = Facts("1.0", "mail", 4711, time.time() - 3700, ["smtp://127.0.0.1:25", "smtps://[::]:465"])
NOW = 1_700_000_000.0  # a multiple of a step
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """What is in a document; fails where an element is closed that is not the innermost open one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # innermost element, text
        self.blocks: dict[str, str] = {}
        self.tiles: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
        elif tag == "dt":
            self.tiles.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> does not end itself in HTML"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside in {"style", "script"}:
            assert inside not in self.blocks
            self.blocks[inside] = data
            return
        self.texts.append((inside, data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        elif {"dt", "dd"} & set(self.open):
            self.tiles[-1] += f"|{data}"

    @property
    def text(self) -> str:
        return " ".join(data for _, data in self.texts)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]

    def row(self, head: str) -> list[str]:
        (row,) = [row for row in self.rows if row[0] == head]
        return row[1:]

    def figures(self) -> dict[str, str]:
        """Title -> label of the plot."""
        labels = [found["aria-label"] or "" for found in self.all("svg", role="img")]
        return {re.split(r",", label)[0]: label for label in labels}


def claim(board: Scoreboard, state: int = READY, limit: int = 2, active: int = 0) -> Slot:
    slot = board.claim(1)
    assert slot is not None
    slot.state, slot.limit, slot.pid = state, limit, 100 + slot.index
    for row in slot.rows[:active]:
        row[SINCE] = time.monotonic_ns() - 5_000_000_000
    return slot


def board_of(workers: int = 1, rows: int = 2) -> tuple[Scoreboard, list[Slot]]:
    board = Scoreboard(slots=workers + 1, rows=rows)
    board.wanted, board.beat = workers, time.monotonic_ns()
    return board, [claim(board) for _ in range(workers)]


def at(board: Scoreboard, moment: float) -> Snapshot:
    return replace(take(board, FACTS), time=moment)


def known(seconds: int, each: Callable[[Slot, int], None]) -> tuple[Snapshot, list[Sample]]:
    """A sample each second before NOW, `each` applied after every one; and the snapshot at NOW."""
    board, (slot,) = board_of()
    history = History()
    for second in range(seconds):
        history.add(at(board, NOW - seconds + second))
        each(slot, second)
    return at(board, NOW), history.samples()


def busy(slot: Slot, second: int) -> None:
    row = slot.rows[0]
    for counter, count in ((SESSIONS, 7), (MESSAGES, 4), (REJECTED, 2), (DEFERRED, 1), (RECIPIENTS, 9), (BYTES, 2500)):
        row[counter] += count
    row[BUCKETS + 2] += 4  # 2.5 to 5 ms


def curves(text: str, title: str) -> list[list[list[tuple[float, float]]]]:
    """Of one plot: its shapes, their runs, their points."""
    (svg,) = re.findall(rf'<svg class="plot"[^>]*aria-label="{title}.*?</svg>', text)
    return [
        [[tuple(map(float, point.split(","))) for point in run.rstrip("Z").split("L")] for run in path.split("M")[1:]]  # type: ignore[misc]
        for path in re.findall(r'class="(?:line|area) \w+" d="([^"]*)"', svg)
    ]


def test_a_full_page_is_well_formed() -> None:
    snapshot, samples = known(600, busy)
    text = render(snapshot, FACTS, samples)
    assert text.startswith("<!DOCTYPE html>\n<html lang=\"en\">")
    shown = Page(text)
    assert [len(shown.all(tag)) for tag in ("html", "head", "title", "body", "main", "h1", "style", "script")] == [1] * 8
    ids = [found["id"] for _, found in shown.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert shown.all("meta", **{"http-equiv": "refresh"}) == [{"http-equiv": "refresh", "content": "5"}]
    assert {found["href"] for found in shown.all("a")} == {"/metrics", "/stats", "/livez", "/readyz"}


def test_it_can_be_heard() -> None:
    snapshot, samples = known(600, busy)
    shown = Page(render(snapshot, FACTS, samples))
    assert len(shown.all("svg", role="img")) == 5
    for found in shown.all("svg"):
        assert found.get("aria-label") if found.get("role") == "img" else found.get("aria-hidden") == "true"
    assert all(found.get("scope") in {"row", "col"} for found in shown.all("th"))
    headings = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_nothing_comes_from_elsewhere_and_no_attribute_is_style_or_script() -> None:
    snapshot, samples = known(60, busy)
    text = render(snapshot, FACTS, samples)
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"url\(|@import", text)
    for tag, found in Page(text).elements:
        assert tag not in {"link", "img", "iframe", "object", "base", "form"}
        assert not {name for name in found if name in {"style", "src", "srcset"} or name.startswith("on")}


def test_the_policy_allows_these_two_blocks_and_no_other() -> None:
    shown = Page(render(at(board_of()[0], NOW), FACTS, []))
    for kind, block in shown.blocks.items():
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in POLICY
    assert POLICY.startswith("default-src 'none'; ")
    assert "connect-src 'self'" in POLICY
    assert POLICY.count("sha256-") == 2 == len(shown.blocks)
    assert "unsafe" not in POLICY
    POLICY.encode("ascii")  # it goes into a header
    assert "\n" not in POLICY


def test_the_inline_blocks_end_where_they_should() -> None:
    blocks = Page(render(at(board_of()[0], NOW), FACTS, [])).blocks
    assert blocks["style"].rstrip().endswith("}")
    assert blocks["script"].rstrip().endswith("})();")
    assert all(block.count("{") == block.count("}") for block in blocks.values())


def test_every_text_is_escaped() -> None:
    board, (slot,) = board_of()
    slot.retire = AGE
    snapshot = at(board, NOW)
    workers = [replace(worker, state=NASTY, retiring=NASTY) for worker in snapshot.workers]
    readings = replace(snapshot.readings, sessions={**snapshot.readings.sessions, NASTY: 1})
    text = render(replace(snapshot, workers=workers, readings=readings), Facts(NASTY, NASTY, 1, NOW, [NASTY]), [])
    assert "<b>" not in text
    shown = Page(text)
    assert shown.all("b") == []
    for inside, times in (("h1", 1), ("title", 1), ("code", 1), ("dd", 1), ("td", 2), ("th", 1)):
        assert sum(NASTY in data for where, data in shown.texts if where == inside) == times, inside


def test_labels_of_plots_are_escaped() -> None:
    series = plot.Series(NASTY, "blue", [1.0, 2.0])
    text = plot.figure([10, 5], 15, NASTY, [series], plot.linear(2), lambda value: NASTY)
    assert "<b>" not in text
    assert '"x"' not in text
    assert NASTY in (Page(text).all("svg")[0]["aria-label"] or "")


@pytest.mark.parametrize("samples", [0, 1])
def test_without_history(samples: int) -> None:
    board, _ = board_of()
    history = History()
    for _ in range(samples):
        history.add(at(board, NOW - 1))
    shown = Page(render(at(board, NOW), FACTS, history.samples()))
    assert shown.text.count("no data yet") == 5
    assert shown.all("svg", role="img") == []
    assert not any(tile.startswith("|Handler|") for tile in shown.tiles)  # nothing to say


def test_without_history_no_rate_is_known() -> None:
    shown = Page(render(at(board_of()[0], NOW), FACTS, []))
    for tile in ("Messages/s", "Refused/s", "Bytes/s"):
        assert not any(each.startswith(f"|{tile}|") for each in shown.tiles)


def test_without_workers() -> None:
    board = Scoreboard(1, 1)
    board.wanted, board.beat = 2, time.monotonic_ns()
    shown = Page(render(at(board, NOW), FACTS, []))
    assert "no workers" in shown.text
    assert "no worker is ready" in shown.text
    assert "0 of 2 workers are ready" in shown.text
    assert "|Workers|0 / 2|ready / wanted" in shown.tiles
    assert "|Sessions|0 / 0|now / limit" in shown.tiles


def test_the_head() -> None:
    board, _ = board_of()
    snapshot = replace(at(board, NOW), uptime=3700.0)
    shown = Page(render(snapshot, FACTS, []))
    assert ("h1", "mail") in shown.texts
    assert ("p", "ready") in shown.texts
    assert ("title", "ready – mail") in shown.texts
    assert {"|Version|1.0", "|Master|4711", "|Up|1 h 1 min"} <= set(shown.tiles)
    assert "|Listening on|smtp://127.0.0.1:25|smtps://[::]:465" in shown.tiles
    assert shown.all("p", **{"class": "badge ok"})
    assert shown.all("ul", **{"class": "alarms"}) == []


def test_a_silent_master_is_told() -> None:
    board, _ = board_of()
    board.beat = time.monotonic_ns() - 12_000_000_000
    shown = Page(render(at(board, NOW), FACTS, []))
    assert "the master has been silent for 12 s" in shown.text
    assert shown.all("p", **{"class": "badge bad"})


def test_a_busy_server_says_why() -> None:
    board, (slot,) = board_of()
    for row in slot.rows:
        row[SINCE] = time.monotonic_ns()
    board.queued = 3
    shown = Page(render(at(board, NOW), FACTS, []))
    assert ("p", "all session threads are busy") in shown.texts
    assert shown.all("p", **{"class": "badge warn"})
    assert len(shown.all("dd", **{"class": "warn"})) == 2  # sessions and queue
    assert "|Queue|3|waiting to be accepted" in shown.tiles


def test_tiles_of_a_known_history() -> None:
    snapshot, samples = known(120, busy)
    shown = Page(render(snapshot, FACTS, samples))
    assert {
        "|Sessions|0 / 2|now / limit",
        "|Messages/s|4|accepted, last 10 s",
        "|Refused/s|3|2 rejected, 1 deferred",
        "|Recipients/s|9|last 10 s",
        "|Bytes/s|2.5 kB|last 10 s",
        "|Handler|3.75 ms|p50, last minute",
        "|Handler|4.88 ms|p95, last minute",
        "|Handler|4.98 ms|p99, last minute",
        "|Workers|1 / 1|ready / wanted",
    } <= set(shown.tiles)


def test_tiles_look_back_ten_seconds_and_a_minute_only() -> None:
    def long_ago(slot: Slot, second: int) -> None:
        if second < 110:  # of 120
            slot.rows[0][MESSAGES] += 50
        if second < 60:
            slot.rows[0][BUCKETS] += 50

    shown = Page(render(*insert_facts(known(120, long_ago))))
    assert "|Messages/s|0|accepted, last 10 s" in shown.tiles
    assert not any(tile.startswith("|Handler|") for tile in shown.tiles)

    def one_later(slot: Slot, second: int) -> None:
        slot.rows[0][MESSAGES] += 50 if second <= 110 else 0
        slot.rows[0][BUCKETS] += 50 if second <= 60 else 0

    shown = Page(render(*insert_facts(known(120, one_later))))
    assert "|Messages/s|5|accepted, last 10 s" in shown.tiles
    assert "|Handler|0.5 ms|p50, last minute" in shown.tiles


def insert_facts(pair: tuple[Snapshot, list[Sample]]) -> tuple[Snapshot, Facts, list[Sample]]:
    return pair[0], FACTS, pair[1]


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> int:
    """The moment in which all of a test takes place: what was 6 s ago does not become 6.1 s."""
    now = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    return now


def test_a_worker(frozen: int) -> None:
    board, (slot,) = board_of(rows=4)
    slot.limit, slot.rss, slot.cpu, slot.retire, slot.generation = 4, 52_400_000, 2_540_000_000, AGE, 3
    slot.rows[0][SINCE] = slot.rows[1][SINCE] = frozen - 65_000_000_000
    slot.rows[0][SESSIONS], slot.rows[3][MESSAGES] = 12_345, 7
    shown = Page(render(at(board, NOW), FACTS, []))
    assert shown.row("100") == [
        "ready", "2 / 4 ", "7", "–", "52.4 MB", "2.5 s", "0.0 s", "0.0 s", "12,345", "1 min 5 s", "3", "max_worker_age",
    ]  # fmt: skip
    assert {found["width"] for found in shown.all("rect", **{"class": "full"})} == {"50.0", "0.0"}


@pytest.mark.parametrize(
    ("silent", "longest", "warnings"),
    [(4, 9, []), (6, 9, ["⚠ 6.0 s"]), (4, 11, ["⚠ 11 s"]), (6, 11, ["⚠ 11 s", "⚠ 6.0 s"]), (4, 0, [])],
)
def test_workers_that_deserve_attention(frozen: int, silent: int, longest: int, warnings: list[str]) -> None:
    board, (slot,) = board_of()
    slot.heartbeat = frozen - silent * 10**9
    slot.longest = frozen - longest * 10**9 if longest else 0
    shown = Page(render(at(board, NOW), FACTS, []))
    assert [cell for cell in shown.row("100") if "⚠" in cell] == warnings
    assert len(shown.all("td", **{"class": "warn"})) == len(warnings)
    assert shown.text.count(": 100") == len(warnings)  # in the list at the top


def test_all_workers_are_listed_and_those_that_go_too() -> None:
    board, _ = board_of(3)
    claim(board, DRAINING, active=1)
    shown = Page(render(at(board, NOW), FACTS, []))
    assert [shown.row(str(pid))[0] for pid in (100, 101, 102, 103)] == ["ready"] * 3 + ["draining"]
    assert "|Workers|3 / 3|ready / wanted" in shown.tiles


def test_totals_have_every_counter() -> None:
    board, (slot,) = board_of()
    for counter in range(len(COUNTERS)):
        slot.rows[0][counter] = 1_000_000 + counter
    for number, counter in enumerate(MASTER_COUNTERS):
        for _ in range(number + 1):
            board.count(counter)
    shown = Page(render(at(board, NOW), FACTS, []))
    assert set(page._LABELS) == {*COUNTERS, *MASTER_COUNTERS}
    assert len(set(page._LABELS.values())) == len(page._LABELS)
    for number, counter in enumerate(COUNTERS):
        assert shown.row(page._LABELS[counter]) == [f"{1_000_000 + number:,}"]
    for number, counter in enumerate(MASTER_COUNTERS):
        assert shown.row(page._LABELS[counter]) == [str(number + 1)]


def test_the_histogram_has_bars() -> None:
    board, (slot,) = board_of()
    slot.rows[0][BUCKETS], slot.rows[0][BUCKETS + 15] = 40, 10
    shown = Page(render(at(board, NOW), FACTS, []))
    assert [shown.row(label)[0] for label in ("up to 1 ms", "up to 2.5 ms", "up to 60 s", "over 60 s")] == ["40", "0", "0", "10"]
    assert [found["width"] for found in shown.all("rect", **{"class": "full"})][-16:] == ["100.0", *["0.0"] * 14, "25.0"]


def test_plots_of_a_known_history() -> None:
    snapshot, samples = known(600, busy)
    text = render(snapshot, FACTS, samples)
    labels = Page(text).figures()
    assert labels["Messages/s"].endswith("accepted: at most 4; deferred: at most 1; rejected: at most 2")
    assert labels["Bytes/s"].endswith("accepted: at most 2.5 kB")
    assert labels["Handler"].endswith("p50: at most 3.75 ms; p95: at most 4.88 ms; p99: at most 4.98 ms")
    assert "limit: at most 2" in labels["Sessions"]
    for title, runs in (("Messages/s", 3), ("Sessions", 2), ("Handler", 3), ("Bytes/s", 1), ("Queue", 1)):
        shapes = curves(text, title)
        assert [len(shape) for shape in shapes] == [1] * runs, title  # no gap anywhere
    (((first, *_, last),),) = curves(text, "Queue")
    # Ten minutes of fifteen, up to the middle of the last full step.
    assert first[0] == pytest.approx(394 - 342 * 10 / 15, abs=1)
    assert last[0] == pytest.approx(394, abs=2)
    accepted, deferred, rejected = (shape[0] for shape in curves(text, "Messages/s"))
    y = [148 - 140 * share for share in (0, 4 / 8, 5 / 8, 7 / 8)]  # 7 in all, on a scale up to 8
    for shape, below, above in ((accepted, y[0], y[1]), (deferred, y[1], y[2]), (rejected, y[2], y[3])):
        assert {point[1] for point in shape} == {below, above}


def test_a_limit_far_above_is_not_drawn() -> None:
    board, (slot,) = board_of(rows=500)
    slot.limit, slot.rows[0][SINCE] = 500, 1
    history = History()
    for second in range(60):
        history.add(at(board, NOW - 60 + second))
    shown = Page(render(at(board, NOW), FACTS, history.samples()))
    assert "limit: at most" not in shown.figures()["Sessions"]
    assert ("h3", "Sessions, limit 500") in shown.texts


def test_900_samples_make_180_points_at_most() -> None:
    snapshot, samples = known(900, busy)
    text = render(snapshot, FACTS, samples)
    (((*points,),),) = curves(text, "Bytes/s")
    assert 175 <= len(points) <= 180
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert all(52 <= x <= 394 and 8 <= y <= 148 for x, y in points)


def test_what_comes_between_two_steps_is_not_lost() -> None:
    def at_the_seam(slot: Slot, second: int) -> None:
        if second % 5 == 4:
            slot.rows[0][MESSAGES] += 10

    text = render(*insert_facts(known(600, at_the_seam)))
    assert "accepted: at most 2;" in Page(text).figures()["Messages/s"]


def test_another_master_is_a_gap_and_no_negative_rate() -> None:
    snapshot, samples = known(600, busy)
    fresh = [
        replace(sample, totals=dict.fromkeys(sample.totals, 0), buckets=[0] * len(sample.buckets)) if number >= 302
        else sample
        for number, sample in enumerate(samples)
    ]  # fmt: skip
    readings = replace(snapshot.readings, sessions=fresh[-1].totals, handler_buckets=fresh[-1].buckets)
    text = render(replace(snapshot, readings=readings), FACTS, fresh)
    assert [len(shape) for shape in curves(text, "Bytes/s")] == [2]
    for title in ("Messages/s", "Sessions", "Handler", "Bytes/s", "Queue"):
        assert all(y <= 148 for shape in curves(text, title) for run in shape for _, y in run), title
    assert not re.search(r"[-\u2212]\d", Page(text).figures()["Messages/s"] + " ".join(Page(text).tiles[5:]))
    # Nothing was counted after it: the tiles do not reach over it.
    assert "|Messages/s|0|accepted, last 10 s" in Page(text).tiles


def test_a_new_master_just_now_makes_the_rates_unknown() -> None:
    snapshot, samples = known(60, busy)
    readings = replace(snapshot.readings, sessions=dict.fromkeys(snapshot.readings.sessions, 0))
    shown = Page(render(replace(snapshot, readings=readings), FACTS, samples))
    assert not any(tile.startswith("|Messages/s|") for tile in shown.tiles)


@pytest.mark.parametrize(
    ("missing", "runs"),
    [(range(0), 1), (range(300, 304), 1), (range(300, 305), 2), (range(300, 330), 2), (range(100), 1)],
)
def test_missing_samples_are_a_gap(missing: Sequence[int], runs: int) -> None:
    snapshot, samples = known(600, busy)
    kept = [sample for number, sample in enumerate(samples) if number not in missing]
    text = render(snapshot, FACTS, kept)
    for title in ("Bytes/s", "Queue", "Handler"):
        assert {len(shape) for shape in curves(text, title)} == {runs}, title
    assert "accepted: at most 2.5 kB" in Page(text).figures()["Bytes/s"]  # averages do not notice


def test_the_handler_has_a_gap_where_no_message_came() -> None:
    def now_and_then(slot: Slot, second: int) -> None:
        if not 200 <= second < 300:
            busy(slot, second)

    text = render(*insert_facts(known(600, now_and_then)))
    assert {len(shape) for shape in curves(text, "Handler")} == {2}
    assert {len(shape) for shape in curves(text, "Bytes/s")} == {1}  # 0 is a rate


def test_a_clock_set_back_and_samples_too_old_or_of_the_future() -> None:
    snapshot, samples = known(600, busy)
    odd = [replace(samples[0], time=NOW - 5000), *samples[:300], replace(samples[300], time=NOW + 50), *samples[301:]]
    odd[200] = replace(odd[200], time=odd[199].time - 2)
    text = render(snapshot, FACTS, odd)
    Page(text)
    assert all(52 <= x <= 396 for shape in curves(text, "Queue") for run in shape for x, _ in run)
    assert "accepted: at most 2.5 kB" in Page(text).figures()["Bytes/s"]


def test_it_is_quick() -> None:
    board, slots = board_of(64)
    history = History()
    for second in range(900):
        busy(slots[second % 64], second)
        history.add(at(board, NOW - 900 + second))
    snapshot, samples = at(board, NOW), history.samples()
    assert len(samples) == 900
    best = min(timed(lambda: render(snapshot, FACTS, samples)) for _ in range(10))
    assert best < 0.05  # 8 ms were measured


def timed(action: Callable[[], object]) -> float:
    """Of the processor: what others take of it does not count."""
    begun = time.thread_time()
    action()
    return time.thread_time() - begun


@pytest.mark.parametrize(
    ("most", "whole", "ticks"),
    [
        (0, False, (0, 1)),
        (0, True, (0, 1)),
        (1, True, (0, 1)),
        (3, True, (0, 1, 2, 3)),
        (7, False, (0, 2, 4, 6, 8)),
        (8, False, (0, 2, 4, 6, 8)),
        (8.1, False, (0, 5, 10)),
        (0.03, False, (0, 0.01, 0.02, 0.03)),
        (0.7, True, (0, 1)),
        (100, False, (0, 50, 100)),
        (1_234_567, False, (0, 500_000, 1_000_000, 1_500_000)),
    ],
)
def test_linear_scales(most: float, whole: bool, ticks: tuple[float, ...]) -> None:
    assert plot.linear(most, whole).ticks == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("least", "most", "ticks"),
    [
        (0.001, 0.001, (0.001, 0.01)),
        (0.003, 0.004, (0.001, 0.01)),
        (0.0005, 60, (0.0001, 0.001, 0.01, 0.1, 1, 10, 100)),
        (0.01, 10, (0.01, 0.1, 1, 10)),
    ],
)
def test_logarithmic_scales(least: float, most: float, ticks: tuple[float, ...]) -> None:
    assert plot.logarithmic(least, most).ticks == ticks


@pytest.mark.parametrize(
    ("scale", "value", "share"),
    [
        (plot.linear(10), 0, 0),
        (plot.linear(10), 5, 0.5),
        (plot.linear(10), 99, 1),
        (plot.linear(10), -1, 0),
        (plot.logarithmic(0.001, 1), 0.001, 0),
        (plot.logarithmic(0.001, 1), 0.01, 1 / 3),
        (plot.logarithmic(0.001, 1), 1, 1),
        (plot.logarithmic(0.001, 1), 0, 0),
    ],
)
def test_shares(scale: plot.Scale, value: float, share: float) -> None:
    assert scale.share(value) == pytest.approx(share)


@pytest.mark.parametrize(
    ("values", "runs"),
    [
        ([], []),
        ([None], []),
        ([1.0, 2.0], [[(0, 1), (1, 2)]]),
        ([None, 1.0, None, None, 2.0, None], [[(1, 1)], [(4, 2)]]),
        ([0.0, None, 0.0], [[(0, 0)], [(2, 0)]]),
    ],
)
def test_runs(values: list[float | None], runs: list[list[tuple[float, float]]]) -> None:
    assert plot.runs_of(list(range(len(values))), values) == runs


def test_a_point_alone_is_seen() -> None:
    series = [plot.Series("a", "blue", [1.0, None, 2.0])]
    for stacked in (False, True):
        text = plot.figure([600, 300, 0], 15, "T", series, plot.linear(2), plot.brief, stacked)
        ((first, second),) = curves(text, "T")
        assert first[0][0] < first[1][0]
        assert second[0][0] < second[1][0]


@pytest.mark.parametrize(
    ("say", "value", "words"),
    [
        (plot.brief, 0, "0"),
        (plot.brief, 0.25, "0.25"),
        (plot.brief, 12.345, "12.3"),
        (plot.brief, 999.7, "1k"),
        (plot.brief, 1500, "1.5k"),
        (plot.brief, 2e6, "2M"),
        (plot.size, 0, "0 B"),
        (plot.size, 52_400_000, "52.4 MB"),
        (plot.size, 3e12, "3 TB"),
        (plot.latency, 0.0005, "0.5 ms"),
        (plot.latency, 0.9999, "1 s"),
        (plot.latency, 60, "60 s"),
        (plot.latency, 100, "100 s"),
        (plot.latency, 180, "3 min 0 s"),
        (plot.span, 0.42, "0.4 s"),
        (plot.span, 9.96, "10 s"),
        (plot.span, 59.7, "1 min 0 s"),
        (plot.span, 3700, "1 h 1 min"),
        (plot.span, 90_000, "1 d 1 h"),
    ],
)
def test_numbers_in_words(say: Callable[[float], str], value: float, words: str) -> None:
    assert say(value) == words


@pytest.mark.parametrize(("share", "width"), [(0, "0.0"), (0.375, "37.5"), (1, "100.0"), (3, "100.0"), (-1, "0.0")])
def test_bars(share: float, width: str) -> None:
    assert Page(plot.bar(share)).all("rect", **{"class": "full"})[0]["width"] == width


# --- what has names of its own, what has happened, what was set


def test_refusals_limits_and_hooks_are_tables() -> None:
    board, _ = board_of()
    tally = board.tallies.of(0)
    tally.add("refused rcpt 550 5.1.1", 295)
    tally.add("limit max_errors", 7)
    tally.add("hook rcpt 0", 3)
    shown = Page(render(at(board, NOW), FACTS, []))
    assert ["rcpt", "550", "5.1.1", "295"] in shown.rows
    assert ["max_errors", "7"] in shown.rows
    assert ["rcpt", "3", "0.5 ms", "0.95 ms", "0.99 ms"] in shown.rows


def test_events_settings_and_certificates() -> None:
    board, _ = board_of()
    board.chronicle.note("reload failed", NASTY)
    facts = replace(
        FACTS, host="mx.example", settings=[("workers", "4", "command line")], certificates=[("b", "c.pem", NOW)]
    )
    text = render(at(board, NOW), facts, [])
    shown = Page(text)
    assert "<title>ready – mail on mx.example</title>" in text
    assert [row[1:] for row in shown.rows if "reload failed" in row] == [["reload failed", NASTY]]
    assert ["workers", "4", "command line"] in shown.rows
    assert any(row[:2] == ["c.pem", "b"] for row in shown.rows)


def test_a_red_alarm_makes_the_badge_red() -> None:
    board, _ = board_of()
    assert Page(render(at(board, NOW), FACTS, [])).all("p", **{"class": "badge ok"})
    board.chronicle.note("reload failed", "app.py, line 24: NameError")
    shown = Page(render(at(board, NOW), FACTS, []))
    assert shown.all("p", **{"class": "badge bad"})
    assert "app.py, line 24: NameError" in shown.text


def test_every_cell_of_a_worker_is_named_for_narrow_screens() -> None:
    board, _ = board_of()
    shown = Page(render(at(board, NOW), FACTS, []))
    labels = [found["data-label"] for found in shown.all("td") if "data-label" in found]
    assert labels[0] == "State"
    assert len(labels) == 12
