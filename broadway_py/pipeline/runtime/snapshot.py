"""Takes the snapshot of a running pipeline. Nothing here waits, so all figures are from the same moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broadway_py._core.histogram import Histogram
from broadway_py._core.ledger import Ledger
from broadway_py.pipeline.deduplication.deduplication import Deduplication
from broadway_py.pipeline.publishing.outbox import Outbox
from broadway_py.pipeline.runtime.run import PipelineRun
from broadway_py.pipeline.stages.aggregator import AggregatorStage
from broadway_py.pipeline.stages.emitter import Emitter
from broadway_py.pipeline.stages.late_stage import LateStage
from broadway_py.pipeline.stages.services import Meter
from broadway_py.pipeline.stages.source import Source
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.pipeline.stats import (
    AggregatorStats,
    DeduplicationStats,
    Distribution,
    PipelineState,
    PipelineStats,
    ProducerStats,
    PublisherStats,
    RateLimitStats,
    StageStats,
)
from broadway_py.request_counts import RequestCounts

__all__ = ["take_snapshot"]


def take_snapshot(name: str, state: PipelineState, run: PipelineRun, meters: Mapping[str, Meter]) -> PipelineStats:
    """Returns all figures of the pipeline called *name* at this moment."""
    now = run.clock.monotonic()
    stages, gate = run.stages, run.gate
    sources = [*stages.sources, stages.submissions]
    producers = [
        _producer(run, ledger, [source for source in sources if source.ledger is ledger], now)
        for ledger in stages.ledgers
        if ledger is not stages.submissions.ledger or ledger.received
    ]
    layers: dict[str, list[PipelineStage]] = {layer: [] for layer in meters}
    for one in [
        *stages.processors,
        *stages.batchers,
        *stages.batch_processors,
        *stages.of_aggregators(),
    ]:
        layers[one.layer].append(one)
    return PipelineStats(
        name=name,
        state=state,
        producers=tuple(producers),
        stages=tuple(_stage(layer, of_layer, meters[layer], now) for layer, of_layer in layers.items()),
        rate_limit_wait_seconds=gate.waited_seconds,
        restarts=run.restarts.count,
        stuck_handlers=run.services.threads.stuck,
        breaker_open=gate.broken,
        breaker_opened_by=gate.broken_by,
        aggregators=tuple(_aggregator(stage, now, run.clock.wall()) for stage in stages.aggregators),
        deduplication=_deduplication(run.services.deduplication),
        state_trouble=_state_trouble(run),
        partitions=stages.partitions,
        owned=stages.owned,
        publishers=tuple(map(_publisher, run.publishers.outboxes.values())),
        breaker_opened_at=gate.broken_at,
        breaker_next_try_seconds=_until_probe(run, now),
        processors_busy=run.load.shares([_busy_seconds(one, now) for one in stages.processors], now),
        failures=run.services.failures.recent.snapshot(),
        rate_limit=None if gate.rate is None else RateLimitStats(gate.rate.allowed, gate.rate.interval_s),
    )


def _busy_seconds(stage: PipelineStage, now: float) -> float:
    return stage.busy_seconds + (0.0 if stage.busy_since is None else now - stage.busy_since)


def _until_probe(run: PipelineRun, now: float) -> float | None:
    router = run.services.router
    if router is None or router.breaker is None or router.breaker.state == "closed":
        return None
    return max(0.0, router.breaker.probe_at - now)


def _producer(run: PipelineRun, ledger: Ledger, copies: Sequence[Source], now: float) -> ProducerStats:
    troubles = [trouble for source in copies if (trouble := source.live.why_not_ready) is not None]
    return ProducerStats(
        name=ledger.producer,
        received=ledger.received,
        redelivered=ledger.redelivered,
        outcomes=dict(ledger.outcomes),
        in_flight=ledger.in_flight,
        bytes_in_flight=ledger.bytes_in_flight,
        oldest_in_flight_seconds=ledger.oldest_age(now),
        latency=_distribution(ledger.latency),
        connected=sum(source.live.connected for source in copies),
        copies=len(copies),
        connections_lost=sum(source.live.connections_lost for source in copies),
        trouble=troubles[0] if troubles else None,
        ended=all(source.ended for source in copies),
        # A sum is a copy, which the producer does not change any more.
        requests=ledger.requests + RequestCounts() if ledger.requests.requests else None,
        source=None if run.source_counts is None else run.source_counts.of(ledger.producer),
    )


def _publisher(outbox: Outbox) -> PublisherStats:
    return PublisherStats(
        name=outbox.name,
        published=dict(outbox.outcomes),
        waiting=outbox.waiting,
        in_flight=outbox.in_flight,
        duration=_distribution(outbox.duration),
        connected=int(outbox.is_up),
        copies=1,
        trouble=outbox.trouble,
    )


def _stage(layer: str, of_layer: Sequence[PipelineStage], meter: Meter, now: float) -> StageStats:
    kind, _, name = layer.partition(":")
    batcher = name if kind in ("batcher", "batch_processors") else None
    running = sum(now - one.busy_since for one in of_layer if one.busy_since is not None)
    return StageStats(
        name=layer,
        concurrency=len(of_layer),
        busy_seconds=meter.busy_seconds + running,
        backpressure_seconds=meter.backpressure_seconds,
        queued=sum(_queued(one) for one in of_layer),
        failed=dict(meter.failed),
        duration=_distribution(meter.duration) if kind in ("processors", "batch_processors") else None,
        batcher=batcher,
        batches=dict(meter.batches) if kind == "batcher" else {},
        batch_sizes=_distribution(meter.batch_sizes) if kind == "batcher" else None,
    )


def _state_trouble(run: PipelineRun) -> str | None:
    if run.window_state is None:
        return None
    opening = run.window_state.trouble
    if opening is not None:
        return opening
    ids = () if run.services.deduplication is None else run.services.deduplication.parts.values()
    unstored = next((trouble for one in ids if (trouble := one.trouble) is not None), None)
    if unstored is not None:
        return f"degraded: the ids of handled messages cannot be stored: {unstored}"
    stages = run.stages.aggregators
    full = next((full for stage in stages if (full := stage.full_of) is not None), None)
    if full is not None:
        return f"degraded: {full}"
    torn = next((stage.key for stage in stages if stage.keeper.keys_of_others), None)
    if torn is None:
        return None
    keys = sum(stage.keeper.keys_of_others for stage in stages if stage.key == torn)
    return (
        f"degraded: {keys} {'key' if keys == 1 else 'keys'} of aggregator {torn!r} came from two partitions of the "
        "source, so their results are wrong: correct the publishers, then start again"
    )


def _aggregator(stage: AggregatorStage, now: float, wall: float) -> AggregatorStats:
    keeper, pending = stage.keeper, stage.emitter.pending
    aggregation, identities = keeper.aggregation, keeper.identities
    watermark = None if aggregation.watermark is None else aggregation.watermark / 1_000_000
    return AggregatorStats(
        name=stage.key,
        partition=stage.partition,
        windows_open=aggregation.open,
        results_pending=len(pending) + aggregation.due,
        results_failing=pending.failing,
        watermark=watermark,
        watermark_lag_seconds=None if watermark is None else wall - watermark,
        watermark_held_seconds=keeper.time.held_seconds(now),
        held=stage.checkpoints.messages,
        checkpoints=keeper.committer.stored,
        checkpoint_failures=keeper.committer.failures,
        checkpoint_duration=_distribution(stage.checkpoints.duration),
        state_bytes=keeper.state_bytes,
        checkpoint_age_seconds=max(0.0, now - keeper.stored_at),
        results=dict(aggregation.results_by_trigger),
        emit_failures=pending.failed_calls,
        late=dict(stage.adder.late),
        duplicates=identities.duplicates,
        without_identity=identities.without_identity,
        uncertain=identities.uncertain,
        dedup_horizon_seconds=identities.horizon_s(keeper.time.connected_s),
        keys_of_others=keeper.keys_of_others,
    )


def _deduplication(deduplication: Deduplication | None) -> tuple[DeduplicationStats, ...]:
    if deduplication is None:
        return ()
    return tuple(
        DeduplicationStats(
            ids=len(one.register),
            waiting=one.register.waiting,
            duplicates=one.register.duplicates,
            without_identity=one.without_identity,
            dedup_horizon_seconds=one.register.horizon_s(one.connected_s),
            state_bytes=one.state_bytes,
            checkpoint_failures=one.failures,
            partition=partition,
        )
        for partition, one in deduplication.parts.items()
    )


def _queued(one: Any) -> int:
    if isinstance(one, Emitter):
        return len(one.pending)
    if isinstance(one, LateStage):
        return one.queued
    waiting = one.inlet.waiting()
    if one.layer.startswith("batch_processors:"):
        return sum(len(batch.messages) for batch in waiting)
    count = sum(1 for _ in waiting)
    return count + (one.open_messages if one.layer.startswith("batcher:") else 0)


def _distribution(histogram: Histogram) -> Distribution:
    return Distribution(histogram.bounds, tuple(histogram.counts), histogram.total)
