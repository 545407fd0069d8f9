"""observe/metrics.py: the text is what Prometheus reads, and says what was counted."""

from __future__ import annotations

import re
from dataclasses import replace

from preforksmtp.observe.metrics import FAMILIES, exposition
from preforksmtp.observe.snapshot import Facts, take
from preforksmtp.prefork.scoreboard import (
    BUCKETS,
    DEFERRED,
    HANDLER_NS,
    MESSAGES,
    OCTETS_IN,
    READY,
    REJECTED,
    SINCE,
    Scoreboard,
)

FACTS = Facts('1.0"\\\n', "mail", 1, 1_700_000_000.25)
LINE = re.compile(r'(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')


def read(text: str) -> dict[str, float]:
    """Every series and its value; none of them twice, each after its HELP and TYPE."""
    assert text.endswith("\n")
    series: dict[str, float] = {}
    types: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP"):
            assert re.fullmatch(r"# HELP \w+ \S.*", line)
            continue
        if line.startswith("# TYPE"):
            name, kind = line.split()[2:]
            assert name not in types
            types[name] = kind
            continue
        found = LINE.fullmatch(line)
        assert found, line
        name = found[1]
        assert name in types or re.sub(r"_(bucket|sum|count)$", "", name) in types, name
        assert (types.get(name) == "counter") == name.endswith("_total")
        key = f"{name}{{{found[2]}}}" if found[2] else name
        assert key not in series
        series[key] = float(found[3])
    return series


def board_with(*values: tuple[int, int]) -> Scoreboard:
    board = Scoreboard(slots=2, rows=8)
    slot = board.claim(1)
    assert slot is not None
    slot.state, slot.limit, slot.pid = READY, 8, 77
    for counter, value in values:
        slot.rows[0][counter] = value
    return board


def test_an_empty_server() -> None:
    series = read(exposition(take(Scoreboard(1, 1), FACTS), FACTS))
    assert series["preforksmtp_ready"] == 0
    assert series["preforksmtp_sessions_total"] == 0
    assert series['preforksmtp_messages_total{result="accepted"}'] == 0
    assert series["preforksmtp_start_time_seconds"] == 1_700_000_000.25


def test_counters_and_gauges() -> None:
    board = board_with((MESSAGES, 5), (REJECTED, 3), (DEFERRED, 2))
    board.wanted = 4
    for counter in ("reloads", "reloads", "reloads_failed", "workers_died"):
        board.count(counter)
    series = read(exposition(take(board, FACTS), FACTS))
    assert [series[f'preforksmtp_messages_total{{result="{result}"}}'] for result in ("accepted", "deferred", "rejected")] == [5, 2, 3]
    assert series['preforksmtp_reloads_total{result="done"}'] == 1
    assert series['preforksmtp_reloads_total{result="failed"}'] == 1
    assert series["preforksmtp_workers_died_total"] == 1
    assert series["preforksmtp_workers_wanted"] == 4
    assert series['preforksmtp_workers{state="ready"}'] == 1
    assert series["preforksmtp_sessions_limit"] == 8
    assert series['preforksmtp_worker_sessions_active{worker="0"}'] == 0


def test_the_histogram_is_cumulative() -> None:
    board = board_with((BUCKETS, 4), (BUCKETS + 2, 3), (BUCKETS + 15, 2), (HANDLER_NS, 1_500_000_000))
    series = read(exposition(take(board, FACTS), FACTS))
    name = "preforksmtp_handler_seconds"
    buckets = {key: value for key, value in series.items() if key.startswith(f"{name}_bucket")}
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets[f'{name}_bucket{{le="0.001"}}'] == 4
    assert buckets[f'{name}_bucket{{le="0.005"}}'] == 7
    assert buckets[f'{name}_bucket{{le="60"}}'] == 7
    assert buckets[f'{name}_bucket{{le="+Inf"}}'] == 9 == series[f"{name}_count"]
    assert series[f"{name}_sum"] == 1.5


def test_labels_are_escaped() -> None:
    assert 'version="1.0\\"\\\\\\n"' in exposition(take(Scoreboard(1, 1), FACTS), FACTS)


