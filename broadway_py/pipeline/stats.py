"""The figures of a running pipeline, as plain values: one snapshot, taken without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from broadway_py.message import BatchTrigger, Cause, Outcome
from broadway_py.request_counts import RequestCounts

__all__ = [
    "AggregatorStats",
    "DeduplicationStats",
    "Distribution",
    "FailureStats",
    "PipelineState",
    "PipelineStats",
    "ProducerStats",
    "PublishOutcome",
    "PublisherStats",
    "RateLimitStats",
    "SourceStats",
    "StageStats",
    "add_distributions",
]

PipelineState = Literal["new", "starting", "running", "paused", "draining", "stopped", "crashed"]


#: What became of a message that a handler has published: its place keeps it; its place never takes it; or its place has
#: not confirmed it.
PublishOutcome = Literal["confirmed", "refused", "unconfirmed"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram. *counts* has one number per bucket, not cumulative.

    It has one number more than *bounds*: the last counts the values above all bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """Returns how many values were observed."""
        return sum(self.counts)


def add_distributions(a: Distribution, b: Distribution) -> Distribution:
    """Returns the sum of *a* and *b*. They have the same bounds, as all distributions of one metric have."""
    counts = tuple(x + y for x, y in zip(a.counts, b.counts, strict=True))
    return Distribution(a.bounds, counts, a.total + b.total)


@dataclass(frozen=True, slots=True)
class SourceStats:
    """How many messages a source holds, as it said last. None: it is not known, or the source has no such number."""

    #: Those that wait and may be handed out.
    ready: int | None
    #: Those that wait for the end of a delay.
    delayed: int | None
    #: Those among its dead letters.
    dead: int | None
    #: How old the numbers are.
    age_seconds: float
    #: Why a number is not known, in one sentence without credentials.
    trouble: str | None

    @property
    def is_known(self) -> bool:
        """Returns whether any of the numbers is known."""
        return (self.ready, self.delayed, self.dead) != (None, None, None)


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """The figures of one producer, all copies together.

    ``received == sum(outcomes) + in_flight`` in every snapshot.
    """

    name: str
    received: int
    redelivered: int
    outcomes: Mapping[Outcome, int]
    in_flight: int
    bytes_in_flight: int
    #: Age of the oldest unsettled message in seconds; 0 if there is none.
    oldest_in_flight_seconds: float
    latency: Distribution
    #: How many of the *copies* are connected.
    connected: int
    copies: int
    connections_lost: int
    #: Why a copy is not connected, or is connected but does not do its work ("degraded: …"), in one sentence without
    #: credentials; None if there is no problem.
    trouble: str | None
    #: True once the source has said that no more messages come.
    ended: bool
    #: The requests to a source that charges for each; None if the producer counts none.
    requests: RequestCounts | None = None
    #: How many messages the source holds; None: nobody asks it, or it cannot tell.
    source: SourceStats | None = None


@dataclass(frozen=True, slots=True)
class StageStats:
    """The figures of one layer: ``processors``, ``batcher:NAME`` or ``batch_processors:NAME``."""

    name: str
    concurrency: int
    busy_seconds: float
    #: Seconds spent waiting until the next layer took messages that this one had ready.
    backpressure_seconds: float
    #: How many messages wait in front of this layer.
    queued: int
    failed: Mapping[Cause, int]
    #: How long the handling of one chunk (processors) or one batch (batch processors) took.
    duration: Distribution | None = None
    batcher: str | None = None
    #: How many batches were made, by the trigger that closed them, and their sizes (batchers only).
    batches: Mapping[BatchTrigger, int] = field(default_factory=dict)
    batch_sizes: Distribution | None = None


@dataclass(frozen=True, slots=True)
class AggregatorStats:
    """The figures of one aggregator, or of its part in one partition of the sources.

    It also has a layer among the stages, and so has what hands out its results.
    """

    name: str
    #: How many windows are open, counted for each key.
    windows_open: int
    #: How many results are stored or due and were not handed out, and how many of them failed and are tried alone.
    results_pending: int
    results_failing: int
    #: The watermark in seconds since 1970, and how far it is behind the wall clock; None while it is not known.
    watermark: float | None
    watermark_lag_seconds: float | None
    #: What holds the watermark, each with the seconds for which it has done so; 0: it does not.
    watermark_held_seconds: Mapping[str, float]
    #: Messages that were added and are not stored yet.
    held: int
    #: How many checkpoints were stored, how many tries failed, how long each took, and how old the last one is.
    checkpoints: int
    checkpoint_failures: int
    checkpoint_duration: Distribution
    checkpoint_age_seconds: float
    #: How many bytes of windows, identities and results are stored.
    state_bytes: int
    #: How many results there were, by what made the window give one.
    results: Mapping[str, int]
    #: How many calls of ``emit`` failed.
    emit_failures: int
    #: How many messages were late, by what made them late: ``event_time`` or ``held``.
    late: Mapping[str, int]
    #: How many messages were recognised as repeats, had no identity, and may have been counted twice for want of one.
    duplicates: int
    without_identity: int
    uncertain: int
    #: For how many seconds after its ack a message is recognised, while its source is connected.
    dedup_horizon_seconds: float
    #: The partition; None: the sources have none.
    partition: int | None = None
    #: How many keys were seen here that came from another partition before.
    keys_of_others: int = 0


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """The figures of one publisher."""

    name: str
    #: How many messages ended in each outcome.
    published: Mapping[PublishOutcome, int]
    #: How many messages wait, and how many are being sent and not confirmed yet.
    waiting: int
    in_flight: int
    #: How long the calls of the handlers took.
    duration: Distribution
    #: In how many of the processes it is connected, and in how many it runs.
    connected: int
    copies: int
    #: Why the place cannot be used, in one sentence without credentials; None if it can.
    trouble: str | None


@dataclass(frozen=True, slots=True)
class DeduplicationStats:
    """The figures of ``deduplicate_by``, or of its part in one partition of the sources."""

    #: How many ids of handled messages are kept in memory.
    ids: int
    #: How many messages wait for one of the same id that is being handled.
    waiting: int
    #: How many messages were recognised as repeats, and how many had no id.
    duplicates: int
    without_identity: int
    #: For how many seconds a message is recognised, while its source is connected.
    dedup_horizon_seconds: float
    #: How many bytes of ids are stored, and how many tries to store some failed.
    state_bytes: int
    checkpoint_failures: int
    #: The partition; None: the sources have none.
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class FailureStats:
    """One kind of failure that messages had lately. It has no payload and no text of an error."""

    #: The name of the exception's type; "" if there was none.
    type: str
    #: The layer in which the messages failed.
    stage: str
    #: Where in the code the last error was raised; "" if that is not known.
    place: str
    cause: str
    #: How many messages failed like this.
    count: int
    #: When the last of them failed, in seconds since 1970.
    last: float
    #: What becomes of the last of them, such as "retry in 12 s" or "dead-lettered to orders.dead".
    next: str | None
    #: The same as one word, such as "retry".
    becomes: str


@dataclass(frozen=True, slots=True)
class RateLimitStats:
    """The rate limit that holds now, of all workers together."""

    allowed_messages: int
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """All figures of one pipeline at one moment."""

    name: str
    state: PipelineState
    producers: tuple[ProducerStats, ...]
    stages: tuple[StageStats, ...]
    rate_limit_wait_seconds: float
    restarts: int
    #: How many threads still run a handler although the pipeline no longer waits for it.
    stuck_handlers: int
    #: True while fetching is stopped because too many messages failed.
    breaker_open: bool = False
    #: How many messages had failed when the breaker opened, by which error and in which layer; "" while it is closed.
    breaker_opened_by: str = ""
    #: Where in the code the error that opened the breaker was raised; "" if that is not known.
    breaker_opened_at: str = ""
    #: The seconds until the next probe; None while the breaker is closed.
    breaker_next_try_seconds: float | None = None
    aggregators: tuple[AggregatorStats, ...] = ()
    #: One for each partition; empty without ``deduplicate_by``.
    deduplication: tuple[DeduplicationStats, ...] = ()
    #: Into how many partitions the sources are parted, and which of them this process owns; None: they are not parted.
    partitions: int | None = None
    owned: tuple[int, ...] = ()
    #: Why the state keeps the pipeline from taking messages in; None if it does not.
    state_trouble: str | None = None
    publishers: tuple[PublisherStats, ...] = ()
    #: The share of the last seconds for which each processor was busy, from 0 to 1.
    processors_busy: tuple[float, ...] = ()
    #: The kinds of failures that messages had lately, the latest first.
    failures: tuple[FailureStats, ...] = ()
    #: None: there is no limit.
    rate_limit: RateLimitStats | None = None

    @property
    def trouble(self) -> str | None:
        """Returns why the pipeline is not ready, or None if it is.

        A pipeline is ready when it is connected and consumes, and is neither paused nor draining.
        """
        if self.state != "running":
            return self.state
        if self.breaker_open:
            by = f" ({self.breaker_opened_by})" if self.breaker_opened_by else ""
            text = f"degraded: too many messages failed{by}; fetching has stopped until a probe succeeds"
            # A place that is away is often why they fail.
            return "; ".join([text, *self._publisher_troubles])
        if self.state_trouble is not None:
            return self.state_trouble
        for producer in self.producers:
            if producer.trouble is not None:
                return f"{producer.name}: {producer.trouble}"
        for trouble in self._publisher_troubles:
            return f"degraded: {trouble}"
        return None

    @property
    def _publisher_troubles(self) -> list[str]:
        return [f"publisher {one.name!r}: {one.trouble}" for one in self.publishers if one.trouble is not None]
