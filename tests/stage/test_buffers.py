"""What stages keep while nobody asks, what they lose and say, and infos that wait behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py.errors import OptionsError, StageDown
from broadway_py.stage import BroadcastDispatcher, DemandDispatcher, PartitionDispatcher, subscribe
from tests.stage.support import Counter, Doubler, Forwarder, Recorder, run_until_idle, soon
from tests.support.conformance import conforms

LETTERS = list("abcdefgh")


@conforms("G-024")
async def test_what_was_emitted_before_anybody_asked_comes_first() -> None:
    letters: list[Any] = list("abcde")
    async with Counter() as source, Recorder(4) as recorder:
        source.emit(letters)
        await subscribe(recorder, to=source, max_demand=4, min_demand=0)
        await run_until_idle()

        assert recorder.batches == [["a", "b", "c", "d"], ["e"], [0, 1, 2], [3, 4, 5, 6]]


@conforms("G-025", "G-026", "G-027")
@pytest.mark.parametrize(
    ("options", "batches", "discarded"),
    [
        ({"buffer_size": 5, "buffer_keep": "first"}, [["a", "b", "c", "d"], ["e"]], 3),
        ({"buffer_size": 5}, [["d", "e", "f", "g"], ["h"]], 3),
        ({"buffer_size": None}, [["a", "b", "c", "d"], ["e", "f", "g", "h"]], 0),
        ({"buffer_size": float("inf")}, [["a", "b", "c", "d"], ["e", "f", "g", "h"]], 0),
        ({"buffer_size": 0}, [], 8),
    ],
)
async def test_a_full_buffer_keeps_the_first_or_the_last_and_says_what_is_lost(
    options: dict[str, Any], batches: list[list[str]], discarded: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with Forwarder(**options) as source, Recorder() as recorder:
        source.emit(LETTERS)
        await subscribe(recorder, to=source, max_demand=4, min_demand=0)
        await run_until_idle()

        assert recorder.batches == batches
    warnings = [record.getMessage() for record in caplog.records if "discarded" in record.getMessage()]
    expected = f"a stage has discarded events from its buffer stage=Forwarder events={discarded}"
    assert warnings == ([expected] if discarded else [])


class Talker(Forwarder):
    buffer_size = 5
    buffer_keep = "first"

    def __init__(self, answer: object, **options: Any) -> None:
        super().__init__(**options)
        self.answer, self.lost = answer, 0

    def on_discard(self, count: int) -> object:
        self.lost += count
        return self.answer


@conforms("G-028", "G-029", "G-030")
@pytest.mark.parametrize(("answer", "warnings"), [(True, 1), (None, 1), (False, 0)])
async def test_on_discard_is_told_the_count_and_may_suppress_the_warning(
    answer: object, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with Talker(answer) as source, Recorder() as recorder:
        source.emit(LETTERS)
        await subscribe(recorder, to=source, max_demand=4, min_demand=0)
        await run_until_idle()

        assert source.lost == 3
        assert recorder.batches == [["a", "b", "c", "d"], ["e"]]
    assert len([record for record in caplog.records if "discarded" in record.getMessage()]) == warnings


def test_on_discard_that_is_no_function_is_refused() -> None:
    with pytest.raises(OptionsError) as refused:
        Forwarder(on_discard=3)

    assert str(refused.value) == "on_discard: expected a function of a number of events, got an int"


async def test_on_discard_may_be_an_option() -> None:
    lost: list[int] = []
    async with Forwarder(buffer_size=1, on_discard=lost.append) as source:
        source.emit([1, 2, 3])
        source.emit([4])

    assert lost == [2, 1]


@conforms("G-031")
async def test_the_buffered_events_can_be_counted() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        source.emit(list("abcde"))
        assert source.estimate_buffered_count() == 5
        source.emit(list("fgh"))
        assert source.estimate_buffered_count() == 8
        await subscribe(recorder, to=source)
        await run_until_idle()
        assert source.estimate_buffered_count() == 0


async def test_what_was_lost_although_it_was_asked_for_is_asked_for_again() -> None:
    dispatcher = PartitionDispatcher[Any, int](2, lambda event: 0 if event < 100 else event % 2)
    async with Counter(dispatcher=dispatcher, buffer_size=10, on_discard=lambda _: False) as counter:
        async with Recorder(1) as recorder:
            await subscribe(recorder, to=counter, partition=1, max_demand=20, min_demand=0)
            await run_until_idle()

        # A hundred events of a partition without a consumer came first.
        assert recorder.events[0] == 101
        assert counter.estimate_buffered_count() <= 10


async def test_the_queue_of_a_partition_goes_to_its_next_consumer() -> None:
    dispatcher = PartitionDispatcher[Any, int](1)
    async with Forwarder(dispatcher=dispatcher) as source:
        async with Recorder(most=0) as first:
            await subscribe(first, to=source, partition=0, max_demand=2, min_demand=0)
            source.emit([1, 2, 3, 4, 5, 6])
            await run_until_idle()
        assert source.estimate_buffered_count() == 4

        async with Recorder() as successor:
            await subscribe(successor, to=source, partition=0)
            await run_until_idle()

            assert successor.events == [3, 4, 5, 6]


# --- infos ----------------------------------------------------------------------------------------------------------


@conforms("G-032")
async def test_an_info_reaches_a_consumer_at_once() -> None:
    async with Recorder() as recorder:
        await recorder.info("hello")
        await run_until_idle()

        assert recorder.told == ["hello"]


@conforms("G-033", "G-034")
async def test_an_info_waits_behind_what_a_stage_in_the_middle_has_not_handled() -> None:
    async with Counter(most=10) as counter, Doubler() as doubler, Recorder() as recorder:
        await doubler.info("idle")
        await run_until_idle()
        assert doubler.told == ["idle"]

        await subscribe(doubler, to=counter, max_demand=10, min_demand=0)
        await run_until_idle()
        await doubler.info("first")
        await doubler.info("second")
        await run_until_idle()
        assert doubler.told == ["idle", "producer"]

        await subscribe(recorder, to=doubler)
        await run_until_idle()
        assert doubler.told == ["idle", "producer", "consumer", "first", "second"]


@conforms("G-035", "G-132", "G-143")
@pytest.mark.parametrize("dispatcher", [DemandDispatcher, BroadcastDispatcher, PartitionDispatcher[Any, int](2)])
async def test_an_info_reaches_a_producer_with_an_empty_buffer_at_once(dispatcher: Any) -> None:
    async with Forwarder(dispatcher=dispatcher) as source:
        await source.info("hello")
        await run_until_idle()

        assert source.told == ["hello"]


@conforms("G-036", "G-037", "G-038")
@pytest.mark.parametrize(
    ("size", "events"), [(None, ["a", "b", "c"]), (3, ["a"]), (3, ["a", "b"]), (3, ["a", "b", "c"])]
)
async def test_an_info_waits_behind_what_is_buffered(size: int | None, events: list[str]) -> None:
    log: list[Any] = []
    async with Forwarder(buffer_size=size) as source, Recorder(on_events=log.append) as recorder:
        source.handle_info = log.append  # type: ignore[method-assign,assignment]  # noted in one list with the events
        source.emit(events)
        await source.info("info")
        await run_until_idle()
        assert log == []

        await subscribe(recorder, to=source)
        await run_until_idle()
        assert sorted(log, key=str) == sorted([events, "info"], key=str)


@conforms("G-039")
async def test_an_info_behind_a_full_buffer_waits_until_all_of_it_was_taken() -> None:
    async with Forwarder(buffer_size=3) as source, Recorder() as recorder:
        source.emit(list("abc"))
        await source.info("info")
        subscription = await subscribe(recorder, to=source, mode="manual")
        subscription.ask(2)
        await run_until_idle()
        assert source.told == ["consumer"]

        subscription.ask(1)
        await run_until_idle()
        assert source.told == ["consumer", "info"]


@conforms("G-040")
async def test_infos_keep_their_places_while_the_buffer_moves() -> None:
    async with Forwarder(buffer_size=3) as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, mode="manual")
        source.emit(list("abc"))
        await source.info("info1")
        subscription.ask(2)
        await run_until_idle()
        assert (recorder.batches, source.told) == ([["a", "b"]], ["consumer"])

        source.emit(list("de"))
        await source.info("info2")
        subscription.ask(1)
        await run_until_idle()
        assert (recorder.batches[1:], source.told) == ([["c"]], ["consumer", "info1"])

        subscription.ask(2)
        await run_until_idle()
        assert (recorder.batches[2:], source.told) == ([["d", "e"]], ["consumer", "info1", "info2"])


@conforms("G-041")
async def test_an_info_whose_events_are_discarded_is_handed_over_at_once() -> None:
    async with Forwarder(buffer_size=3, on_discard=lambda _: False) as source:
        source.emit(list("ab"))
        await source.info("info")
        source.emit(list("cde"))
        await run_until_idle()

        assert source.told == ["info"]


@conforms("G-042")
async def test_infos_keep_their_order() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        source.emit(list("abc"))
        for info in (1, 2, 3):
            await source.info(info)
        source.emit(list("gh"))
        await source.info(4)
        subscription = await subscribe(recorder, to=source, mode="manual")
        subscription.ask(5)
        await run_until_idle()

        assert recorder.batches == [["a", "b", "c"], ["g", "h"]]
        assert source.told == ["consumer", 1, 2, 3, 4]


async def test_who_sends_too_many_infos_waits_for_room() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        source.emit([1])
        for number in range(10_000):
            await source.info(number)
        waiting = [asyncio.create_task(source.info(number)) for number in ("one more", "another")]
        await run_until_idle()
        assert (source.told, [task.done() for task in waiting]) == ([], [False, False])

        await subscribe(recorder, to=source)
        await soon(asyncio.gather(*waiting))
        await run_until_idle()
        assert source.told == ["consumer", *range(10_000), "one more", "another"]


async def test_who_waits_for_room_is_told_when_the_stage_ends() -> None:
    async with Forwarder() as source:
        source.emit([1])
        for number in range(10_000):
            await source.info(number)
        waiting = asyncio.create_task(source.info("one more"))
        await run_until_idle()

    with pytest.raises(StageDown):
        await soon(waiting)


async def test_an_info_waits_behind_the_queues_of_partitions() -> None:
    async with Forwarder(dispatcher=PartitionDispatcher[Any, int](2)) as source, Recorder() as recorder:
        source.emit([0, 1, 2, 3])
        await source.info("info")
        await subscribe(recorder, to=source, partition=0)
        await run_until_idle()
        assert source.told == ["consumer"]

        await subscribe(recorder, to=source, partition=1)
        await run_until_idle()
        assert source.told == ["consumer", "consumer", "info"]


# --- demand that is held back ---------------------------------------------------------------------------------------


@conforms("G-018", "G-020", "G-022")
@pytest.mark.parametrize("how", ["option", "class", "switched", "twice"])
async def test_demand_is_held_back_until_it_is_forwarded(how: str) -> None:
    class Accumulating(Counter):
        demand = "accumulate"

    source = Counter(demand="accumulate") if how == "option" else Accumulating() if how == "class" else Counter()
    async with source, Recorder(1) as recorder:
        if how in {"switched", "twice"}:
            source.demand = "accumulate"
        await subscribe(recorder, to=source, max_demand=4, min_demand=0)
        await run_until_idle()
        if how == "twice":
            source.demand = "accumulate"
        assert (source.demand, recorder.batches, source.asked) == ("accumulate", [], [])

        source.demand = "forward"
        await run_until_idle()
        assert (source.demand, recorder.batches) == ("forward", [[0, 1, 2, 3]])


@conforms("G-021")
async def test_forwarding_before_anybody_subscribes_is_as_if_nothing_was_held_back() -> None:
    async with Counter(demand="accumulate") as source, Recorder(1) as recorder:
        source.demand = "forward"
        await subscribe(recorder, to=source, max_demand=4, min_demand=0)
        await run_until_idle()

        assert recorder.batches == [[0, 1, 2, 3]]


@conforms("G-019")
async def test_events_that_were_emitted_meanwhile_come_one_list_after_the_other() -> None:
    async with Forwarder(dispatcher=BroadcastDispatcher()) as source, Recorder() as one, Recorder() as other:
        source.demand = "accumulate"
        for number in (1, 2, 3, 4):
            source.emit([number])
        await subscribe(one, to=source)
        await subscribe(other, to=source)
        await run_until_idle()
        assert (one.batches, source.estimate_buffered_count()) == ([], 0)

        source.demand = "forward"
        await run_until_idle()
        assert one.batches == other.batches == [[1], [2], [3], [4]]
        assert source.estimate_buffered_count() == 0


@conforms("G-023")
async def test_demands_are_replayed_one_by_one_and_not_summed() -> None:
    async with Counter(most=5, demand="accumulate") as source, Recorder() as one, Recorder() as other:
        await subscribe(one, to=source, max_demand=2, min_demand=0)
        await subscribe(other, to=source, max_demand=2, min_demand=0)
        await run_until_idle()

        source.demand = "forward"
        await run_until_idle()
        assert source.asked[:3] == [2, 2, 2]
        assert sorted(one.events + other.events) == [0, 1, 2, 3, 4]


async def test_what_is_held_back_has_the_limit_of_the_buffer() -> None:
    lost: list[int] = []
    async with Forwarder(demand="accumulate", buffer_size=3, on_discard=lost.append) as source, Recorder() as recorder:
        source.emit([1, 2])
        source.emit([3, 4, 5])
        source.demand = "forward"
        await subscribe(recorder, to=source)
        await run_until_idle()

        assert (lost, recorder.events) == ([2], [3, 4, 5])


async def test_what_is_emitted_after_the_switch_waits_behind_what_was_held_back() -> None:
    async with Forwarder(demand="accumulate") as source, Recorder() as recorder:
        await subscribe(recorder, to=source)
        source.emit([1])
        source.demand = "forward"
        source.emit([2])
        await run_until_idle()

        assert recorder.batches == [[1], [2]]
