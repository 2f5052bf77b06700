"""Prometheus metrics, made from snapshots. Each scrape shows one moment, so its numbers add up.

To serve them from an application of your own::

    from prometheus_client import REGISTRY
    from broadway_py.metrics import PipelineCollector

    REGISTRY.register(PipelineCollector(lambda: [pipeline.stats()]))

Label values come from names in the settings and from closed sets. A metric has at most 1,000 series; further ones are
added up under the name ``other``. A histogram has its buckets for each series.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final, Literal, get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from broadway_py.installed import package_version
from broadway_py.message import BatchTrigger, Cause, Outcome
from broadway_py.pipeline.stats import (
    AggregatorStats,
    DeduplicationStats,
    Distribution,
    PipelineStats,
    ProducerStats,
    PublisherStats,
    PublishOutcome,
    StageStats,
    add_distributions,
)
from broadway_py.request_counts import RequestCounts

__all__ = [
    "SERIES_LIMIT",
    "PipelineCollector",
    "log_metrics",
    "pipeline_metrics",
    "process_metrics",
    "reload_metrics",
]

#: The most series of one metric.
SERIES_LIMIT: Final = 1000

# Labels whose values come from closed sets. They keep their values when the others become "other".
_CLOSED: Final = frozenset({"outcome", "cause", "trigger", "kind", "result", "by", "why", "state"})
_OTHER: Final = "other"

_OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
_PUBLISH_OUTCOMES: Final[tuple[PublishOutcome, ...]] = get_args(PublishOutcome)
_TRIGGERS: Final[tuple[BatchTrigger, ...]] = get_args(BatchTrigger)
# The causes of windows are shown only once they happen.
_CAUSES: Final[tuple[Cause, ...]] = tuple(
    cause for cause in get_args(Cause) if cause not in ("late", "future_event_time")
)

_Reload = Literal["done", "refused", "failed"]
_RELOADS: Final[tuple[_Reload, ...]] = get_args(_Reload)

_Fold = Literal["sum", "max", "min"]


class _Series:
    """The samples of one metric, by their labels. Their number is limited."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], fold: _Fold = "sum") -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._fold = fold
        self._values: dict[tuple[str, ...], float] = {}
        # Leaves room for "other" with every combination of the closed labels.
        self._room = SERIES_LIMIT - len(_CAUSES) - 2

    def add(self, values: tuple[str, ...], number: float) -> None:
        if values not in self._values and len(self._values) >= self._room:
            values = tuple(
                value if label in _CLOSED else _OTHER for label, value in zip(self.labels, values, strict=True)
            )
        before = self._values.get(values)
        self._values[values] = number if before is None else _FOLDS[self._fold](before, number)

    def counter(self) -> Metric:
        family = CounterMetricFamily(self.name, self.text, labels=self.labels)
        for values, number in self._values.items():
            family.add_metric(values, number)
        return family

    def gauge(self) -> Metric:
        family = GaugeMetricFamily(self.name, self.text, labels=self.labels)
        for values, number in self._values.items():
            family.add_metric(values, number)
        return family


_FOLDS: Final[Mapping[_Fold, Callable[[float, float], float]]] = {
    "sum": lambda a, b: a + b,
    "max": max,
    "min": min,
}


class _Histograms:
    """The distributions of one metric, by their labels. Their number is limited."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._values: dict[tuple[str, ...], Distribution] = {}

    def add(self, values: tuple[str, ...], distribution: Distribution | None) -> None:
        if distribution is None:
            return
        if values not in self._values and len(self._values) >= SERIES_LIMIT - 1:
            values = (_OTHER,) * len(values)
        before = self._values.get(values)
        self._values[values] = distribution if before is None else add_distributions(before, distribution)

    def histogram(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for values, distribution in self._values.items():
            bounds = [*(_bound(bound) for bound in distribution.bounds), "+Inf"]
            buckets = list(zip(bounds, map(float, accumulate(distribution.counts)), strict=True))
            family.add_metric(values, buckets, distribution.total)
        return family


def _bound(bound: float) -> str:
    return str(float(bound))


class PipelineCollector(Collector):
    """The metrics of pipelines, for a registry of ``prometheus_client``.

    Args:
        stats: returns the snapshots to show. It is called once per scrape, in the thread that scrapes.
    """

    def __init__(self, stats: Callable[[], Iterable[PipelineStats]]) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: registering must not ask the pipelines, which may not run yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Returns the metrics of one snapshot of each pipeline."""
        return pipeline_metrics(self._stats())


