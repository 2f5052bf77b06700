"""What a running pipeline can say about itself, as plain values: one snapshot, taken without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from broadway_py.message import BatchTrigger, Cause, Outcome

__all__ = ["Distribution", "PipelineState", "PipelineStats", "ProducerStats", "StageStats"]

PipelineState = Literal["new", "starting", "running", "paused", "draining", "stopped", "crashed"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram: *counts* per bucket (not cumulative; one more than *bounds*, the last is "above all")."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """One producer (all its copies together). ``received == sum(outcomes) + in_flight``, in every snapshot."""

    name: str
    received: int
    redelivered: int
    outcomes: Mapping[Outcome, int]
    in_flight: int
    bytes_in_flight: int
    #: Age of the oldest unsettled message, in seconds; 0 when there is none.
    oldest_in_flight_seconds: float
    latency: Distribution
    #: Copies that are connected, out of how many.
    connected: int
    copies: int
    connections_lost: int
    #: Why a copy is not connected, or does not do its work though it is ("degraded: …"), in one sentence without
    #: credentials; None when all is well.
    trouble: str | None
    #: True once the source said that there is no more.
    ended: bool


@dataclass(frozen=True, slots=True)
class StageStats:
    """One layer: ``processors``, ``batcher:NAME`` or ``batch_processors:NAME``."""

    name: str
    concurrency: int
    busy_seconds: float
    #: Time spent waiting for the next layer to take what this one had ready.
    backpressure_seconds: float
    #: Messages that wait in front of this layer.
    queued: int
    failed: Mapping[Cause, int]
    #: Handling of one chunk (processors) or one batch (batch processors).
    duration: Distribution | None = None
    batcher: str | None = None
    #: Batches made, by what closed them, and their sizes (batchers only).
    batches: Mapping[BatchTrigger, int] = field(default_factory=dict)
    batch_sizes: Distribution | None = None


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """Everything about one pipeline at one moment."""

    name: str
    state: PipelineState
    producers: tuple[ProducerStats, ...]
    stages: tuple[StageStats, ...]
    rate_limit_wait_seconds: float
    restarts: int
    #: Threads that still run a handler whose message was given up.
    stuck_handlers: int
    #: Fetching has stopped because too much failed.
    breaker_open: bool = False
    #: How many had failed then, by which error and in which layer; "" while it has not.
    breaker_opened_by: str = ""

    @property
    def trouble(self) -> str | None:
        """Why the pipeline is not ready, or None when it is: connected, consuming, neither paused nor draining."""
        if self.state != "running":
            return self.state
        if self.breaker_open:
            by = f" ({self.breaker_opened_by})" if self.breaker_opened_by else ""
            return f"degraded: too many messages failed{by}; fetching has stopped until a probe succeeds"
        for producer in self.producers:
            if producer.trouble is not None:
                return f"{producer.name}: {producer.trouble}"
        return None
