"""The contract's tests of flows, through the methods that users call."""

from __future__ import annotations

import operator
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import count, islice
from random import Random
from typing import Any

import pytest

from broadway_py.errors import FlowFailed
from broadway_py.flow import Firing, Flow, Window
from broadway_py.stage import ConsumerStage, ProducerConsumerStage, ProducerStage
from tests.flow.support import by_phash2, leaves_nothing, phash2
from tests.support.conformance import conforms

LISTS = [[1, 2, 3], [4, 5, 6]]
TWO = Flow.from_iterables(LISTS, stages=2)
FOUR = Flow.from_iterables(LISTS, stages=4)
PARTITIONS = Flow.from_iterables([*LISTS, range(7, 11)], stages=4).partition(stages=4, hash=by_phash2(4))
ALONE = Flow.from_iterable([1, 2, 3], stages=1)
FOX = "the quick brown fox"


def is_even(number: int) -> bool:
    return number % 2 == 0


def parity(number: int) -> int:
    return number % 2


def twice(number: int) -> list[int]:
    return [number, number]


def double(number: int) -> int:
    return number * 2


def zero() -> int:
    return 0


def append(numbers: list[Any], number: Any) -> list[Any]:
    return [*numbers, number]


def collect(numbers: list[float], number: float) -> list[float]:
    numbers.append(number)
    return numbers


def emit_each(total: int, number: int) -> tuple[list[int], int]:
    return [number], total + number


def letter_counts(counts: dict[str, int], letter: str) -> dict[str, int]:
    counts[letter] = counts.get(letter, 0) + 1
    return counts


def pair(left: Any, right: Any) -> tuple[Any, Any]:
    return left, right


def by_source(two: Any, four: Any, partitions: Any) -> pytest.MarkDecorator:
    """The same test for the three flows of the contract, each with its number."""
    return pytest.mark.parametrize(
        "flow",
        [
            pytest.param(flow, marks=conforms(number), id=name)
            for name, flow, number in (
                ("2 stages", TWO, two),
                ("4 stages", FOUR, four),
                ("4 partitions", PARTITIONS, partitions),
            )
        ],
    )


def numbers_of(flow: Flow[int]) -> list[int]:
    return list(range(1, 11 if flow is PARTITIONS else 7))


# --- the documentation ----------------------------------------------------------------------------------------------


@conforms("F-001")
def test_an_inner_join_leaves_out_what_has_no_partner() -> None:
    posts = Flow.from_iterable([(1, "hello"), (2, "world")])
    comments = Flow.from_iterable([(1, "excellent"), (1, "outstanding"), (2, "great follow up"), (3, "unknown")])
    first = operator.itemgetter(0)

    joined = Flow.bounded_join("inner", posts, comments, first, first, lambda post, comment: (post[1], comment[1]))

    assert sorted(joined) == [("hello", "excellent"), ("hello", "outstanding"), ("world", "great follow up")]


@conforms("F-002")
def test_emit_and_reduce_gives_a_sliding_list() -> None:
    def last_three(kept: list[int], number: int) -> tuple[list[list[int]], list[int]]:
        kept = [*kept, number][-3:]
        return [kept], kept

    flow = Flow.from_iterable(range(1, 6), stages=1).emit_and_reduce(list, last_three)

    assert flow.to_list() == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], 3, 4, 5]


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        pytest.param(ALONE.filter(is_even), [2], marks=conforms("F-003"), id="filter"),
        pytest.param(
            ALONE.flat_map(lambda number: [number, double(number)]),
            [1, 2, 2, 3, 4, 6],
            marks=conforms("F-004"),
            id="flat_map",
        ),
        pytest.param(ALONE.map(double), [2, 4, 6], marks=conforms("F-007", "F-014"), id="map"),
        pytest.param(
            Flow.from_iterables([[1, 2, 3], range(1, 4)]).map(double),
            [2, 2, 4, 4, 6, 6],
            marks=conforms("F-008"),
            id="from_iterables",
        ),
        pytest.param(
            Flow.from_iterable(zip("abcde", range(1, 6), strict=True)).map_values(double),
            [("a", 2), ("b", 4), ("c", 6), ("d", 8), ("e", 10)],
            marks=conforms("F-009"),
            id="map_values",
        ),
        pytest.param(ALONE.reject(is_even), [1, 3], marks=conforms("F-012"), id="reject"),
    ],
)
def test_operators_on_elements(flow: Flow[Any], expected: list[Any]) -> None:
    assert sorted(flow) == expected