def pipeline_metrics(stats: Iterable[PipelineStats]) -> Iterator[Metric]:
    """Yields the metrics of *stats*."""
    snapshots = list(stats)
    yield from _producer_metrics([(one.name, producer) for one in snapshots for producer in one.producers])
    yield from _stage_metrics([(one.name, stage) for one in snapshots for stage in one.stages])
    waited = _Series("broadway_rate_limit_wait_seconds", "Time that messages waited for the rate limit.", ("pipeline",))
    stuck = _Series(
        "broadway_stuck_handlers", "Threads that still run a handler whose message has timed out.", ("pipeline",)
    )
    broken = _Series(
        "broadway_breaker_open", "1 while fetching has stopped because too many messages fail.", ("pipeline",), "max"
    )
    for one in snapshots:
        waited.add((one.name,), one.rate_limit_wait_seconds)
        stuck.add((one.name,), one.stuck_handlers)
        broken.add((one.name,), float(one.breaker_open))
    yield waited.counter()
    yield stuck.gauge()
    yield broken.gauge()
    aggregators = [(one.name, each) for one in snapshots for each in one.aggregators]
    ids = [(one.name, each) for one in snapshots for each in one.deduplication]
    if aggregators or ids:
        yield from _aggregator_metrics(aggregators, ids)
    publishers = [(one.name, each) for one in snapshots for each in one.publishers]
    if publishers:
        yield from _publisher_metrics(publishers)
    counted = {(one.name, each.name): each.requests for one in snapshots for each in one.producers if each.requests}
    if counted:
        yield from _request_metrics(counted)


def _aggregator_metrics(
    aggregators: list[tuple[str, AggregatorStats]], ids: list[tuple[str, DeduplicationStats]]
) -> Iterator[Metric]:
    labels = ("pipeline", "aggregator")
    opened = _Series("broadway_windows_open", "Open windows, counted for each key.", labels)
    pending = _Series("broadway_window_results_pending", "Results that nobody has taken yet.", labels)
    lag = _Series("broadway_watermark_lag_seconds", "How far the watermark is behind the clock.", labels, "max")
    held = _Series("broadway_watermark_held_seconds", "For how long something holds it.", (*labels, "by"), "max")
    age = _Series("broadway_checkpoint_age_seconds", "Time since the last checkpoint.", labels, "max")
    horizon = _Series("broadway_dedup_horizon_seconds", "How long a message is recognised.", labels, "min")
    size = _Series("broadway_state_bytes", "Size of the stored windows, identities and results.", labels)
    not_stored = _Series(
        "broadway_checkpoint_failures", "Tries to store a checkpoint, or to read the state, that failed.", labels
    )
    took = _Histograms("broadway_checkpoint_duration_seconds", "Time to store one checkpoint.", ("pipeline",))
    results = _Series("broadway_window_results", "Results of windows, by what made them.", (*labels, "trigger"))
    failures = _Series("broadway_emit_failures", "Calls of emit, or to a sink, that failed.", labels)
    late = _Series("broadway_late_messages", "Messages that came too late for their windows.", (*labels, "why"))
    repeats = _Series("broadway_duplicate_messages", "Messages that were recognised as repeats.", labels)
    nameless = _Series("broadway_messages_without_identity", "Messages that cannot be recognised.", labels)
    uncertain = _Series("broadway_uncertain_messages", "Messages that may have been counted twice.", labels)
    torn = _Series("broadway_keys_in_several_partitions", "Keys that came from two partitions of the source.", labels)
    for pipeline, one in aggregators:
        # The partitions of one aggregator add up, or the worst of them counts.
        key = (pipeline, one.name)
        opened.add(key, one.windows_open)
        pending.add(key, one.results_pending)
        if one.watermark_lag_seconds is not None:
            lag.add(key, one.watermark_lag_seconds)
        for by, seconds in one.watermark_held_seconds.items():
            held.add((*key, by), seconds)
        age.add(key, one.checkpoint_age_seconds)
        size.add(key, one.state_bytes)
        not_stored.add(key, one.checkpoint_failures)
        horizon.add(key, one.dedup_horizon_seconds)
        took.add((pipeline,), one.checkpoint_duration)
        for trigger, count in one.results.items():
            results.add((*key, trigger), count)
        failures.add(key, one.emit_failures)
        for why, count in one.late.items():
            late.add((*key, why), count)
        repeats.add(key, one.duplicates)
        nameless.add(key, one.without_identity)
        uncertain.add(key, one.uncertain)
        torn.add(key, one.keys_of_others)
    for pipeline, recognised in ids:
        # No aggregator: these are the messages of the whole pipeline.
        key = (pipeline, "")
        size.add(key, recognised.state_bytes)
        not_stored.add(key, recognised.checkpoint_failures)
        horizon.add(key, recognised.dedup_horizon_seconds)
        repeats.add(key, recognised.duplicates)
        nameless.add(key, recognised.without_identity)
    for gauge in (horizon, size):
        yield gauge.gauge()
    for counter in (not_stored, repeats, nameless):
        yield counter.counter()
    if aggregators:
        for gauge in (opened, pending, lag, held, age):
            yield gauge.gauge()
        for counter in (results, failures, late, uncertain, torn):
            yield counter.counter()
        yield took.histogram()


