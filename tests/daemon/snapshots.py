"""Snapshots of pipelines for tests of what is made from them."""

from __future__ import annotations

from typing import Any

from broadway_py.pipeline.stats import (
    AggregatorStats,
    DeduplicationStats,
    Distribution,
    PipelineStats,
    ProducerStats,
    PublisherStats,
    StageStats,
)

EMPTY = Distribution((0.1, 1.0), (0, 0, 0), 0.0)


def publisher(name: str = "out", **changes: Any) -> PublisherStats:
    fields: dict[str, Any] = {
        "name": name,
        "published": {"confirmed": 5, "refused": 1},
        "waiting": 2,
        "in_flight": 3,
        "duration": Distribution((0.1, 1.0), (4, 2, 0), 1.5),
        "connected": 1,
        "copies": 1,
        "trouble": None,
    }
    return PublisherStats(**{**fields, **changes})


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


def aggregator(name: str = "revenue", **changes: Any) -> AggregatorStats:
    fields: dict[str, Any] = {
        "name": name,
        "windows_open": 20,
        "results_pending": 5,
        "results_failing": 1,
        "watermark": 1000.0,
        "watermark_lag_seconds": 12.0,
        "watermark_held_seconds": {"in_work": 3.0, "retry": 0.0},
        "held": 7,
        "checkpoints": 40,
        "checkpoint_failures": 2,
        "checkpoint_duration": Distribution((0.1, 1.0), (38, 2, 0), 1.5),
        "state_bytes": 100,
        "checkpoint_age_seconds": 0.5,
        "results": {"watermark": 60},
        "emit_failures": 3,
        "late": {"event_time": 4},
        "duplicates": 8,
        "without_identity": 9,
        "uncertain": 6,
        "dedup_horizon_seconds": 600.0,
    }
    return AggregatorStats(**{**fields, **changes})


def handled(**changes: Any) -> DeduplicationStats:
    fields: dict[str, Any] = {
        "ids": 40,
        "waiting": 2,
        "duplicates": 6,
        "without_identity": 8,
        "dedup_horizon_seconds": 600.0,
        "state_bytes": 640,
        "checkpoint_failures": 1,
    }
    return DeduplicationStats(**{**fields, **changes})


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
