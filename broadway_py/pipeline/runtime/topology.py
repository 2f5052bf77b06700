"""The shape of a pipeline, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broadway_py.options import Batcher, Processors
from broadway_py.producer_description import ProducerDescription

__all__ = ["topology_of"]


def topology_of(
    name: str, producers: Mapping[str, ProducerDescription], processors: Processors, batchers: Mapping[str, Batcher]
) -> dict[str, Any]:
    """Returns producers, processors and batchers in order. Each task is called ``<name>.<index>``, from 0."""
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
    }
