"""The shape of a pipeline, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from broadway_py.options import Batcher, Processors
from broadway_py.producer_description import ProducerDescription

__all__ = ["topology_of"]


def topology_of(
    name: str,
    producers: Mapping[str, ProducerDescription],
    processors: Processors,
    batchers: Mapping[str, Batcher],
    *,
    aggregators: Iterable[str] = (),
    publishers: Iterable[str] = (),
) -> dict[str, Any]:
    """Returns producers, processors, batchers, aggregators and publishers. Each task is called ``<name>.<index>``."""
    return {
        "name": name,
        "producers": [
            {"name": f"{name}.producer:{key}", "producer": key, "concurrency": producer.concurrency}
            for key, producer in producers.items()
        ],
        "processors": [{"name": f"{name}.processors", "concurrency": processors.concurrency}],
        "batchers": [
            {
                "batcher": key,
                "name": f"{name}.batcher:{key}",
                "batch_processors": f"{name}.batch_processors:{key}",
                "concurrency": options.concurrency,
            }
            for key, options in batchers.items()
        ],
        **_of_aggregators(name, aggregators),
        **_of_publishers(name, publishers),
    }


def _of_aggregators(name: str, aggregators: Iterable[str]) -> dict[str, Any]:
    """Returns the entry of the aggregators, if there are any."""
    listed = [
        {"aggregator": key, "name": f"{name}.aggregator:{key}", "emitter": f"{name}.emitter:{key}"}
        for key in aggregators
    ]
    return {"aggregators": listed} if listed else {}


def _of_publishers(name: str, publishers: Iterable[str]) -> dict[str, Any]:
    """Returns the entry of the publishers, if there are any."""
    listed = [{"publisher": key, "name": f"{name}.publisher:{key}"} for key in publishers]
    return {"publishers": listed} if listed else {}
