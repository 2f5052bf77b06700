"""However many stages work side by side, windows get what they would get from one: no element is late because of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py.flow import Flow, Window
from tests.flow.support import report_of, results

Event = tuple[int, int]

SEEDS = st.integers(0, 10**6)
MAPPERS = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def time_of(event: Event) -> float:
    return float(event[1])


def slow(random: Random) -> Any:
    """A mapper that lets other stages go before, for a random number of rounds of the loop."""

    async def wait(event: Event) -> Event:
        for _ in range(random.randrange(8)):
            await asyncio.sleep(0)
        return event

    return wait


def mapped(events: list[Event], random: Random, mappers: list[int], demand: int) -> Flow[Event]:
    flow = Flow.from_iterable(events, stages=mappers[0], max_demand=demand).map(slow(random))
    for stages in mappers[1:]:
        flow = flow.shuffle(stages=stages, max_demand=demand).map(slow(random))
    return flow


def kept(events: list[Event], event: Event) -> list[Event]:
    return [*events, event]


def shown(state: list[Event], partition: int, firing: Any) -> tuple[list[Any], list[Event]]:
    return [(firing.start, event) for event in state], state


@settings(max_examples=30)
@given(
    SEEDS,
    MAPPERS,
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([1, 2, 7, 1_000]),
)
def test_nothing_is_late_that_is_not_late_for_one_stage(
    seed: int, mappers: list[int], reducers: int, delay: int, demand: int
) -> None:
    random = Random(seed)
    # Each event is at most *delay* seconds behind an event before it.
    events = [(random.randrange(5), number // 2 - random.randrange(delay + 1)) for number in range(80)]
    expected: defaultdict[float, list[Event]] = defaultdict(list)
    for event in events:
        expected[event[1] // 4 * 4].append(event)

    flow = mapped(events, random, mappers, demand).partition(
        stages=reducers, key=lambda event: event[0], max_demand=demand, window=Window.fixed(4, by=time_of, delay=delay)
    )
    came = results(flow.reduce(list, kept).on_trigger(shown))

    assert sorted(came) == sorted((start, event) for start, events in expected.items() for event in events)


@settings(max_examples=20)
@given(SEEDS, MAPPERS, st.sampled_from([1, 3, 1_000]), st.integers(1, 9))
def test_one_stage_with_count_windows_behind_many_gets_the_events_in_order(
    seed: int, mappers: list[int], demand: int, count: int
) -> None:
    random = Random(seed)
    events = [(0, number) for number in range(50)]
    flow = mapped(events, random, mappers, demand).partition(stages=1, max_demand=demand, window=Window.count(count))

    lists = results(flow.reduce(list, kept).emit("state"))

    assert [event for each in lists for event in each] == events
    assert [len(each) for each in lists[:-1]] == [count] * (len(events) // count)


@settings(max_examples=15)
@given(SEEDS, st.integers(2, 3), st.integers(2, 3), st.sampled_from([1, 1_000]))
def test_two_keyed_layers_in_a_row_make_nothing_late(seed: int, first: int, second: int, demand: int) -> None:
    random = Random(seed)
    events = [(random.randrange(6), number) for number in range(60)]
    flow = Flow.from_iterable(events, stages=2, max_demand=demand).map(slow(random))
    keyed = flow.partition(stages=first, key=lambda event: event[0], max_demand=demand).map(slow(random))
    windowed = keyed.partition(
        stages=second, key=lambda event: event[0] % 2, max_demand=demand, window=Window.fixed(5, by=time_of)
    )

    report = report_of(windowed.reduce(list, kept).emit("events"))

    assert (report.late, report.elements_out) == (0, 60)


def test_a_partition_without_events_fires_when_time_passes_for_the_others() -> None:
    # Only the first event goes to the stage 0: its window fires long before the end.
    events = [(0, 0), *((1, number) for number in range(1, 40))]
    flow = Flow.from_iterable(events, stages=1, max_demand=1).partition(
        stages=2, hash=lambda event: (event, event[0]), max_demand=1, window=Window.fixed(2, by=time_of)
    )
    fired = flow.reduce(list, kept).emit("state").shuffle(stages=1, max_demand=1)

    lists = results(fired)

    assert lists.index([(0, 0)]) <= 3


def test_a_source_that_has_ended_holds_no_window_of_another_one_back() -> None:
    seen: list[Any] = []

    async def longer() -> Any:
        for number in range(100):
            yield (1, number)
            if number == 90:
                seen.extend(fired)
            for _ in range(10):
                await asyncio.sleep(0)

    fired: list[Any] = []
    flow: Flow[Any] = Flow.from_iterables([[(0, 0)], longer()], stages=2, max_demand=1).partition(
        stages=1, max_demand=1, window=Window.fixed(10, by=time_of)
    )
    results(flow.reduce(list, kept).emit("state").map(fired.append))

    assert len(seen) > 5


def test_event_times_may_be_read_behind_a_map_batch() -> None:
    flow = Flow.from_iterable(range(20), stages=2, max_demand=2).partition(
        stages=1, max_demand=2, window=Window.fixed(5, by=float)
    )

    lists = results(flow.map_batch(lambda batch: batch).reduce(list, kept).emit("state"))  # type: ignore[arg-type]

    assert lists == [list(range(start, start + 5)) for start in range(0, 20, 5)]


def test_late_elements_are_counted_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    windowed = Flow.from_iterable([5, 1, 2, 9, 3]).partition(stages=1, window=Window.fixed(1, by=float))
    flow = windowed.reduce(lambda: 0, add).emit("state")

    report = flow.run()

    assert (report.late, report.ahead, report.elements_out) == (3, 0, 2)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        "elements were left out, because they were late for their windows, or too far ahead of the clock: "
        "see on_late, and the window's delay, lateness and max_ahead elements=3"
    )
    assert windowed.on_late(nothing).reduce(lambda: 0, add).emit("state").run().late == 3
    assert len(caplog.records) == 1


def add(total: int, number: int) -> int:
    return total + number


def nothing(element: int, info: Any) -> list[int]:
    return []
