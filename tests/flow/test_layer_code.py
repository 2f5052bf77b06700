"""The generated function of a layer: what it makes of elements, and which operator an error belongs to."""

from __future__ import annotations

import asyncio
import functools
import operator
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from broadway_py._core.window.firing import MISSING
from broadway_py.errors import DefinitionError
from broadway_py.flow.description.operators import OperatorKind
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import Failed, OperatorError, OperatorErrors
from broadway_py.flow.work.calls import finished
from broadway_py.flow.work.layer_code import LayerCode, LayerFunction
from tests.flow.works import by_key, chain, count_by, reduce

Step = tuple[OperatorKind, Callable[..., Any] | None]


def code_of(steps: Sequence[Step], reduction: Any, errors: OperatorErrors, **more: Any) -> LayerCode:
    leaves_out = errors.on_error != "raise"
    return LayerCode(LayerFunction(chain(*steps), reduction, leaves_out=leaves_out, **more), errors)


def run(*steps: Step, elements: Any = (), reduction: Any = None, accumulator: Any = None, **more: Any) -> Any:
    """Returns what comes out, or the accumulator."""
    errors = more.pop("errors", None) or OperatorErrors()
    code = code_of(steps, reduction, errors, **more)
    out: list[Any] = []
    result = code.run(list(elements), out, accumulator, [set() for _ in range(code.sets)])

    async def waited() -> Any:
        return await result

    if code.is_async:
        result = asyncio.run(waited())
    return out if reduction is None else result


def plus_one(number: int) -> int:
    return number + 1


async def plus_one_later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def is_odd(number: int) -> bool:
    return number % 2 == 1


async def is_odd_later(number: int) -> bool:
    return number % 2 == 1


def twice(number: int) -> Iterator[int]:
    yield number
    yield number


async def twice_later(number: int) -> AsyncIterator[int]:
    yield number
    yield number


async def list_of_two(number: int) -> list[int]:
    return [number, number]


@pytest.mark.parametrize("is_odd", [is_odd, is_odd_later])
@pytest.mark.parametrize("plus_one", [plus_one, plus_one_later, functools.partial(plus_one_later)])
@pytest.mark.parametrize("twice", [twice, twice_later, list_of_two])
def test_operators_run_in_the_order_in_which_they_are_written(plus_one: Any, is_odd: Any, twice: Any) -> None:
    steps: list[Step] = [("map", plus_one), ("filter", is_odd), ("flat_map", twice), ("map", plus_one)]
    assert run(*steps, elements=range(5)) == [2, 2, 4, 4, 6, 6]
    assert run(("reject", is_odd), ("map", plus_one), elements=range(5)) == [1, 3, 5]


def test_map_values_leaves_keys_alone() -> None:
    assert run(("map_values", plus_one), elements=[("a", 1), ["b", 2]]) == [("a", 2), ("b", 3)]
    assert run(("map_values", plus_one_later), elements=[("a", 1)]) == [("a", 2)]


def test_uniq_lets_the_first_of_equal_keys_through() -> None:
    assert run(("uniq", None), elements=[3, 1, 3, 2, 1]) == [3, 1, 2]
    assert run(("uniq", is_odd_later), ("uniq", None), elements=[3, 1, 4, 2]) == [3, 4]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_layer_may_have_many_operators(on_error: Any) -> None:
    steps: list[Step] = [("map", plus_one), ("filter", bool), ("reject", is_odd), ("map", plus_one)] * 20
    assert run(*steps, elements=[0, 1, 2], errors=OperatorErrors(on_error)) == [41]


def test_the_items_of_a_mapping_are_its_elements() -> None:
    def letters(word: str) -> dict[str, int]:
        return dict.fromkeys(word, 1)

    for more in ([], [("map", tuple)], [("uniq", None)]):
        assert run(("flat_map", letters), *more, elements=["ab", "c"]) == [("a", 1), ("b", 1), ("c", 1)]