@conforms("F-005")
def test_group_by_keeps_the_order_of_arrival() -> None:
    groups = Flow.from_iterable(FOX.split(), stages=1).group_by(len)

    assert groups.to_list() == [(3, ["the", "fox"]), (5, ["quick", "brown"])]


@conforms("F-006")
def test_group_by_collects_values() -> None:
    pairs = Flow.from_iterable([("foo", 1), ("foo", 2), ("bar", 3), ("foo", 4), ("bar", 5)], stages=1)

    groups = pairs.group_by(operator.itemgetter(0), operator.itemgetter(1)).emit("state")

    assert groups.to_list() == [{"foo": [1, 2, 4], "bar": [3, 5]}]


LETTERS = Flow.from_iterable(FOX.split(" ")).flat_map(lambda word: [*word, " "]).partition(stages=4)


@conforms("F-010")
def test_on_trigger_gives_what_its_function_returns() -> None:
    def add(letters: set[str], letter: str) -> set[str]:
        return letters | {letter}

    assert sum(LETTERS.reduce(set, add).on_trigger(lambda letters: ([len(letters)], letters))) == 16


@conforms("F-011")
def test_each_letter_is_counted_in_one_partition() -> None:
    counted = LETTERS.reduce(dict, letter_counts).to_list()

    assert len(counted) == 16
    assert dict(counted) == Counter(FOX + " ")


@conforms("F-013")
def test_run_does_what_the_functions_do() -> None:
    seen: list[int] = []

    assert ALONE.map(seen.append).run().elements_out == 3
    assert seen == [1, 2, 3]


@conforms("F-015")
def test_take_sort_gives_a_list_in_a_list() -> None:
    urls = Flow.from_iterable(["www.foo.com", "www.bar.com", "www.foo.com", "www.foo.com"])

    counted = urls.partition().reduce(dict, letter_counts).take_sort(1, key=operator.itemgetter(1), reverse=True)

    assert counted.to_list() == [[("www.foo.com", 3)]]


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        pytest.param(
            Flow.from_iterable(range(1, 101)).partition(stages=1), [1, 2], marks=conforms("F-016"), id="1 partition"
        ),
        pytest.param(
            Flow.from_iterable(range(1, 101)).partition(stages=4, hash=by_phash2(4)),
            [1, 2, 3, 4, 10, 16, 23, 39],
            marks=conforms("F-017"),
            id="4 partitions",
        ),
        pytest.param(
            Flow.from_iterable(range(1, 101)).partition(stages=2, hash=lambda number: (number, number % 2)),
            [1, 2],
            marks=conforms("F-018"),
            id="by parity",
        ),
    ],
)
def test_uniq_is_of_a_partition(flow: Flow[int], expected: list[int]) -> None:
    assert sorted(flow.uniq(parity)) == expected


@conforms("F-019")
def test_elements_of_different_windows_are_no_pairs() -> None:
    posts = Flow.from_iterable([(1, 0.0), (2, 1.0)])
    comments = Flow.from_iterable([(1, 0.5), (1, 1.0), (2, 1.5)])
    window = Window.fixed(1, by=operator.itemgetter(1))
    first = operator.itemgetter(0)

    joined = Flow.window_join("inner", posts, comments, window, first, first, pair, stages=1, max_demand=1)

    assert sorted(joined) == [((1, 0.0), (1, 0.5)), ((2, 1.0), (2, 1.5))]


# --- sources in lists -----------------------------------------------------------------------------------------------


@by_source("F-032", "F-057", "F-079")
def test_without_operators_all_elements_come_out(flow: Flow[int]) -> None:
    assert sorted(flow) == numbers_of(flow)


