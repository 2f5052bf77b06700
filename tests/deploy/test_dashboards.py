"""The dashboards as files: what Grafana's schema knows, and what a reader needs in each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.dashboards import DASHBOARDS, DEPLOY, dashboard, panels, queries

ROOT = DEPLOY.parent
UNITS = {value for name, value in vars(units).items() if name[0] != "_" and isinstance(value, str)}

#: The fields of an annotation that belong to Grafana's data source for Prometheus. The schema has those of all data
#: sources only.
_OF_PROMETHEUS = {"useValueForTime": bool, "titleFormat": str, "textFormat": str}

of_each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def unlike(ours: Any, theirs: Any, place: str) -> Iterator[str]:
    """Where *ours* has something that *theirs* has lost or changed."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if not isinstance(theirs, dict) or key not in theirs:
                yield f"{place}.{key}"
            else:
                yield from unlike(value, theirs[key], f"{place}.{key}")
    elif isinstance(ours, list):
        if not isinstance(theirs, list) or len(theirs) != len(ours):
            yield place
            return
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from unlike(one, other, f"{place}[{index}]")
    elif ours != theirs:
        yield f"{place}: {ours!r} became {theirs!r}"


def through_the_schema(board: dict[str, Any]) -> Any:
    """Read by the classes that Grafana makes from its schema, and written again: what they do not know is gone."""
    plugins.register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))


def test_the_four_dashboards_are_there_and_their_uids_stay() -> None:
    assert {path.stem: dashboard(path)["uid"] for path in DASHBOARDS} == {
        "overview": "broadway-overview",
        "pipeline": "broadway-pipeline",
        "brokers": "broadway-brokers",
        "windows": "broadway-windows",
    }


def in_the_schema(path: Path) -> dict[str, Any]:
    """The dashboard in a file, without what only the data source for Prometheus knows."""
    board = dashboard(path)
    for annotation in board["annotations"]["list"]:
        for name, kind in _OF_PROMETHEUS.items():
            assert isinstance(annotation.pop(name, kind()), kind)
    return board


@of_each_dashboard
def test_grafanas_schema_knows_everything_in_a_dashboard(path: Path) -> None:
    board = in_the_schema(path)

    assert list(unlike(board, through_the_schema(board), path.stem)) == []


def test_what_the_schema_does_not_know_is_found() -> None:
    board = in_the_schema(DASHBOARDS[0])
    shown = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    shown["options"]["legend"]["colour"] = "red"
    index = board["panels"].index(shown)

    assert list(unlike(board, through_the_schema(board), "x")) == [f"x.panels[{index}].options.legend.colour"]


@of_each_dashboard
def test_each_panel_says_what_it_shows_and_in_which_unit(path: Path) -> None:
    board = dashboard(path)
    for panel in panels(board):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
    for query in queries(path):
        assert query.unit in UNITS, str(query)
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(identifiers) == len(set(identifiers))


@of_each_dashboard
def test_panels_lie_beside_each_other_and_inside_the_page(path: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard(path)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@of_each_dashboard
def test_starts_new_versions_and_reloads_are_marked(path: Path) -> None:
    board = dashboard(path)
    assert [one["name"] for one in board["annotations"]["list"]] == ["Starts", "New version", "Reloads"]
    for annotation in board["annotations"]["list"]:
        assert annotation["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        # The text names labels that the query has; test_prometheus.py asks for them.
        assert re.fullmatch(r"(\{\{\w+\}\} ?)+", annotation["textFormat"])


@of_each_dashboard
def test_the_data_source_and_the_pipeline_are_variables(path: Path) -> None:
    board = dashboard(path)
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert list(variables) == ["datasource", "pipeline", "docs"]
    assert variables["datasource"]["query"] == "prometheus"
    for panel in panels(board):
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    known = {*variables, "__rate_interval", "__data", "__field", "__value", "__all"}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board)))
    assert used - known == set()


@of_each_dashboard
def test_the_links_of_a_dashboard_lead_to_pages_and_dashboards_that_exist(path: Path) -> None:
    board = dashboard(path)
    uids = {dashboard(other)["uid"] for other in DASHBOARDS}
    pages = [link["url"] for link in board["links"] if link["type"] == "link"]
    assert pages == ["${docs}/metrics.md", "${docs}/runbook.md"]
    assert all((ROOT / page.replace("${docs}", "docs")).exists() for page in pages)
    assert set(re.findall(r'"/d/([\w-]+)\?', json.dumps(board))) <= uids
    for page in re.findall(r"docs/[\w.]+\.md", json.dumps([panel["description"] for panel in panels(board)])):
        assert (ROOT / page).exists()


@of_each_dashboard
def test_a_query_asks_for_the_chosen_pipeline_wherever_the_metric_has_one(path: Path) -> None:
    without = {"broadway_event_loop_lag_seconds", "broadway_worker_restarts_total", "broadway_build_info"}
    for query in queries(path):
        for metric, selector in re.findall(r"\b(\w*:?broadway_[\w:]+)(\{[^}]*\})?", query.expression):
            assert metric in without or "$pipeline" in selector, str(query)