def test_the_inner_operators_of_a_flat_map_skip_only_its_own_elements() -> None:
    assert run(("flat_map", range), ("filter", is_odd), ("flat_map", twice), elements=[2, 4]) == [1, 1, 1, 1, 3, 3]


def test_elements_go_into_an_accumulator() -> None:
    def add(total: int, number: int) -> int:
        return total + number

    async def add_later(total: int, number: int) -> int:
        return total + number

    for fn in (add, add_later):
        assert run(("map", plus_one), elements=[1, 2], reduction=reduce(int, fn), accumulator=10) == 15


def test_emit_and_reduce_emits_at_once() -> None:
    def last_three(kept: list[int], number: int) -> tuple[Iterator[list[int]], list[int]]:
        kept = [*kept, number][-3:]
        return iter([kept]), kept

    code = code_of((), reduce(list, last_three, emits=True), OperatorErrors())
    out: list[Any] = []
    assert code.run([1, 2, 3, 4], out, [], []) == [2, 3, 4]
    assert out == [[1], [1, 2], [1, 2, 3], [2, 3, 4]]


def test_elements_go_into_the_accumulator_of_their_key() -> None:
    assert run(elements=[1, 2, 3, 5], reduction=by_key(is_odd), accumulator={True: 100}) == {True: 109, False: 2}
    assert run(elements=[1, 2, 3], reduction=by_key(is_odd_later), accumulator={}) == {True: 4, False: 2}
    assert run(elements="abca", reduction=count_by(), accumulator={"b": 1}) == {"a": 2, "b": 2, "c": 1}
    assert run(elements=[1, 2, 3], reduction=count_by(is_odd), accumulator={}) == {True: 2, False: 1}


def test_pairs_are_combined_by_key() -> None:
    async def combine(one: int, other: int) -> int:
        return one + other

    pairs = [("a", 1), ("b", 2), ("a", 3)]
    for fn in (combine, operator.add):
        assert run(elements=pairs, reduction=by_key(combine=fn), accumulator={}, merges_pairs=True) == {"a": 4, "b": 2}


# --- errors ---------------------------------------------------------------------------------------------------------


def fails_at_three(number: int) -> Any:
    if number == 3:
        raise LookupError("three")
    return number


def gives_until_three(number: int) -> Iterator[int]:
    for each in range(number + 1):
        yield fails_at_three(each)


async def fails_later(number: int) -> Any:
    await asyncio.sleep(0)
    return fails_at_three(number)


async def gives_later(number: int) -> AsyncIterator[int]:
    for each in gives_until_three(number):
        yield each


class Truth:
    def __init__(self, number: int) -> None:
        self.number = number

    def __bool__(self) -> bool:
        return bool(fails_at_three(self.number))


def fails_in_the_accumulator(total: int, number: int) -> int:
    return total + int(fails_at_three(number))


FAILING: list[tuple[Step, str]] = [
    (("map", fails_at_three), "map 2: fails_at_three"),
    (("map", fails_later), "map 2: fails_later"),
    (("filter", fails_at_three), "filter 2: fails_at_three"),
    (("filter", Truth), "filter 2: Truth"),
    (("reject", Truth), "reject 2: Truth"),
    (("flat_map", gives_until_three), "flat_map 2: gives_until_three"),
    (("flat_map", gives_later), "flat_map 2: gives_later"),
    (("uniq", fails_at_three), "uniq 2: fails_at_three"),
]


@pytest.mark.parametrize("more", [(), (("map", plus_one),), (("filter", bool), ("map", plus_one)), (("uniq", None),)])
@pytest.mark.parametrize(("step", "label"), FAILING)
def test_an_error_names_its_operator_and_the_source_element(step: Step, label: str, more: Any) -> None:
    errors = OperatorErrors()
    errors.frame = Frame([], origin=Origin(1, 4), first=40)
    with pytest.raises(OperatorError) as caught:
        run(("map", plus_one), step, *more, elements=[1, 2, 9], errors=errors)
    failed = caught.value.failed
    assert (failed.operator, failed.element) == (label, 2)
    assert (failed.origin, failed.first, failed.index) == (Origin(1, 4), 40, 1)
    assert str(failed.error) == "three"
    assert caught.value.__cause__ is failed.error
    lines = "".join(traceback.format_exception(failed.error))
    assert f"# {label}" in lines


