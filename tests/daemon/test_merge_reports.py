from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

from broadway_py.daemon.workers.merge_reports import depart_metrics, label_worker, merge_metrics, merge_stats, retire
from broadway_py.pipeline.stats import PipelineStats
from broadway_py.request_counts import RequestCounts
from tests.daemon.snapshots import pipeline, producer


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