@by_source("F-033", "F-058", "F-080")
def test_an_error_of_a_function_reaches_the_caller(flow: Flow[int]) -> None:
    def fail(number: int) -> int:
        raise LookupError(number)

    with pytest.raises(FlowFailed, match=r"^map \d: fail failed with LookupError in stage ") as failed:
        flow.map(fail).to_list()

    assert isinstance(failed.value.__cause__, LookupError)


@by_source("F-034", "F-059", "F-081")
def test_filter(flow: Flow[int]) -> None:
    assert sorted(flow.filter(is_even)) == numbers_of(flow)[1::2]


@by_source("F-035", "F-060", "F-082")
def test_flat_map(flow: Flow[int]) -> None:
    assert sorted(flow.flat_map(twice)) == sorted(numbers_of(flow) * 2)


@by_source("F-037", "F-062", "F-083")
def test_map(flow: Flow[int]) -> None:
    assert sorted(flow.map(double)) == [double(number) for number in numbers_of(flow)]


@by_source("F-038", "F-063", "F-085")
def test_reject(flow: Flow[int]) -> None:
    assert sorted(flow.reject(is_even)) == numbers_of(flow)[::2]


@by_source("F-040", "F-067", "F-089")
def test_operators_keep_their_order(flow: Flow[int]) -> None:
    mapped = flow.filter(is_even).map(lambda number: number + 1).map(double)

    assert sorted(mapped) == [2 * (number + 1) for number in numbers_of(flow)[1::2]]


@by_source("F-041", "F-064", "F-086")
def test_reduce(flow: Flow[int]) -> None:
    sums = flow.reduce(zero, operator.add).on_trigger(lambda total: ([total], total)).to_list()

    assert sum(sums) == sum(numbers_of(flow))
    assert flow is not PARTITIONS or sorted(sums) == [7, 10, 16, 22]


@conforms("F-086")
def test_partitions_without_elements_emit_the_first_accumulator() -> None:
    assert sorted(PARTITIONS.reject(is_even).reduce(zero, operator.add).emit("state")) == [0, 0, 3, 22]


@by_source("F-042", "F-065", "F-087")
def test_emit_and_reduce(flow: Flow[int]) -> None:
    assert sum(flow.emit_and_reduce(zero, emit_each).emit("state")) == 2 * sum(numbers_of(flow))


@conforms("F-043")
def test_emit_and_reduce_behind_a_mapper() -> None:
    assert sum(TWO.flat_map(twice).emit_and_reduce(zero, emit_each).emit("state")) == 84


@by_source("F-036", "F-061", "F-084")
def test_map_batch(flow: Flow[int]) -> None:
    sums = sorted(flow.map_batch(lambda numbers: [sum(numbers)]))

    assert sums == ([1, 2, 3, 4, 5, 6, 8, 10, 16] if flow is PARTITIONS else [6, 15])


@conforms("F-036")
def test_map_batch_before_a_mapper() -> None:
    assert sorted(TWO.map_batch(lambda numbers: [sum(numbers)]).map(double)) == [12, 30]


@conforms("F-079")
def test_partitions_have_the_elements_of_their_hash() -> None:
    lists = PARTITIONS.reduce(list, append).emit("state").map(sorted)

    assert sorted(lists) == [[1, 5, 7, 9], [2, 6, 8], [3, 4], [10]]


@by_source("F-039", "F-066", "F-088")
def test_uniq(flow: Flow[int]) -> None:
    assert len(flow.uniq(parity).to_list()) == (5 if flow is PARTITIONS else 2)


@conforms("F-068")
def test_four_stages_have_windows_each() -> None:
    window = Window.fixed(1, by=lambda number: 0 if number <= 50 else 1)
    flow = Flow.from_iterable(range(1, 101), stages=4, max_demand=5, window=window)

    sums = flow.reduce(zero, operator.add).emit("state").to_list()

    assert (len(sums), sum(sums)) == (8, 5050)


def failing_source() -> Iterator[int]:
    yield 1
    raise LookupError("the source")


