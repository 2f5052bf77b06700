"""How much is asked for, when, and in which lists it is handled: the contract's numbers, through whole stages."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py.stage import BroadcastDispatcher, PartitionDispatcher, ProducerConsumerStage, subscribe
from tests.stage.support import Counter, Doubler, Forwarder, Recorder, run_until_idle
from tests.support.conformance import conforms


def spread(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def doubled(first: int, last: int) -> list[int]:
    return [number for number in range(first, last + 1) for _ in range(2)]


@conforms("G-002", "G-003", "G-004")
@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({}, [spread(0, 499), spread(500, 999), spread(1000, 1499)]),
        ({"max_demand": 100, "min_demand": 80}, [spread(0, 19), spread(20, 39), spread(40, 59)]),
        (
            {"max_demand": 100, "min_demand": 20},
            [spread(0, 79), spread(80, 99), spread(100, 179), spread(180, 259), spread(260, 279)],
        ),
    ],
)
async def test_a_counter_is_handled_in_lists_of_at_most_max_less_min(
    options: dict[str, Any], batches: list[list[int]]
) -> None:
    async with Counter() as counter, Recorder(most=len(batches)) as recorder:
        await subscribe(recorder, to=counter, **options)
        await run_until_idle()

        assert recorder.batches == batches


@conforms("G-005")
async def test_a_demand_of_one_is_handled_one_by_one() -> None:
    async with Counter() as counter, Recorder(most=3) as recorder:
        await subscribe(recorder, to=counter, max_demand=1, min_demand=0)
        await run_until_idle()

        assert recorder.batches == [[0], [1], [2]]
        assert counter.asked == [1, 1, 1, 1]


async def test_three_pushes_of_100_are_asked_for_again_in_one_go() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        await subscribe(recorder, to=source, max_demand=1000, min_demand=750)
        await run_until_idle()
        for push in range(3):
            source.emit(range(push * 100, push * 100 + 100))
            await run_until_idle()

        assert [len(batch) for batch in recorder.batches] == [100, 100, 100]
        assert source.asked == [1000, 300]


@conforms("G-006", "G-008")
async def test_a_broadcast_goes_at_the_pace_of_the_slowest() -> None:
    async with Counter(1000, dispatcher=BroadcastDispatcher()) as counter, Recorder(1) as one, Recorder(1) as other:
        await subscribe(one, to=counter, max_demand=10, min_demand=0)
        await subscribe(other, to=counter, max_demand=20, min_demand=0)
        await run_until_idle()

        assert one.batches[0] == other.batches[0] == spread(1000, 1009)

    async with Forwarder(dispatcher=BroadcastDispatcher) as silent, Recorder() as one, Recorder() as other:
        await subscribe(one, to=silent, max_demand=10, min_demand=0)
        await subscribe(other, to=silent, max_demand=20, min_demand=0)
        await run_until_idle()

        assert silent.asked == [10]


@conforms("G-007")
async def test_a_subscriber_that_never_asks_stops_a_broadcast_until_it_leaves() -> None:
    async with Counter(1000, dispatcher=BroadcastDispatcher()) as counter, Recorder(1) as one, Recorder(1) as other:
        async with Recorder() as silent:
            blocking = await subscribe(silent, to=counter, mode="manual", cancel="temporary")
            await subscribe(one, to=counter, max_demand=10, min_demand=0)
            await subscribe(other, to=counter, max_demand=20, min_demand=0)
            await run_until_idle()
            assert (one.batches, counter.asked) == ([], [])

            blocking.cancel()
            await run_until_idle()

        assert one.batches[0] == other.batches[0] == spread(1000, 1009)


@conforms("G-009", "G-011")
@pytest.mark.parametrize("late", [False, True])
async def test_a_stage_in_the_middle_takes_20_of_100_and_its_consumer_40(late: bool) -> None:
    async with Counter() as counter, Doubler() as doubler, Recorder() as recorder:
        if late:
            await subscribe(recorder, to=doubler, max_demand=100, min_demand=50)
            await run_until_idle()
        await subscribe(doubler, to=counter, max_demand=100, min_demand=80)
        if not late:
            await subscribe(recorder, to=doubler, max_demand=100, min_demand=50)
        recorder.on_events = lambda _: recorder.stop() if len(recorder.batches) >= 12 else None
        await run_until_idle()

        assert doubler.batches[0] == spread(0, 19)
        assert spread(100, 119) in doubler.batches
        assert recorder.batches[:2] == [doubled(0, 19), doubled(20, 39)]
        assert recorder.events == doubled(0, 10_000)[: len(recorder.events)]
        assert all(len(batch) <= 50 for batch in recorder.batches)


@conforms("G-010", "G-012")
@pytest.mark.parametrize("late", [False, True])
async def test_a_stage_in_the_middle_takes_80_of_100_and_its_consumer_50(late: bool) -> None:
    async with Counter() as counter, Doubler() as doubler, Recorder() as recorder:
        if late:
            await subscribe(recorder, to=doubler, max_demand=100, min_demand=50)
            await run_until_idle()
        await subscribe(doubler, to=counter, max_demand=100, min_demand=20)
        if not late:
            await subscribe(recorder, to=doubler, max_demand=100, min_demand=50)
        recorder.on_events = lambda _: recorder.stop() if len(recorder.batches) >= 12 else None
        await run_until_idle()

        assert doubler.batches[0] == spread(0, 79)
        assert spread(100, 179) in doubler.batches
        assert recorder.batches[:3] == [doubled(0, 24), doubled(25, 49), doubled(50, 74)]


async def test_a_stage_in_the_middle_handles_a_list_that_it_has_begun_to_its_end() -> None:
    async with Counter(1) as counter, Doubler() as doubler, Recorder(most=0) as recorder:
        await subscribe(doubler, to=counter, max_demand=4)
        await run_until_idle()
        assert doubler.batches == []
        await subscribe(recorder, to=doubler, max_demand=1)
        await run_until_idle()

        # One event is wanted. The list of four is handled in its two chunks, the lists that come next are not.
        assert doubler.batches == [[1, 2], [3, 4]]
        assert doubler.estimate_buffered_count() == 7


class LaterDoubler(Doubler):
    """Emits by way of infos."""

    async def handle_events(self, events: list[int]) -> list[int]:  # type: ignore[override]  # async here
        self.batches.append(events)
        await self.info(events)
        return []

    def handle_info(self, info: Any) -> None:
        self.emit(info)


@conforms("G-013")
async def test_a_stage_in_the_middle_stops_when_the_demand_below_it_is_spent() -> None:
    async with Counter() as counter, LaterDoubler() as middle, Recorder(most=0) as recorder:
        await subscribe(middle, to=counter, max_demand=10, min_demand=8)
        await subscribe(recorder, to=middle, max_demand=10, min_demand=5)
        await run_until_idle()

        assert middle.batches == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


class Sieve(ProducerConsumerStage[int, int]):
    """Lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def handle_events(self, events: list[int]) -> list[int]:
        self.seen += len(events)
        return []


