"""Merges snapshots of one pipeline, from several processes or from one after the other. Their meaning decides how."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Final, TypeVar

from broadway_py.message import Outcome
from broadway_py.pipeline.settlement.recent_failures import MOST_KINDS
from broadway_py.pipeline.stats import (
    AggregatorStats,
    DeduplicationStats,
    Distribution,
    FailureStats,
    PipelineState,
    PipelineStats,
    ProducerStats,
    PublisherStats,
    RateLimitStats,
    SourceStats,
    StageStats,
    add_distributions,
)
from broadway_py.request_counts import RequestCounts

__all__ = ["merge_stats", "retire"]

K = TypeVar("K")

# The merged state is the first of these that any worker is in.
_STATES: Final[tuple[PipelineState, ...]] = ("crashed", "draining", "starting", "new", "paused", "running", "stopped")


def merge_stats(live: Sequence[PipelineStats], gone: Sequence[PipelineStats]) -> PipelineStats:
    """Returns the snapshots of one pipeline as one: those of *live* workers and what is kept of those that are *gone*.

    The state is that of the live ones, if there are any.

    ``received == sum(outcomes) + in_flight`` holds for the sum because it holds for each snapshot.
    """
    every = [*live, *gone]
    states = {one.state for one in (live or every)}
    return PipelineStats(
        name=every[0].name,
        state=next(state for state in _STATES if state in states),
        producers=_by_name([one.producers for one in every], _add_producers),
        stages=_by_name([one.stages for one in every], _add_stages),
        rate_limit_wait_seconds=sum(one.rate_limit_wait_seconds for one in every),
        restarts=sum(one.restarts for one in every),
        stuck_handlers=sum(one.stuck_handlers for one in every),
        breaker_open=any(one.breaker_open for one in live),
        breaker_opened_by=next((one.breaker_opened_by for one in live if one.breaker_open), ""),
        aggregators=_aggregators(live, gone),
        deduplication=_deduplication(live, gone),
        partitions=next((one.partitions for one in every if one.partitions is not None), None),
        owned=tuple(sorted({partition for one in every for partition in one.owned})),
        state_trouble=next((one.state_trouble for one in live if one.state_trouble is not None), None),
        publishers=_by_name([one.publishers for one in every], _add_publishers),
        breaker_opened_at=next((one.breaker_opened_at for one in live if one.breaker_open), ""),
        breaker_next_try_seconds=min(
            (one.breaker_next_try_seconds for one in live if one.breaker_next_try_seconds is not None), default=None
        ),
        processors_busy=tuple(share for one in live for share in one.processors_busy),
        failures=_failures(every),
        rate_limit=_rate_limit(live),
    )


def retire(last: PipelineStats, *, state: PipelineState) -> PipelineStats:
    """Returns what is kept of a pipeline that is gone: its counters. Messages in flight are counted as ``unknown``."""
    return replace(
        last,
        state=state,
        producers=tuple(_depart_producer(one) for one in last.producers),
        stages=tuple(replace(one, concurrency=0, queued=0) for one in last.stages),
        stuck_handlers=0,
        breaker_open=False,
        breaker_opened_by="",
        breaker_opened_at="",
        breaker_next_try_seconds=None,
        processors_busy=(),
        rate_limit=None,
        aggregators=tuple(_depart_aggregator(one) for one in last.aggregators),
        deduplication=tuple(replace(one, ids=0, waiting=0, state_bytes=0) for one in last.deduplication),
        state_trouble=None,
        publishers=tuple(
            replace(one, waiting=0, in_flight=0, connected=0, copies=0, trouble=None) for one in last.publishers
        ),
    )


def _failures(every: Iterable[PipelineStats]) -> tuple[FailureStats, ...]:
    """Returns the kinds of failures of all, the latest first, and no more of them than one process keeps."""
    found: dict[Hashable, FailureStats] = {}
    for kind in (kind for one in every for kind in one.failures):
        key = (kind.stage, kind.cause, kind.type, kind.becomes)
        same = [kind] if key not in found else [kind, found[key]]
        latest = max(same, key=lambda each: each.last)
        found[key] = replace(latest, count=sum(each.count for each in same))
    return tuple(sorted(found.values(), key=lambda kind: kind.last, reverse=True)[:MOST_KINDS])


def _rate_limit(live: Sequence[PipelineStats]) -> RateLimitStats | None:
    limits = [one.rate_limit for one in live if one.rate_limit is not None]
    if not limits:
        return None
    # The interval is the same for all workers, and each of them has its part of the messages.
    return RateLimitStats(sum(limit.allowed_messages for limit in limits), limits[0].interval_seconds)


def _depart_producer(last: ProducerStats) -> ProducerStats:
    outcomes: dict[Outcome, int] = {**last.outcomes, "unknown": last.outcomes.get("unknown", 0) + last.in_flight}
    return replace(
        last,
        outcomes=outcomes,
        in_flight=0,
        bytes_in_flight=0,
        oldest_in_flight_seconds=0.0,
        connected=0,
        copies=0,
        trouble=None,
        source=None,
    )


def _depart_aggregator(last: AggregatorStats) -> AggregatorStats:
    # Its windows and results are in the file. They are counted again when the worker has loaded them.
    return replace(
        last,
        windows_open=0,
        results_pending=0,
        results_failing=0,
        watermark=None,
        watermark_lag_seconds=None,
        watermark_held_seconds={},
        held=0,
        state_bytes=0,
        checkpoint_age_seconds=0.0,
    )


def _aggregators(live: Sequence[PipelineStats], gone: Sequence[PipelineStats]) -> tuple[AggregatorStats, ...]:
    running = {
        _of_partition(one): one for one in _by(_of_partition, [each.aggregators for each in live], _add_aggregators)
    }
    every = _by(_of_partition, [each.aggregators for each in [*live, *gone]], _add_aggregators)
    # The horizon of a worker that is gone says nothing about those that run.
    return tuple(
        replace(one, dedup_horizon_seconds=running.get(_of_partition(one), one).dedup_horizon_seconds) for one in every
    )


def _deduplication(live: Sequence[PipelineStats], gone: Sequence[PipelineStats]) -> tuple[DeduplicationStats, ...]:
    def by_partition(snapshots: Iterable[PipelineStats]) -> tuple[DeduplicationStats, ...]:
        return _by(lambda one: one.partition, [each.deduplication for each in snapshots], _add_deduplication)

    running = {one.partition: one for one in by_partition(live)}
    # The horizon of a worker that is gone says nothing about those that run.
    return tuple(
        replace(one, dedup_horizon_seconds=running.get(one.partition, one).dedup_horizon_seconds)
        for one in by_partition([*live, *gone])
    )


def _of_partition(one: AggregatorStats) -> tuple[str, int | None]:
    return one.name, one.partition


Named = TypeVar("Named", ProducerStats, StageStats, AggregatorStats, DeduplicationStats, PublisherStats)
WithName = TypeVar("WithName", ProducerStats, StageStats, AggregatorStats, PublisherStats)


def _by_name(
    groups: Iterable[Sequence[WithName]], add: Callable[[WithName, WithName], WithName]
) -> tuple[WithName, ...]:
    return _by(lambda one: one.name, groups, add)


def _by(
    key: Callable[[Named], Hashable], groups: Iterable[Sequence[Named]], add: Callable[[Named, Named], Named]
) -> tuple[Named, ...]:
    found: dict[Hashable, list[Named]] = defaultdict(list)
    for group in groups:
        for one in group:
            found[key(one)].append(one)
    return tuple(reduce(add, same) for same in found.values())


def _add_producers(a: ProducerStats, b: ProducerStats) -> ProducerStats:
    return ProducerStats(
        name=a.name,
        received=a.received + b.received,
        redelivered=a.redelivered + b.redelivered,
        outcomes=_add_counts(a.outcomes, b.outcomes),
        in_flight=a.in_flight + b.in_flight,
        bytes_in_flight=a.bytes_in_flight + b.bytes_in_flight,
        oldest_in_flight_seconds=max(a.oldest_in_flight_seconds, b.oldest_in_flight_seconds),
        latency=add_distributions(a.latency, b.latency),
        connected=a.connected + b.connected,
        copies=a.copies + b.copies,
        connections_lost=a.connections_lost + b.connections_lost,
        trouble=a.trouble or b.trouble,
        ended=a.ended and b.ended,
        requests=_add_requests(a.requests, b.requests),
        source=_one_source(a.source, b.source),
    )


def _one_source(a: SourceStats | None, b: SourceStats | None) -> SourceStats | None:
    """Returns what is known of a source that two processes read. Both look at the same messages."""
    if a is None or b is None:
        return a or b
    freshest = min(
        (one for one in (a, b) if one.is_known == (a.is_known or b.is_known)), key=lambda one: one.age_seconds
    )
    # A process may know only some of the places in which messages wait.
    delayed = max((one.delayed for one in (a, b) if one.delayed is not None), default=None)
    return replace(freshest, delayed=delayed)


def _add_publishers(a: PublisherStats, b: PublisherStats) -> PublisherStats:
    return PublisherStats(
        name=a.name,
        published=_add_counts(a.published, b.published),
        waiting=a.waiting + b.waiting,
        in_flight=a.in_flight + b.in_flight,
        duration=add_distributions(a.duration, b.duration),
        connected=a.connected + b.connected,
        copies=a.copies + b.copies,
        trouble=a.trouble or b.trouble,
    )


def _add_stages(a: StageStats, b: StageStats) -> StageStats:
    return StageStats(
        name=a.name,
        concurrency=a.concurrency + b.concurrency,
        busy_seconds=a.busy_seconds + b.busy_seconds,
        backpressure_seconds=a.backpressure_seconds + b.backpressure_seconds,
        queued=a.queued + b.queued,
        failed=_add_counts(a.failed, b.failed),
        duration=_add_optional(a.duration, b.duration),
        batcher=a.batcher,
        batches=_add_counts(a.batches, b.batches),
        batch_sizes=_add_optional(a.batch_sizes, b.batch_sizes),
    )


def _add_aggregators(a: AggregatorStats, b: AggregatorStats) -> AggregatorStats:
    held = {by: max(a.watermark_held_seconds.get(by, 0.0), seconds) for by, seconds in b.watermark_held_seconds.items()}
    return AggregatorStats(
        name=a.name,
        windows_open=a.windows_open + b.windows_open,
        results_pending=a.results_pending + b.results_pending,
        results_failing=a.results_failing + b.results_failing,
        watermark=min((one.watermark for one in (a, b) if one.watermark is not None), default=None),
        watermark_lag_seconds=max(
            (one.watermark_lag_seconds for one in (a, b) if one.watermark_lag_seconds is not None), default=None
        ),
        watermark_held_seconds={**a.watermark_held_seconds, **held},
        held=a.held + b.held,
        checkpoints=a.checkpoints + b.checkpoints,
        checkpoint_failures=a.checkpoint_failures + b.checkpoint_failures,
        checkpoint_duration=add_distributions(a.checkpoint_duration, b.checkpoint_duration),
        state_bytes=a.state_bytes + b.state_bytes,
        checkpoint_age_seconds=max(a.checkpoint_age_seconds, b.checkpoint_age_seconds),
        results=_add_counts(a.results, b.results),
        emit_failures=a.emit_failures + b.emit_failures,
        late=_add_counts(a.late, b.late),
        duplicates=a.duplicates + b.duplicates,
        without_identity=a.without_identity + b.without_identity,
        uncertain=a.uncertain + b.uncertain,
        dedup_horizon_seconds=min(a.dedup_horizon_seconds, b.dedup_horizon_seconds),
        partition=a.partition,
        keys_of_others=a.keys_of_others + b.keys_of_others,
    )


def _add_deduplication(a: DeduplicationStats, b: DeduplicationStats) -> DeduplicationStats:
    return DeduplicationStats(
        ids=a.ids + b.ids,
        waiting=a.waiting + b.waiting,
        duplicates=a.duplicates + b.duplicates,
        without_identity=a.without_identity + b.without_identity,
        dedup_horizon_seconds=min(a.dedup_horizon_seconds, b.dedup_horizon_seconds),
        state_bytes=a.state_bytes + b.state_bytes,
        checkpoint_failures=a.checkpoint_failures + b.checkpoint_failures,
        partition=a.partition,
    )


def _add_counts(a: Mapping[K, int], b: Mapping[K, int]) -> dict[K, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}


def _add_optional(a: Distribution | None, b: Distribution | None) -> Distribution | None:
    if a is None or b is None:
        return a or b
    return add_distributions(a, b)


def _add_requests(a: RequestCounts | None, b: RequestCounts | None) -> RequestCounts | None:
    if a is None or b is None:
        return a or b
    return a + b
