"""The dashboard is one that Grafana imports, and all it asks Prometheus for is served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conf.metrics import SERVED, TABLE, names
from tests.conf.programs import CONF, run
from tests.program.conftest import need

DASHBOARD: dict[str, Any] = json.loads((CONF / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def filled(expression: str) -> str:
    """What Prometheus gets: Grafana's variables have a value."""
    for name, value in {"$__rate_interval": "5m", "$__range": "3h", "$job": ".+", "$instance": ".+"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def test_it_says_what_it_is_and_lets_one_choose_where_it_asks() -> None:
    assert DASHBOARD["schemaVersion"] >= 37
    assert next(iter(DASHBOARD)) == "description"
    assert "Try it: " in DASHBOARD["description"]
    assert "id" not in DASHBOARD  # that of another Grafana, it would overwrite a dashboard
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for name in ("job", "instance"):
        assert VARIABLES[name]["datasource"] == SOURCE
        assert names(re.sub(r"label_values\((.*), \w+\)", r"\1", VARIABLES[name]["definition"])) <= TABLE


def test_every_panel_asks_the_chosen_source() -> None:
    for panel in PANELS:
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert sources == [SOURCE] * len(sources), panel["title"]


def test_panels_have_a_title_and_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["title"] for panel in DASHBOARD["panels"])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_series_of_an_expression_is_served(expression: str) -> None:
    asked = names(filled(expression))
    assert asked
    assert asked <= SERVED | {"up"}


def test_every_metric_is_on_it() -> None:
    """A panel shows each family of the table."""
    shown = set().union(*(names(filled(expression)) for expression in EXPRESSIONS))
    missing = TABLE - shown
    assert not missing, "to be put into a panel of conf/grafana-dashboard.json"


def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    rules = "".join(f"      - record: number:{n}\n        expr: {json.dumps(filled(e))}\n" for n, e in enumerate(EXPRESSIONS))
    (tmp_path / "rules.yml").write_text(f"groups:\n  - name: dashboard\n    rules:\n{rules}")
    assert f"{len(EXPRESSIONS)} rules" in run(need("promtool"), "check", "rules", str(tmp_path / "rules.yml"))
