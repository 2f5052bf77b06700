from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from broadway_py.metrics import (
    SERIES_LIMIT,
    PipelineCollector,
    log_metrics,
    pipeline_metrics,
    process_metrics,
    reload_metrics,
)
from broadway_py.pipeline.stats import AggregatorStats, Distribution, PipelineStats, SourceStats
from broadway_py.request_counts import RequestCounts
from tests.daemon.snapshots import handled, pipeline, producer, publisher


def scrape(*stats: PipelineStats) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    registry = CollectorRegistry()
    registry.register(PipelineCollector(lambda: stats))
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


ORIGIN = (("pipeline", "orders"), ("producer", "queue"))


def test_received_is_the_sum_of_outcomes_and_what_is_in_flight_in_each_scrape() -> None:
    found = scrape(pipeline())
    received = found["broadway_messages_received_total"][ORIGIN]
    in_flight = found["broadway_messages_in_flight"][ORIGIN]
    assert received == sum(found["broadway_messages_settled_total"].values()) + in_flight == 10


def test_every_outcome_is_there_from_the_start() -> None:
    fresh = pipeline(producers=(producer(received=0, in_flight=0, outcomes={}),))
    outcomes = {
        dict(labels)["outcome"]: value for labels, value in scrape(fresh)["broadway_messages_settled_total"].items()
    }
    assert outcomes == dict.fromkeys(
        ("acked", "retried", "dead_lettered", "rejected", "dropped", "returned", "unknown"), 0.0
    )


def test_every_metric_of_a_pipeline_has_the_promised_name_and_labels() -> None:
    found = {name: [key for key, _ in next(iter(series))] for name, series in scrape(pipeline()).items()}
    of_producer, of_stage, of_batcher = ["pipeline", "producer"], ["pipeline", "stage"], ["batcher", "pipeline"]
    expected = {
        "broadway_messages_received_total": of_producer,
        "broadway_messages_redelivered_total": of_producer,
        "broadway_messages_settled_total": ["outcome", *of_producer],
        "broadway_messages_failed_total": ["cause", *of_stage],
        "broadway_messages_in_flight": of_producer,
        "broadway_bytes_in_flight": of_producer,
        "broadway_oldest_in_flight_seconds": of_producer,
        "broadway_processor_duration_seconds_count": ["pipeline"],
        "broadway_batch_duration_seconds_count": of_batcher,
        "broadway_end_to_end_latency_seconds_count": ["pipeline"],
        "broadway_batch_size_messages_count": of_batcher,
        "broadway_batches_total": [*of_batcher, "trigger"],
        "broadway_stage_busy_seconds_total": of_stage,
        "broadway_backpressure_seconds_total": of_stage,
        "broadway_stage_queue_messages": of_stage,
        "broadway_stage_concurrency": of_stage,
        "broadway_connection_up": of_producer,
        "broadway_connections_lost_total": of_producer,
        "broadway_rate_limit_wait_seconds_total": ["pipeline"],
        "broadway_stuck_handlers": ["pipeline"],
        "broadway_breaker_open": ["pipeline"],
    }
    assert {name: found.get(name) for name in expected} == expected


def test_a_histogram_counts_upwards_and_ends_with_everything() -> None:
    buckets = scrape(pipeline())["broadway_end_to_end_latency_seconds_bucket"]
    assert {dict(labels)["le"]: value for labels, value in buckets.items()} == {"0.1": 4, "1.0": 6, "+Inf": 7}


def test_a_connection_that_is_not_up_reads_0_and_a_source_that_has_ended_is_not_missed() -> None:
    down = pipeline(producers=(producer(connected=0), producer("done", connected=0, ended=True)))
    up = {dict(labels)["producer"]: value for labels, value in scrape(down)["broadway_connection_up"].items()}
    assert up == {"queue": 0.0, "done": 1.0}


def test_what_a_source_holds_is_shown_as_far_as_it_is_known() -> None:
    producers = (
        producer("all", source=SourceStats(5, 0, 2, 3.0, None)),
        producer("some", source=SourceStats(0, None, None, 3.0, "no permission")),
        producer("none", source=SourceStats(None, None, None, 3.0, "away")),
        producer("silent"),
    )
    found = scrape(pipeline(producers=producers))["broadway_source_messages"]
    assert {(dict(labels)["producer"], dict(labels)["state"]): number for labels, number in found.items()} == {
        ("all", "ready"): 5,
        ("all", "delayed"): 0,
        ("all", "dead"): 2,
        ("some", "ready"): 0,
    }


