from __future__ import annotations

from typing import Any

import pytest

from broadway_py.daemon.pipelines.merged_stats import merge_stats, retire
from broadway_py.pipeline.settlement.recent_failures import MOST_KINDS
from broadway_py.pipeline.stats import Distribution, FailureStats, PipelineStats, RateLimitStats, SourceStats
from broadway_py.request_counts import RequestCounts
from tests.daemon.snapshots import aggregator, handled, pipeline, producer, publisher


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


def source(ready: int | None, delayed: int | None, dead: int | None, **more: Any) -> SourceStats:
    return SourceStats(ready, delayed, dead, **{"age_seconds": 0.0, "trouble": None, **more})


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, None),
        (source(5, 0, 1), None, source(5, 0, 1)),
        # The same messages, a moment later. They are not added.
        (source(5, 0, 1, age_seconds=4.0), source(7, 0, 2, age_seconds=1.0), source(7, 0, 2, age_seconds=1.0)),
        # The first process has retried messages that the second one knows nothing of.
        (source(5, 9, 1, age_seconds=4.0), source(7, 0, 2, age_seconds=1.0), source(7, 9, 2, age_seconds=1.0)),
        (source(5, 9, 1, age_seconds=1.0), source(7, None, 2, age_seconds=4.0), source(5, 9, 1, age_seconds=1.0)),
        # One that knows nothing counts only if nobody knows anything.
        (
            source(5, None, 1, age_seconds=9.0),
            source(None, None, None, trouble="away"),
            source(5, None, 1, age_seconds=9.0),
        ),
        (source(0, 0, 0, age_seconds=9.0), source(None, None, None, trouble="away"), source(0, 0, 0, age_seconds=9.0)),
        (
            source(None, None, None, trouble="away", age_seconds=3.0),
            source(None, None, None, trouble="refused"),
            source(None, None, None, trouble="refused"),
        ),
    ],
)
def test_a_source_that_several_workers_read_counts_once(
    one: SourceStats | None, other: SourceStats | None, both: SourceStats | None
) -> None:
    snapshots = [pipeline(producers=(producer(source=each),)) for each in (one, other)]
    for order in (snapshots, snapshots[::-1]):
        assert merge_stats(order, []).producers[0].source == both


def test_the_partitions_of_a_source_keep_their_own_numbers() -> None:
    parts = [pipeline(producers=(producer(f"queue.{index}", source=source(index, 0, 0)),)) for index in range(2)]
    assert [(one.name, one.source) for one in merge_stats(parts, []).producers] == [
        ("queue.0", source(0, 0, 0)),
        ("queue.1", source(1, 0, 0)),
    ]


def test_a_dead_worker_says_nothing_of_its_source() -> None:
    gone = retire(pipeline(producers=(producer(source=source(5, 0, 1)),)), state="starting")
    assert merge_stats([], [gone]).producers[0].source is None


def test_publishers_of_workers_are_added_and_a_dead_one_leaves_its_counters() -> None:
    living, other, dead = (
        pipeline(publishers=(publisher(trouble=trouble),)) for trouble in (None, "the broker is away", "gone")
    )
    (one,) = merge_stats([living, other], [retire(dead, state="starting")]).publishers
    assert one.published == {"confirmed": 15, "refused": 3}
    assert (one.waiting, one.in_flight, one.connected, one.copies) == (4, 6, 2, 2)
    assert one.duration.counts == (12, 6, 0)
    assert one.trouble == "the broker is away"


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


def test_the_deduplication_of_workers_is_added_and_the_worst_counts() -> None:
    first, second = handled(partition=0), handled(partition=1, dedup_horizon_seconds=1.0)
    live = pipeline(deduplication=(first,))
    again = pipeline(deduplication=(handled(partition=1),))
    gone = retire(pipeline(deduplication=(second,)), state="starting")

    assert merge_stats([live], [gone]).deduplication == (
        first,
        handled(partition=1, ids=0, waiting=0, state_bytes=0, dedup_horizon_seconds=1.0),
    )
    # The horizon of a worker that is gone says nothing about the one in its place.
    assert merge_stats([live, again], [gone]).deduplication == (
        first,
        handled(partition=1, duplicates=12, without_identity=16, checkpoint_failures=2),
    )


def test_a_pipeline_without_deduplication_has_none() -> None:
    assert merge_stats([pipeline()], [pipeline()]).deduplication == ()


def failure(**changes: Any) -> FailureStats:
    fields: dict[str, Any] = {
        "type": "OSError",
        "stage": "processors",
        "place": "orders.py:4 handle_message",
        "cause": "raised",
        "count": 3,
        "last": 100.0,
        "next": "retry in 2 s",
        "becomes": "retry",
    }
    return FailureStats(**{**fields, **changes})


def test_failures_of_the_same_kind_are_added_and_the_latest_says_what_comes_next() -> None:
    first = pipeline(failures=(failure(), failure(type="ValueError", last=90.0)))
    second = pipeline(failures=(failure(count=2, last=120.0, next="retry in 9 s", place="orders.py:8 handle_message"),))
    dead = retire(pipeline(failures=(failure(count=5, last=50.0),)), state="starting")
    assert merge_stats([first, second], [dead]).failures == (
        failure(count=10, last=120.0, next="retry in 9 s", place="orders.py:8 handle_message"),
        failure(type="ValueError", last=90.0),
    )


def test_of_many_kinds_of_failures_the_latest_are_kept() -> None:
    many = [
        pipeline(failures=tuple(failure(type=f"E{worker}-{n}", last=float(n)) for n in range(MOST_KINDS)))
        for worker in range(3)
    ]
    merged = merge_stats(many, []).failures
    assert len(merged) == MOST_KINDS
    assert min(one.last for one in merged) >= MOST_KINDS - 7


def test_the_processors_of_all_living_workers_follow_each_other() -> None:
    gone = retire(pipeline(processors_busy=(0.9,)), state="starting")
    merged = merge_stats([pipeline(processors_busy=(0.1, 0.2)), pipeline(processors_busy=(0.3,))], [gone])
    assert merged.processors_busy == (0.1, 0.2, 0.3)


def test_the_rate_limit_is_that_of_all_living_workers_together() -> None:
    limited = pipeline(rate_limit=RateLimitStats(5, 2.0))
    assert merge_stats([limited, limited], [retire(limited, state="starting")]).rate_limit == RateLimitStats(10, 2.0)
    assert merge_stats([pipeline()], []).rate_limit is None


def test_the_next_try_is_the_soonest_of_the_breakers_that_are_open() -> None:
    open_ones = [
        pipeline(breaker_open=True, breaker_next_try_seconds=wait, breaker_opened_at="a.py:1") for wait in (4.0, 2.0)
    ]
    merged = merge_stats([pipeline(), *open_ones], [])
    assert (merged.breaker_next_try_seconds, merged.breaker_opened_at) == (2.0, "a.py:1")
    closed = merge_stats([pipeline()], [retire(open_ones[0], state="starting")])
    assert (closed.breaker_next_try_seconds, closed.breaker_opened_at) == (None, "")