@conforms("F-027", "F-028")
async def test_an_error_of_the_source_reaches_the_caller() -> None:
    flow = Flow.from_iterable(failing_source()).map(double)

    with pytest.raises(FlowFailed) as failed:
        await flow.to_list_async()

    assert isinstance(failed.value.__cause__, LookupError)


@conforms("F-029")
async def test_a_flow_that_was_started_ends_with_its_source_or_with_the_error_of_it() -> None:
    ended = await (await Flow.from_iterable(list[int]()).map(double).start()).wait()
    failing = await Flow.from_iterable(failing_source()).map(double).start()

    assert ended.elements_in == 0
    with pytest.raises(FlowFailed):
        await failing.wait()


@conforms("F-030")
def test_a_run_leaves_nothing_behind() -> None:
    flow = Flow.from_iterable(range(1, 101), stages=4).map(double)
    flow.to_list()

    with leaves_nothing():
        assert len(flow.to_list()) == 100


@conforms("F-046")
async def test_a_merged_flow_is_started() -> None:
    seen: list[int] = []

    await (await Flow.merge(Flow.from_iterable([1])).map(seen.append).start()).wait()

    assert seen == [1]


@by_source("F-044", "F-069", "F-090")
async def test_a_flow_that_was_started_ends_by_itself(flow: Flow[int]) -> None:
    seen: list[int] = []

    running = await flow.filter(is_even).map(seen.append).start()
    await running.wait()

    assert sorted(seen) == numbers_of(flow)[1::2]


@conforms("F-055")
def test_an_endless_flow_without_operators_is_left() -> None:
    assert list(islice(Flow.from_iterable(count(), stages=1), 10)) == list(range(10))


@conforms("F-056")
def test_an_endless_flow_with_a_mapper_is_left() -> None:
    assert list(islice(Flow.from_iterable(count(), stages=1).map(double), 10)) == list(range(0, 20, 2))


# --- running stages -------------------------------------------------------------------------------------------------


class Numbers(ProducerStage[int]):
    def __init__(self) -> None:
        super().__init__()
        self.numbers = count()

    def handle_demand(self, demand: int) -> list[int]:
        return list(islice(self.numbers, demand))


class Noted(ConsumerStage[int]):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[int] = []

    def handle_events(self, events: list[int]) -> None:
        self.events += events


class Passed(ProducerConsumerStage[int, int]):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[int] = []

    def handle_events(self, events: list[int]) -> list[int]:
        self.events += events
        return events


async def first_five(flow: Flow[int]) -> list[int]:
    found: list[int] = []
    async for number in flow:
        found.append(number)
        if len(found) == 5:
            break
    return found


FROM_STAGES: list[tuple[str, Callable[[Flow[int]], Flow[int]], list[int]]] = [
    ("F-100", lambda flow: flow, [0, 1, 2, 3, 4]),
    ("F-101", lambda flow: flow.filter(is_even), [0, 2, 4, 6, 8]),
    ("F-102", lambda flow: flow.flat_map(twice), [0, 0, 1, 1, 2]),
    ("F-103", lambda flow: flow.map(double), [0, 2, 4, 6, 8]),
    ("F-104", lambda flow: flow.reject(is_even), [1, 3, 5, 7, 9]),
    (
        "F-110",
        lambda flow: flow.map_batch(lambda numbers: [sum(numbers)]),
        [124_750, 374_750, 624_750, 874_750, 1_124_750],
    ),
    ("F-105", lambda flow: flow.filter(is_even).map(lambda n: n + 1).map(double), [2, 6, 10, 14, 18]),
]


@pytest.mark.parametrize(
    ("chain", "expected"), [pytest.param(*rest, marks=conforms(number), id=number) for number, *rest in FROM_STAGES]
)
async def test_the_events_of_a_running_stage(chain: Callable[[Flow[int]], Flow[int]], expected: list[int]) -> None:
    async with Numbers() as numbers:
        assert await first_five(chain(Flow.from_stages([numbers], stages=1))) == expected


@by_source("F-047", "F-071", "F-092")
async def test_running_stages_get_the_elements(flow: Flow[int]) -> None:
    async with Noted() as noted:
        await (await flow.filter(is_even).into_stages([noted])).wait()

        assert sorted(noted.events) == numbers_of(flow)[1::2]