def test_an_error_that_was_raised_before_belongs_to_the_operator_that_raises_it_now() -> None:
    try:
        run(("map", fails_at_three), elements=[3])
    except OperatorError as error:
        old = error.failed.error

    def raises_it_again(number: int) -> int:
        raise old

    with pytest.raises(OperatorError) as caught:
        run(("map", plus_one), ("map", plus_one), ("map", raises_it_again), elements=[1])
    assert caught.value.failed.operator == "map 3: raises_it_again"


def test_an_error_of_a_flow_within_a_flow_belongs_to_the_operator_that_runs_it() -> None:
    def inner(number: int) -> Any:
        return run(("map", plus_one), ("map", fails_at_three), elements=[number])

    with pytest.raises(OperatorError) as caught:
        run(("map", inner), ("map", str), elements=[1, 2])
    assert caught.value.failed.operator == "map 1: inner"
    assert caught.value.failed.element == 2


@pytest.mark.parametrize(
    "error", [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, asyncio.CancelledError]
)
@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "uniq"])
def test_an_error_that_usually_ends_something_in_silence_is_an_error(
    error: type[BaseException], kind: OperatorKind
) -> None:
    def ends(number: int) -> Any:
        raise error

    async def ends_later(number: int) -> Any:
        raise error

    for fn in (ends, ends_later):
        with pytest.raises(OperatorError) as caught:
            run(("map", plus_one), (kind, fn), elements=[1])
        assert caught.value.failed.operator == f"{kind} 2: {fn.__name__}"


def test_an_interrupt_is_not_an_error_of_the_operator() -> None:
    def interrupted(number: int) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(("map", interrupted), elements=[1])