def _publisher_metrics(publishers: list[tuple[str, PublisherStats]]) -> Iterator[Metric]:
    labels = ("pipeline", "publisher")
    published = _Series("broadway_published_messages", "Messages that handlers published.", (*labels, "outcome"))
    waiting = _Series("broadway_publisher_waiting_messages", "Messages that wait to be sent.", labels)
    in_flight = _Series("broadway_publisher_in_flight_messages", "Messages sent and not confirmed yet.", labels)
    up = _Series("broadway_publisher_up", "1 while the place was reached, and the last try succeeded.", labels, "min")
    took = _Histograms("broadway_publish_duration_seconds", "From a handler's call to its end.", labels)
    for pipeline, one in publishers:
        key = (pipeline, one.name)
        for outcome in _PUBLISH_OUTCOMES:
            published.add((*key, outcome), one.published.get(outcome, 0))
        waiting.add(key, one.waiting)
        in_flight.add(key, one.in_flight)
        up.add(key, float(one.connected >= one.copies))
        took.add(key, one.duration)
    yield published.counter()
    for gauge in (waiting, in_flight, up):
        yield gauge.gauge()
    yield took.histogram()


def _request_metrics(counted: Mapping[tuple[str, str], RequestCounts]) -> Iterator[Metric]:
    labels = ("pipeline", "producer")
    requests = _Series("broadway_sqs_requests", "Requests to SQS by kind and result.", (*labels, "kind", "result"))
    entries = _Series("broadway_sqs_batch_entries", "Messages in the batch requests to SQS.", (*labels, "kind"))
    empty = _Series("broadway_sqs_empty_receives", "Receives that returned no message.", labels)
    sizes = _Histograms("broadway_sqs_receive_messages", "Messages that one receive returned.", labels)
    for key, one in counted.items():
        for (kind, result), count in sorted(one.requests.items()):
            requests.add((*key, kind, result), count)
        for kind, count in sorted(one.entries.items()):
            entries.add((*key, kind), count)
        empty.add(key, one.receives[0])
        bounds = tuple(float(size) for size in range(len(one.receives) - 1))
        sizes.add(key, Distribution(bounds, tuple(one.receives), float(one.messages)))
    for counter in (requests, entries, empty):
        yield counter.counter()
    yield sizes.histogram()


def _producer_metrics(producers: list[tuple[str, ProducerStats]]) -> Iterator[Metric]:
    labels = ("pipeline", "producer")
    received = _Series("broadway_messages_received", "Deliveries received.", labels)
    redelivered = _Series(
        "broadway_messages_redelivered", "Deliveries that were not the first of their message.", labels
    )
    settled = _Series("broadway_messages_settled", "Deliveries by how they ended.", (*labels, "outcome"))
    in_flight = _Series("broadway_messages_in_flight", "Deliveries that are not settled yet.", labels)
    in_bytes = _Series("broadway_bytes_in_flight", "Payload bytes of the deliveries in flight.", labels)
    oldest = _Series("broadway_oldest_in_flight_seconds", "Age of the oldest delivery in flight.", labels, "max")
    up = _Series("broadway_connection_up", "1 while every connection of the producer is up.", labels, "min")
    lost = _Series("broadway_connections_lost", "Connections that were lost.", labels)
    source = _Series("broadway_source_messages", "Messages that the source holds.", (*labels, "state"))
    latency = _Histograms(
        "broadway_end_to_end_latency_seconds", "From receiving a message to settling it.", ("pipeline",)
    )
    for pipeline, one in producers:
        key = (pipeline, one.name)
        received.add(key, one.received)
        redelivered.add(key, one.redelivered)
        for outcome in _OUTCOMES:
            settled.add((*key, outcome), one.outcomes.get(outcome, 0))
        in_flight.add(key, one.in_flight)
        in_bytes.add(key, one.bytes_in_flight)
        oldest.add(key, one.oldest_in_flight_seconds)
        up.add(key, float(one.ended or one.connected >= one.copies))
        lost.add(key, one.connections_lost)
        latency.add((pipeline,), one.latency)
        for state in ("ready", "delayed", "dead"):
            count = None if one.source is None else getattr(one.source, state)
            # A number that is not known is left out: 0 would say that nothing waits.
            if count is not None:
                source.add((*key, state), count)
    for counter in (received, redelivered, settled, lost):
        yield counter.counter()
    for gauge in (in_flight, in_bytes, oldest, up, source):
        yield gauge.gauge()
    yield latency.histogram()