@by_source("F-049", "F-073", "F-094")
async def test_elements_go_through_running_stages(flow: Flow[int]) -> None:
    async with Passed() as first, Passed() as second:
        through = flow.through_stages([first], stages=2).filter(is_even).through_stages([second], stages=2)

        assert sorted(await through.to_list_async()) == numbers_of(flow)[1::2]
        assert (sorted(first.events), sorted(second.events)) == (numbers_of(flow), numbers_of(flow)[1::2])


@by_source("F-050", "F-074", "F-095")
async def test_elements_go_through_running_stages_into_others(flow: Flow[int]) -> None:
    async with Passed() as through, Noted() as noted:
        await (await flow.through_stages([through]).filter(is_even).into_stages([noted])).wait()

        assert (sorted(through.events), sorted(noted.events)) == (numbers_of(flow), numbers_of(flow)[1::2])


# --- partitions -----------------------------------------------------------------------------------------------------


@conforms("F-114")
def test_a_hash_may_send_everything_to_one_stage() -> None:
    flow = Flow.from_iterable(range(1, 11)).partition(stages=4, hash=lambda number: (number, 0))

    assert sorted(flow.reduce(list, append).emit("state")) == [[], [], [], list(range(1, 11))]


PAIRS = [(1, 1), (2, 2), (3, 3), (1, 4), (2, 5), (3, 6)]


@pytest.mark.parametrize(
    ("before", "key"),
    [
        pytest.param(Flow.from_iterable(PAIRS), operator.itemgetter(0), marks=conforms("F-115"), id="place"),
        pytest.param(
            Flow.from_iterable([{"key": key, "value": value} for key, value in PAIRS]),
            operator.itemgetter("key"),
            marks=conforms("F-116"),
            id="name",
        ),
        pytest.param(Flow.from_iterable(PAIRS), lambda each: each[0], marks=conforms("F-117"), id="function"),
        pytest.param(
            Flow.from_iterable(PAIRS).shuffle(stages=2), lambda each: each[0], marks=conforms("F-118"), id="shuffled"
        ),
    ],
)
def test_elements_with_equal_keys_meet_in_order(before: Flow[Any], key: Callable[[Any], int]) -> None:
    flow = before.partition(stages=2, hash=lambda each: (each, phash2(key(each), 2)))
    same = before.partition(stages=2, key=key)

    def value(each: Any) -> int:
        number: int = each["value"] if isinstance(each, dict) else each[1]
        return number

    assert sorted(flow.map(value).reduce(list, append).emit("state")) == [[1, 2, 4, 5], [3, 6]]
    lists = same.map(value).reduce(list, append).emit("state").to_list()
    assert sorted(number for numbers in lists for number in numbers) == [1, 2, 3, 4, 5, 6]
    assert all((number + 3 in numbers) for numbers in lists for number in numbers if number <= 3)


def hundred(number: int) -> float:
    return 0 if number <= 50 else 0.1


@conforms("F-119")
def test_partitions_have_windows_each() -> None:
    window = Window.fixed(0.05, by=hundred)
    flow = Flow.from_iterable(range(1, 101)).partition(stages=4, hash=by_phash2(4), window=window)

    sums = flow.reduce(zero, operator.add).emit("state")

    assert sorted(sums) == [173, 361, 364, 377, 797, 865, 895, 1218]


@pytest.mark.parametrize(
    "reverse", [pytest.param(False, marks=conforms("F-120")), pytest.param(True, marks=conforms("F-121"))]
)
def test_take_sort_is_the_beginning_of_the_sorted_whole(reverse: bool) -> None:
    numbers = [[Random(seed).random() for _ in range(1_000)] for seed in range(4)]
    flow = Flow.from_iterables(numbers).partition(stages=4).reduce(list, collect)

    (taken,) = flow.take_sort(100, reverse=reverse)

    assert taken == sorted((number for each in numbers for number in each), reverse=reverse)[:100]