def test_a_requested_cancellation_passes_through() -> None:
    async def waits(number: int) -> Any:
        await asyncio.Event().wait()

    async def cancelled() -> None:
        code = code_of([("map", waits)], None, OperatorErrors("skip"))
        task = asyncio.ensure_future(code.run([1], [], None, ()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_a_coroutine_that_is_closed_ends_without_an_error() -> None:
    code = code_of([("map", plus_one_later)], None, OperatorErrors())
    coroutine = code.run([1], [], None, ())
    coroutine.send(None)
    coroutine.close()


def test_a_coroutine_of_plain_functions_waits_for_nothing() -> None:
    async def nothing() -> int:
        return 7

    assert finished(nothing()) == 7
    with pytest.raises(TypeError) as caught:
        finished(asyncio.sleep(0))
    assert str(caught.value) == "a coroutine of plain functions has waited for something"


@pytest.mark.parametrize(
    ("steps", "reduction", "elements", "problem"),
    [
        ([("map_values", plus_one)], None, [5], "expected pairs (key, value) as elements of map_values"),
        (
            [],
            reduce(int, max, emits=True),
            [5],
            "expected (elements, accumulator) from the function of emit_and_reduce",
        ),
    ],
)
def test_a_wrong_shape_is_explained(steps: list[Step], reduction: Any, elements: list[Any], problem: str) -> None:
    with pytest.raises(OperatorError) as caught:
        run(*steps, reduction=reduction, elements=elements, accumulator=0)
    assert str(caught.value.failed.error) == problem
    assert isinstance(caught.value.failed.error.__cause__, TypeError)


def test_a_combine_without_a_return_is_an_error() -> None:
    with pytest.raises(OperatorError) as caught:
        run(
            elements=[("a", 1), ("a", 2)],
            reduction=by_key(combine=lambda *_: None),
            accumulator={},
            merges_pairs=True,
        )
    assert str(caught.value.failed.error) == "expected an accumulator from combine, got None: return the combined one"


def test_more_flat_maps_than_python_can_nest_are_refused() -> None:
    steps: list[Step] = [("flat_map", twice)] * 16
    assert len(run(*steps, elements=[1], errors=OperatorErrors("skip"))) == 2**16
    with pytest.raises(DefinitionError) as caught:
        run(*steps, ("flat_map", twice))
    assert str(caught.value) == "expected at most 16 flat_map in a row, got more: write shuffle() between two of them"


# --- elements that are left out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "label"), FAILING)
def test_the_source_element_is_left_out_and_counted(step: Step, label: str) -> None:
    errors = OperatorErrors("skip")
    kept = run(("map", plus_one), step, elements=[0, 2, 1], errors=errors)
    assert kept == run(("map", plus_one), step, elements=[0, 1])
    assert errors.skipped == {label: 1}
    assert errors.collected == []


def test_errors_are_collected_up_to_a_bound() -> None:
    errors = OperatorErrors("collect")
    errors.frame = Frame([], first=100)
    run(("map", fails_at_three), elements=[1, 3, 2, *[3] * 20_000], errors=errors)
    assert errors.skipped == {"map 1: fails_at_three": 20_001}
    assert len(errors.collected) == 10_000
    second = errors.collected[1]
    assert second == Failed("map 1: fails_at_three", second.error, 3, None, 100, 3)


def test_nothing_of_an_element_is_emitted_if_a_part_of_it_fails() -> None:
    errors = OperatorErrors("skip")
    assert run(("flat_map", range), ("map", fails_at_three), elements=[2, 5, 1], errors=errors) == [0, 1, 0]


def test_nothing_of_an_element_is_reduced_if_a_part_of_it_fails() -> None:
    reduction = reduce(list, lambda found, number: [*found, number])
    steps: list[Step] = [("flat_map", range), ("map", fails_at_three)]
    kept = run(*steps, elements=[2, 5, 1], errors=OperatorErrors("skip"), reduction=reduction, accumulator=[])
    assert kept == [0, 1, 0]


def test_an_element_that_the_reduction_fails_on_does_not_change_the_accumulator() -> None:
    reduction = reduce(int, fails_in_the_accumulator)
    assert run(elements=[1, 3, 5], errors=OperatorErrors("skip"), reduction=reduction, accumulator=0) == 6


def test_an_element_that_is_left_out_was_not_seen_by_uniq() -> None:
    def fails_at_first(number: int, calls: list[int] = []) -> int:  # noqa: B006  # it counts
        calls.append(number)
        if len(calls) == 1:
            raise LookupError
        return number

    steps: list[Step] = [("uniq", is_odd), ("map", fails_at_first)]
    assert run(*steps, elements=[1, 3, 5, 2], errors=OperatorErrors("skip")) == [3, 2]


def test_emitted_elements_of_a_generator_that_fails_are_left_out() -> None:
    def emits(total: int, number: int) -> tuple[Iterator[int], int]:
        return gives_until_three(number), total + number

    errors = OperatorErrors("skip")
    code = code_of((), reduce(int, emits, emits=True), errors)
    out: list[int] = []
    assert code.run([1, 3, 2], out, 0, ()) == 3
    assert out == [0, 1, 0, 1, 2]


def test_the_marker_of_a_missing_accumulator_is_no_accumulator() -> None:
    assert MISSING not in run(elements=[1], reduction=by_key(), accumulator={}).values()


def test_each_stage_counts_what_it_has_reduced() -> None:
    function = LayerFunction(chain(("filter", bool)), count_by(), leaves_out=False, counts=True)
    one, other = LayerCode(function, OperatorErrors()), LayerCode(function, OperatorErrors())

    assert one.run([1, 0, 1], [], {}, ()) == {1: 2}
    assert other.run([3], [], {}, ()) == {3: 1}
    assert (one.reduced, other.reduced) == (2, 1)