def _stage_metrics(stages: list[tuple[str, StageStats]]) -> Iterator[Metric]:
    labels = ("pipeline", "stage")
    failed = _Series("broadway_messages_failed", "Messages that failed, by stage and cause.", (*labels, "cause"))
    busy = _Series("broadway_stage_busy_seconds", "Time spent in callbacks, over all tasks of the stage.", labels)
    waiting = _Series("broadway_backpressure_seconds", "Time spent waiting for the next stage to take more.", labels)
    queued = _Series("broadway_stage_queue_messages", "Messages that wait in front of the stage.", labels)
    concurrency = _Series("broadway_stage_concurrency", "Tasks of the stage that run at the same time.", labels)
    batches = _Series("broadway_batches", "Batches by what closed them.", ("pipeline", "batcher", "trigger"))
    handling = _Histograms(
        "broadway_processor_duration_seconds", "Time to handle one chunk of messages.", ("pipeline",)
    )
    of_batch = ("pipeline", "batcher")
    batch_time = _Histograms("broadway_batch_duration_seconds", "Time to handle one batch.", of_batch)
    sizes = _Histograms("broadway_batch_size_messages", "Messages in a batch.", of_batch)
    for pipeline, one in stages:
        key = (pipeline, one.name)
        for cause in (*_CAUSES, *(cause for cause in one.failed if cause not in _CAUSES)):
            failed.add((*key, cause), one.failed.get(cause, 0))
        busy.add(key, one.busy_seconds)
        waiting.add(key, one.backpressure_seconds)
        queued.add(key, one.queued)
        concurrency.add(key, one.concurrency)
        if one.batch_sizes is not None or one.batches:
            for trigger in _TRIGGERS:
                batches.add((pipeline, one.batcher or "", trigger), one.batches.get(trigger, 0))
        sizes.add((pipeline, one.batcher or ""), one.batch_sizes)
        if one.batcher is None:
            handling.add((pipeline,), one.duration)
        else:
            batch_time.add((pipeline, one.batcher), one.duration)
    for counter in (failed, busy, waiting, batches):
        yield counter.counter()
    for gauge in (queued, concurrency):
        yield gauge.gauge()
    for histogram in (handling, batch_time, sizes):
        yield histogram.histogram()


def process_metrics(
    lags: Mapping[str, float], restarts: int, silences: Mapping[str, float] | None = None
) -> Iterator[Metric]:
    """Yields the metrics of processes: event loop lag and silence by worker, restarts of workers, and the version."""
    lag = _Series("broadway_event_loop_lag_seconds", "How late the event loop ran its last timer.", ("worker",), "max")
    for worker, seconds in lags.items():
        lag.add((worker,), seconds)
    yield lag.gauge()
    if silences:
        text = "Seconds since the last report of the worker; it reports each second."
        silent = _Series("broadway_worker_silent_seconds", text, ("worker",), "max")
        for worker, seconds in silences.items():
            silent.add((worker,), seconds)
        yield silent.gauge()
    restarted = CounterMetricFamily("broadway_worker_restarts", "Workers started again after they died.")
    restarted.add_metric((), restarts)
    yield restarted
    # A gauge, not an "info": in the text format of Prometheus the name would be the same, but the type would differ.
    built = GaugeMetricFamily("broadway_build_info", "Always 1.", labels=("version", "python"))
    built.add_metric((package_version(), platform.python_version()), 1)
    yield built


def reload_metrics(counts: Mapping[_Reload, int], *, is_running: bool) -> Iterator[Metric]:
    """Yields the metrics of the reloads of a daemon: how many had each outcome, and whether one runs."""
    reloads = CounterMetricFamily("broadway_reloads", "Reloads of the settings that have ended.", labels=("outcome",))
    for outcome in _RELOADS:
        reloads.add_metric((outcome,), counts.get(outcome, 0))
    yield reloads
    running = GaugeMetricFamily("broadway_reload_running", "1 while a reload of the settings runs.")
    running.add_metric((), int(is_running))
    yield running


def log_metrics(dropped: int) -> Iterator[Metric]:
    """Yields the metric of the log: how many lines were dropped."""
    lines = CounterMetricFamily(
        "broadway_log_lines_dropped",
        "Log lines that were dropped, because the reader was too slow or there was no room.",
    )
    lines.add_metric((), dropped)
    yield lines