def test_series_past_the_limit_are_added_up_under_other() -> None:
    many = pipeline(producers=tuple(producer(f"p{index}") for index in range(SERIES_LIMIT + 500)))
    found = scrape(many)
    for name, series in found.items():
        if not name.endswith("_bucket"):
            assert len(series) <= SERIES_LIMIT, name
    assert sum(found["broadway_messages_received_total"].values()) == 10 * (SERIES_LIMIT + 500)
    other = (("outcome", "acked"), ("pipeline", "other"), ("producer", "other"))
    assert found["broadway_messages_settled_total"][other] > 6


def test_openmetrics_can_be_written_too() -> None:
    registry = CollectorRegistry()
    registry.register(PipelineCollector(lambda: [pipeline()]))
    text = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]  # theirs
    assert "# TYPE broadway_messages_settled counter" in text
    assert text.endswith("# EOF\n")


def test_a_process_says_its_lag_its_restarts_and_what_was_built() -> None:
    found = {family.name: family for family in process_metrics({"0": 0.25}, 3)}
    assert found["broadway_event_loop_lag_seconds"].samples[0].labels == {"worker": "0"}
    assert found["broadway_event_loop_lag_seconds"].samples[0].value == 0.25
    assert found["broadway_worker_restarts"].samples[0].value == 3
    assert set(found["broadway_build_info"].samples[0].labels) == {"version", "python"}


def test_a_supervisor_says_how_long_each_worker_has_been_silent() -> None:
    found = {family.name: family for family in process_metrics({}, 0, {"0": 0.5, "1": 12.0})}
    assert [(one.labels["worker"], one.value) for one in found["broadway_worker_silent_seconds"].samples] == [
        ("0", 0.5),
        ("1", 12.0),
    ]
    assert "broadway_worker_silent_seconds" not in {family.name for family in process_metrics({}, 0)}


def test_requests_are_shown_only_for_producers_that_count_them() -> None:
    counts = RequestCounts()
    counts.requests["receive", "ok"] = 3
    counts.entries["delete"] = 7
    counts.received(0)
    counts.received(4)

    found = scrape(pipeline(producers=(producer("sqs", requests=counts), producer("queue"))))

    of_sqs = (("pipeline", "orders"), ("producer", "sqs"))
    assert found["broadway_sqs_requests_total"] == {(("kind", "receive"), *of_sqs, ("result", "ok")): 3.0}
    assert found["broadway_sqs_batch_entries_total"] == {(("kind", "delete"), *of_sqs): 7.0}
    assert found["broadway_sqs_empty_receives_total"] == {of_sqs: 1.0}
    assert (found["broadway_sqs_receive_messages_count"], found["broadway_sqs_receive_messages_sum"]) == (
        {of_sqs: 2.0},
        {of_sqs: 4.0},
    )
    assert not any(name.startswith("broadway_sqs") for name in scrape(pipeline()))


def test_publishers_are_shown_only_where_there_are_some() -> None:
    found = scrape(pipeline(publishers=(publisher(), publisher("audit", connected=0, published={}))))

    out, audit = ((("pipeline", "orders"), ("publisher", name)) for name in ("out", "audit"))
    published = found["broadway_published_messages_total"]
    assert {labels: count for labels, count in published.items() if count} == {
        (("outcome", "confirmed"), *out): 5.0,
        (("outcome", "refused"), *out): 1.0,
    }
    assert len(published) == 6
    assert found["broadway_publisher_waiting_messages"] == {out: 2.0, audit: 2.0}
    assert found["broadway_publisher_in_flight_messages"] == {out: 3.0, audit: 3.0}
    assert found["broadway_publisher_up"] == {out: 1.0, audit: 0.0}
    assert found["broadway_publish_duration_seconds_count"] == {out: 6.0, audit: 6.0}
    assert not any(name.startswith("broadway_publish") for name in scrape(pipeline()))


def test_reloads_are_counted_by_their_outcome_from_the_start() -> None:
    reloads, running = reload_metrics({"done": 2}, is_running=True)
    assert [(one.name, one.value) for one in running.samples] == [("broadway_reload_running", 1)]
    assert [(one.name, one.labels, one.value) for one in reloads.samples] == [
        ("broadway_reloads_total", {"outcome": "done"}, 2),
        ("broadway_reloads_total", {"outcome": "refused"}, 0),
        ("broadway_reloads_total", {"outcome": "failed"}, 0),
    ]


def test_dropped_lines_of_the_log_are_counted() -> None:
    (lines,) = log_metrics(7)
    assert [(one.name, one.labels, one.value) for one in lines.samples] == [("broadway_log_lines_dropped_total", {}, 7)]


def test_no_pipeline_gives_metrics_without_series() -> None:
    assert all(not family.samples for family in pipeline_metrics([]))


