"""What one stage of a layer does without windows: mappers, reductions, emission, and errors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from broadway_py._core.window.firing import Firing
from broadway_py.flow.description.operators import Reduction
from broadway_py.flow.frames import Fired, Frame, Origin
from broadway_py.flow.operator_errors import OperatorError
from broadway_py.flow.work.layer_functions import LayerFunctions
from broadway_py.flow.work.work import Work
from tests.flow.works import (
    by_key,
    chain,
    count_by,
    elements_of,
    emit,
    frames_of,
    layer,
    on_trigger,
    reduce,
    result,
    run,
    total,
)
from tests.support.conformance import conforms

sizes = pytest.mark.parametrize("sizes", [(1,), (3,), (1_000,), (2, 5)])
HUNDRED = range(1, 101)


def count(found: dict[Any, int], element: Any) -> dict[Any, int]:
    found[element] = found.get(element, 0) + 1
    return found


async def count_later(found: dict[Any, int], element: Any) -> dict[Any, int]:
    return count(found, element)


def group(found: dict[int, list[str]], word: str) -> dict[int, list[str]]:
    found.setdefault(len(word), []).append(word)
    return found


# --- mappers --------------------------------------------------------------------------------------------------------


def test_a_frame_gives_one_frame_of_the_same_origin() -> None:
    work = Work(layer(mappers=chain(("filter", bool))))
    assert frames_of(work.start(0.0)) == []
    origin = Origin(2, 7)
    first, second = (frames_of(work.feed(Frame(each, origin=origin), 0.0)) for each in ([0, 1, 2], [0]))
    assert [(each.elements, each.origin) for each in (*first, *second)] == [([1, 2], origin), ([], origin)]
    assert frames_of(work.feed(Frame([0]), 0.0)) == []
    assert frames_of(work.end(0.0)) == []
    assert (work.taken, work.given) == (5, 2)
    assert work.next_timer() is None


def test_a_stage_that_is_a_source_numbers_its_frames() -> None:
    work = Work(layer(mappers=chain(("filter", bool))), number=4)
    given = [frame for each in ([1], [0], [2]) for frame in frames_of(work.feed(Frame(each), 0.0))]
    assert [(frame.elements, frame.origin) for frame in given] == [([1], Origin(4, 0)), ([2], Origin(4, 1))]


def test_batches_come_first_in_the_order_in_which_they_are_written() -> None:
    async def doubled(elements: list[Any]) -> list[Any]:
        return elements * 2

    mappers = chain(("map_batch", sum_in_a_list), ("map_batch", doubled), ("map", str))
    assert result(range(6), mappers=mappers) == ["3", "3", "12", "12"]


def sum_in_a_list(elements: list[int]) -> tuple[int]:
    return (sum(elements),)


def test_an_empty_list_is_no_batch() -> None:
    work = Work(layer(mappers=chain(("map_batch", sum_in_a_list))))
    assert elements_of(work.feed(Frame([], origin=Origin(0, 0)), 0.0)) == []


@sizes
def test_uniq_goes_on_over_lists(sizes: Any) -> None:
    assert result([3, 1, 3, 2, 1], sizes, mappers=chain(("uniq", None))) == [3, 1, 2]


@sizes
@conforms("F-016")
def test_uniq_by_parity(sizes: Any) -> None:
    assert result(HUNDRED, sizes, mappers=chain(("uniq", lambda number: number % 2))) == [1, 2]


# --- reductions and what they emit ------------------------------------------------------------------------------------


@sizes
def test_an_accumulator_is_emitted_at_the_end(sizes: Any) -> None:
    assert result(HUNDRED, sizes, reduction=total(), emission=emit("state")) == [5_050]
    assert result(HUNDRED, sizes, reduction=total(), emission=emit("nothing")) == []
    assert result([], sizes, reduction=total(), emission=emit("state")) == [0]


@sizes
@pytest.mark.parametrize("emission", [None, emit("events")])
@pytest.mark.parametrize("count", [count, count_later])
def test_the_events_of_a_mapping_are_its_items(sizes: Any, emission: Any, count: Any) -> None:
    assert result("abca", sizes, reduction=reduce(dict, count), emission=emission) == [("a", 2), ("b", 1), ("c", 1)]


@conforms("F-011")
def test_letters_are_counted() -> None:
    letters = dict(result("the quick brown fox", reduction=reduce(dict, count)))
    assert letters == Counter("the quick brown fox")
    assert len(letters) == 16
    assert (letters[" "], letters["o"], letters["u"]) == (3, 2, 1)


@conforms("F-005")
def test_groups_keep_the_order_of_arrival() -> None:
    groups = result(["the", "quick", "brown", "fox"], reduction=reduce(dict, group))
    assert groups == [(3, ["the", "fox"]), (5, ["quick", "brown"])]


@sizes
@conforms("F-002")
def test_emit_and_reduce_emits_before_what_is_left(sizes: Any) -> None:
    def last_three(kept: list[int], number: int) -> tuple[list[Any], list[int]]:
        kept = [*kept, number][-3:]
        return [kept], kept

    emitted = result(range(1, 6), sizes, reduction=reduce(list, last_three, emits=True))
    assert emitted == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], 3, 4, 5]


@sizes
def test_one_accumulator_for_each_key(sizes: Any) -> None:
    assert result(range(5), sizes, reduction=by_key(lambda number: number % 2)) == [(0, 6), (1, 4)]
    assert result("abca", sizes, reduction=count_by(), emission=emit("state")) == [{"a": 2, "b": 1, "c": 1}]
    assert result([], sizes, reduction=count_by()) == []


@conforms("F-010")
def test_on_trigger_decides_what_is_emitted() -> None:
    def size(letters: set[str]) -> tuple[list[int], set[str]]:
        return [len(letters)], letters

    assert result("the quick brown fox", reduction=reduce(set, add), emission=on_trigger(size)) == [16]


def add(found: set[str], letter: str) -> set[str]:
    return found | {letter}


def test_on_trigger_gets_the_partition_and_the_firing() -> None:
    def two(state: int, partition: int) -> Any:
        return (state, partition), state

    async def three(state: int, partition: int, firing: Firing) -> Any:
        return [state, partition, firing], state

    firing = Firing("global", None, None, None, None, "done", 1, final=True, count=4)
    for fn, takes, expected in ((two, 2, [6, 3]), (three, 3, [6, 3, firing])):
        work = Work(layer(reduction=total(), emission=on_trigger(fn, takes)), index=3, copies=4)
        assert run(work, range(4)) == expected


@sizes
def test_mappers_follow_what_is_emitted(sizes: Any) -> None:
    def running(total: int, number: int) -> tuple[list[int], int]:
        return [total + number], total + number

    async def text(number: int) -> str:
        return str(number)

    for fn in (str, text):
        work = Work(
            layer(
                reduction=reduce(int, running, emits=True),
                emission=emit("state"),
                after=chain(("map", fn), ("uniq", None)),
            )
        )
        assert run(work, [1, 0, 2], sizes) == ["1", "3"]
        assert (work.windows_opened, work.windows_closed, work.ahead, work.late) == (1, 1, 0, 0)


def test_the_function_of_a_reduction_may_have_any_name() -> None:
    odd = Reduction("reduce", int, lambda total, number: total + number, 5)
    odd.fn.__name__ = "\n\udc80 ' {v} # \\"
    assert result([1, 2], reduction=odd, emission=emit("state")) == [3]


def test_on_init_gets_the_index_and_the_number_of_stages() -> None:
    calls: list[tuple[int, int]] = []

    async def later(*place: int) -> None:
        calls.append(place)  # type: ignore[arg-type]

    for fn in (lambda *place: calls.append(place), later):
        run(Work(layer(on_init=fn), index=1, copies=2), [])
    assert calls == [(1, 2), (1, 2)]


# --- for a stage that gathers -----------------------------------------------------------------------------------------


def test_a_firing_is_sent_to_the_stage_that_gathers() -> None:
    firing = Firing("global", None, None, None, None, "done", 1, final=True, count=3)
    settings: dict[str, Any] = {"reduction": reduce(list, lambda found, each: [*found, each])}
    for emission, expected in ((None, ([1, 2, 3],)), (emit("events"), [1, 2, 3]), (emit("nothing"), ())):
        work = Work(layer(**settings, emission=emission), index=2, copies=3, is_gathered=True)
        assert run(work, [1, 2, 3]) == [Fired(2, "0", None, firing, expected)]


# --- errors -----------------------------------------------------------------------------------------------------------


def divide(number: int) -> float:
    return 10 / number


@pytest.mark.parametrize(
    ("settings", "operator"),
    [
        ({"mappers": chain(("map", divide))}, "map 1: divide"),
        ({"reduction": reduce(int, lambda found, number: found + divide(number))}, "reduce 5: <lambda>"),
        ({"reduction": by_key(divide)}, "reduce_by 5: divide"),
    ],
)
def test_an_error_has_its_operator_its_element_and_its_place(settings: Any, operator: str) -> None:
    work = Work(layer(**settings))
    with pytest.raises(OperatorError) as caught:
        run(work, [1, 2, 4, 5, 0, 8])
    failed = caught.value.failed
    assert (failed.operator, failed.element, failed.first, failed.index) == (operator, 0, 3, 1)
    assert isinstance(failed.error, ZeroDivisionError)


@sizes
def test_an_element_is_left_out(sizes: Any) -> None:
    work = Work(layer(mappers=chain(("map", divide)), reduction=total(), emission=emit("state")), on_error="collect")
    assert run(work, [1, 0, 2, 0, 5], sizes) == [17.0]
    assert work.errors.skipped == {"map 1: divide": 2}
    assert [(each.element, each.first + each.index) for each in work.errors.collected] == [(0, 1), (0, 3)]


def test_stages_that_share_their_functions_keep_apart_what_they_know() -> None:
    described = layer(mappers=chain(("uniq", None), ("map", divide)))
    functions = LayerFunctions(described, on_error="collect")
    one, other = (Work(described, on_error="collect", functions=functions) for _ in range(2))

    assert (run(one, [1, 0, 1, 2]), run(other, [0, 0, 1])) == ([10.0, 5.0], [10.0])
    assert [work.errors.skipped for work in (one, other)] == [{"map 2: divide": 1}, {"map 2: divide": 2}]
    assert [[each.index for each in work.errors.collected] for work in (one, other)] == [[1], [0, 1]]


def test_a_list_that_a_batch_fails_on_is_left_out() -> None:
    def fails(elements: list[int]) -> list[int]:
        return [10 // each for each in elements]

    work = Work(layer(mappers=chain(("map_batch", fails))), on_error="skip")
    assert run(work, [1, 2, 5, 1, 0, 2, 5]) == [10, 5, 2, 2]
    assert work.errors.skipped == {"map_batch 1: fails": 3}
    with pytest.raises(OperatorError) as caught:
        result([0], mappers=chain(("map_batch", fails)))
    assert caught.value.failed.index is None


def test_an_element_after_a_batch_has_no_place() -> None:
    with pytest.raises(OperatorError) as caught:
        result([1, 0], mappers=chain(("map_batch", list), ("map", divide)))
    assert (caught.value.failed.element, caught.value.failed.index) == (0, None)


def test_an_emitted_element_that_a_mapper_fails_on_is_left_out() -> None:
    settings: dict[str, Any] = {"reduction": reduce(list, lambda found, each: [*found, each])}
    work = Work(layer(**settings, after=chain(("map", divide))), on_error="skip")
    assert run(work, [1, 0, 2]) == [10.0, 5.0]
    assert work.errors.skipped == {"map 1: divide": 1}


def fails(*arguments: Any) -> Any:
    raise LookupError("no")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("settings", "operator"),
    [
        ({"reduction": reduce(fails, max)}, "reduce 5, init: fails"),
        ({"reduction": total(), "emission": on_trigger(fails)}, "on_trigger 6: fails"),
        ({"on_init": fails}, "layer, on_init: fails"),
    ],
)
def test_a_function_that_works_on_no_element_ends_the_flow(settings: Any, operator: str, on_error: Any) -> None:
    with pytest.raises(OperatorError) as caught:
        run(Work(layer(**settings), on_error=on_error), [1])
    assert caught.value.failed.operator == operator
    assert str(caught.value.failed.error) == "no"


@pytest.mark.parametrize(
    ("emission", "sentence"),
    [
        (
            None,
            "expected a collection as the accumulator, whose elements are emitted, got an int: write emit('state')",
        ),
        (
            on_trigger(lambda state: state),
            "expected (elements, state) from the function of on_trigger, got an int",
        ),
        (
            on_trigger(lambda state: (state,)),
            "expected (elements, state) from the function of on_trigger, got a tuple of 1",
        ),
        (
            on_trigger(lambda state: (state, state)),
            "expected a collection as the elements that on_trigger returns, got an int: return ([element], state)",
        ),
    ],
)
def test_what_cannot_be_emitted_is_explained(emission: Any, sentence: str) -> None:
    with pytest.raises(OperatorError) as caught:
        result([1], reduction=total(), emission=emission)
    assert str(caught.value.failed.error) == sentence
