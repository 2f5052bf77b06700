"""From the description of a flow to what runs."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core.window.spec import Window
from broadway_py.flow import Flow
from broadway_py.flow.description.layers import DEMAND_ACROSS_PROCESSES, FromStage, Gather
from broadway_py.flow.plan import Plan, plan_of
from broadway_py.stage import ProducerConsumerStage

CORES = 3
SECONDS = Window.fixed(1, by=float).in_flow()


def planned(flow: Flow[Any]) -> Plan:
    return plan_of(flow._layer, CORES)


def drawn(flow: Flow[Any]) -> list[str]:
    """The ways of *flow*, one line each: where from, how, where to."""
    plan = planned(flow)
    lines = [f"source {source.number} {_way(source.way)}" for source in plan.sources]
    return lines + [f"layer {layer.number} x {layer.stages} {_way(layer.way)}" for layer in plan.layers]


def _way(way: Any) -> str:
    order = " in order" if way.is_ordered else ""
    times = " with times" if way.window is not None else ""
    side = " right" if way.side else ""
    return f"-> {way.sharing}{order}{times}{side} -> {f'exit {way.exit}' if way.to is None else way.to}"


def source() -> Flow[Any]:
    return Flow.from_iterable([1, 2, 3])


def mapped(**options: Any) -> Flow[Any]:
    return Flow.from_iterable([1, 2, 3], **options).map(float)


def summed(flow: Flow[Any], combine: Any = None) -> Flow[Any]:
    return flow.reduce(int, lambda total, each: total + each, combine).emit("state")


def noted(index: int, count: int) -> None:
    pass


def test_a_source_without_operators_has_no_stages() -> None:
    assert drawn(source()) == ["source 0 -> spread -> exit 0"]
    assert drawn(Flow.from_iterables([[1], [2]])) == [
        "source 0 -> spread -> exit 0",
        "source 1 -> spread -> exit 0",
    ]


def test_a_layer_has_as_many_stages_as_it_says_or_as_there_are_cores() -> None:
    assert drawn(mapped(stages=7).partition().map(str)) == [
        "source 0 -> spread -> 0",
        "layer 0 x 7 -> by_key -> 1",
        "layer 1 x 3 -> spread -> exit 0",
    ]


def test_layers_without_work_are_skipped() -> None:
    flow = mapped(stages=2).shuffle(stages=5).partition(stages=4)

    assert drawn(flow) == ["source 0 -> spread -> 0", "layer 0 x 2 -> spread -> exit 0"]
    assert drawn(summed(flow)) == [
        "source 0 -> spread -> 0",
        "layer 0 x 2 -> by_key -> 1",
        "layer 1 x 4 -> spread -> exit 0",
    ]


@pytest.mark.parametrize(
    ("flow", "stages"),
    [
        (source().partition(stages=4, hash=lambda each: (each, 0)), 4),
        (Flow.merge(source(), source(), to_all=True, stages=2), 2),
        (source().partition(stages=2, on_init=noted), 2),
        (source().partition(stages=2, window=Window.count(3)).uniq(), 2),
    ],
)
def test_layers_that_change_something_are_not_skipped(flow: Flow[Any], stages: int) -> None:
    assert [layer.stages for layer in planned(flow.shuffle(stages=1).map(str)).layers] == [stages, 1]


def test_one_stage_needs_no_keys_but_a_hash_may_change_elements() -> None:
    assert drawn(source().partition(stages=1).map(str))[0] == "source 0 -> spread -> 0"
    assert drawn(source().partition(stages=1, hash=lambda each: (each, 0)).map(str))[0] == "source 0 -> by_key -> 0"


@pytest.mark.parametrize(
    ("options", "lists", "chunk"),
    [
        ({}, 2, 500),
        ({"max_demand": 1}, 1, 1),
        ({"max_demand": 5}, 1, 3),
        ({"max_demand": 100, "min_demand": 80}, 5, 20),
        ({"max_demand": 100, "min_demand": 0}, 1, 100),
    ],
)
def test_demand_counts_lists(options: dict[str, Any], lists: int, chunk: int) -> None:
    plan = planned(mapped(**options))

    assert [(way.lists, way.chunk) for _, way in plan.ways()] == [(lists, chunk)] * 2


def test_across_processes_lists_are_longer_and_those_of_sources_begin_short() -> None:
    plan = plan_of(mapped().partition(max_demand=7).map(str)._layer, CORES, DEMAND_ACROSS_PROCESSES)

    ways = [(way.lists, way.chunk, way.first_chunk) for _, way in plan.ways()]
    assert ways == [(4, 5_000, 250), (1, 4, 4), (1, 4, 4)]


def test_of_layers_without_work_the_least_demand_counts() -> None:
    plan = planned(Flow.from_iterable([1], max_demand=10).shuffle(max_demand=2).partition().map(str))

    assert plan.sources[0].way.chunk == 1


# --- order


def test_lists_keep_no_order_where_nobody_needs_it() -> None:
    for flow in (summed(mapped().partition()), mapped().partition(window=Window.periodic(1)).map(str)):
        assert not any(way.is_ordered for _, way in planned(flow).ways())


@pytest.mark.parametrize("window", [SECONDS, Window.count(3), Window.global_().trigger_every(2)])
def test_lists_are_in_order_up_to_the_windows_that_need_it(window: Window) -> None:
    flow = summed(mapped().partition(stages=2, window=window)).shuffle(stages=1).map(str)
    plan = planned(flow)

    assert [way.is_ordered for _, way in plan.ways()] == [True, True, False, False]
    assert [dict(layer.parts) for layer in plan.layers] == [{}, {0: 1}, {}]
    assert [layer.first_origin for layer in plan.layers] == [None, 1, None]
    assert plan.layers[1].origins == (0,)


def test_count_windows_over_several_sources_need_no_order_and_those_of_event_time_do() -> None:
    several = Flow.from_iterables([[1], [2]], stages=2).map(float)

    assert not any(way.is_ordered for _, way in planned(summed(several.partition(window=Window.count(2)))).ways())
    (_, windowed) = planned(summed(several.partition(window=SECONDS))).layers
    assert (dict(windowed.parts), windowed.origins) == ({0: 1, 1: 1}, (0, 1))


def test_what_comes_from_one_stage_is_in_order_by_itself() -> None:
    (_, windowed) = planned(summed(mapped(stages=1).partition(stages=2, window=SECONDS))).layers

    assert (dict(windowed.parts), windowed.origins) == ({}, (0,))


def test_two_layers_of_mappers_in_a_row_are_both_put_in_order() -> None:
    flow = summed(mapped(stages=2).shuffle(stages=4).map(str).partition(stages=2, window=SECONDS))

    assert drawn(flow) == [
        "source 0 -> spread in order -> 0",
        "layer 0 x 2 -> in_turn in order -> 1",
        "layer 1 x 4 -> by_key in order with times -> 2",
        "layer 2 x 2 -> spread -> exit 0",
    ]
    # Each of the four stages of the second layer has a list for each number.
    assert [dict(layer.parts) for layer in planned(flow).layers] == [{}, {0: 1}, {0: 4}]


def test_stages_that_are_fed_by_key_send_a_part_of_each_number() -> None:
    flow = summed(source().partition(stages=3).map(float).partition(stages=2, window=SECONDS))

    assert [dict(layer.parts) for layer in planned(flow).layers] == [{}, {0: 3}]


def test_a_layer_that_reduces_is_a_source_itself() -> None:
    first = summed(mapped(stages=2).partition(stages=4))
    flow = summed(first.partition(stages=2, window=SECONDS))
    layers = planned(flow).layers

    assert [layer.first_origin for layer in layers] == [None, 1, 5]
    assert (layers[2].origins, dict(layers[2].parts)) == ((1, 2, 3, 4), {})
    assert [way.is_ordered for _, way in planned(flow).ways()] == [False, False, True, False]


def test_event_times_are_read_before_the_lists_leave_unless_the_windows_have_a_map_batch() -> None:
    partitioned = mapped().partition(stages=2, window=SECONDS)

    assert [way.window for _, way in planned(summed(partitioned)).ways()] == [None, SECONDS, None]
    assert [way.window for _, way in planned(summed(partitioned.map_batch(list))).ways()] == [None, None, None]


# --- two layers for one


def test_a_reduction_that_combines_is_put_together_by_one_stage_behind_it() -> None:
    plan = planned(summed(mapped(stages=2), lambda one, other: one + other).map(str))
    first, second = plan.layers

    assert [(layer.stages, layer.part, layer.is_gathered) for layer in plan.layers] == [
        (2, "partial", True),
        (1, "merged", False),
    ]
    assert isinstance(second.layer.route, Gather)
    assert (first.layer.emission, first.layer.after) == (None, ())
    assert second.layer.emission is not None
    assert len(second.layer.after) == 1
    assert (len(first.layer.mappers), len(second.layer.mappers)) == (1, 0)


def test_a_reduction_by_key_that_combines_sends_pairs_to_the_stages_that_own_the_keys() -> None:
    plan = planned(mapped(stages=2).count_by())
    way = plan.layers[0].way

    assert [(layer.stages, layer.part, layer.is_gathered) for layer in plan.layers] == [
        (2, "partial", False),
        (2, "merged", False),
    ]
    assert (way.sharing, way.by_key is not None and way.by_key.key is not None) == ("by_key", True)
    assert way.by_key is not None
    assert way.by_key.key is not None
    assert way.by_key.key(("key", 7)) == "key"


# --- several inputs


def test_the_two_sides_of_a_join_are_known_by_their_ways() -> None:
    left, right = Flow.from_iterables([[1], [2]]), mapped(stages=2)
    flow: Flow[Any] = Flow.bounded_join("inner", left, right, abs, int, lambda one, other: (one, other), stages=2)

    assert drawn(flow) == [
        "source 0 -> by_key -> 1",
        "source 1 -> by_key -> 1",
        "source 2 -> spread -> 0",
        "layer 0 x 2 -> by_key right -> 1",
        "layer 1 x 2 -> spread -> exit 0",
    ]
    keys = [way.by_key.key for _, way in planned(flow).ways() if way.by_key is not None]
    assert keys == [abs, abs, int]


def test_a_flow_that_is_used_twice_runs_twice() -> None:
    once = mapped(stages=1)

    assert len(planned(Flow.merge(once, once).map(str)).sources) == 2


class Passing(ProducerConsumerStage[Any, Any]):
    def handle_events(self, events: list[Any]) -> list[Any]:
        return events


def test_running_stages_are_fed_from_an_exit_of_their_own() -> None:
    one, other = Passing(), Passing()
    flow = mapped(stages=2).through_stages([one, other], stages=1).map(str)
    plan = planned(flow)

    assert drawn(flow) == [
        "source 0 -> spread -> 0",
        "source 1 -> spread -> 1",
        "source 2 -> spread -> 1",
        "layer 0 x 2 -> spread -> exit 1",
        "layer 1 x 1 -> spread -> exit 0",
    ]
    assert [source.fed_by for source in plan.sources] == [None, 1, 1]
    assert [type(source.source) for source in plan.sources[1:]] == [FromStage] * 2
