from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

from broadway_py.daemon.workers.merge_reports import depart_metrics, label_worker, merge_metrics, merge_stats, retire
from broadway_py.pipeline.stats import Distribution, PipelineStats
from broadway_py.request_counts import RequestCounts
from tests.daemon.snapshots import aggregator, pipeline, producer


def adds_up(stats: PipelineStats) -> bool:
    return all(one.received == sum(one.outcomes.values()) + one.in_flight for one in stats.producers)


def test_counters_and_sizes_of_workers_are_added_and_the_oldest_counts() -> None:
    second = pipeline(producers=(producer(oldest_in_flight_seconds=9.0, received=4, outcomes={"acked": 1}),))
    both = merge_stats([pipeline(), second], [])
    (one,) = both.producers
    assert (one.received, one.in_flight, one.outcomes) == (14, 6, {"acked": 7, "rejected": 1})
    assert one.oldest_in_flight_seconds == 9.0
    assert one.latency.counts == (8, 4, 2)
    assert both.stages[0].concurrency == 8
    assert both.stages[1].batches == {"size": 4, "timeout": 2}


def counts(requests: int) -> RequestCounts:
    made = RequestCounts()
    made.requests["receive", "ok"] = requests
    made.entries["delete"] = 10 * requests
    made.received(requests)
    return made


def test_requests_of_workers_are_added_and_those_of_a_dead_one_are_kept() -> None:
    living, dead = (pipeline(producers=(producer(requests=counts(number)),)) for number in (2, 3))
    (one,) = merge_stats([living, pipeline()], [retire(dead, state="starting")]).producers
    assert one.requests is not None
    assert one.requests.requests == {("receive", "ok"): 5}
    assert one.requests.entries == {"delete": 50}
    assert (one.requests.receives[2], one.requests.receives[3], one.requests.messages) == (1, 1, 5)


def test_what_a_dead_worker_had_in_flight_is_unknown() -> None:
    gone = retire(pipeline(), state="starting")
    (one,) = gone.producers
    assert one.outcomes == {"acked": 6, "rejected": 1, "unknown": 3}
    assert (one.in_flight, one.bytes_in_flight, one.oldest_in_flight_seconds) == (0, 0, 0.0)
    assert adds_up(gone)


def test_counters_never_go_down_when_a_worker_dies_and_the_sum_still_adds_up() -> None:
    living = [pipeline(), pipeline()]
    before = merge_stats(living, [])
    after = merge_stats(living[1:], [retire(living[0], state="starting")])
    assert adds_up(before)
    assert adds_up(after)
    assert after.producers[0].received == before.producers[0].received
    assert all(
        after.producers[0].outcomes.get(outcome, 0) >= count for outcome, count in before.producers[0].outcomes.items()
    )
    assert after.stages[0].busy_seconds == before.stages[0].busy_seconds


def test_the_state_is_that_of_the_living_and_the_worst_of_them() -> None:
    gone = retire(pipeline(), state="starting")
    assert merge_stats([pipeline()], [gone]).state == "running"
    assert merge_stats([pipeline(), pipeline(state="draining")], []).state == "draining"
    assert merge_stats([], [gone]).state == "starting"


def test_a_connection_is_up_only_if_it_is_up_in_every_worker() -> None:
    down = pipeline(producers=(producer(connected=0, trouble="refused"),))
    (one,) = merge_stats([pipeline(), down], []).producers
    assert (one.connected, one.copies, one.trouble) == (1, 2, "refused")


def test_a_breaker_that_is_open_in_any_living_worker_is_open() -> None:
    broken = pipeline(breaker_open=True)
    assert merge_stats([pipeline(), broken], []).breaker_open
    assert not merge_stats([pipeline()], [retire(broken, state="starting")]).breaker_open


def test_aggregators_of_workers_are_added_and_the_worst_counts() -> None:
    second = aggregator(
        watermark=900.0,
        watermark_lag_seconds=112.0,
        watermark_held_seconds={"in_work": 1.0, "retry": 9.0},
        checkpoint_age_seconds=2.5,
        results={"watermark": 1, "end": 2},
        late={"held": 5},
        state_bytes=11,
        dedup_horizon_seconds=30.0,
    )
    both = merge_stats([pipeline(aggregators=(aggregator(),)), pipeline(aggregators=(second,))], [])
    assert both.aggregators == (
        aggregator(
            windows_open=40,
            results_pending=10,
            results_failing=2,
            watermark=900.0,
            watermark_lag_seconds=112.0,
            watermark_held_seconds={"in_work": 3.0, "retry": 9.0},
            held=14,
            checkpoints=80,
            checkpoint_failures=4,
            checkpoint_duration=Distribution((0.1, 1.0), (76, 4, 0), 3.0),
            state_bytes=111,
            checkpoint_age_seconds=2.5,
            results={"watermark": 61, "end": 2},
            emit_failures=6,
            late={"event_time": 4, "held": 5},
            duplicates=16,
            without_identity=18,
            uncertain=12,
            dedup_horizon_seconds=30.0,
        ),
    )


