"""What the methods of a flow make: layers, and what stands in them."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from broadway_py.flow import Firing, Flow, Window
from broadway_py.flow.description.layers import (
    ByKey,
    Demand,
    FromFiles,
    FromIterable,
    FromStage,
    Gather,
    Layer,
    Spread,
    ToAll,
)
from broadway_py.flow.description.operators import KeyedReduction, Reduction
from broadway_py.flow.description.settings import RunSettings
from broadway_py.stage import ProducerConsumerStage, ProducerStage

NUMBERS = Flow.from_iterable(range(10))


def count(counts: dict[int, int], number: int) -> dict[int, int]:
    return {**counts, number: counts.get(number, 0) + 1}


def merge(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return dict(Counter(one) + Counter(other))


def layer(flow: Flow[Any]) -> Layer:
    return flow._layer


def before(of: Layer) -> Layer:
    """The layer before, which is one."""
    (found,) = of.inputs
    assert isinstance(found, Layer)
    return found


def double(number: int) -> int:
    return number * 2


def is_even(number: int) -> bool:
    return number % 2 == 0


def timestamp(number: int) -> float:
    return number


# --- sources --------------------------------------------------------------------------------------------------------


def test_an_iterable_is_kept_as_it_is() -> None:
    items = iter([1, 2])

    (source,) = layer(Flow.from_iterable(items)).inputs

    assert isinstance(source, FromIterable)
    assert source.items is items
    assert next(items) == 1


def test_each_of_several_iterables_is_a_source() -> None:
    made = layer(Flow.from_iterables(each for each in ([1], (2,))))

    assert [source.items for source in made.inputs if isinstance(source, FromIterable)] == [[1], (2,)]


def test_files_are_found_by_patterns_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.log", "[d].txt"):
        tmp_path.joinpath(name).touch()
    (tmp_path / "e.txt").mkdir()

    def names(*paths: str) -> list[str]:
        (source,) = layer(Flow.from_files([tmp_path / path for path in paths])).inputs
        assert isinstance(source, FromFiles)
        return [Path(path).name for path in source.paths]

    assert names("*.txt") == ["[d].txt", "a.txt", "b.txt"]
    assert names("c.log", "?.txt") == ["c.log", "a.txt", "b.txt"]
    assert names("[d].txt") == ["[d].txt"]
    assert names("[ab].txt") == ["a.txt", "b.txt"]


def test_files_have_an_encoding_and_ranges_of_a_mebibyte() -> None:
    (plain,) = layer(Flow.from_files("pyproject.toml")).inputs
    (other,) = layer(Flow.from_files(Path("pyproject.toml"), encoding="latin1", range_bytes=10)).inputs

    assert isinstance(plain, FromFiles)
    assert isinstance(other, FromFiles)
    assert (plain.paths, plain.encoding, plain.range_bytes) == (("pyproject.toml",), "utf-8", 1_048_576)
    assert (other.paths, other.encoding, other.range_bytes) == (("pyproject.toml",), "iso8859-1", 10)


class Numbers(ProducerStage[int]):
    async def handle_demand(self, demand: int) -> list[int]:
        return [1] * demand


class Doubled(ProducerConsumerStage[int, int]):
    async def handle_events(self, events: Iterable[int]) -> list[int]:
        return [2 * event for event in events]


async def test_running_stages_are_sources() -> None:
    one, other = Numbers(), Numbers()

    made = layer(Flow.from_stages([one, other]))

    assert [(source.stage, source.fed_by) for source in made.inputs if isinstance(source, FromStage)] == [
        (one, None),
        (other, None),
    ]


async def test_stages_in_the_middle_are_sources_that_the_layer_before_feeds() -> None:
    stage = Doubled()
    doubled = NUMBERS.map(double)

    made = layer(doubled.through_stages([stage], stages=2))

    (source,) = made.inputs
    assert isinstance(source, FromStage)
    assert (source.stage, source.fed_by) == (stage, layer(doubled))
    assert (made.stages, made.label) == (2, "through_stages 2")


def test_a_source_takes_the_options_of_a_layer() -> None:
    window = Window.count(3)

    made = layer(Flow.from_iterable([], stages=3, max_demand=10, min_demand=4, window=window, on_init=print))

    assert (made.stages, made.demand, made.window, made.on_init) == (3, Demand(10, 4), window, print)


def test_without_options_a_layer_has_the_stages_and_the_demand_of_the_runner() -> None:
    made = layer(NUMBERS)

    assert (made.stages, made.demand, made.on_init, made.is_windowed) == (None, None, None, False)


def test_what_is_said_of_the_demand_is_completed() -> None:
    assert layer(Flow.from_iterable([], min_demand=900)).demand == Demand(1_000, 900)
    assert layer(Flow.from_iterable([], max_demand=7)).demand == Demand(7, 3)
    assert layer(Flow.from_iterable([], max_demand=1)).demand == Demand(1, 0)


# --- operators ------------------------------------------------------------------------------------------------------


def test_a_flow_is_not_changed() -> None:
    doubled = NUMBERS.map(double)
    doubled.map(double)

    assert layer(NUMBERS).mappers == ()
    assert len(layer(doubled).mappers) == 1
    with pytest.raises(FrozenInstanceError):
        NUMBERS._layer = layer(doubled)  # type: ignore[misc]


def test_operators_stand_in_the_order_of_the_chain_and_know_their_place() -> None:
    flow = (
        NUMBERS.map_batch(list)
        .map(double)
        .filter(is_even)
        .reject(is_even)
        .flat_map(lambda number: [(number, number)])
        .map_values(double)
        .uniq(operator.itemgetter(0))
        .uniq()
    )

    assert [(each.label, each.fn) for each in layer(flow).mappers][-1] == ("uniq 8", None)
    assert [each.label for each in layer(flow).mappers] == [
        "map_batch 1: list",
        "map 2: double",
        "filter 3: is_even",
        "reject 4: is_even",
        "flat_map 5: <lambda>",
        "map_values 6: double",
        "uniq 7: itemgetter",
        "uniq 8",
    ]


def test_operators_behind_emit_work_on_what_is_emitted() -> None:
    made = layer(NUMBERS.map(double).reduce(dict, count).emit("state").map(len).filter(is_even))

    assert [each.label for each in made.mappers] == ["map 1: double"]
    assert [each.label for each in made.after] == ["map 4: len", "filter 5: is_even"]


def test_a_merged_flow_counts_on_from_the_longer_one() -> None:
    merged = Flow.merge(NUMBERS, NUMBERS.map(double).map(double)).map(double)

    assert [each.label for each in layer(merged).mappers] == ["map 3: double"]


# --- layers ---------------------------------------------------------------------------------------------------------


def parity(number: int) -> int:
    return number % 2


def by_parity(number: int) -> tuple[str, int] | None:
    return (str(number), number % 2) if number else None


def test_a_partition_gets_elements_by_key() -> None:
    assert layer(NUMBERS.partition()).route == ByKey()
    assert layer(NUMBERS.partition(key=parity)).route == ByKey(parity)
    assert layer(NUMBERS.partition(hash=by_parity, stages=2)).route == ByKey(None, by_parity)
    assert layer(NUMBERS.map(double).partition(stages=2)).label == "partition 2"
    assert before(layer(NUMBERS.partition())) is layer(NUMBERS)


def test_shuffle_gives_lists_to_whom_has_room() -> None:
    made = layer(NUMBERS.shuffle(stages=5))

    assert (made.route, made.stages, before(made)) == (Spread(), 5, layer(NUMBERS))


def test_merge_takes_flows_one_by_one_or_in_a_list() -> None:
    doubled = NUMBERS.map(double)

    one_by_one, listed, alone = Flow.merge(NUMBERS, doubled), Flow.merge([NUMBERS, doubled]), Flow.merge(doubled)

    assert layer(one_by_one).inputs == layer(listed).inputs == (layer(NUMBERS), layer(doubled))
    assert layer(alone).inputs == (layer(doubled),)
    assert layer(one_by_one).route == Spread()
    assert layer(Flow.merge(NUMBERS, to_all=True, stages=2)).route == ToAll()


def test_sessions_take_the_key_of_their_partition() -> None:
    session = Window.session(5, by=timestamp)

    made = layer(NUMBERS.partition(key=parity, window=session))

    assert made.window == session.in_flow()


# --- reductions -----------------------------------------------------------------------------------------------------


def test_a_reduction_stands_in_its_layer() -> None:
    made = layer(NUMBERS.reduce(dict, count, combine=merge))

    assert made.reduction == Reduction("reduce", dict, count, 1, emits=False, combine=merge)
    assert made.emission is None


def test_emit_and_reduce_emits_at_once() -> None:
    def total(acc: int, number: int) -> tuple[list[int], int]:
        return [number], acc + number

    assert layer(NUMBERS.emit_and_reduce(int, total)).reduction == Reduction("emit_and_reduce", int, total, 1, True)


def keyed(flow: Flow[Any]) -> KeyedReduction:
    reduction = layer(flow).reduction
    assert isinstance(reduction, KeyedReduction)
    return reduction


def reduced(reduction: KeyedReduction, elements: Iterable[Any]) -> dict[Any, Any]:
    """What the stages make of *elements*, by key."""
    accumulators: dict[Any, Any] = {}
    for element in elements:
        key = element if reduction.key is None else reduction.key(element)
        accumulator = accumulators[key] if key in accumulators else reduction.init()
        accumulators[key] = reduction.fn(accumulator, element)
    return accumulators


def test_the_reductions_by_key_count_add_and_collect() -> None:
    def length(word: str) -> int:
        return len(word)

    words = Flow.from_iterable(["the", "quick", "brown", "fox"], stages=1)

    assert reduced(keyed(words.count_by(length)), ["the", "quick", "fox"]) == {3: 2, 5: 1}
    assert reduced(keyed(words.count_by()), ["the", "the", "fox"]) == {"the": 2, "fox": 1}
    assert reduced(keyed(words.sum_by(length, length)), ["the", "quick", "fox"]) == {3: 6, 5: 5}
    assert reduced(keyed(words.group_by(length)), ["the", "quick", "fox"]) == {3: ["the", "fox"], 5: ["quick"]}
    assert reduced(keyed(words.group_by(length, str.upper)), ["the", "quick", "fox"]) == {
        3: ["THE", "FOX"],
        5: ["QUICK"],
    }


def test_counts_and_sums_are_combined_by_adding_them() -> None:
    counted, summed = keyed(NUMBERS.count_by()).combine, keyed(NUMBERS.sum_by(parity, double)).combine

    assert counted is not None
    assert summed is not None
    assert counted(2, 3) == summed(2, 3) == 5


def test_a_reduction_by_key_with_combine_stays_in_its_layer() -> None:
    made = layer(NUMBERS.map(double).count_by())

    assert [each.label for each in made.mappers] == ["map 1: double"]
    assert made.inputs == layer(NUMBERS).inputs


def test_a_reduction_by_key_without_combine_gets_elements_by_key() -> None:
    flow = Flow.from_iterable([1], stages=3, max_demand=10).map(double)

    made = layer(flow.reduce_by(parity, dict, count))

    assert (made.route, made.stages, made.demand, made.label) == (ByKey(parity), 3, Demand(10, 5), "reduce_by 2")
    assert before(made) is layer(flow)


@pytest.mark.parametrize(
    ("flow", "key"),
    [
        (NUMBERS.partition(window=Window.count(3)), double),
        (NUMBERS.partition(key=parity), double),
        (Flow.from_iterable([1], window=Window.count(3)), double),
    ],
)
def test_where_nothing_is_done_before_it_a_reduction_by_key_decides_the_stage(
    flow: Flow[int], key: Callable[[int], int]
) -> None:
    made = layer(flow.count_by(key))

    assert made.route == ByKey(key)
    assert (made.inputs, made.window) == (layer(flow).inputs, layer(flow).window)
    assert keyed(flow.count_by(key)).combine is None


@pytest.mark.parametrize(
    "flow",
    [
        Flow.from_iterable([1], stages=1),
        NUMBERS.partition(key=parity, window=Window.count(3)).map(double),
        NUMBERS.partition(key=parity, window=Window.session(3, by=timestamp)),
        NUMBERS.partition(hash=lambda number: (number, 0), window=Window.count(3)),
        NUMBERS.reduce(dict, count).departition(dict, merge, len),
        Flow.window_join("inner", NUMBERS, NUMBERS, Window.count(3), parity, parity, operator.add),
    ],
)
def test_where_stages_have_their_own_windows_a_reduction_by_key_moves_nothing(flow: Flow[int]) -> None:
    made = layer(flow.count_by(double))

    assert (made.inputs, made.route) == (layer(flow).inputs, layer(flow).route)
    assert keyed(flow.count_by(double)).combine is None


# --- what windows emit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["events", "state", "nothing"])
def test_emit_says_what_windows_emit(what: Any) -> None:
    emission = layer(NUMBERS.reduce(dict, count).emit(what)).emission

    assert emission is not None
    assert (emission.emitted, emission.fn, emission.label) == (what, None, "emit 2")


class Trigger:
    def __call__(self, state: Any, partition: int) -> tuple[list[Any], Any]:
        return [partition], state


@pytest.mark.parametrize(
    ("fn", "takes"),
    [
        (lambda state: ([], state), 1),
        (lambda state, partition: ([partition], state), 2),
        (lambda state, partition, firing: ([partition, firing], state), 3),
        (lambda state, *, suffix="": ([suffix], state), 1),
        (lambda state, suffix="": ([suffix], state), 1),
        (lambda state=(): ([], state), 1),
        (lambda *arguments: ([], arguments), 3),
        (Trigger(), 2),
        (sum, 1),
        (dict, 1),
    ],
)
def test_on_trigger_reads_from_the_signature_how_many_arguments_its_function_takes(fn: Any, takes: int) -> None:
    emission = layer(NUMBERS.reduce(dict, count).on_trigger(fn)).emission

    assert emission is not None
    assert (emission.fn, emission.takes, emission.emitted) == (fn, takes, None)


def test_late_elements_can_be_replaced_before_and_behind_the_reduction() -> None:
    fixed = NUMBERS.partition(window=Window.fixed(5, by=timestamp))

    def late(number: int, info: Any) -> list[int]:
        return [number]

    for flow in (
        fixed.on_late(late).reduce(dict, count).emit("state"),
        fixed.reduce(dict, count).on_late(late).emit("state"),
        fixed.reduce(dict, count).emit("state").on_late(late),
    ):
        assert layer(flow).on_late is late


# --- one stage behind many ------------------------------------------------------------------------------------------


def test_a_departition_is_one_stage_that_gathers() -> None:
    def tell(merged: dict[int, int], firing: Firing) -> int:
        return firing.number

    flow = NUMBERS.partition(stages=4).reduce(dict, count)

    made = layer(flow.departition(dict, merge, tell, max_demand=5))

    assert (made.route, made.stages, made.demand, made.label) == (Gather(), 1, Demand(5, 2), "departition 3")
    assert made.departition is not None
    assert (made.departition.init, made.departition.merge, made.departition.done) == (dict, merge, tell)
    assert (made.departition.takes, made.departition.label) == (2, "departition 3: tell")
    assert before(made) is layer(flow)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"reverse": True}, [9, 8, 7]),
        ({"key": lambda number: -number}, [9, 8, 7]),
        ({"key": lambda number: number % 3}, [0, 3, 6]),
    ],
)
def test_take_sort_sorts_in_each_stage_and_merges(options: dict[str, Any], expected: list[int]) -> None:
    made = layer(NUMBERS.partition(stages=4).reduce(dict, count).take_sort(3, **options))

    stage = before(made)
    assert stage.emission is not None
    assert (stage.emission.emitted, stage.after[-1].kind, made.route) == ("events", "map_batch", Gather())
    first, departition = stage.after[-1].fn, made.departition
    assert first is not None
    assert departition is not None
    merged = departition.init()
    for elements in ([0, 1, 2, 3, 4], [], [5, 6, 7, 8, 9]):
        (emitted,) = first(elements)
        assert len(emitted) <= 3
        merged = departition.merge(merged, emitted)
    assert departition.done(merged) == expected
    assert departition.label == "take_sort 3"


def test_take_sort_leaves_what_windows_emit_as_it_is() -> None:
    stage = before(layer(NUMBERS.reduce(dict, count).emit("state").map(len).take_sort(3)))

    assert stage.emission is not None
    assert (stage.emission.emitted, [each.kind for each in stage.after]) == ("state", ["map", "map_batch"])


# --- joins ----------------------------------------------------------------------------------------------------------


def test_a_join_has_a_left_and_a_right_side() -> None:
    left, right = NUMBERS, NUMBERS.map(double)

    bounded = layer(Flow.bounded_join("left_outer", left, right, parity, double, operator.is_, stages=2))
    windowed = layer(
        Flow.window_join("inner", left, right, Window.fixed(5, by=timestamp), parity, double, operator.add)
    )

    assert bounded.inputs == windowed.inputs == (layer(left), layer(right))
    assert (bounded.stages, bounded.is_windowed, windowed.window.kind) == (2, False, "fixed")
    join = bounded.join
    assert join is not None
    assert (join.mode, join.left_key, join.right_key, join.fn) == ("left_outer", parity, double, operator.is_)
    assert join.label == "join 2: is_"


# --- how it runs ----------------------------------------------------------------------------------------------------


def test_using_stands_anywhere_and_the_last_one_counts() -> None:
    threads = NUMBERS.using("threads", workers=3, on_error="skip")

    assert threads._settings == RunSettings("threads", 3, "skip")
    assert threads.map(double).partition().reduce(dict, count)._settings == threads._settings
    assert threads.using(on_error="collect")._settings == RunSettings("tasks", None, "collect")
    assert NUMBERS._settings is None


def test_a_merged_flow_is_run_as_its_parts_are() -> None:
    threads = NUMBERS.using("threads")

    assert Flow.merge(NUMBERS, threads, NUMBERS.using("threads"))._settings == RunSettings("threads")
    assert Flow.bounded_join("inner", threads, NUMBERS, parity, parity, operator.add)._settings == RunSettings(
        "threads"
    )


def test_a_flow_says_where_it_ends() -> None:
    assert repr(NUMBERS.partition()) == "<Flow; the last stages are those of 'partition 1'; see .explain()>"
    assert repr(NUMBERS.reduce(dict, count)) == (
        "<Reduced; the last stages are those of 'from_iterable'; see .explain()>"
    )
