"""The dashboards of deploy/grafana, as the tests read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["DASHBOARDS", "DEPLOY", "Query", "dashboard", "panels", "queries", "unit_of"]

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
DASHBOARDS: Final = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel."""

    dashboard: str
    panel: str
    expression: str
    legend: str
    unit: str

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel}: {self.expression}"

    def filled(self, *, pipeline: str, interval: str) -> str:
        """The expression as Grafana would send it."""
        return self.expression.replace("$pipeline", pipeline).replace("$__rate_interval", interval)


def dashboard(path: Path) -> dict[str, Any]:
    """The dashboard in a file."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel that shows something: rows are left out, what is in them is not."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries(path: Path) -> Iterator[Query]:
    """Every query of every panel in a file."""
    for panel in panels(dashboard(path)):
        for target in panel["targets"]:
            yield Query(path.stem, panel["title"], target["expr"], target["legendFormat"], unit_of(panel, target))


def unit_of(panel: dict[str, Any], target: dict[str, Any]) -> str:
    """The unit in which the values of *target* are shown; in a table each column has its own."""
    if panel["type"] == "heatmap":
        return str(panel["options"]["cellValues"]["unit"])
    if panel["type"] == "table":
        names = panel["transformations"][1]["options"]["renameByName"]
        column = names[f"Value #{target['refId']}"]
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] == column:
                return str(next(one["value"] for one in override["properties"] if one["id"] == "unit"))
    return str(panel["fieldConfig"]["defaults"]["unit"])
