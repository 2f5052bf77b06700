"""A real Prometheus reads two daemons under load: the metrics, the rules, every panel's query."""

from __future__ import annotations

import re
import time
from typing import Final

import pytest

from tests.deploy.conftest import System
from tests.deploy.dashboards import DASHBOARDS, Query, dashboard, queries
from tests.support.eventually import eventually_sync
from tests.support.prometheus import promtool

pytestmark = pytest.mark.integration

OF_PRODUCER = {"pipeline", "producer"}
OF_STAGE = {"pipeline", "stage"}
OF_BATCHER = {"pipeline", "batcher"}
OF_PUBLISHER = {"pipeline", "publisher"}
OF_AGGREGATOR = {"pipeline", "aggregator"}

#: What the daemon promises: type and labels of each metric.
PROMISED: Final = {
    "broadway_messages_received_total": ("counter", OF_PRODUCER),
    "broadway_messages_redelivered_total": ("counter", OF_PRODUCER),
    "broadway_messages_settled_total": ("counter", {*OF_PRODUCER, "outcome"}),
    "broadway_messages_failed_total": ("counter", {*OF_STAGE, "cause"}),
    "broadway_messages_in_flight": ("gauge", OF_PRODUCER),
    "broadway_bytes_in_flight": ("gauge", OF_PRODUCER),
    "broadway_oldest_in_flight_seconds": ("gauge", OF_PRODUCER),
    "broadway_processor_duration_seconds": ("histogram", {"pipeline"}),
    "broadway_batch_duration_seconds": ("histogram", OF_BATCHER),
    "broadway_end_to_end_latency_seconds": ("histogram", {"pipeline"}),
    "broadway_batch_size_messages": ("histogram", OF_BATCHER),
    "broadway_batches_total": ("counter", {*OF_BATCHER, "trigger"}),
    "broadway_stage_busy_seconds_total": ("counter", OF_STAGE),
    "broadway_backpressure_seconds_total": ("counter", OF_STAGE),
    "broadway_stage_queue_messages": ("gauge", OF_STAGE),
    "broadway_stage_concurrency": ("gauge", OF_STAGE),
    "broadway_source_messages": ("gauge", {*OF_PRODUCER, "state"}),
    "broadway_connection_up": ("gauge", OF_PRODUCER),
    "broadway_connections_lost_total": ("counter", OF_PRODUCER),
    "broadway_rate_limit_wait_seconds_total": ("counter", {"pipeline"}),
    "broadway_breaker_open": ("gauge", {"pipeline"}),
    "broadway_event_loop_lag_seconds": ("gauge", {"worker"}),
    "broadway_stuck_handlers": ("gauge", {"pipeline"}),
    "broadway_worker_restarts_total": ("counter", set()),
    "broadway_worker_silent_seconds": ("gauge", {"worker"}),
    "broadway_reloads_total": ("counter", {"outcome"}),
    "broadway_reload_running": ("gauge", set()),
    "broadway_log_lines_dropped_total": ("counter", set()),
    "broadway_build_info": ("gauge", {"version", "python"}),
    "broadway_sqs_requests_total": ("counter", {*OF_PRODUCER, "kind", "result"}),
    "broadway_sqs_batch_entries_total": ("counter", {*OF_PRODUCER, "kind"}),
    "broadway_sqs_empty_receives_total": ("counter", OF_PRODUCER),
    "broadway_sqs_receive_messages": ("histogram", OF_PRODUCER),
    "broadway_published_messages_total": ("counter", {*OF_PUBLISHER, "outcome"}),
    "broadway_publish_duration_seconds": ("histogram", OF_PUBLISHER),
    "broadway_publisher_waiting_messages": ("gauge", OF_PUBLISHER),
    "broadway_publisher_in_flight_messages": ("gauge", OF_PUBLISHER),
    "broadway_publisher_up": ("gauge", OF_PUBLISHER),
    "broadway_windows_open": ("gauge", OF_AGGREGATOR),
    "broadway_window_results_pending": ("gauge", OF_AGGREGATOR),
    "broadway_watermark_lag_seconds": ("gauge", OF_AGGREGATOR),
    "broadway_watermark_held_seconds": ("gauge", {*OF_AGGREGATOR, "by"}),
    "broadway_checkpoint_age_seconds": ("gauge", OF_AGGREGATOR),
    "broadway_checkpoint_duration_seconds": ("histogram", {"pipeline"}),
    "broadway_dedup_horizon_seconds": ("gauge", OF_AGGREGATOR),
    "broadway_state_bytes": ("gauge", OF_AGGREGATOR),
    "broadway_checkpoint_failures_total": ("counter", OF_AGGREGATOR),
    "broadway_window_results_total": ("counter", {*OF_AGGREGATOR, "trigger"}),
    "broadway_emit_failures_total": ("counter", OF_AGGREGATOR),
    "broadway_late_messages_total": ("counter", {*OF_AGGREGATOR, "why"}),
    "broadway_duplicate_messages_total": ("counter", OF_AGGREGATOR),
    "broadway_messages_without_identity_total": ("counter", OF_AGGREGATOR),
    "broadway_uncertain_messages_total": ("counter", OF_AGGREGATOR),
    "broadway_keys_in_several_partitions_total": ("counter", OF_AGGREGATOR),
}

#: Which values a unit allows; what counts or lasts is never below zero.
_LIMITS: Final = {"percentunit": (0.0, 1.0), "bool_yes_no": (0.0, 1.0)}


