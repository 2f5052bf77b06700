"""How a list that leaves a stage becomes lists for the stages of the next layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py._core.dispatch import BroadcastDispatcher, DemandDispatcher, PartitionDispatcher
from broadway_py._core.window.spec import Window
from broadway_py.errors import EventTimeError, OptionsError
from broadway_py.flow.description.layers import ByKey
from broadway_py.flow.failure import ElementPlace, FilePlace, LinePlace
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import OperatorError, OperatorErrors
from broadway_py.flow.plan import Sharing, Way
from broadway_py.flow.stages.exchange import Exchange
from tests.flow.support import by_phash2

AT = Origin(0, 7)
SECONDS = Window.fixed(1, by=float).in_flow()


def way(sharing: Sharing, stages: int = 3, **more: Any) -> Way:
    return Way(0, 0, stages, sharing, 2, 500, 500, label="partition 2")._replace(**more)


def exchange(sharing: Sharing, stages: int = 3, *, on_error: Any = "raise", **more: Any) -> Exchange:
    return Exchange(way(sharing, stages, **more), OperatorErrors(on_error))


def parts(made: Exchange, elements: list[Any], **more: Any) -> list[tuple[int, list[Any]]]:
    return [(part.partition, part.elements) for part in made.split(Frame(elements, **more))]


@pytest.mark.parametrize(
    ("sharing", "kind"),
    [
        ("spread", DemandDispatcher),
        ("to_all", BroadcastDispatcher),
        ("by_key", PartitionDispatcher),
        ("in_turn", PartitionDispatcher),
    ],
)
def test_who_gets_a_list_is_decided_by_a_dispatcher(sharing: Sharing, kind: type[Any]) -> None:
    dispatcher: Any = exchange(sharing).dispatcher()

    assert type(dispatcher) is kind
    if kind is PartitionDispatcher:
        for stage in range(3):
            dispatcher.subscribe(stage, stage)
        for stage in range(3):
            dispatcher.ask(stage, 1)
        frames = [Frame([0], partition=2), Frame([1], partition=0)]
        assert dispatcher.dispatch(frames)[0] == [(2, [frames[0]]), (0, [frames[1]])]


@pytest.mark.parametrize("sharing", ["spread", "to_all"])
def test_a_list_that_is_not_cut_goes_on_as_it_is(sharing: Sharing) -> None:
    frame = Frame([1, 2], first=ElementPlace(0, 4))

    assert exchange(sharing).split(frame) == [frame]


@pytest.mark.parametrize(
    ("sharing", "more"),
    [
        ("spread", {"side": 1}),
        ("spread", {"is_ordered": True}),
        ("spread", {"window": SECONDS}),
        ("in_turn", {}),
        ("by_key", {}),
        ("by_key", {"by_key": ByKey(key=abs)}),
        ("by_key", {"by_key": ByKey(hash=by_phash2(3))}),
    ],
)
def test_only_lists_with_nothing_to_be_done_may_go_past_the_exchange(sharing: Sharing, more: Any) -> None:
    assert (exchange("spread").is_plain, exchange("to_all").is_plain) == (True, True)
    assert not exchange(sharing, **more).is_plain


def test_an_empty_list_is_sent_only_where_order_matters() -> None:
    assert exchange("spread").split(Frame([])) == []
    assert exchange("by_key").split(Frame([])) == []
    (empty,) = exchange("spread", is_ordered=True).split(Frame([], origin=AT, is_last=True))
    assert (empty.elements, empty.origin, empty.is_last) == ([], AT, True)
    sent = exchange("by_key", is_ordered=True).split(Frame([], origin=AT, is_last=True))
    assert [(each.partition, each.elements, each.origin, each.is_last) for each in sent] == [
        (stage, [], AT, True) for stage in range(3)
    ]


def test_lists_in_turn_go_to_one_stage_after_the_other_and_empty_ones_to_the_rest() -> None:
    made = exchange("in_turn", is_ordered=True)

    assert [sorted(parts(made, [number], origin=AT)) for number in range(4)] == [
        [(0, [0]), (1, []), (2, [])],
        [(0, []), (1, [1]), (2, [])],
        [(0, []), (1, []), (2, [2])],
        [(0, [3]), (1, []), (2, [])],
    ]


def test_the_right_side_of_a_join_is_marked() -> None:
    assert exchange("spread", 1, side=1).split(Frame([1]))[0].side == 1
    assert [part.side for part in exchange("by_key", 2, side=1, by_key=ByKey()).split(Frame([1, 2, 3, 4]))] == [1, 1]


# --- long lists


@pytest.mark.parametrize(
    ("first", "firsts"),
    [
        (ElementPlace(0, 40), [ElementPlace(0, 40), ElementPlace(0, 42), ElementPlace(0, 44)]),
        (LinePlace("a.txt", 3), [LinePlace("a.txt", 3), LinePlace("a.txt", 5), LinePlace("a.txt", 7)]),
        (FilePlace("a.txt", 9, 1), [FilePlace("a.txt", 9, 1), FilePlace("a.txt", 9, 3), FilePlace("a.txt", 9, 5)]),
        (None, [None, None, None]),
    ],
)
@pytest.mark.parametrize("sharing", ["spread", "to_all"])
def test_a_list_is_cut_into_lists_that_the_next_layer_asks_for(sharing: Sharing, first: Any, firsts: list[Any]) -> None:
    sent = exchange(sharing, chunk=2).split(Frame([1, 2, 3, 4, 5], first=first))

    assert [piece.elements for piece in sent] == [[1, 2], [3, 4], [5]]
    assert [piece.first for piece in sent] == firsts


def test_the_part_of_each_stage_is_cut_as_well_and_a_side_stays() -> None:
    made = exchange("by_key", 3, chunk=2, side=1, by_key=ByKey(hash=lambda number: (number, number % 2 * 2)))

    sent = made.split(Frame([1, 2, 3, 5, 4, 7, 9]))

    assert [(piece.partition, piece.side, piece.elements) for piece in sent] == [
        (0, 1, [2, 4]),
        (2, 1, [1, 3]),
        (2, 1, [5, 7]),
        (2, 1, [9]),
    ]


@pytest.mark.parametrize("where", [{"is_gathered": True}, {"to": None}])
def test_what_is_gathered_or_leaves_the_flow_is_not_cut(where: dict[str, Any]) -> None:
    frame = Frame([1, 2, 3])

    assert Exchange(way("spread", 1, chunk=2)._replace(**where), OperatorErrors("raise")).split(frame) == [frame]


# --- keys


@pytest.mark.parametrize("key", [None, lambda word: word[0]])
def test_equal_keys_go_to_the_same_stage_in_their_order(key: Callable[[Any], Any] | None) -> None:
    words = ["a1", "b1", "a2", "b2", "a3", "c1"]
    sent = parts(exchange("by_key", by_key=ByKey(key)), words)

    assert sorted(element for _, part in sent for element in part) == sorted(words)
    assert len(sent) > 1
    for _, part in sent:
        assert part == [word for word in words if word in part]
    if key is not None:
        (of_a,) = [part for _, part in sent if "a1" in part]
        assert [word for word in of_a if word[0] == "a"] == ["a1", "a2", "a3"]


def test_equal_numbers_of_different_types_are_equal_keys() -> None:
    assert len(parts(exchange("by_key", by_key=ByKey()), [1, 1.0, True])) == 1


def test_a_hash_decides_where_elements_go_changes_them_and_leaves_some_out() -> None:
    def by_size(number: int) -> tuple[str, int] | None:
        return None if number == 3 else (str(number), int(number > 5))

    made = exchange("by_key", 2, by_key=ByKey(hash=by_size))

    assert parts(made, [7, 1, 3, 9, 2]) == [(0, ["1", "2"]), (1, ["7", "9"])]


def test_the_hash_of_the_original_gives_the_partitions_of_the_original() -> None:
    sent = parts(exchange("by_key", 4, by_key=ByKey(hash=by_phash2(4))), list(range(1, 11)))

    assert sent == [(0, [2, 6, 8]), (1, [10]), (2, [1, 5, 7, 9]), (3, [3, 4])]


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (3, "got an int"),
        ((1, 2, 3), "got a tuple"),
        (("x", "y"), "got a str as the partition"),
        (("x", True), "got a bool as the partition"),
        (("x", 3), "got partition 3"),
        (("x", -1), "got partition -1"),
    ],
)
def test_a_hash_that_returns_something_else_fails(returned: Any, text: str) -> None:
    def by_nothing(element: Any) -> Any:
        return returned

    with pytest.raises(OperatorError) as raised:
        exchange("by_key", by_key=ByKey(hash=by_nothing)).split(Frame([1]))

    error = raised.value.failed.error
    assert isinstance(error, OptionsError)
    assert str(error) == (f"hash: expected a pair (element, partition) with a partition from 0 to 2, or None, {text}")
    assert raised.value.failed.operator == "partition 2, hash: by_nothing"


def failing(number: int) -> int:
    if number in {2, 5}:
        raise ValueError(number)
    return number


def stopping(number: int) -> int:
    if number in {2, 5}:
        raise StopIteration
    return number


def unhashable(number: int) -> Any:
    return [] if number in {2, 5} else number


@pytest.mark.parametrize("key", [failing, stopping, unhashable])
def test_a_key_that_cannot_be_had_fails_with_its_element_and_place(key: Callable[[Any], Any]) -> None:
    with pytest.raises(OperatorError) as raised:
        exchange("by_key", by_key=ByKey(key)).split(Frame([1, 2, 3, 5], first=ElementPlace(0, 40)))

    failed = raised.value.failed
    assert (failed.operator, failed.element, failed.first, failed.index) == (
        f"partition 2, key: {key.__name__}",
        2,
        ElementPlace(0, 40),
        1,
    )


@pytest.mark.parametrize("key", [failing, stopping, unhashable])
def test_elements_without_a_key_are_left_out_and_counted(key: Callable[[Any], Any]) -> None:
    errors = OperatorErrors("skip")
    made = Exchange(way("by_key", by_key=ByKey(key)), errors)

    assert sorted(element for part in made.split(Frame([1, 2, 3, 5])) for element in part.elements) == [1, 3]
    assert errors.skipped == {f"partition 2, key: {key.__name__}": 2}


# --- event times


def test_event_times_travel_with_the_parts_and_the_highest_one_with_all_of_them() -> None:
    made = exchange("by_key", 2, by_key=ByKey(hash=by_phash2(2)), window=SECONDS, is_ordered=True)
    sent = made.split(Frame([1, 9, 2, 6], origin=AT))

    assert [part.elements for part in sent] == [[1, 9, 2, 6], []]
    assert [part.high for part in sent] == [9_000_000, 9_000_000]
    stamps = [part.stamped for part in sent]
    assert [None if each is None else each.times() for each in stamps] == [
        [1_000_000, 9_000_000, 2_000_000, 6_000_000],
        [],
    ]


def test_a_session_gets_the_key_of_each_element() -> None:
    window = Window.session(1, by=float).in_flow()
    (whole,) = exchange("spread", 1, by_key=ByKey(lambda number: number % 2), window=window).split(Frame([1, 2, 3]))

    assert whole.stamped is not None
    assert (whole.elements, whole.stamped.keys) == ([1, 2, 3], [1, 0, 1])


@pytest.mark.parametrize("sharing", ["spread", "by_key"])
def test_elements_without_a_time_are_left_out_and_counted(sharing: Sharing) -> None:
    errors = OperatorErrors("collect")
    window = Window.session(1, by=lambda number: number).in_flow()
    made = Exchange(way(sharing, 1, by_key=ByKey(str), window=window), errors)

    (whole,) = made.split(Frame([1, math.nan, 3, "x", 1]))

    assert whole.stamped is not None
    assert whole.elements == list(whole.stamped.events) == [1, 3, 1]
    assert whole.stamped.keys == ["1", "3", "1"]
    assert whole.stamped.refused == []
    assert [(type(failed.error), failed.index) for failed in errors.collected] == [
        (EventTimeError, 1),
        (EventTimeError, 3),
    ]
    assert errors.skipped == {"partition 2, window: <lambda>": 2}


def test_a_time_function_that_stops_iteration_loses_no_element() -> None:
    def stopping_time(number: int) -> float:
        if number == 2:
            raise StopIteration
        return float(number)

    errors = OperatorErrors("skip")
    made = Exchange(way("spread", 1, window=Window.fixed(1, by=stopping_time).in_flow()), errors)

    (whole,) = made.split(Frame([1, 2, 3]))

    assert (whole.elements, errors.skipped) == ([1, 3], {"partition 2, window: stopping_time": 1})