@conforms("F-122")
def test_a_departition_collects_the_partitions() -> None:
    assert PARTITIONS.reduce(zero, operator.add).departition(list, append, sorted).to_list() == [[7, 10, 16, 22]]


@conforms("F-123")
def test_done_is_told_the_window() -> None:
    def done(sums: list[int], firing: Firing) -> tuple[str, list[int]]:
        return firing.kind, sorted(sums)

    assert PARTITIONS.reduce(zero, operator.add).departition(list, append, done).to_list() == [
        ("global", [7, 10, 16, 22])
    ]


@conforms("F-124")
def test_windows_that_not_all_partitions_have_are_completed_at_the_end() -> None:
    flow = Flow.from_iterable(range(1, 11)).partition(stages=2, hash=lambda number: (number, 1), window=Window.count(3))

    collected = flow.reduce(zero, operator.add).departition(list, append, sorted).map(lambda sums: [*sums])

    assert collected.to_list() == [[0, 6], [15], [24], [10]]


@conforms("F-125")
def test_a_departition_merges_each_time_that_a_window_fires() -> None:
    window = Window.global_().trigger_every(2)
    flow = Flow.from_iterable(range(1, 11)).partition(stages=4, hash=by_phash2(4), window=window)

    (sums,) = flow.reduce(zero, operator.add).departition(list, append, sorted)

    assert sums == [6, 7, 7, 8, 10, 16, 22, 22]


@conforms("F-126")
def test_a_mapper_behind_a_departition() -> None:
    assert PARTITIONS.reduce(zero, operator.add).departition(list, append, list).map(sorted).to_list() == [
        [7, 10, 16, 22]
    ]


@conforms("F-127")
def test_what_is_reset_is_merged_once() -> None:
    flow = Flow.from_iterable(range(1, 11)).partition(stages=4, window=Window.global_().trigger_every(2))
    parts = flow.reduce(zero, operator.add).on_trigger(lambda total: ([total], 0))

    total = parts.departition(list, append, sorted).reduce(zero, lambda total, sums: total + sum(sums))

    assert total.emit("state").to_list() == [55]


@conforms("F-128")
async def test_a_departition_of_a_flow_that_was_started() -> None:
    told: list[Any] = []

    def done(sums: list[int]) -> None:
        told.append(sorted(sums))

    await (await PARTITIONS.reduce(zero, operator.add).departition(list, append, done).start()).wait()

    assert told == [[7, 10, 16, 22]]


def odd_and_even(**options: Any) -> tuple[Flow[int], Flow[int]]:
    numbers = Flow.from_iterable(range(1, 101))
    return numbers.reject(is_even).map(double), numbers.filter(is_even).map(double)


def at_hundred(number: int) -> float:
    return 0 if number <= 100 else 0.1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"hash": by_phash2(4), "min_demand": 5}, None, marks=conforms("F-129"), id="by hash"),
        pytest.param(
            {"hash": lambda number: (number, 0)}, [0, 0, 0, 10_100], marks=conforms("F-130"), id="to one stage"
        ),
        pytest.param(
            {"hash": by_phash2(4), "window": Window.fixed(0.1, by=at_hundred, delay=1)},
            [594, 596, 654, 706, 1248, 1964, 2066, 2272],
            marks=conforms("F-131"),
            id="in windows",
        ),
    ],
)
def test_several_flows_are_partitioned(options: dict[str, Any], expected: list[int] | None) -> None:
    flow = Flow.merge(odd_and_even()).partition(stages=4, **options)

    sums = sorted(flow.reduce(zero, operator.add).emit("state"))

    assert sum(sums) == 10_100
    assert expected is None or sums == expected


@conforms("F-132")
def test_several_flows_are_shuffled() -> None:
    flow = Flow.merge(*odd_and_even(), stages=1).reduce(zero, operator.add).emit("state")

    assert flow.to_list() == [10_100]


@conforms("F-133")
def test_several_flows_are_shuffled_in_windows() -> None:
    flow = Flow.merge(*odd_and_even(), stages=1, window=Window.fixed(0.1, by=at_hundred, delay=1))

    assert flow.reduce(zero, operator.add).emit("state").to_list() == [2_550, 7_550]