def panel_queries() -> list[Query]:
    return [query for path in DASHBOARDS for query in queries(path)]


@pytest.fixture(autouse=True)
def _scraped(system: System) -> None:
    """Prometheus has looked at everything, and often enough for rates."""
    eventually_sync(
        # The first results of windows come after ten seconds.
        lambda: system.prometheus.query(
            "min(sum_over_time(up[1m])) >= 5 and on () sum(broadway_window_results_total) > 0"
        ),
        timeout=90,
        what="Prometheus has scraped each target five times, and windows have given results",
    )


def test_it_scrapes_everything_without_an_error(system: System) -> None:
    found = {target["labels"]["job"]: target["lastError"] for target in system.prometheus.targets()}
    assert found == {"broadway": "", "rabbitmq": "", "rabbitmq_queues": ""}


def test_every_promised_metric_is_there_with_its_type_and_its_labels(system: System) -> None:
    types = system.prometheus.metadata()
    found = {}
    for name, (_, labels) in PROMISED.items():
        series = system.prometheus.query(f'{{__name__=~"{name}(_count)?"}}')
        assert series, name
        seen = {label for one, _ in series for label in one} - {"__name__", "instance", "job"}
        assert {len(one) for one, _ in series} == {len(labels) + 3}, name
        found[name] = (types[name.removesuffix("_total")], seen)
    assert found == PROMISED
    ours = {name for name in types if name.startswith("broadway_")}
    assert ours == {name.removesuffix("_total") for name in PROMISED}, "there is one that nobody promised"


def test_the_names_follow_the_conventions_of_prometheus(system: System) -> None:
    checked = promtool("check", "metrics", given=system.daemon.get("/metrics")[1])

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_received_is_settled_plus_in_flight_at_every_scrape(system: System) -> None:
    of = "sum by (pipeline, producer)"
    difference = (
        f"{of} (broadway_messages_received_total) - {of} (broadway_messages_settled_total)"
        f" - {of} (broadway_messages_in_flight)"
    )
    over_time = f"max_over_time(abs({difference})[1m:1s])"
    found = {(labels["pipeline"], labels["producer"]): value for labels, value in system.prometheus.query(over_time)}
    assert found == {
        ("orders", "rabbitmq"): 0,
        ("parcels", "sqs"): 0,
        ("harbour", "ships"): 0,
        ("shipments", "queue"): 0,
        ("tills", "orders"): 0,
        ("sales", "queue"): 0,
    }


@pytest.mark.parametrize("query", panel_queries(), ids=str)
def test_no_panel_is_empty_and_its_unit_and_labels_fit(system: System, query: Query) -> None:
    expression = query.filled(pipeline="orders" if query.dashboard == "pipeline" else ".*", interval="10s")

    series = eventually_sync(
        lambda: system.prometheus.query(expression), timeout=60, what=f"there is an answer to {expression}"
    )

    wanted = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    for labels, value in series:
        assert wanted <= set(labels), f"the legend {query.legend!r} needs labels that {labels} has not"
        low, high = _LIMITS.get(query.unit, (0.0, float("inf")))
        # A sum over workers whose snapshots are a moment apart may be a little more than all of the time.
        assert low <= value <= high * 1.1, f"{value} is no {query.unit}"
    lines = {tuple(labels[name] for name in sorted(wanted)) for labels, _ in series}
    assert not query.legend or len(lines) == len(series), "two lines of the panel have one name"


def test_the_marks_of_starts_and_versions_have_their_labels_and_times(system: System) -> None:
    """A version is new if no process had it in the hour before."""
    starts, versions, reloads = dashboard(DASHBOARDS[0])["annotations"]["list"]
    found = system.prometheus.query(starts["expr"])
    now = time.time()
    # Three processes of the first daemon, one of the other.
    assert len(found) == 4
    assert all(now - 3600 < value / 1000 <= now for _, value in found)
    assert all("instance" in labels for labels, _ in found)
    told = system.prometheus.query(versions["expr"].replace("offset 1m", "offset 1h"))
    assert [set(labels) for labels, _ in told] == [{"version"}]
    assert system.prometheus.query(versions["expr"].replace(" offset 1m", "")) == []
    # Nothing was reloaded here.
    assert system.prometheus.query(reloads["expr"]) == []
    assert [set(labels) for labels, _ in system.prometheus.query(reloads["expr"].replace("> 0", "== 0"))] == [
        {"instance"},
        {"instance"},
    ]


def test_every_rule_is_evaluated_without_an_error(system: System) -> None:
    rules = system.prometheus.rules()
    assert len(rules) == 29
    eventually_sync(
        lambda: all(rule["health"] == "ok" for rule in system.prometheus.rules()),
        timeout=60,
        what="every rule is evaluated",
    )


def test_the_queue_of_a_pipeline_is_found_by_its_name(system: System) -> None:
    series = system.prometheus.query("pipeline:broadway_queue_messages_ready:sum")
    assert ({"pipeline": "orders", "broker": "rabbitmq"}, True) in [
        ({key: value for key, value in labels.items() if key != "__name__"}, value >= 0) for labels, value in series
    ]


def test_nothing_that_is_well_raises_an_alarm(system: System) -> None:
    firing = {labels["alertname"] for labels, _ in system.prometheus.query('ALERTS{alertstate="firing"}')}
    assert firing <= {"BroadwayDeadLettering", "BroadwayDeadLetters"}, "one line in twenty is broken here"
