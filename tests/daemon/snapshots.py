"""Snapshots of pipelines for tests of what is made from them."""

from __future__ import annotations

from typing import Any

from broadway_py.pipeline.stats import Distribution, PipelineStats, ProducerStats, StageStats

EMPTY = Distribution((0.1, 1.0), (0, 0, 0), 0.0)


def producer(name: str = "queue", **changes: Any) -> ProducerStats:
    fields: dict[str, Any] = {
        "name": name,
        "received": 10,
        "redelivered": 1,
        "outcomes": {"acked": 6, "rejected": 1},
        "in_flight": 3,
        "bytes_in_flight": 30,
        "oldest_in_flight_seconds": 2.0,
        "latency": Distribution((0.1, 1.0), (4, 2, 1), 3.5),
        "connected": 1,
        "copies": 1,
        "connections_lost": 2,
        "trouble": None,
        "ended": False,
    }
    return ProducerStats(**{**fields, **changes})


def stage(name: str = "processors", **changes: Any) -> StageStats:
    fields: dict[str, Any] = {
        "name": name,
        "concurrency": 4,
        "busy_seconds": 1.5,
        "backpressure_seconds": 0.5,
        "queued": 7,
        "failed": {"raised": 1},
        "duration": Distribution((0.1, 1.0), (5, 0, 0), 0.2),
    }
    return StageStats(**{**fields, **changes})


def pipeline(name: str = "orders", **changes: Any) -> PipelineStats:
    fields: dict[str, Any] = {
        "name": name,
        "state": "running",
        "producers": (producer(),),
        "stages": (
            stage(),
            stage(
                "batcher:default",
                batcher="default",
                duration=None,
                batches={"size": 2, "timeout": 1},
                batch_sizes=Distribution((1.0, 10.0), (1, 2, 0), 21.0),
            ),
            stage("batch_processors:default", batcher="default", failed={}),
        ),
        "rate_limit_wait_seconds": 0.25,
        "restarts": 0,
        "stuck_handlers": 1,
    }
    return PipelineStats(**{**fields, **changes})
