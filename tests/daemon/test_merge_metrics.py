from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

from broadway_py.daemon.workers.merge_metrics import depart_metrics, label_worker, merge_metrics


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