@conforms("G-014")
async def test_a_stage_that_lets_nothing_through_goes_on_taking() -> None:
    async with Counter(most=1020) as counter, Sieve() as sieve, Recorder() as recorder:
        await subscribe(sieve, to=counter, max_demand=100, min_demand=80)
        await subscribe(recorder, to=sieve, max_demand=10)
        await run_until_idle()

        assert (sieve.seen, recorder.batches) == (1020, [])


@conforms("G-015", "G-016")
async def test_a_stage_in_the_middle_may_broadcast() -> None:
    async with (
        Counter(200) as counter,
        Doubler(dispatcher=BroadcastDispatcher()) as doubler,
        Recorder(1) as one,
        Recorder(1) as other,
        Recorder() as silent,
    ):
        blocking = await subscribe(silent, to=doubler, mode="manual", cancel="temporary")
        await subscribe(one, to=doubler, max_demand=10, min_demand=0)
        await subscribe(other, to=doubler, max_demand=20, min_demand=0)
        await subscribe(doubler, to=counter, max_demand=10, min_demand=8)
        await run_until_idle()
        assert one.batches == other.batches == []

        blocking.cancel()
        await run_until_idle()

        # The list of the middle stage has four events, and its consumers get them as they come.
        assert one.batches[0] == other.batches[0] == doubled(200, 201)


@conforms("G-017")
async def test_the_end_of_a_producer_waits_behind_what_has_arrived() -> None:
    async with Counter(most=100) as counter, Doubler() as doubler, Recorder(2) as recorder:
        upstream = await subscribe(doubler, to=counter, max_demand=100, min_demand=50, cancel="temporary")
        await run_until_idle()
        upstream.cancel("done")
        await run_until_idle()
        assert (doubler.batches, doubler.told) == ([], ["producer"])

        await subscribe(recorder, to=doubler, max_demand=100, min_demand=50)
        await run_until_idle()

        assert doubler.batches == [spread(0, 49), spread(50, 99)]
        assert recorder.batches == [doubled(0, 24), doubled(25, 49)]
        assert ("cancel", "done") not in doubler.told[: doubler.told.index("consumer")]
        assert doubler.told[-1] == ("cancel", "done")


async def test_a_list_for_several_is_cut_into_even_slices() -> None:
    async with Forwarder() as source, Recorder() as one, Recorder() as other:
        await subscribe(one, to=source)
        await subscribe(other, to=source)
        source.emit(list(range(10)))
        await run_until_idle()

        assert (one.batches, other.batches) == ([spread(0, 4)], [spread(5, 9)])


async def test_each_partition_goes_to_its_consumer() -> None:
    dispatcher = PartitionDispatcher[Any, int](["even", "odd"], lambda event: ("even", "odd")[event % 2])
    async with Counter(most=10, dispatcher=dispatcher) as counter, Recorder() as even, Recorder() as odd:
        await subscribe(even, to=counter, partition="even")
        await subscribe(odd, to=counter, partition="odd")
        await run_until_idle()

        assert (even.events, odd.events) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])


async def test_one_consumer_may_have_several_producers_and_subscribe_twice() -> None:
    async with Counter(0, 4) as first, Counter(100, 4) as second, Recorder() as recorder:
        for counter in (first, second, second):
            await subscribe(recorder, to=counter, max_demand=2)
        await run_until_idle()

        assert sorted(recorder.events) == [0, 1, 2, 3, 100, 101, 102, 103]
        assert len(recorder.subscriptions) == 3


async def test_demand_for_what_a_selector_left_out_reaches_the_producer() -> None:
    async with Counter(dispatcher=BroadcastDispatcher()) as counter, Recorder(3) as recorder:
        await subscribe(recorder, to=counter, max_demand=4, min_demand=0, selector=lambda event: event % 10 == 0)
        await run_until_idle()

        assert recorder.events[:3] == [0, 10, 20]