def test_every_family_has_another_name_and_a_sentence() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert all(family.help.endswith(".") for family in FAMILIES)


def test_what_has_names_of_its_own() -> None:
    board = board_with((MESSAGES, 5), (REJECTED, 2), (OCTETS_IN, 4096))
    tally = board.tallies.of(0)
    for key in ("refused rcpt 550 5.1.1", "refused connect 421 -", "limit max_errors", "auth PLAIN failed", "ended tls",
                "timeout data_timeout", "hook_error rcpt", "accepted mail", "lost access"):  # fmt: skip
        tally.add(key, 3)
    board.tallies.retired.count("restart", "died")
    series = read(exposition(take(board, FACTS), FACTS))
    assert series['preforksmtp_refused_total{stage="rcpt",code="550",enhanced="5.1.1"}'] == 3
    assert series['preforksmtp_refused_total{stage="connect",code="421",enhanced=""}'] == 3
    assert series['preforksmtp_limits_total{limit="max_errors"}'] == 3
    assert series['preforksmtp_auth_mechanism_total{mechanism="PLAIN",result="failed"}'] == 3
    assert series["preforksmtp_tls_failures_total"] == 3
    assert series['preforksmtp_timeouts_by_limit_total{limit="data_timeout"}'] == 3
    assert series['preforksmtp_handler_errors_total{hook="rcpt"}'] == 3
    assert series['preforksmtp_accepted_total{stage="mail"}'] == 5 + 2 + 3
    assert series['preforksmtp_log_lines_lost_total{log="access"}'] == 3
    assert series['preforksmtp_wire_bytes_total{direction="in"}'] == 4096
    assert series['preforksmtp_worker_restarts_total{reason="died"}'] == 1


def test_each_hook_has_a_histogram() -> None:
    board = board_with((BUCKETS, 4), (HANDLER_NS, 1_500_000_000))
    tally = board.tallies.of(0)
    tally.add("hook rcpt 0", 2)
    tally.add("hook rcpt 15", 1)
    tally.add("hook_ns rcpt", 2_000_000_000)
    series = read(exposition(take(board, FACTS), FACTS))
    name = "preforksmtp_hook_seconds"
    assert series[f'{name}_bucket{{hook="rcpt",le="0.001"}}'] == 2
    assert series[f'{name}_bucket{{hook="rcpt",le="+Inf"}}'] == 3 == series[f'{name}_count{{hook="rcpt"}}']
    assert series[f'{name}_sum{{hook="rcpt"}}'] == 2
    assert series[f'{name}_count{{hook="message"}}'] == 4


def test_the_last_reload_and_certificates() -> None:
    board = board_with()
    facts = replace(FACTS, certificates=[("smtps://:465", "/etc/cert.pem", 1_800_000_000.0)], folders=["/", "/no such"])
    series = read(exposition(take(board, facts), facts))
    assert (series["preforksmtp_last_reload_successful"], series["preforksmtp_last_reload_timestamp_seconds"]) == (1, 0)
    board.chronicle.note("reload failed", "app.py, line 3")
    series = read(exposition(take(board, facts), facts))
    assert series["preforksmtp_last_reload_successful"] == 0
    assert series["preforksmtp_last_reload_timestamp_seconds"] > 1_700_000_000
    assert series['preforksmtp_certificate_expires_timestamp_seconds{bind="smtps://:465",file="/etc/cert.pem"}'] == 1.8e9
    assert series['preforksmtp_free_bytes{folder="/"}'] > 0
    assert 'preforksmtp_free_bytes{folder="/no such"}' not in series


def test_saturation_and_health() -> None:
    board = board_with()
    slot = board.slots[0]
    slot.limit, slot.rows[0][SINCE] = 1, 1
    slot.unwell = 1
    series = read(exposition(take(board, FACTS), FACTS))
    assert series["preforksmtp_saturated"] == 1
    assert series["preforksmtp_application_healthy"] == 0
    assert series["preforksmtp_ready"] == 0
