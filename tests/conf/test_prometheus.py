"""Prometheus accepts its files; each alert is set off by what it is for, and by nothing else; each series is served."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conf.metrics import SERVED, TABLE, TO_COME, names
from tests.conf.programs import CONF, run
from tests.program.conftest import need

RULES = CONF / "prometheus-rules.yml"
TESTS = Path(__file__).with_name("prometheus-rules.test.yml")
RECORDED = set(re.findall(r"- record: (\S+)", RULES.read_text()))


def rules() -> dict[str, str]:
    """Each rule of the file by its name, as it stands there: nothing here reads YAML."""
    parts = re.split(r"^ {6}- (?:alert|record): ", RULES.read_text(), flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0]: part for part in parts}


def expression(rule: str) -> str:
    block = re.search(r"^ {8}expr: \|\n((?: {10}.*\n)+)", rule, re.MULTILINE)
    line = re.search(r"^ {8}expr: (.*)$", rule, re.MULTILINE)
    found = block or line
    assert found is not None, rule
    return found[1]


def test_promtool_accepts_the_files() -> None:
    promtool = need("promtool")
    assert "SUCCESS" in run(promtool, "check", "rules", str(RULES))
    run(promtool, "check", "config", str(CONF / "prometheus.yml"))


def test_each_alert_goes_off_when_it_should() -> None:
    run(need("promtool"), "test", "rules", str(TESTS))


@pytest.mark.parametrize("limit", ["last_reload_successful == 0", "[10m])) > 0.1", "- time() < 14"])
def test_the_test_of_the_alerts_can_fail(limit: str, tmp_path: Path) -> None:
    """The same with a rule whose limit is another one."""
    promtool = need("promtool")
    (tmp_path / "rules.yml").write_text(RULES.read_text().replace(limit, limit.rpartition(" ")[0] + " -1"))
    tests = tmp_path / "test.yml"
    tests.write_text(TESTS.read_text().replace("../../conf/prometheus-rules.yml", "rules.yml"))
    assert "FAILED" in run(promtool, "test", "rules", str(tests), code=1)


@pytest.mark.parametrize("name", rules())
def test_each_series_of_a_rule_is_served(name: str) -> None:
    asked = names(expression(rules()[name]))
    assert asked
    assert asked <= SERVED | RECORDED | {"up"}


@pytest.mark.parametrize("name", [name for name in rules() if name not in RECORDED])
def test_each_alert_says_how_bad_it_is_and_what_to_do_and_is_tested(name: str) -> None:
    rule = rules()[name]
    assert re.search(r"labels: \{severity: (warning|critical)\}", rule)
    assert re.search(r'annotations: \{summary: ".*\{\{ \$labels.instance \}\}.*"\}', rule)
    assert f'alertname="{name}"' in TESTS.read_text()


def test_what_is_to_come_has_not_come_entirely() -> None:
    """When this fails: delete TO_COME of metrics.py, and this test."""
    assert not {f"preforksmtp_{name}" for name in TO_COME} <= TABLE


def test_names() -> None:
    asked = 'sum by (job, le) (rate(a_total{x="b{c}", y=~"d"}[5m])) / on (job) e:f > 0.1 and g offset 15m unless time() > 1e3'
    assert names(asked) == {"a_total", "e:f", "g"}
