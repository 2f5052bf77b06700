"""The windows of :mod:`tests.integration.window_pipelines` on a source with partitions."""

from __future__ import annotations

import json
from pathlib import Path

from broadway_py import WindowResult
from tests.integration.window_pipelines import Counting, Counts

__all__ = ["PartedCounting", "PartedCounts"]


class PartedCounts(Counts):
    """Appends what it emits to the file ``emitted`` of its partition. One process at a time has a partition."""

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        (partition,) = {result.partition for result in results}
        folder = Path(self.context["folder"]) / f"partition {partition}"
        folder.mkdir(exist_ok=True)
        rows = [[one.id, one.firing, one.key, one.start, one.value, one.count] for one in results]
        with (folder / "emitted").open("a") as file:
            file.write(json.dumps(rows) + "\n")


class PartedCounting(Counting):
    """Counts what comes, partition by partition."""

    aggregators = {"counts": PartedCounts}  # noqa: RUF012  # an option