# --- joins ----------------------------------------------------------------------------------------------------------

NOBODY = None
LEFT, RIGHT = Flow.from_iterable(range(4)), Flow.from_iterable(range(4, 9))
MATCHED = [(1, 4), (2, 5), (3, 6)]


def same(number: int) -> int:
    return number


def three_less(number: int) -> int:
    return number - 3


def in_order(rows: Iterator[Any]) -> list[Any]:
    return sorted(rows, key=repr)


@pytest.mark.parametrize(
    ("mode", "right_key", "expected"),
    [
        pytest.param("inner", three_less, MATCHED, marks=conforms("F-134")),
        pytest.param("inner", str, [], marks=conforms("F-135")),
        pytest.param("left_outer", three_less, [(0, None), *MATCHED], marks=conforms("F-136")),
        pytest.param("left_outer", str, [(n, None) for n in range(4)], marks=conforms("F-137")),
        pytest.param("right_outer", three_less, [*MATCHED, (None, 7), (None, 8)], marks=conforms("F-138")),
        pytest.param("right_outer", str, [(None, n) for n in range(4, 9)], marks=conforms("F-139")),
        pytest.param("full_outer", three_less, [(0, None), *MATCHED, (None, 7), (None, 8)], marks=conforms("F-140")),
        pytest.param(
            "full_outer",
            str,
            [*((n, None) for n in range(4)), *((None, n) for n in range(4, 9))],
            marks=conforms("F-141"),
        ),
    ],
)
def test_the_modes_of_a_join(mode: Any, right_key: Any, expected: list[Any]) -> None:
    assert in_order(iter(Flow.bounded_join(mode, LEFT, RIGHT, same, right_key, pair))) == in_order(iter(expected))


@conforms("F-142")
def test_a_mapper_behind_a_join() -> None:
    joined = Flow.bounded_join("inner", LEFT, RIGHT, same, three_less, pair)

    assert sorted(joined.map(sum)) == [5, 7, 9]


def key_and_sum(left: int, right: int) -> tuple[int, int]:
    return left, left + right


def by_key(row: tuple[int, int]) -> tuple[int, int]:
    return row[1], phash2(row[0], 2)


@conforms("F-143")
def test_a_reduction_behind_a_join() -> None:
    joined = Flow.bounded_join("inner", LEFT, RIGHT, same, three_less, key_and_sum, stages=2)

    sums = joined.partition(stages=2, hash=by_key).reduce(zero, operator.add).emit("state")

    assert sorted(sums) == [9, 12]
    assert sum(joined.map(operator.itemgetter(1)).reduce(zero, operator.add).emit("state")) == 21


@conforms("F-144")
def test_a_join_of_flows_with_layers() -> None:
    left = Flow.from_iterable(range(10)).partition(stages=2)
    right = Flow.from_iterable(range(10)).map(lambda number: number + 10)

    joined = Flow.bounded_join("inner", left, right, same, lambda number: number - 10, key_and_sum, stages=2)

    assert sorted(joined.partition(stages=2, hash=by_key).reduce(zero, operator.add).emit("state")) == [44, 146]


@conforms("F-145")
def test_a_join_in_windows_with_a_trigger() -> None:
    window = Window.fixed(0.01, by=lambda number: number / 1_000).trigger_every(2)
    left, right = Flow.from_iterable([0, 1, 2, 3, 9, 10, 11]), Flow.from_iterable([4, 5, 6, 7, 8, 12, 13])

    joined = Flow.window_join("full_outer", left, right, window, same, three_less, pair)

    assert in_order(iter(joined)) == in_order(
        iter([(0, None), *MATCHED, (9, None), (10, 13), (11, None), (None, 7), (None, 8), (None, 12)])
    )


@conforms("F-153")
def test_on_init_is_called_once_in_each_stage() -> None:
    started: deque[tuple[int, int]] = deque()

    Flow.from_iterable([1], stages=2, on_init=lambda index, total: started.append((index, total))).map(double).run()

    assert sorted(started) == [(0, 2), (1, 2)]