def sums() -> AggregatorStats:
    """The figures of one aggregator."""
    return AggregatorStats(
        name="sums",
        windows_open=7,
        results_pending=3,
        results_failing=1,
        watermark=100.0,
        watermark_lag_seconds=12.5,
        watermark_held_seconds={"in_work": 2.0, "retry": 0.0},
        held=5,
        checkpoints=3,
        checkpoint_failures=11,
        checkpoint_duration=Distribution((1.0,), (2, 1), 4.5),
        state_bytes=4096,
        checkpoint_age_seconds=0.5,
        results={"watermark": 9},
        emit_failures=4,
        late={"event_time": 1, "held": 2},
        duplicates=6,
        without_identity=8,
        uncertain=10,
        dedup_horizon_seconds=600.0,
    )


def test_the_metrics_of_aggregators_are_there_only_where_there_are_some() -> None:
    found = scrape(replace(pipeline(), aggregators=(sums(),)))
    key = (("aggregator", "sums"), ("pipeline", "orders"))
    assert {name: series[key] for name, series in found.items() if key in series and not name.endswith("_created")} == {
        "broadway_windows_open": 7.0,
        "broadway_window_results_pending": 3.0,
        "broadway_watermark_lag_seconds": 12.5,
        "broadway_checkpoint_age_seconds": 0.5,
        "broadway_dedup_horizon_seconds": 600.0,
        "broadway_state_bytes": 4096.0,
        "broadway_checkpoint_failures_total": 11.0,
        "broadway_emit_failures_total": 4.0,
        "broadway_duplicate_messages_total": 6.0,
        "broadway_messages_without_identity_total": 8.0,
        "broadway_uncertain_messages_total": 10.0,
        "broadway_keys_in_several_partitions_total": 0.0,
    }
    assert found["broadway_watermark_held_seconds"] == {
        (key[0], ("by", "in_work"), key[1]): 2.0,
        (key[0], ("by", "retry"), key[1]): 0.0,
    }
    assert found["broadway_window_results_total"] == {(*key, ("trigger", "watermark")): 9.0}
    assert found["broadway_late_messages_total"] == {
        (*key, ("why", "event_time")): 1.0,
        (*key, ("why", "held")): 2.0,
    }
    assert found["broadway_checkpoint_duration_seconds_sum"] == {(("pipeline", "orders"),): 4.5}
    assert "broadway_windows_open" not in scrape(pipeline())


def test_the_partitions_of_an_aggregator_add_up_or_the_worst_of_them_counts() -> None:
    parts = (
        replace(sums(), partition=0),
        replace(
            sums(),
            partition=3,
            windows_open=1,
            watermark_lag_seconds=100.0,
            checkpoint_age_seconds=0.1,
            dedup_horizon_seconds=30.0,
            keys_of_others=2,
        ),
        replace(sums(), partition=5, watermark_lag_seconds=None, watermark_held_seconds={"in_work": 9.0}),
    )
    found = scrape(replace(pipeline(), aggregators=parts, partitions=8, owned=(0, 3, 5)))
    key = (("aggregator", "sums"), ("pipeline", "orders"))
    assert {
        name: found[f"broadway_{name}"][key]
        for name in (
            "windows_open",
            "watermark_lag_seconds",
            "checkpoint_age_seconds",
            "dedup_horizon_seconds",
            "state_bytes",
            "duplicate_messages_total",
            "keys_in_several_partitions_total",
        )
    } == {
        "windows_open": 15.0,
        "watermark_lag_seconds": 100.0,
        "checkpoint_age_seconds": 0.5,
        "dedup_horizon_seconds": 30.0,
        "state_bytes": 12288.0,
        "duplicate_messages_total": 18.0,
        "keys_in_several_partitions_total": 2.0,
    }
    assert found["broadway_watermark_held_seconds"][key[0], ("by", "in_work"), key[1]] == 9.0
    assert found["broadway_checkpoint_duration_seconds_sum"] == {(("pipeline", "orders"),): 13.5}


def test_deduplication_has_those_metrics_of_aggregators_that_fit_and_no_aggregator() -> None:
    found = scrape(
        replace(pipeline(), deduplication=(handled(partition=0), handled(partition=1, dedup_horizon_seconds=30.0)))
    )
    key = (("aggregator", ""), ("pipeline", "orders"))
    assert {name: series[key] for name, series in found.items() if key in series and not name.endswith("_created")} == {
        "broadway_dedup_horizon_seconds": 30.0,
        "broadway_state_bytes": 1280.0,
        "broadway_checkpoint_failures_total": 2.0,
        "broadway_duplicate_messages_total": 12.0,
        "broadway_messages_without_identity_total": 16.0,
    }
    assert "broadway_windows_open" not in found


def test_deduplication_stands_beside_an_aggregator() -> None:
    found = scrape(replace(pipeline(), aggregators=(sums(),), deduplication=(handled(duplicates=1),)))
    assert found["broadway_duplicate_messages_total"] == {
        (("aggregator", "sums"), ("pipeline", "orders")): 6.0,
        (("aggregator", ""), ("pipeline", "orders")): 1.0,
    }