def test_each_partition_of_an_aggregator_keeps_its_figures() -> None:
    first, second = (
        pipeline(
            aggregators=(aggregator(partition=0, windows_open=1), aggregator(partition=2)), partitions=4, owned=(0, 2)
        ),
        pipeline(
            aggregators=(aggregator(partition=1), aggregator(partition=3, keys_of_others=5)), partitions=4, owned=(1, 3)
        ),
    )
    both = merge_stats([first], [retire(second, state="starting")])
    assert (both.partitions, both.owned) == (4, (0, 1, 2, 3))
    assert [(one.partition, one.windows_open, one.checkpoints, one.keys_of_others) for one in both.aggregators] == [
        (0, 1, 40, 0),
        (2, 20, 40, 0),
        (1, 0, 40, 0),
        (3, 0, 40, 5),
    ]
    again = merge_stats([first, second], [retire(second, state="starting")])
    assert [(one.partition, one.windows_open, one.checkpoints) for one in again.aggregators[2:]] == [
        (1, 20, 80),
        (3, 20, 80),
    ]


def test_a_watermark_that_is_not_known_hides_no_other() -> None:
    unknown = pipeline(aggregators=(aggregator(watermark=None, watermark_lag_seconds=None),))
    (one,) = merge_stats([unknown, pipeline(aggregators=(aggregator(),))], []).aggregators
    assert (one.watermark, one.watermark_lag_seconds) == (1000.0, 12.0)
    (neither,) = merge_stats([unknown, unknown], []).aggregators
    assert (neither.watermark, neither.watermark_lag_seconds) == (None, None)


def test_of_the_aggregators_of_a_dead_worker_only_what_grows_is_kept() -> None:
    dead = retire(
        pipeline(
            aggregators=(aggregator(checkpoint_age_seconds=50.0, dedup_horizon_seconds=1.0),),
            state_trouble="degraded: the disk is full",
        ),
        state="starting",
    )
    both = merge_stats([pipeline(aggregators=(aggregator(state_bytes=11),))], [dead])
    (one,) = both.aggregators
    assert (one.checkpoints, one.results, one.emit_failures, one.duplicates) == (80, {"watermark": 120}, 6, 16)
    assert (one.windows_open, one.results_pending, one.results_failing, one.held) == (20, 5, 1, 7)
    assert (one.watermark, one.checkpoint_age_seconds, one.dedup_horizon_seconds) == (1000.0, 0.5, 600.0)
    assert (one.state_bytes, both.state_trouble) == (11, None)


def test_trouble_with_the_state_of_any_living_worker_is_told() -> None:
    full = pipeline(state_trouble="degraded: the disk is full")
    assert merge_stats([pipeline(), full], []).state_trouble == "degraded: the disk is full"


def registry(amount: float) -> list[Metric]:
    made = CollectorRegistry()
    Counter("orders", "Orders.", ["country"], registry=made).labels("dk").inc(amount)
    Gauge("pool", "Open.", registry=made).set(amount)
    Histogram("sizes", "Sizes.", buckets=(1, 10), registry=made).observe(amount)
    return list(made.collect())


def samples(families: Iterable[Metric]) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_of_users_are_added_up() -> None:
    found = samples(merge_metrics([registry(2), registry(3)]))
    assert found["orders_total[('country', 'dk')]"] == 5
    assert found["pool[]"] == 5
    assert found["sizes_bucket[('le', '10.0')]"] == 2
    assert found["sizes_sum[]"] == 5
    assert not any("_created" in name for name in found)


def test_only_what_grows_is_kept_of_a_dead_workers_metrics() -> None:
    kept = depart_metrics(registry(2))
    assert {family.name for family in kept} == {"orders", "sizes"}


def test_what_is_said_of_one_process_keeps_its_number() -> None:
    family = Metric("process_open_fds", "Open files.", "gauge")
    family.add_sample("process_open_fds", {}, 7)
    both = merge_metrics([[label_worker(family, "0")], [label_worker(family, "1")]])
    assert samples(both) == {"process_open_fds[('worker', '0')]": 7, "process_open_fds[('worker', '1')]": 7}
